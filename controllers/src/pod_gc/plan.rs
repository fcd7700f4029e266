//! Which pods nobody else removes. Pure.

use crate::pod;
use api::{Object, ObjectName, Timestamp};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a node may be missing before its pods are given up: the cache may show a pod before its node.
pub(super) const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
/// Pods that have ended and are kept, so that people can look at them. Upstream: `--terminated-pod-gc-threshold`.
pub(super) const ENDED_LEN_MAX: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its node does not exist.
    Orphaned,
    /// It was deleted before it had a node.
    Unscheduled,
    /// It is being deleted, and its node will never say that it has ended.
    OutOfService,
}

/// What is to become of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// Its node is not known: it may be gone, or come yet.
    Misses,
    Goes(Cause),
}

pub(super) fn fate(own: &Pod, node: Option<&Node>) -> Fate {
    let deleting = pod::is_deleting(own);
    match node {
        _ if pod::node_name(own).is_empty() => {
            if deleting {
                Fate::Goes(Cause::Unscheduled)
            } else {
                Fate::Stays
            }
        }
        None => Fate::Misses,
        Some(node) if deleting && is_out_of_service(node) => Fate::Goes(Cause::OutOfService),
        Some(_) => Fate::Stays,
    }
}

/// Whether somebody has said that the node is down for good, and it is not ready.
pub(super) fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is_ready = conditions.any(|own| own.type_ == "Ready" && own.status == "True");
    !is_ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The change of its status with which a pod that has not ended goes.
pub(super) fn failed(own: &Pod, cause: Cause, now: Timestamp) -> Option<Value> {
    if pod::is_finished(own) {
        return None;
    }
    let generation = own.metadata.generation;
    let mut status = json!({"phase": "Failed", "observedGeneration": generation});
    if cause == Cause::Orphaned {
        status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "observedGeneration": generation,
            "lastTransitionTime": client::time(now)}]);
    }
    Some(status)
}

/// What is kept of a pod that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) key: ObjectName,
    pub(super) uid: Box<str>,
    pub(super) evicted: bool,
    pub(super) created: Timestamp,
}

#[derive(Deserialize)]
struct Narrow {
    metadata: NarrowMeta,
    #[serde(default)]
    status: NarrowStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NarrowMeta {
    creation_timestamp: Timestamp,
}

#[derive(Default, Deserialize)]
struct NarrowStatus {
    #[serde(default)]
    phase: Box<str>,
    #[serde(default)]
    reason: Box<str>,
}

/// What is kept of a pod, if it has ended.
pub(super) fn ended(object: &Object) -> Option<Ended> {
    let Narrow { metadata, status } = object.decode().ok()?;
    let is_ended = matches!(&*status.phase, "Succeeded" | "Failed");
    is_ended.then(|| Ended {
        key: object.meta.key.clone(),
        uid: object.meta.uid.clone(),
        evicted: &*status.phase == "Failed" && &*status.reason == "Evicted",
        created: metadata.creation_timestamp,
    })
}

/// Those beyond `len_max`: evicted ones first, then the oldest.
pub(super) fn too_many(mut all: Vec<Arc<Ended>>, len_max: usize) -> Vec<Arc<Ended>> {
    let excess = all.len().saturating_sub(len_max);
    all.sort_by(|a, b| {
        (!a.evicted, a.created, &a.key.name, &a.key.namespace).cmp(&(
            !b.evicted,
            b.created,
            &b.key.name,
            &b.key.namespace,
        ))
    });
    all.truncate(excess);
    all
}
