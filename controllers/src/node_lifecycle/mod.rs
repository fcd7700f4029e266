//! Watches over nodes: one that falls silent is not ready any more, and what its conditions say becomes taints.
//! Upstream: pkg/controller/nodelifecycle.
//!
//! A node lives as long as its lease or its status changes. When that was is taken from our own clock: clocks of nodes may be wrong.
//! Nothing is polled: each node is looked at when it changes and when its time is over.

mod plan;
#[cfg(test)]
mod tests;

use crate::pod;
use api::{ObjectName, Timestamp};
use client::gone_is_fine;
use client::{Context, Controller, Error, Next, Patch, ResourceRef, Selection, reference};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use plan::Signs;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Nodes looked at at once.
const WORKERS: usize = 4;

/// The last signs of life of each node, and when we saw them.
type Seen = Arc<Mutex<HashMap<Box<str>, (Signs, Timestamp)>>>;

pub(crate) fn controller() -> Controller {
    let seen = Seen::default();
    let leases = Selection { namespace: LEASE_NAMESPACE.to_owned(), ..Selection::default() };
    Controller::of::<Node>("node-controller")
        .watches_some(ResourceRef::of::<Lease>(), leases, |delta, _| {
            vec![ObjectName::new("", &delta.key.name)]
        })
        .workers(WORKERS)
        .reconcile(move |key, context| {
            let seen = seen.clone();
            async move { reconcile(&key, &context, &seen).await }
        })
}

async fn reconcile(key: &ObjectName, context: &Arc<Context>, seen: &Seen) -> Result<Next, Error> {
    let Some(node) = context.caches.of::<Node>().read("", &key.name) else {
        seen.lock().remove(&key.name);
        return Ok(Next::Done);
    };
    let leases = Selection { namespace: LEASE_NAMESPACE.to_owned(), ..Selection::default() };
    let lease = context.caches.select::<Lease>(leases).read(LEASE_NAMESPACE, &key.name);
    let now = context.now();
    let signs = plan::signs(&node, lease.as_ref());
    let alive_at = {
        let mut seen = seen.lock();
        let own = seen.entry(key.name.clone()).or_insert_with(|| (signs.clone(), now));
        if own.0 != signs {
            *own = (signs, now);
        }
        own.1
    };
    let plan = plan::plan(&node, alive_at, now);
    if let Some(conditions) = plan.conditions {
        let patch = json!({"status": {"conditions": conditions}});
        let written =
            context.client.api::<Node>().patch_sub(&key.name, "status", Patch::Strategic(patch)).await;
        gone_is_fine(written)?;
        context.events.normal(
            &reference(&node),
            "NodeNotReady",
            format!("Node {} status is now: NodeNotReady", key.name),
        );
    }
    if plan.pods_not_ready {
        mark_pods(context, &key.name).await?;
    }
    if let Some(taints) = plan.taints {
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        gone_is_fine(context.client.api::<Node>().patch(&key.name, Patch::Merge(patch)).await)?;
    }
    Ok(plan.next.map_or(Next::Done, |at| Next::at(&context.clock, at)))
}

/// Pods of a node that is not ready are not either. Upstream: `MarkPodsNotReady`.
async fn mark_pods(context: &Context, node: &str) -> Result<(), Error> {
    let pods = context.caches.of_fields::<Pod>(&format!("spec.nodeName={node}"));
    pods.synced().await;
    for own in pods.read_all("").iter().filter(|own| pod::is_ready(own)) {
        let (namespace, name) = (
            own.metadata.namespace.as_deref().unwrap_or_default(),
            own.metadata.name.as_deref().unwrap_or_default(),
        );
        let condition =
            json!({"type": "Ready", "status": "False", "lastTransitionTime": client::time(context.now())});
        let patch = json!({"metadata": {"uid": own.metadata.uid}, "status": {"conditions": [condition]}});
        let access = context.client.namespaced::<Pod>(namespace);
        gone_is_fine(access.patch_sub(name, "status", Patch::Strategic(patch)).await)?;
        context.events.warning(&reference(own), "NodeNotReady", "Node is not ready");
    }
    context.caches.stop(&pods);
    Ok(())
}
