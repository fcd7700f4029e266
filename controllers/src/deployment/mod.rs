//! Moves pods from one template to the next, a replica set for each. Upstream: pkg/controller/deployment.

mod plan;
mod revision;
mod status;
#[cfg(test)]
mod tests;

use crate::owner::{self, Owner, Selects, controller_uid};
use crate::pod;
use crate::template;
use api::{LabelSelector, ObjectName};
use client::{Context, Controller, DeleteParams, Delta, Error, EventType, Next};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use plan::{Rollout, Set, Step, Told};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Deployments reconciled at once. Upstream: `--concurrent-deployment-syncs`.
const WORKERS: usize = 5;

pub(crate) fn controller() -> Controller {
    Controller::of::<Deployment>("deployment-controller")
        .owns::<ReplicaSet>()
        .watches::<ReplicaSet>(owner::might_adopt::<Deployment>)
        .watches::<Pod>(of_gone_pod)
        .workers(WORKERS)
        .reconcile(reconcile)
}

impl Selects for Deployment {
    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_object(&self.spec.selector).ok().filter(|selector| !selector.is_empty())
    }
}

/// A recreation waits until the old pods are gone.
fn of_gone_pod(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let (Some(pod), None) = (&delta.old, &delta.new) else { return Vec::new() };
    let set = pod.meta.controller().filter(|owner| &*owner.kind == "ReplicaSet");
    let set = set.and_then(|owner| context.caches.of::<ReplicaSet>().get(pod.meta.namespace(), &owner.name));
    let owner =
        set.as_ref().and_then(|set| set.meta.controller()).filter(|owner| &*owner.kind == "Deployment");
    owner.map(|owner| ObjectName::new(pod.meta.namespace(), &owner.name)).into_iter().collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(deployment) = context.caches.of::<Deployment>().read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let owner = Owner::of(&deployment);
    let Some(selector) = deployment.selector() else {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        context.events.warning(&owner.about, "SelectingAll", message);
        return Ok(Next::Done);
    };
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let sets = owner::claim::<Deployment, ReplicaSet>(&context, &owner, &selector, |_| true).await?;
    let unfinished = sets.iter().filter_map(|set| set.metadata.uid.as_deref()).map(|uid| {
        let pods = context.owned::<Pod>(uid);
        (uid.to_owned(), pods.iter().filter(|pod| !pod::is_finished(pod)).count())
    });
    let is_recreation = deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    let unfinished: BTreeMap<_, _> =
        if is_recreation == Some("Recreate") { unfinished.collect() } else { BTreeMap::new() };
    let before = deployment.clone();
    let rollout = plan::plan(deployment, sets, unfinished, context.now());
    apply(&context, &owner, &before, rollout).await
}

async fn apply(
    context: &Context,
    owner: &Owner,
    before: &Deployment,
    mut rollout: Rollout,
) -> Result<Next, Error> {
    if rollout.new.as_ref().is_some_and(|set| set.step == Step::Create)
        && let Err(error) = create_new(context, owner, &mut rollout).await
    {
        if rollout.status != before.status.clone().unwrap_or_default() {
            write_status(context, owner, before, &rollout).await?;
        }
        return Err(error);
    }
    for set in rollout.old.iter().chain(&rollout.new) {
        match set.step {
            Step::Update => update_set(context, owner, set).await?,
            Step::Delete => delete_set(context, owner, set).await?,
            Step::Keep | Step::Create => {}
        }
    }
    for Told { kind, reason, message } in &rollout.events {
        context.events.record(&owner.about, *kind, reason, message.clone());
    }
    if rollout.is_changed || Some(&rollout.status) != before.status.as_ref() {
        write_status(context, owner, before, &rollout).await?;
    }
    Ok(rollout.deadline().map_or(Next::Done, |at| Next::After(pod::wait_until(at, rollout.now))))
}

fn sets_api(context: &Context, owner: &Owner) -> client::Api<ReplicaSet> {
    context.client.namespaced(&owner.key.namespace)
}

fn expect(context: &Context, owner: &Owner, set: &ReplicaSet) {
    let version = set.metadata.resource_version.as_deref();
    context.expectations.wrote(&owner.key, &context.caches.of::<ReplicaSet>(), version);
}

/// Makes the new set. A name that is taken by another template is a collision of hashes: it is counted, and the next try
/// hashes differently.
async fn create_new(context: &Context, owner: &Owner, rollout: &mut Rollout) -> Result<(), Error> {
    let Some(set) = &rollout.new else { return Ok(()) };
    let api = sets_api(context, owner);
    match api.create(&set.object).await {
        Ok(made) => {
            expect(context, owner, &made);
            if set.replicas() > 0 {
                let message = format!("Scaled up replica set {} from 0 to {}", set.name(), set.replicas());
                context.events.normal(&owner.about, "ScalingReplicaSet", message);
            }
            Ok(())
        }
        Err(status) if status.is_already_exists() => {
            let taken = api.get(set.name()).await?;
            let is_ours = controller_uid(&taken.metadata) == Some(&owner.uid);
            let template = taken.spec.template.as_ref();
            if is_ours
                && template.is_some_and(|own| template::is_same(own, &rollout.deployment.spec.template))
            {
                expect(context, owner, &taken);
                return Ok(());
            }
            rollout.status.collision_count = Some(rollout.status.collision_count.unwrap_or(0) + 1);
            Err(status.into())
        }
        Err(status) if pod::is_namespace_terminating(&status) => Err(status.into()),
        Err(status) => {
            let message = format!("Failed to create new replica set \"{}\": {status}", set.name());
            if status::has_deadline(&rollout.deployment) {
                rollout.set_condition("Progressing", "False", "ReplicaSetCreateError", message.clone());
                rollout.status.conditions =
                    rollout.deployment.status.as_ref().and_then(|status| status.conditions.clone());
            }
            context.events.record(&owner.about, EventType::Warning, "ReplicaSetCreateError", message);
            Err(status.into())
        }
    }
}

async fn update_set(context: &Context, owner: &Owner, set: &Set) -> Result<(), Error> {
    let updated = sets_api(context, owner).replace(&set.object).await?;
    expect(context, owner, &updated);
    if let Some(before) = set.scaled_from {
        let direction = if before < set.replicas() { "up" } else { "down" };
        let message =
            format!("Scaled {direction} replica set {} from {before} to {}", set.name(), set.replicas());
        context.events.normal(&owner.about, "ScalingReplicaSet", message);
    }
    Ok(())
}

async fn delete_set(context: &Context, owner: &Owner, set: &Set) -> Result<(), Error> {
    let params = DeleteParams { uid: set.object.metadata.uid.clone(), ..DeleteParams::default() };
    match sets_api(context, owner).delete(set.name(), &params).await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(()),
    }
}

/// Writes what changed in the deployment itself, then its status, each only if it is still the version that was planned for.
async fn write_status(
    context: &Context,
    owner: &Owner,
    before: &Deployment,
    rollout: &Rollout,
) -> Result<(), Error> {
    let api = context.client.namespaced::<Deployment>(&owner.key.namespace);
    let mut version = before.metadata.resource_version.clone();
    if rollout.deployment.spec != before.spec {
        // A rollback: the next reconciliation sees the new template and tells the status.
        api.replace(&rollout.deployment).await?;
        return Ok(());
    }
    // Annotations travel with the status, as upstream writes them: they do not count as a change of the spec there.
    if rollout.is_changed || Some(&rollout.status) != before.status.as_ref() {
        let mut deployment = rollout.deployment.clone();
        deployment.metadata.resource_version = version;
        deployment.status = Some(rollout.status.clone());
        version = api.replace_status(&deployment).await?.metadata.resource_version;
    }
    context.expectations.wrote(&owner.key, &context.caches.of::<Deployment>(), version.as_deref());
    Ok(())
}
