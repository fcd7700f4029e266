//! Deletes pods from nodes with a `NoExecute` taint that they do not tolerate (any longer).
//! Upstream: pkg/controller/tainteviction.

mod plan;
#[cfg(test)]
mod tests;

use crate::pod::{self, BY_NODE};
use api::{Object, ObjectName};
use client::{Context, Controller, DeleteParams, Delta, Error, Next, Patch, reference};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use plan::Fate;
use serde_json::json;
use std::sync::Arc;

/// Pods looked at at once. Upstream: `UpdateWorkerSize`.
const WORKERS: usize = 8;

pub(crate) fn controller() -> Controller {
    Controller::of_some::<Pod>("taint-eviction-controller", |delta| {
        // Only where a pod is and what it tolerates counts; a pod that is not there has no fate.
        delta.new.is_some()
            && delta.old.as_ref().zip(delta.new.as_ref()).is_none_or(|(old, new)| spec(old) != spec(new))
    })
    .watches::<Node>(pods_on)
    .workers(WORKERS)
    .reconcile(reconcile)
}

fn spec(object: &Arc<Object>) -> Option<(Option<String>, serde_json::Value)> {
    let pod: Pod = object.decode().ok()?;
    let spec = pod.spec?;
    Some((spec.node_name, serde_json::to_value(spec.tolerations).ok()?))
}

fn no_execute(node: Option<&Arc<Object>>) -> Vec<Taint> {
    let node = node.and_then(|object| object.decode::<Node>().ok());
    let taints = node.and_then(|node| node.spec?.taints).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// The pods of a node whose `NoExecute` taints have changed.
fn pods_on(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    if no_execute(delta.old.as_ref()) == no_execute(delta.new.as_ref()) {
        return Vec::new();
    }
    let pods = context.caches.of::<Pod>().by(BY_NODE, &delta.key.name);
    pods.iter().map(|object| object.meta.key.clone()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(own) = context.caches.of::<Pod>().read(&key.namespace, &key.name) else { return Ok(Next::Done) };
    let node = context.caches.of::<Node>().get("", pod::node_name(&own));
    match plan::fate(&own, &no_execute(node.as_ref()), context.now()) {
        Fate::Stays => Ok(Next::Done),
        Fate::GoesAt(at) => Ok(Next::at(&context.clock, at)),
        Fate::Goes => {
            context.events.normal(
                &reference(&own),
                "TaintManagerEviction",
                format!("Marking for deletion Pod {}/{}", key.namespace, key.name),
            );
            evict(&context, &own, &key).await
        }
    }
}

async fn evict(context: &Context, own: &Pod, key: &ObjectName) -> Result<Next, Error> {
    let access = context.client.namespaced::<Pod>(&key.namespace);
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": client::time(context.now()),
        "observedGeneration": own.metadata.generation});
    let patch = json!({"metadata": {"uid": own.metadata.uid}, "status": {"conditions": [condition]}});
    let marked = access.patch_sub(&key.name, "status", Patch::Strategic(patch)).await.map(drop);
    let params = DeleteParams::default().with_uid(own.metadata.uid.clone().unwrap_or_default());
    let deleted = match marked {
        Ok(()) => access.delete(&key.name, &params).await.map(drop),
        refused => refused,
    };
    match deleted {
        // Gone, or another pod has its name by now.
        Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status.into()),
        _ => Ok(Next::Done),
    }
}
