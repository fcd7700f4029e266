//! Keeps as many pods of a template running as are asked for. Upstream: pkg/controller/replicaset.
//!
//! A ReplicationController is the same thing under an older name: it shares everything here through [`Replicated`].

mod plan;
#[cfg(test)]
mod tests;

pub(crate) use plan::{SetStatus, View, in_order_of_removal};

use crate::owner::{self, Owner, Selects, name_of};
use crate::pod;
use api::{LabelSelector, ObjectName};
use client::{Context, Controller, Error, Next};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::sync::Arc;

/// Sets reconciled at once. Upstream: `--concurrent-replicaset-syncs`.
const WORKERS: usize = 5;

pub(crate) fn controller() -> Controller {
    controller_of::<ReplicaSet>("replicaset-controller")
}

/// The loop over one of the two kinds.
pub(crate) fn controller_of<S: Replicated>(name: &'static str) -> Controller {
    Controller::of::<S>(name)
        .owns::<Pod>()
        .watches::<Pod>(owner::might_adopt::<S>)
        .workers(WORKERS)
        .reconcile(reconcile::<S>)
}

/// A kind that keeps a number of equal pods.
pub(crate) trait Replicated: Selects {
    /// What both kinds have in common.
    fn view(&self) -> View<'_>;
    /// The status.
    fn status(&self) -> SetStatus;
    /// Puts another status in.
    fn set_status(&mut self, status: SetStatus);
}

impl Selects for ReplicaSet {
    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_object(&self.spec.selector).ok()
    }
}

impl Replicated for ReplicaSet {
    fn view(&self) -> View<'_> {
        View {
            generation: self.metadata.generation.unwrap_or(0),
            deleting: self.metadata.deletion_timestamp.is_some(),
            replicas: self.spec.replicas.unwrap_or(1),
            min_ready_seconds: self.spec.min_ready_seconds.unwrap_or(0),
            template: self.spec.template.as_ref(),
        }
    }

    fn status(&self) -> SetStatus {
        let status = self.status.clone().unwrap_or_default();
        SetStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation.unwrap_or(0),
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    fn set_status(&mut self, status: SetStatus) {
        self.status = Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: Some(status.observed_generation),
            conditions: (!status.conditions.is_empty()).then_some(status.conditions),
        });
    }
}

async fn reconcile<S: Replicated>(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let sets = context.caches.of::<S>();
    let Some(mut set) = sets.read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let Some(selector) = set.selector() else { return Ok(Next::Done) };
    let owner = Owner::of(&set);
    let may_act = context.expectations.met(&key);
    let mut active = owner::claim::<S, Pod>(&context, &owner, &selector, pod::is_active).await?;
    let terminating = context.owned::<Pod>(&owner.uid);
    let terminating =
        terminating.iter().filter(|pod| pod::is_terminating(pod) && is_selected(&selector, pod));
    let terminating = terminating.count();

    let mut failure = None;
    if may_act && !set.view().deleting {
        let related = related_by_node(&set, &context);
        let plan = plan::plan(&set.view(), &active, &related, context.now());
        if plan.create > 0 {
            failure = create(&context, &owner, &set, plan.create).await;
        } else if !plan.delete.is_empty() {
            let deletions = plan.delete.into_iter().map(|pod| pod::delete(&context, &owner, pod));
            failure = join_all(deletions).await.into_iter().find_map(Result::err);
        }
    }
    active.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let text = failure.as_ref().map(ToString::to_string);
    let now = context.now();
    let status = plan::status(&set.view(), &set.status(), &active, terminating, text.as_deref(), now);
    let next = pod::next_available(&active, set.view().min_ready_seconds, now);
    if status != set.status() {
        set.set_status(status);
        let api = context.client.namespaced::<S>(&key.namespace);
        match api.replace_status(&set).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
    }
    match (failure, next) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(at)) => Ok(Next::After(pod::wait_until(at, now))),
        (None, None) => Ok(Next::Done),
    }
}

fn is_selected(selector: &LabelSelector, pod: &Pod) -> bool {
    selector.matches(|label| pod::label(&pod.metadata, label))
}

/// Makes pods; answers what went wrong.
async fn create<S: Replicated>(
    context: &Context,
    owner: &Owner,
    set: &S,
    count: usize,
) -> Option<api::Status> {
    let template = set.view().template?;
    let pod = &pod::from_template(template, owner);
    let (_, error) =
        pod::in_growing_batches(vec![(); count], async |()| pod::create(context, owner, pod).await).await;
    error.filter(|status| !pod::is_namespace_terminating(status))
}

/// How many active pods of all sets of the same owner are on each node.
fn related_by_node<S: Replicated>(set: &S, context: &Context) -> HashMap<String, usize> {
    let mut count = HashMap::new();
    let mut add = |uid: &str| {
        for pod in context.owned::<Pod>(uid).iter().filter(|pod| pod::is_active(pod)) {
            *count.entry(pod::node_name(pod).to_owned()).or_insert(0) += 1;
        }
    };
    match owner::controller_uid(set.metadata()) {
        None => add(set.metadata().uid.as_deref().unwrap_or_default()),
        Some(uid) => {
            for sibling in context.caches.of::<S>().owned_by(uid) {
                add(&sibling.meta.uid);
            }
        }
    }
    tracing::trace!(set = name_of(set.metadata()), nodes = count.len(), "related pods are counted");
    count
}
