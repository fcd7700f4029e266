//! Gives each node its range of pod addresses. Upstream: pkg/controller/nodeipam, the range allocator.
//!
//! Runs only where it is asked for: nodes that know their addresses by other ways need nobody to choose them.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{NodeRange, RangeError};

use api::ObjectName;
use client::{Context, Controller, Error, Next, Patch, reference};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use plan::Ranges;
use serde_json::json;
use std::sync::Arc;

/// One at a time: two nodes must not be given one range. What was given and the cache does not show yet is kept in [`Ranges`].
pub(crate) fn controller(ranges: Vec<NodeRange>) -> Controller {
    let ranges = Arc::new(Mutex::new(Ranges::new(ranges)));
    Controller::of::<Node>("cidrAllocator").reconcile(move |key, context| {
        let ranges = ranges.clone();
        async move { reconcile(&key, &context, &ranges).await }
    })
}

async fn reconcile(key: &ObjectName, context: &Context, ranges: &Mutex<Ranges>) -> Result<Next, Error> {
    let nodes = context.caches.of::<Node>();
    let Some(node) = nodes.read("", &key.name) else {
        if ranges.lock().release(&key.name) {
            // Somebody may have waited for it.
            let waiting = nodes.read_all("").into_iter().filter(|node| plan::cidrs(node).is_empty());
            waiting.filter_map(|node| node.metadata.name).for_each(|name| {
                context.queue.add(ObjectName::new("", &name));
            });
        }
        return Ok(Next::Done);
    };
    if !plan::cidrs(&node).is_empty() {
        ranges.lock().occupy(&key.name, plan::cidrs(&node));
        return Ok(Next::Done);
    }
    // After a start, what nodes have must be known before anything is given.
    let others = nodes.read_all("");
    let chosen = {
        let mut ranges = ranges.lock();
        for other in &others {
            ranges.occupy(other.metadata.name.as_deref().unwrap_or_default(), plan::cidrs(other));
        }
        ranges.choose(&key.name)
    };
    let about = reference(&node);
    let Some(chosen) = chosen else {
        let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
        context.events.normal(&about, "CIDRNotAvailable", message);
        return Ok(Next::Done);
    };
    // By UID: another node of this name gets what it is given itself.
    let patch =
        json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": chosen[0], "podCIDRs": chosen}});
    match context.client.api::<Node>().patch(&key.name, Patch::Strategic(patch)).await {
        Err(status) if !status.is_not_found() => {
            let message = format!("Node {} status is now: CIDRAssignmentFailed", key.name);
            context.events.normal(&about, "CIDRAssignmentFailed", message);
            Err(status.into())
        }
        _ => Ok(Next::Done),
    }
}
