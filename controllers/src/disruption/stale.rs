//! A pod that was said to be disrupted and stays is said not to be any more. Upstream: `syncStalePodDisruption`.

use crate::pod;
use api::{ObjectName, Timestamp};
use client::{Context, Controller, Error, Next, Patch};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::sync::Arc;

/// Upstream: `stalePodDisruptionTimeout`.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionTarget";

pub(crate) fn controller() -> Controller {
    Controller::of_some::<Pod>("stale-pod-disruption", |delta| {
        // Nearly all pods never have the condition: looking at bytes is enough to leave them.
        let word = CONDITION.as_bytes();
        delta.new.as_deref().is_some_and(|pod| memchr::memmem::find(&pod.json, word).is_some())
    })
    .reconcile(reconcile)
}

/// When the condition becomes stale, if it can.
pub(super) fn stale_at(pod: &Pod) -> Option<Timestamp> {
    let condition = pod::condition(pod, CONDITION).filter(|own| own.status == "True")?;
    let waits = pod::is_active(pod);
    waits.then_some(condition.last_transition_time.as_ref()?.0 + TIMEOUT)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(pod) = context.caches.of::<Pod>().read(&key.namespace, &key.name) else { return Ok(Next::Done) };
    let Some(at) = stale_at(&pod) else { return Ok(Next::Done) };
    let now = context.now();
    if at > now {
        return Ok(Next::at(&context.clock, at));
    }
    let condition = json!({"type": CONDITION, "status": "False", "lastTransitionTime": client::time(now),
        "observedGeneration": pod.metadata.generation});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
    let access = context.client.namespaced::<Pod>(&key.namespace);
    match access.patch_sub(&key.name, "status", Patch::Strategic(patch)).await {
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status.into()),
        _ => Ok(Next::Done),
    }
}
