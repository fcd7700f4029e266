//! What controllers ask about pods, and how they make and remove them.
//!
//! Upstream: pkg/api/v1/pod, pkg/controller/controller_utils.go.

use crate::owner::{Owner, name_of};
use api::{Object, ObjectName, Status, Timestamp};
use client::{AnyCache, Context, DeleteParams};
use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use std::time::Duration;

/// Name of the index of pods by their node.
pub(crate) const BY_NODE: &str = "node";

/// Adds the index of pods by their node.
pub(crate) fn index_by_node(pods: &AnyCache) {
    pods.index(BY_NODE, |object| {
        let node = node_name_of(object);
        if node.is_empty() { Vec::new() } else { vec![node] }
    });
}

/// The node of a pod, decoded without the rest; empty if it has none.
pub(crate) fn node_name_of(object: &Object) -> Box<str> {
    #[derive(Deserialize)]
    struct Narrow {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default, rename = "nodeName")]
        node_name: Box<str>,
    }
    object.decode::<Narrow>().map(|narrow| narrow.spec.node_name).unwrap_or_default()
}

/// The phase; empty if it is not set yet.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether all containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether deletion was asked for.
pub(crate) fn is_deleting(pod: &Pod) -> bool {
    is_being_deleted(&pod.metadata)
}

/// Whether deletion of an object was asked for.
pub(crate) fn is_being_deleted(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether it runs or will run.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_deleting(pod)
}

/// Whether it still runs although deletion was asked for.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && is_deleting(pod)
}

/// A condition of the pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_deref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether it can serve.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when it can serve.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When a ready pod has been ready for long enough; `None` if it is not ready.
pub(crate) fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    let wait = SignedDuration::from_secs(min_ready_seconds.into());
    ready_since(pod).and_then(|since| since.checked_add(wait).ok())
}

/// Whether it has been ready for long enough.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// When the next of these pods becomes available by time alone.
pub(crate) fn next_available<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    pods.into_iter().filter_map(|pod| available_at(pod, min_ready_seconds)).filter(|at| *at > now).min()
}

/// A label of the pod.
pub(crate) fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The node it was assigned to; empty if it was not.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// The claims that a pod names, its own (of ephemeral volumes) too.
pub(crate) fn claims_of(pod: &Pod) -> Vec<ObjectName> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name)),
        _ => None,
    });
    names.map(|name| ObjectName::new(namespace, &name)).collect()
}

/// A new pod of a template, named by the server after its owner. Pure.
pub(crate) fn from_template(template: &PodTemplateSpec, owner: &Owner) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.key.name)),
            namespace: Some(owner.key.namespace.to_string()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether something was refused because its namespace is being deleted: nobody needs to hear of that.
pub(crate) fn is_namespace_terminating(status: &Status) -> bool {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Creates a pod, tells so, and expects to see it.
pub(crate) async fn create(context: &Context, owner: &Owner, pod: &Pod) -> Result<Pod, Status> {
    match context.client.namespaced::<Pod>(&owner.key.namespace).create(pod).await {
        Ok(pod) => {
            let version = pod.metadata.resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<Pod>(), version);
            let message = format!("Created pod: {}", name_of(&pod.metadata));
            context.events.normal(&owner.about, "SuccessfulCreate", message);
            Ok(pod)
        }
        Err(status) => {
            if !is_namespace_terminating(&status) {
                context.events.warning(&owner.about, "FailedCreate", format!("Error creating: {status}"));
            }
            Err(status)
        }
    }
}

/// Deletes a pod, tells so, and expects to see it. A pod that is gone already is no error.
pub(crate) async fn delete(context: &Context, owner: &Owner, pod: &Pod) -> Result<(), Status> {
    let name = name_of(&pod.metadata);
    let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::default() };
    match context.client.namespaced::<Pod>(&owner.key.namespace).delete(name, &params).await {
        Ok(_) => {
            let key = api::ObjectName::new(&owner.key.namespace, name);
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            context.expectations.gone(&owner.key, &context.caches.of::<Pod>(), &key, uid);
            context.events.normal(&owner.about, "SuccessfulDelete", format!("Deleted pod: {name}"));
            Ok(())
        }
        // Gone, or another pod by now.
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => {
            context.events.warning(&owner.about, "FailedDelete", format!("Error deleting: {status}"));
            Err(status)
        }
    }
}

/// Does `work` for all items, in batches of one, two, four and so on, and stops after a batch in which one failed: what
/// fails once (a quota) fails for all. Answers what succeeded and the first error.
pub(crate) async fn in_growing_batches<T, R, F>(
    items: Vec<T>,
    work: impl Fn(T) -> F,
) -> (Vec<R>, Option<Status>)
where
    F: Future<Output = Result<R, Status>>,
{
    let mut done = Vec::with_capacity(items.len());
    let mut items = items.into_iter();
    let mut size = 1;
    loop {
        let batch: Vec<_> = items.by_ref().take(size).map(&work).collect();
        if batch.is_empty() {
            return (done, None);
        }
        let mut first_error = None;
        for result in join_all(batch).await {
            match result {
                Ok(value) => done.push(value),
                Err(status) => _ = first_error.get_or_insert(status),
            }
        }
        if first_error.is_some() {
            return (done, first_error);
        }
        size = (size * 2).min(BATCH_LEN_MAX);
    }
}

/// Writes at once for one key: enough to fill a group commit, not enough to hold everybody else up.
const BATCH_LEN_MAX: usize = 64;

/// The wait until a point in time, at least a millisecond, so that it has passed when it is over.
pub(crate) fn wait_until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default().max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_grow_and_stop_at_the_first_failure() {
        let check = async |count: usize, fails_at: usize, expect: usize| {
            let (done, error) = in_growing_batches((0..count).collect(), async |item| {
                if item == fails_at { Err(Status::unavailable("no")) } else { Ok(item) }
            })
            .await;
            assert_eq!((done.len(), error.is_some()), (expect, fails_at < count));
        };
        check(10, 99, 10).await;
        check(10, 0, 0).await;
        check(10, 1, 2).await;
        check(10, 5, 6).await;
        check(0, 99, 0).await;
    }
}
