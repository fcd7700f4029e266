//! The loops that make the cluster what its objects say: upstream's kube-controller-manager.
//!
//! One folder each: `mod.rs` watches, reads and writes; `plan.rs` decides, without I/O and with `now` as an argument; `tests.rs`
//! is the table that specifies it. They speak to the API only (crate `client`), never to each other. Start at [`all`].

mod backend;
mod cluster_role_aggregation;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
mod garbage_collector;
mod history;
mod job;
mod namespace;
mod node_fit;
mod node_ipam;
mod node_lifecycle;
mod number;
mod owner;
mod persistent_volume;
mod pod;
mod pod_gc;
mod protection;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod root_ca;
mod served;
mod service_account;
mod signing_request;
mod stateful_set;
mod taint_eviction;
mod template;
mod ttl_after_finished;

use backend::Backends;
use client::{Caches, Context, Controller};
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
pub use node_ipam::{NodeRange, RangeError};
use signing_request::Authority;
pub use signing_request::AuthorityError;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the loops need to know besides objects.
#[derive(Clone, Default)]
pub struct Options {
    /// Certificates (PEM) by which pods know the API server.
    pub root_ca: String,
    /// What signs certificates for the cluster's own signers; without it, others have to.
    pub signer: Option<Signer>,
    /// Networks of which every node gets a range; one, or one of each family. Empty where nodes know their addresses.
    pub node_ranges: Vec<NodeRange>,
}

/// A certificate authority that signs.
#[derive(Clone)]
pub struct Signer(Arc<Authority>);

impl Signer {
    /// From the authority's certificate and key, both PEM.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        Ok(Self(Arc::new(Authority::new(certificate_pem, key_pem)?)))
    }
}

/// Every loop. Starts the caches that several of them share.
pub fn all(caches: &Caches, options: &Options) -> Vec<Controller> {
    owner::index_orphans(&caches.of::<Pod>());
    owner::index_by_controller(&caches.of::<Pod>());
    ephemeral_volume::index(&caches.of::<Pod>());
    pod::index_by_node(&caches.of::<Pod>());
    owner::index_orphans(&caches.of::<ReplicaSet>());
    owner::index_orphans(&caches.of::<ControllerRevision>());
    endpoint_slice::index_by_service(&caches.of::<EndpointSlice>());
    cluster_role_aggregation::index(&caches.of::<ClusterRole>());
    persistent_volume::index(&caches.of::<PersistentVolumeClaim>(), &caches.of::<PersistentVolume>());
    let backends = Backends::new(caches);
    let mut all = vec![
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
        disruption::controller(),
        disruption::stale_targets(),
        resource_quota::controller(),
        node_lifecycle::controller(),
        taint_eviction::controller(),
        pod_gc::lost(),
        pod_gc::ended(),
        ttl_after_finished::controller(),
        cluster_role_aggregation::controller(),
        protection::claims(),
        protection::volumes(),
        protection::classes(),
        persistent_volume::claims(),
        persistent_volume::volumes(),
        ephemeral_volume::controller(),
        signing_request::approver(),
        signing_request::cleaner(),
    ];
    if !options.node_ranges.is_empty() {
        all.push(node_ipam::controller(options.node_ranges.clone()));
    }
    all.extend(options.signer.iter().map(|signer| signing_request::signer(signer.0.clone())));
    all
}

/// Runs every loop until `shutdown`, then finishes what is being reconciled.
pub async fn run(context: &Context, options: &Options, shutdown: CancellationToken) {
    let loops = all(&context.caches, options).into_iter();
    let loops = futures::future::join_all(loops.map(|controller| controller.run(context, shutdown.clone())));
    futures::future::join(loops, garbage_collector::run(context, shutdown.clone())).await;
}
