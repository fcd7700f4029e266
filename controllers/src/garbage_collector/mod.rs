//! Deletes what was owned by something that is gone. Upstream: pkg/controller/garbagecollector.
//!
//! # Flow
//! Every resource that can be listed, watched and deleted has a cache with an index by owner; together they are the graph.
//! A change puts those objects into a queue whose fate may depend on it; a worker looks at each: it reads it afresh, asks how
//! its owners stand, and deletes it, drops references, or lets go of an owner that waited.
//!
//! # Guarantees
//! Nothing is deleted because a cache is behind: that an owner is gone is asked of the server, and the deletion holds only for the
//! very version that was judged. Nothing is deleted because a kind is not served.

mod graph;
mod plan;
#[cfg(test)]
mod tests;
mod work;

use crate::served::once_each;
use client::{Context, Delta, Queue};
use futures::{StreamExt, stream::select};
use graph::{Graph, Known, Monitor, Task};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use plan::ORPHAN;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use work::Worker;

/// Objects looked at at once. Upstream: `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// A definition that has changed is served a little later, and often several change together.
const SETTLE: Duration = Duration::from_secs(1);
/// After an error discovery is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until `shutdown`.
pub(crate) async fn run(base: &Context, shutdown: CancellationToken) {
    let context = Arc::new(Context::new(
        base.client.clone(),
        base.caches.clone(),
        base.events.named("garbage-collector-controller"),
        base.clock.clone(),
    ));
    let worker =
        Arc::new(Worker { context: context.clone(), graph: Arc::new(Graph::default()), queue: Queue::new() });
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        tasks.spawn(worker.clone().run());
    }
    tokio::select! {
        () = follow_resources(&worker) => {}
        () = shutdown.cancelled() => {}
    }
    worker.queue.close();
    while tasks.join_next().await.is_some() {}
}

/// Follows all resources, and the list of resources itself.
async fn follow_resources(worker: &Arc<Worker>) {
    let caches = &worker.context.caches;
    let definitions = caches.of::<CustomResourceDefinition>().subscribe().map(drop);
    let services = caches.of::<APIService>().subscribe().map(drop);
    let mut changes = select(definitions, services);
    let mut feeds = JoinSet::new();
    let mut handles: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let retry = !discover(worker, &mut feeds, &mut handles).await;
        let changed = async {
            changes.next().await;
            tokio::time::sleep(SETTLE).await;
            // What has gathered meanwhile is covered by the next discovery.
            while futures::FutureExt::now_or_never(changes.next()).is_some() {}
        };
        match retry {
            true => _ = tokio::time::timeout(RETRY, changed).await,
            false => changed.await,
        }
    }
}

/// Starts to follow what is new and stops to follow what is no longer served. Answers whether everything is known.
async fn discover(
    worker: &Arc<Worker>,
    feeds: &mut JoinSet<()>,
    handles: &mut HashMap<String, AbortHandle>,
) -> bool {
    let served = match worker.context.client.discover().await {
        Ok(served) => served,
        Err(status) => {
            tracing::warn!(%status, "resources cannot be discovered");
            return false;
        }
    };
    let mut rows = once_each(&served, &["list", "watch", "delete"]);
    if !served.failed.is_empty() {
        // A group that cannot be asked now is followed on.
        for monitor in worker.graph.monitors() {
            let version = monitor.resource.api_version();
            if served.failed.contains(&version) && !rows.iter().any(|row| row.resource == *monitor.resource) {
                let verbs = vec!["list".to_owned(), "watch".to_owned(), "delete".to_owned()];
                let (resource, namespaced) = ((*monitor.resource).clone(), monitor.namespaced);
                rows.push(client::Discovered { resource, namespaced, verbs, preferred: true });
            }
        }
    }
    let (added, removed) = worker.graph.follow(&worker.context.caches, rows);
    let name = |monitor: &Monitor| format!("{}/{}", monitor.resource.api_version(), monitor.resource.plural);
    for monitor in removed {
        if let Some(feed) = handles.remove(&name(&monitor)) {
            feed.abort();
        }
        worker.context.caches.stop(&monitor.cache);
    }
    for monitor in added {
        let key = name(&monitor);
        handles.insert(key, feeds.spawn(feed(worker.clone(), monitor)));
    }
    while feeds.try_join_next().is_some() {}
    served.failed.is_empty()
}

async fn feed(worker: Arc<Worker>, monitor: Arc<Monitor>) {
    monitor.cache.synced().await;
    let mut changes = monitor.cache.subscribe();
    while let Some(delta) = changes.next().await {
        note(&worker, &monitor, &delta);
    }
}

/// Puts everything into the queue whose fate may depend on a change.
fn note(worker: &Worker, monitor: &Arc<Monitor>, delta: &Delta) {
    let graph = &worker.graph;
    match (&delta.old, &delta.new) {
        (old, Some(new)) => {
            let was_deleting = old.as_ref().is_some_and(|old| old.meta.deleting);
            if new.meta.deleting {
                let task = Task::delete(monitor, new);
                if graph::finalizers(new).iter().any(|own| own == ORPHAN) {
                    worker.queue.add(Task { orphan: true, ..task });
                } else if graph::waits_for_dependents(new) {
                    worker.queue.add(task);
                    if !was_deleting {
                        for (monitor, own) in graph.dependents(&new.meta.uid) {
                            worker.queue.add(Task::delete(&monitor, &own));
                        }
                    }
                }
            }
            let before = old.as_ref().map(|old| &*old.meta.owners).unwrap_or_default();
            if before != &*new.meta.owners {
                let needs_look =
                    new.meta.owners.iter().any(|owner| match graph.owner(owner, new.meta.namespace()) {
                        Known::Present(owner) => graph::waits_for_dependents(&owner),
                        Known::NotSeen(_) | Known::NoSuchKind | Known::Impossible => true,
                    });
                if needs_look {
                    worker.queue.add(Task::delete(monitor, new));
                }
                wake_owners(worker, &plan::released(before, &new.meta.owners), new.meta.namespace());
            }
        }
        (Some(old), None) => {
            for (monitor, own) in graph.dependents(&old.meta.uid) {
                worker.queue.add(Task::delete(&monitor, &own));
            }
            wake_owners(worker, &old.meta.owners, old.meta.namespace());
        }
        (None, None) => {}
    }
}

/// Owners that wait for what they own look again.
fn wake_owners(worker: &Worker, owners: &[api::object::Owner], namespace: &str) {
    for owner in owners {
        if let Known::Present(object) = worker.graph.owner(owner, namespace)
            && graph::waits_for_dependents(&object)
        {
            let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
            let monitors = worker.graph.monitors();
            let of = monitors
                .iter()
                .find(|monitor| monitor.resource.group == group && *monitor.resource.kind == *owner.kind);
            if let Some(monitor) = of {
                worker.queue.add(Task::delete(monitor, &object));
            }
        }
    }
}
