//! Makes the claims that pods carry within themselves. Upstream: pkg/controller/volume/ephemeral.
//!
//! The pod owns its claim, so the garbage collector deletes it after the pod.

mod plan;
#[cfg(test)]
mod tests;

use crate::pod::claims_of;
use api::{Object, ObjectName, Status};
use client::{AnyCache, Context, Controller, Error, Next, reference};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use std::sync::Arc;

/// Name of the index of pods by the claims of their ephemeral volumes.
const BY_OWN_CLAIM: &str = "own claim";
/// Pods looked at at once. Upstream: `--concurrent-ephemeralvolume-syncs`.
const WORKERS: usize = 5;

/// Adds the index that the controller needs.
pub(crate) fn index(pods: &AnyCache) {
    pods.index(BY_OWN_CLAIM, |object| {
        if !plan::has_ephemeral(object) {
            return Vec::new();
        }
        let claims = object.decode::<Pod>().map(|pod| claims_of(&pod)).unwrap_or_default();
        claims.into_iter().map(|claim| claim.to_string().into()).collect()
    });
}

pub(crate) fn controller() -> Controller {
    Controller::of_some::<Pod>("ephemeral_volume", |delta| {
        let has_work = |object: &Arc<Object>| !object.meta.deleting && plan::has_ephemeral(object);
        // Volumes of a pod never change.
        delta.old.is_none() && delta.new.as_ref().is_some_and(has_work)
    })
    .watches::<PersistentVolumeClaim>(|delta, context| {
        if delta.new.is_some() {
            return Vec::new();
        }
        let pods = context.caches.of::<Pod>().by(BY_OWN_CLAIM, &delta.key.to_string());
        pods.iter().map(|pod| pod.meta.key.clone()).collect()
    })
    .workers(WORKERS)
    .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(own) = context.caches.of::<Pod>().read(&key.namespace, &key.name) else { return Ok(Next::Done) };
    let claims = context.caches.of::<PersistentVolumeClaim>();
    let access = context.client.namespaced::<PersistentVolumeClaim>(&key.namespace);
    for (volume, wanted) in plan::wanted(&own) {
        let name = wanted.metadata.name.as_deref().unwrap_or_default();
        let failed = match claims.read(&key.namespace, name) {
            Some(claim) => plan::not_ours(&own, &claim).map(Status::bad_request),
            None => match access.create(&wanted).await {
                // The cache did not show it yet; if it is not ours, the next look tells.
                Err(status) if status.is_already_exists() => Some(status),
                Err(status) => Some(Status { message: format!("create PVC {name}: {status}"), ..status }),
                Ok(_) => None,
            },
        };
        if let Some(status) = failed {
            if !status.is_already_exists() {
                let message = format!("ephemeral volume {volume}: {}", status.message);
                context.events.warning(&reference(&own), "FailedBinding", message);
            }
            return Err(status.into());
        }
    }
    Ok(Next::Done)
}
