//! The loops that make the cluster what its objects say: upstream's kube-controller-manager.
//!
//! One folder each: `mod.rs` watches, reads and writes; `plan.rs` decides, without I/O and with `now` as an argument; `tests.rs`
//! is the table that specifies it. They speak to the API only (crate `client`), never to each other. Start at [`all`].

mod backend;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod history;
mod job;
mod namespace;
mod node_fit;
mod number;
mod owner;
mod pod;
mod replica_set;
mod replication_controller;
mod root_ca;
mod served;
mod service_account;
mod stateful_set;
mod template;

use backend::Backends;
use client::{Caches, Context, Controller};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;

/// What the loops need to know besides objects.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Certificates (PEM) by which pods know the API server.
    pub root_ca: String,
}

/// Every loop. Starts the caches that several of them share.
pub fn all(caches: &Caches, options: &Options) -> Vec<Controller> {
    owner::index_orphans(&caches.of::<Pod>());
    owner::index_by_controller(&caches.of::<Pod>());
    owner::index_orphans(&caches.of::<ReplicaSet>());
    owner::index_orphans(&caches.of::<ControllerRevision>());
    endpoint_slice::index_by_service(&caches.of::<EndpointSlice>());
    let backends = Backends::new(caches);
    vec![
        namespace::controller(),
        service_account::controller(),
        root_ca::controller(options.root_ca.clone()),
        replica_set::controller(),
        replication_controller::controller(),
        deployment::controller(),
        endpoint_slice::controller(backends.clone()),
        endpoints::controller(backends),
        endpoint_slice_mirroring::controller(),
        job::controller(),
        cron_job::controller(),
        stateful_set::controller(),
        daemon_set::controller(caches),
    ]
}

/// Runs every loop until `shutdown`, then finishes what is being reconciled.
pub async fn run(context: &Context, options: &Options, shutdown: CancellationToken) {
    let loops = all(&context.caches, options).into_iter();
    let loops = futures::future::join_all(loops.map(|controller| controller.run(context, shutdown.clone())));
    futures::future::join(loops, garbage_collector::run(context, shutdown.clone())).await;
}
