//! The loops that make the cluster what its objects say: upstream's kube-controller-manager.
//!
//! One folder each: `mod.rs` watches, reads and writes; `plan.rs` decides, without I/O and with `now` as an argument; `tests.rs`
//! is the table that specifies it. They speak to the API only (crate `client`), never to each other. Start at [`all`].

mod deployment;
mod number;
mod owner;
mod pod;
mod replica_set;
mod replication_controller;
mod template;

use client::{Context, Controller};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

/// What the loops need to know besides objects.
#[derive(Clone, Debug, Default)]
pub struct Options {}

/// Every loop.
pub fn all(_options: &Options) -> Vec<Controller> {
    vec![deployment::controller(), replica_set::controller(), replication_controller::controller()]
}

/// Runs every loop until `shutdown`, then finishes what is being reconciled.
pub async fn run(context: &Context, options: &Options, shutdown: CancellationToken) {
    owner::index_orphans(&context.caches.of::<Pod>());
    owner::index_orphans(&context.caches.of::<ReplicaSet>());
    owner::index_orphans(&context.caches.of::<ControllerRevision>());
    let loops = all(options).into_iter().map(|controller| controller.run(context, shutdown.clone()));
    futures::future::join_all(loops).await;
}
