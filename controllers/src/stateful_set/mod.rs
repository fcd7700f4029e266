//! Keeps numbered pods, each with a name and claims of its own. Upstream: pkg/controller/statefulset.

mod identity;
mod plan;
#[cfg(test)]
mod tests;

use crate::history;
use crate::owner::{self, Owner, Selects, name_of};
use crate::pod;
use api::{LabelSelector, ObjectName, Status};
use client::{Context, Controller, Error, Next};
use futures::future::join_all;
use identity::{claim_owners, claims};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use plan::{Plan, Step, Template, World};
use std::sync::Arc;

/// Sets reconciled at once. Upstream: `--concurrent-statefulset-syncs`.
const WORKERS: usize = 5;
/// The label of revisions that holds their hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

pub(crate) fn controller() -> Controller {
    Controller::of::<StatefulSet>("statefulset-controller")
        .owns::<Pod>()
        .owns::<ControllerRevision>()
        .watches::<Pod>(owner::might_adopt::<StatefulSet>)
        .watches::<PersistentVolumeClaim>(|delta, _| of_claim(&delta.key))
        .workers(WORKERS)
        .reconcile(reconcile)
}

impl Selects for StatefulSet {
    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_object(&self.spec.selector).ok().filter(|selector| !selector.is_empty())
    }
}

/// The sets that a claim might belong to, by its name (`TEMPLATE-SET-NUMBER`): each split of it at a dash.
fn of_claim(key: &ObjectName) -> Vec<ObjectName> {
    let Some((rest, _)) = identity::split(&key.name) else { return Vec::new() };
    rest.match_indices('-').map(|(at, _)| ObjectName::new(&key.namespace, &rest[at + 1..])).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(set) = context.caches.of::<StatefulSet>().read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let Some(selector) = set.selector() else { return Ok(Next::Done) };
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let owner = Owner::of(&set);
    let is_member =
        |pod: &Pod| identity::split(name_of(&pod.metadata)).is_some_and(|(parent, _)| parent == &*key.name);
    let pods = owner::claim::<StatefulSet, Pod>(&context, &owner, &selector, is_member).await?;
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let template = &set.spec.template;
    let history =
        history::sync::<StatefulSet>(&context, &owner, &selector, template, HASH_LABEL, collisions).await?;
    let update = Template { revision: history.current(), spec: template };
    // What pods had before, if that revision is still there.
    let known = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let known = known.and_then(|name| history.get(name));
    let before =
        known.and_then(|revision| Some((name_of(&revision.metadata), history::template_of(revision)?)));
    let current = match &before {
        Some((revision, spec)) => Template { revision, spec },
        None => update,
    };
    let claims = context.caches.of::<PersistentVolumeClaim>();
    let world = World {
        set: &set,
        pods: &pods,
        current,
        update,
        collision_count: history.collision_count,
        claim: &|name| claims.read(&key.namespace, name),
        now: context.now(),
    };
    let plan = plan::plan(&world);
    let failure = carry_out(&context, &owner, &world, &plan).await;
    write_status(&context, &owner, &set, &plan).await?;
    if let Some(status) = failure {
        return Err(status.into());
    }
    let used = |name: &str| {
        plan.status.current_revision.as_deref() == Some(name)
            || pods.iter().any(|pod| pod::label(&pod.metadata, identity::REVISION) == Some(name))
    };
    let surplus = history.surplus(used, set.spec.revision_history_limit.unwrap_or(10));
    history::delete(&context, &owner, &surplus).await?;
    let next = pod::next_available(&pods, set.spec.min_ready_seconds.unwrap_or(0), world.now);
    Ok(next.map_or(Next::Done, |at| Next::After(pod::wait_until(at, world.now))))
}

async fn carry_out(context: &Context, owner: &Owner, world: &World<'_>, plan: &Plan) -> Option<Status> {
    if world.is_monotonic() {
        for step in &plan.steps {
            if let Err(status) = take(context, owner, world, step).await {
                return Some(status);
            }
        }
        return None;
    }
    let steps = plan.steps.iter().map(|step| take(context, owner, world, step));
    join_all(steps).await.into_iter().find_map(Result::err)
}

async fn take(context: &Context, owner: &Owner, world: &World<'_>, step: &Step) -> Result<(), Status> {
    match step {
        Step::Create(pod) => {
            let result = create(context, owner, world, pod).await;
            match &result {
                Err(status) if status.is_already_exists() || pod::is_namespace_terminating(status) => {}
                _ => tell(context, owner, "Create", pod, result.as_ref().err()),
            }
            result
        }
        Step::Delete(pod) => {
            let result = delete(context, owner, pod).await;
            tell(context, owner, "Delete", pod, result.as_ref().err());
            result
        }
        Step::Claims(pod) => {
            make_claims(context, owner, world, pod).await?;
            own_claims(context, owner, world, pod).await
        }
        Step::Fix(pod) => {
            let result = fix(context, owner, world, pod).await;
            tell(context, owner, "Update", pod, result.as_ref().err());
            result
        }
    }
}

fn tell(context: &Context, owner: &Owner, verb: &str, pod: &Pod, error: Option<&Status>) {
    let subject = format!("{verb} Pod {} in StatefulSet {}", name_of(&pod.metadata), owner.key.name);
    match error {
        None => {
            context.events.normal(
                &owner.about,
                &format!("Successful{verb}"),
                format!("{subject} successful"),
            );
        }
        Some(error) => {
            let message = format!("{subject} failed error: {error}");
            context.events.warning(&owner.about, &format!("Failed{verb}"), message);
        }
    }
}

async fn create(context: &Context, owner: &Owner, world: &World<'_>, pod: &Pod) -> Result<(), Status> {
    make_claims(context, owner, world, pod).await?;
    let made = context.client.namespaced::<Pod>(&owner.key.namespace).create(pod).await?;
    expect(context, owner, made.metadata.resource_version.as_deref());
    own_claims(context, owner, world, &made).await
}

fn expect(context: &Context, owner: &Owner, version: Option<&str>) {
    context.expectations.wrote(&owner.key, &context.caches.of::<Pod>(), version);
}

async fn delete(context: &Context, owner: &Owner, pod: &Pod) -> Result<(), Status> {
    let params = client::DeleteParams::default().with_uid(pod.metadata.uid.clone().unwrap_or_default());
    let name = name_of(&pod.metadata);
    match context.client.namespaced::<Pod>(&owner.key.namespace).delete(name, &params).await {
        Ok(_) => {
            let key = ObjectName::new(&owner.key.namespace, name);
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            context.expectations.gone(&owner.key, &context.caches.of::<Pod>(), &key, uid);
            Ok(())
        }
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => Err(status),
    }
}

async fn fix(context: &Context, owner: &Owner, world: &World<'_>, pod: &Pod) -> Result<(), Status> {
    let mut fixed = pod.clone();
    identity::set_identity(world.set, &mut fixed);
    if fixed != *pod {
        make_claims(context, owner, world, pod).await?;
        let written = context.client.namespaced::<Pod>(&owner.key.namespace).replace(&fixed).await?;
        expect(context, owner, written.metadata.resource_version.as_deref());
    }
    own_claims(context, owner, world, pod).await
}

/// Makes the claims of a pod that do not exist.
async fn make_claims(context: &Context, owner: &Owner, world: &World<'_>, pod: &Pod) -> Result<(), Status> {
    let api = context.client.namespaced::<PersistentVolumeClaim>(&owner.key.namespace);
    for (_, claim) in claims(world.set, identity::ordinal(pod).unwrap_or(0)) {
        let name = name_of(&claim.metadata);
        match (world.claim)(name) {
            Some(known) if known.metadata.deletion_timestamp.is_some() => {
                return Err(Status::internal(format_args!("pvc {name} is being deleted")));
            }
            Some(_) => continue,
            None => {}
        }
        let result = api.create(&claim).await;
        let subject =
            format!("Claim {name} Pod {} in StatefulSet {}", name_of(&pod.metadata), owner.key.name);
        match result {
            Ok(made) => {
                let version = made.metadata.resource_version.as_deref();
                context.expectations.wrote(
                    &owner.key,
                    &context.caches.of::<PersistentVolumeClaim>(),
                    version,
                );
                context.events.normal(&owner.about, "SuccessfulCreate", format!("Create {subject} success"));
            }
            Err(status) if status.is_already_exists() => {}
            Err(status) => {
                let message = format!("Create {subject} failed error: {status}");
                context.events.warning(&owner.about, "FailedCreate", message);
                return Err(status);
            }
        }
    }
    Ok(())
}

/// Gives the claims of a pod the owners that the retention policy asks for.
async fn own_claims(context: &Context, owner: &Owner, world: &World<'_>, pod: &Pod) -> Result<(), Status> {
    let api = context.client.namespaced::<PersistentVolumeClaim>(&owner.key.namespace);
    for (_, claim) in claims(world.set, identity::ordinal(pod).unwrap_or(0)) {
        let known = (world.claim)(name_of(&claim.metadata));
        let wanted = known.and_then(|known| Some((claim_owners(world.set, pod, &known)?, known)));
        if let Some((owners, mut known)) = wanted {
            known.metadata.owner_references = Some(owners);
            let written = api.replace(&known).await?;
            let version = written.metadata.resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<PersistentVolumeClaim>(), version);
        }
    }
    Ok(())
}

async fn write_status(context: &Context, owner: &Owner, set: &StatefulSet, plan: &Plan) -> Result<(), Error> {
    if set.status.as_ref() == Some(&plan.status) {
        return Ok(());
    }
    let changed = StatefulSet { status: Some(plan.status.clone()), ..set.clone() };
    let api = context.client.namespaced::<StatefulSet>(&owner.key.namespace);
    match api.replace_status(&changed).await {
        Ok(written) => {
            let version = written.metadata.resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<StatefulSet>(), version);
            Ok(())
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status.into()),
    }
}
