//! Keeps one pod on every node that fits. Upstream: pkg/controller/daemon.

mod plan;
#[cfg(test)]
mod tests;

use crate::history::{self, History};
use crate::node_fit::NodeView;
use crate::owner::{self, Owner, Selects};
use crate::pod;
use api::{LabelSelector, Object, ObjectName, Status, Timestamp};
use client::{Caches, Context, Controller, Error, Next, Projection};
use futures::StreamExt;
use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use plan::{HASH, Plan, World};
use std::collections::HashMap;
use std::sync::Arc;

/// Sets reconciled at once. Upstream: `--concurrent-daemonset-syncs`.
const WORKERS: usize = 2;
/// Waits before a failed pod of a node is replaced: the first, and the longest.
const FAILED_FIRST: SignedDuration = SignedDuration::from_secs(1);
const FAILED_MAX: SignedDuration = SignedDuration::from_secs(15 * 60);
/// Nodes with failed pods that are remembered; more are forgotten all at once.
const FAILED_LEN_MAX: usize = 10_000;

/// When the failed pod of a set on a node was removed last, and how long to wait.
type Failures = Arc<Mutex<HashMap<(String, String), (Timestamp, SignedDuration)>>>;

pub(crate) fn controller(caches: &Caches) -> Controller {
    let nodes = caches.of::<Node>().project(view);
    let failures = Failures::default();
    let changes = nodes.clone();
    Controller::of::<DaemonSet>("daemonset-controller")
        .owns::<Pod>()
        .owns::<ControllerRevision>()
        .watches::<Pod>(owner::might_adopt::<DaemonSet>)
        .reads::<Node>()
        .beside(move |context| follow_nodes(changes, context))
        .workers(WORKERS)
        .reconcile(move |key, context| reconcile(key, context, nodes.clone(), failures.clone()))
}

impl Selects for DaemonSet {
    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_object(&self.spec.selector).ok().filter(|selector| !selector.is_empty())
    }
}

fn view(object: &Object) -> Option<NodeView> {
    let node: Node = object.decode().ok()?;
    Some(NodeView {
        name: node.metadata.name?,
        labels: node.metadata.labels.unwrap_or_default(),
        taints: node.spec.and_then(|spec| spec.taints).unwrap_or_default(),
    })
}

/// A node that comes, goes, or changes what pods see of it concerns every set.
async fn follow_nodes(nodes: Projection<NodeView>, context: Arc<Context>) {
    let mut changes = nodes.subscribe();
    while changes.next().await.is_some() {
        for set in context.caches.of::<DaemonSet>().list("") {
            context.queue.add(set.meta.key.clone());
        }
    }
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    nodes: Projection<NodeView>,
    failures: Failures,
) -> Result<Next, Error> {
    let Some(set) = context.caches.of::<DaemonSet>().read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let owner = Owner::of(&set);
    let Some(selector) = set.selector() else {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        context.events.warning(&owner.about, "SelectingAll", message);
        return Ok(Next::Done);
    };
    if owner.deleting || !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let template = &set.spec.template;
    let history = history::sync::<DaemonSet>(&context, &owner, &selector, template, HASH, collisions).await?;
    let pods = owner::claim::<DaemonSet, Pod>(&context, &owner, &selector, |_| true).await?;
    let hashes = hashes(&history);
    let nodes: Vec<NodeView> = nodes.list("").iter().map(|node| (**node).clone()).collect();
    let now = context.now();
    let wait = |node: &str| failed_until(&failures, &owner.uid, node, now);
    let (plan, status) = {
        let world =
            World { set: &set, nodes: &nodes, pods: &pods, hashes: &hashes, may_remove_failed: &wait, now };
        (plan::plan(&world), plan::status(&world, history.collision_count))
    };
    for (kind, reason, message) in &plan.events {
        context.events.record(&owner.about, *kind, reason, message.clone());
    }
    plan.failed.iter().for_each(|node| note_failed(&failures, &owner.uid, node, now));
    let failure = carry_out(&context, &owner, &set, hashes.last().map_or("", String::as_str), &plan).await;
    if set.status.as_ref() != Some(&status) {
        write_status(&context, &owner, DaemonSet { status: Some(status), ..set.clone() }).await?;
    }
    if let Some(status) = failure {
        return Err(status.into());
    }
    let used = |name: &str| {
        let hash = history.get(name).and_then(|own| pod::label(&own.metadata, HASH));
        hash.is_some() && pods.iter().any(|pod| pod::label(&pod.metadata, HASH) == hash)
    };
    let surplus = history.surplus(used, set.spec.revision_history_limit.unwrap_or(10));
    history::delete(&context, &owner, &surplus).await?;
    let available = pod::next_available(&pods, set.spec.min_ready_seconds.unwrap_or(0), now);
    let next = [available, plan.look_again].into_iter().flatten().min();
    Ok(next.map_or(Next::Done, |at| Next::After(pod::wait_until(at, now))))
}

fn hashes(history: &History) -> Vec<String> {
    let revisions = history.equal.iter().filter_map(|name| history.get(name));
    revisions.filter_map(|own| pod::label(&own.metadata, HASH).map(str::to_owned)).collect()
}

/// When a failed pod on a node may be removed; `None` if now.
fn failed_until(failures: &Failures, uid: &str, node: &str, now: Timestamp) -> Option<Timestamp> {
    let failures = failures.lock();
    let (last, wait) = failures.get(&(uid.to_owned(), node.to_owned()))?;
    last.checked_add(*wait).ok().filter(|at| *at > now)
}

fn note_failed(failures: &Failures, uid: &str, node: &str, now: Timestamp) {
    let mut failures = failures.lock();
    if failures.len() >= FAILED_LEN_MAX {
        failures.clear();
    }
    let entry = failures.entry((uid.to_owned(), node.to_owned())).or_insert((now, SignedDuration::ZERO));
    // After twice the longest wait without a failure it starts again.
    let is_old = now.duration_since(entry.0) > FAILED_MAX * 2;
    let wait = if is_old || entry.1.is_zero() { FAILED_FIRST } else { (entry.1 * 2).min(FAILED_MAX) };
    *entry = (now, wait);
}

async fn carry_out(
    context: &Context,
    owner: &Owner,
    set: &DaemonSet,
    hash: &str,
    plan: &Plan<'_>,
) -> Option<Status> {
    let create = |node: String| async move {
        pod::create(context, owner, &plan::new_pod(set, owner, hash, &node)).await
    };
    let (_, error) = pod::in_growing_batches(plan.create.clone(), create).await;
    let deletions = plan.delete.iter().map(|pod| pod::delete(context, owner, pod));
    let deleted = join_all(deletions).await.into_iter().find_map(Result::err);
    error.filter(|status| !pod::is_namespace_terminating(status)).or(deleted)
}

async fn write_status(context: &Context, owner: &Owner, set: DaemonSet) -> Result<(), Error> {
    let api = context.client.namespaced::<DaemonSet>(&owner.key.namespace);
    match api.replace_status(&set).await {
        Ok(written) => {
            let version = written.metadata.resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<DaemonSet>(), version);
            Ok(())
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status.into()),
    }
}
