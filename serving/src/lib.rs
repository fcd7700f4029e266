//! Knative Serving: what makes revisions of services, runs and scales them, and brings requests to them.
//!
//! It speaks with everything else through the API only. Rules and columns of its kinds are rows of `resources`. Each loop has
//! a folder: `mod.rs` watches, reads and writes, `plan.rs` decides. Start at [`all`], and at [`data_plane`] for requests.

mod application;
mod autoscaler;
mod configuration;
pub mod data_plane;
pub mod digest;
mod domain_mapping;
mod ingress;
mod keys;
pub mod kinds;
mod pod_autoscaler;
mod revision;
mod revision_gc;
mod route;
mod serverless_service;
mod service;
pub mod settings;
pub mod traffic;

use client::{Context, Controller};
use duck::{conditions, names, write};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the loops need to know besides objects.
#[derive(Clone, Default)]
pub struct Options {
    /// Who finds out which image a tag means. Without one, tags stay tags.
    pub resolve: Option<Arc<dyn digest::Resolve>>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// What takes requests in this process, and the address at which clients from outside find it. Without one, Ingresses wait for
    /// somebody else.
    pub data_plane: Option<(data_plane::DataPlane, IpAddr)>,
    /// What the data plane counts, and who hears of requests that wait: taken by the autoscaler. Without them nothing is scaled.
    pub traffic: Option<(Arc<traffic::Traffic>, Arc<Mutex<Option<traffic::Woken>>>)>,
}

/// Every loop.
pub fn all(options: &Options) -> Vec<Controller> {
    let domain = &options.cluster_domain;
    let mut all = vec![
        service::controller(),
        configuration::controller(),
        revision::controller(options.resolve.clone()),
        revision_gc::controller(),
        route::controller(domain),
        domain_mapping::controller(domain),
    ];
    if let Some((traffic, woken)) = &options.traffic {
        all.push(pod_autoscaler::controller(traffic.clone(), woken.clone()));
        all.push(serverless_service::controller());
    }
    if let Some((data_plane, address)) = &options.data_plane {
        all.push(ingress::controller(data_plane.clone(), domain));
        all.push(ingress::plain_controller(data_plane.clone(), *address));
    }
    all
}

/// Runs every loop until `shutdown`, then finishes what is being reconciled.
pub async fn run(context: &Context, options: &Options, shutdown: CancellationToken) {
    let loops = all(options).into_iter().map(|controller| controller.run(context, shutdown.clone()));
    futures::future::join_all(loops).await;
}
