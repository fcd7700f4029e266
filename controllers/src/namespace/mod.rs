//! Empties a namespace that is being deleted, then lets it go. Upstream: pkg/controller/namespace.
//!
//! # Flow
//! Pods first, and nothing else until they are gone: what they use must outlive them. Then every other resource that the
//! server serves, custom ones included. When nothing is left, the finalizer `kubernetes` is removed and the server
//! deletes the namespace.

mod plan;
#[cfg(test)]
mod tests;

use crate::owner::name_of;
use crate::pod;
use crate::served::once_each;
use api::{ObjectName, Status};
use client::{Context, Controller, DeleteParams, Delta, DynamicApi, Error, ListParams, Next, ResourceRef};
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus, Pod};
use plan::Progress;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Namespaces emptied at once. Upstream: `--concurrent-namespace-syncs`.
const WORKERS: usize = 10;
const FINALIZER: &str = "kubernetes";

pub(crate) fn controller() -> Controller {
    let is_deleting = |delta: &Delta| delta.new.as_ref().is_some_and(|namespace| namespace.meta.deleting);
    Controller::of_some::<Namespace>("namespace-controller", is_deleting)
        .watches::<Pod>(of_gone_pod)
        .workers(WORKERS)
        .reconcile(reconcile)
}

/// A pod that is gone may have been the last one.
fn of_gone_pod(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    if delta.new.is_some() {
        return Vec::new();
    }
    let namespace = context.caches.of::<Namespace>().get("", &delta.key.namespace);
    let is_deleting = namespace.is_some_and(|namespace| namespace.meta.deleting);
    if is_deleting { vec![ObjectName::new("", &delta.key.namespace)] } else { Vec::new() }
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let api = context.client.api::<Namespace>();
    let Some(mut namespace) = api.get_opt(&key.name).await? else { return Ok(Next::Done) };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|own| own == FINALIZER) {
        return Ok(Next::Done);
    }
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase != Some("Terminating") {
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
        namespace = api.replace_status(&namespace).await?;
    }
    let progress = empty(&context, &key.name, &namespace).await;
    if !progress.is_done() {
        tell(&context, &mut namespace, &progress).await?;
        // Upstream's wait: half of the estimate, rounded up.
        let seconds = u64::try_from(progress.estimate_seconds / 2 + 1).unwrap_or(1);
        return match (progress.errors.first(), progress.remaining.is_empty()) {
            (Some(error), _) => Err(Status::internal(error).into()),
            (None, true) => Err(Status::internal("resources cannot be discovered").into()),
            (None, false) => Ok(Next::After(Duration::from_secs(seconds))),
        };
    }
    if let Some(spec) = &mut namespace.spec {
        spec.finalizers = Some(finalizers.into_iter().filter(|own| own != FINALIZER).collect());
    }
    match api.replace_sub(&namespace, "finalize").await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(Next::Done),
    }
}

async fn tell(context: &Context, namespace: &mut Namespace, progress: &Progress) -> Result<(), Error> {
    let old = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let conditions = plan::conditions(&old, progress, context.now());
    if conditions == old {
        return Ok(());
    }
    let status = namespace.status.get_or_insert_with(NamespaceStatus::default);
    status.conditions = Some(conditions);
    match context.client.api::<Namespace>().replace_status(namespace).await {
        Ok(_) => Ok(()),
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status.into()),
    }
}

/// Deletes what is in a namespace, and tells what is left.
async fn empty(context: &Context, name: &str, namespace: &Namespace) -> Progress {
    let mut progress = Progress::default();
    let grace = grace_seconds(context, name, namespace);
    let pods = context.client.dynamic(ResourceRef::of::<Pod>(), name);
    empty_one(&pods, true, grace, &mut progress).await;
    if !progress.is_done() {
        return progress;
    }
    let served = match context.client.discover().await {
        Ok(served) => served,
        Err(status) => {
            progress.discovery_error = Some(status.message);
            return progress;
        }
    };
    if !served.failed.is_empty() {
        let failed = served.failed.join(", ");
        progress.discovery_error = Some(format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {failed}",
            served.failed.len()
        ));
    }
    for row in once_each(&served, &["list", "delete"]) {
        if row.namespaced && row.resource != ResourceRef::of::<Pod>() {
            let can_all = row.can(&["deletecollection"]);
            let api = context.client.dynamic(row.resource, name);
            empty_one(&api, can_all, 0, &mut progress).await;
        }
    }
    progress
}

/// How many seconds pods may still take to end.
fn grace_seconds(context: &Context, name: &str, namespace: &Namespace) -> i64 {
    let pods = context.caches.of::<Pod>().read_all(name);
    let asked = pods.iter().filter(|pod| !pod::is_finished(pod));
    let asked =
        asked.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds).max().unwrap_or(0);
    let since = namespace.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    let passed = since.map_or(0, |since| context.now().duration_since(since).as_secs());
    if passed >= asked { 0 } else { asked }
}

/// Deletes all objects of one resource and notes what is left of them.
async fn empty_one(api: &DynamicApi, can_all: bool, grace: i64, progress: &mut Progress) {
    let resource = format!("{}.{}", api.resource().plural, api.resource().group);
    let result = async {
        if remaining(api).await?.is_empty() {
            return Ok(Vec::new());
        }
        if can_all {
            api.delete_collection(&ListParams::default(), &DeleteParams::background()).await?;
        } else {
            for (name, _) in remaining(api).await? {
                match api.delete(&name, &DeleteParams::background()).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
            }
        }
        remaining(api).await
    };
    match result.await {
        Ok(left) => {
            let finalizers: Vec<_> = left.into_iter().map(|(_, finalizers)| finalizers).collect();
            progress.note(resource, &finalizers, grace);
        }
        // The resource itself is gone (its definition was deleted), or cannot be listed.
        Err(status) if status.is_not_found() || status.code == 405 => {}
        Err(status) => progress.errors.push(status.message),
    }
}

/// Names and finalizers of all objects of a resource.
async fn remaining(api: &DynamicApi) -> Result<Vec<(String, Vec<String>)>, Status> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        finalizers: Option<Vec<String>>,
    }
    let listing = api.clone().metadata_only().list(&ListParams::default()).await?;
    let item = |object: &api::Object| {
        let finalizers = object.decode::<Object>().ok().and_then(|object| object.metadata.finalizers);
        (object.meta.name().to_owned(), finalizers.unwrap_or_default())
    };
    Ok(listing.items.iter().map(item).collect())
}

/// Whether a namespace takes new objects.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none()
        && phase != Some("Terminating")
        && !name_of(&namespace.metadata).is_empty()
}
