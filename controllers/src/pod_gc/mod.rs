//! Removes pods that nobody else will: of nodes that are gone or out of service, deleted before they had a node, and the oldest
//! of too many that have ended. Upstream: pkg/controller/podgc.
//!
//! Upstream looks at everything every 20 s; here a pod is looked at when it or its node changes, and when its time is over.

mod plan;
#[cfg(test)]
mod tests;

use crate::pod::{self, BY_NODE};
use api::{Object, ObjectName, Status, Timestamp};
use client::{Context, Controller, DeleteParams, Delta, Error, Next, Patch, Projection};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use plan::{Cause, Ended, Fate};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Pods removed at once.
const WORKERS: usize = 8;

/// Since when the node of a pod is missed. An entry lives no longer than its pod is known.
type Missed = Arc<Mutex<HashMap<ObjectName, Timestamp>>>;

/// Pods whose node is gone or out of service, and pods that were deleted before they had one.
pub(crate) fn lost() -> Controller {
    let missed = Missed::default();
    Controller::of_some::<Pod>("pod-garbage-collector", |delta| {
        let of = |object: Option<&Arc<Object>>| {
            object.map(|object| (pod::node_name_of(object), object.meta.deleting))
        };
        of(delta.old.as_ref()) != of(delta.new.as_ref())
    })
    .watches::<Node>(pods_on)
    .workers(WORKERS)
    .reconcile(move |key, context| {
        let missed = missed.clone();
        async move { reconcile(key, &context, &missed).await }
    })
}

/// The pods of a node that came, went, or is out of service since now.
fn pods_on(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let of = |object: Option<&Arc<Object>>| {
        object.map(|object| object.decode::<Node>().is_ok_and(|node| plan::is_out_of_service(&node)))
    };
    if of(delta.old.as_ref()) == of(delta.new.as_ref()) {
        return Vec::new();
    }
    let pods = context.caches.of::<Pod>().by(BY_NODE, &delta.key.name);
    pods.iter().map(|object| object.meta.key.clone()).collect()
}

async fn reconcile(key: ObjectName, context: &Context, missed: &Missed) -> Result<Next, Error> {
    let own = context.caches.of::<Pod>().read(&key.namespace, &key.name);
    let node = own.as_ref().and_then(|own| context.caches.of::<Node>().read("", pod::node_name(own)));
    let cause = match own.as_ref().map_or(Fate::Stays, |own| plan::fate(own, node.as_ref())) {
        Fate::Stays => {
            missed.lock().remove(&key);
            return Ok(Next::Done);
        }
        Fate::Misses => {
            let since = *missed.lock().entry(key.clone()).or_insert_with(|| context.now());
            let at = since + plan::QUARANTINE;
            if at > context.now() {
                return Ok(Next::at(&context.clock, at));
            }
            // The cache may be behind: only what the server says counts.
            let name = own.as_ref().map(pod::node_name).unwrap_or_default();
            if context.client.api::<Node>().get_opt(name).await?.is_some() {
                missed.lock().remove(&key);
                return Ok(Next::at(&context.clock, context.now() + plan::QUARANTINE));
            }
            Cause::Orphaned
        }
        Fate::Goes(cause) => cause,
    };
    if let Some(own) = own {
        tracing::info!(pod = %key, ?cause, "a pod that nobody else removes is removed");
        remove(context, &own, cause).await?;
    }
    missed.lock().remove(&key);
    Ok(Next::Done)
}

/// Ends a pod in name, so that its owner may count it, and deletes it at once.
async fn remove(context: &Context, own: &Pod, cause: Cause) -> Result<(), Status> {
    let meta = &own.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let access = context.client.namespaced::<Pod>(meta.namespace.as_deref().unwrap_or_default());
    if let Some(status) = plan::failed(own, cause, context.now()) {
        let patch = Patch::Strategic(json!({"metadata": {"uid": meta.uid}, "status": status}));
        gone_or_replaced_is_fine(access.patch_sub(name, "status", patch).await.map(drop))?;
    }
    let params = DeleteParams { grace_seconds: Some(0), uid: meta.uid.clone(), ..DeleteParams::default() };
    gone_or_replaced_is_fine(access.delete(name, &params).await.map(drop))
}

/// Gone, or another pod has its name by now.
fn gone_or_replaced_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        result => result,
    }
}

/// The oldest of the pods that have ended, where there are too many of them.
pub(crate) fn ended() -> Controller {
    let view = Arc::new(OnceLock::<Projection<Ended>>::new());
    let shared = view.clone();
    // There is one thing to reconcile: all of them.
    let everything = ObjectName::default();
    Controller::of_some::<Pod>("pod-garbage-collector-ended", |_| false)
        .beside(move |context| async move {
            let pods = context.caches.of::<Pod>();
            let mut changes = view.get_or_init(|| pods.project(plan::ended)).subscribe();
            while changes.next().await.is_some() {
                context.queue.add(everything.clone());
            }
        })
        .reconcile(move |_, context| {
            let view = shared.clone();
            async move {
                let all = view.get().map(|view| view.list("")).unwrap_or_default();
                for own in plan::too_many(all, plan::ENDED_LEN_MAX) {
                    let access = context.client.namespaced::<Pod>(&own.key.namespace);
                    let params = DeleteParams { grace_seconds: Some(0), ..DeleteParams::default() };
                    let params = params.with_uid(&*own.uid);
                    gone_or_replaced_is_fine(access.delete(&own.key.name, &params).await.map(drop))?;
                }
                Ok(Next::Done)
            }
        })
}
