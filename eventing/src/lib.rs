//! Knative Eventing: events are kept before they are acknowledged, and then delivered.
//!
//! It speaks with everything else through the API, and with producers and consumers over HTTP. Rules and columns of its kinds
//! are rows of `resources`. Each loop has a file; `program` makes of all objects what the data plane ([`dispatch`]) is to do. Start
//! at [`run`].

mod api_server_source;
mod broker;
mod channel;
mod container_source;
pub mod delivery;
pub mod dispatch;
pub mod event;
mod event_type;
pub mod filter;
mod flow;
mod in_memory_channel;
pub mod ingress;
mod kinds;
pub mod log;
mod marks;
mod ping_source;
mod program;
mod resolve;
mod sink_binding;
mod subscription;
mod trigger;

use client::Context;
use delivery::{Pool, Post, Resolve};
use dispatch::Eventing;
use futures::future::join_all;
use program::Programmed;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What is needed besides objects.
pub struct Options {
    /// The data plane.
    pub eventing: Eventing,
    /// Where events come in.
    pub listener: TcpListener,
    /// Finds names of destinations.
    pub resolve: Arc<dyn Resolve>,
    /// Domain of the cluster.
    pub cluster_domain: String,
}

/// Runs the loops and the data plane until `shutdown`.
pub async fn run(context: &Context, options: Options, shutdown: CancellationToken) {
    let Options { eventing, listener, resolve, cluster_domain } = options;
    let domain: Arc<str> = cluster_domain.into();
    let post: Arc<dyn Post> = Arc::new(Pool::new(resolve));
    let (programmed, told) = watch::channel(Programmed::default());
    let all = [
        broker::controller(domain.clone(), told.clone()),
        trigger::controller(domain.clone(), told.clone()),
        in_memory_channel::controller(domain.clone(), told),
        channel::controller(),
        subscription::controller(domain.clone()),
        ping_source::controller(domain.clone(), post.clone()),
        api_server_source::controller(domain.clone(), post),
        container_source::controller(),
        sink_binding::controller(domain.clone()),
        flow::sequence::controller(),
        flow::parallel::controller(),
        event_type::controller(domain),
    ];
    let loops = join_all(all.into_iter().map(|controller| controller.run(context, shutdown.clone())));
    let (first, ready) = oneshot::channel();
    let programming =
        program::run(context.caches.clone(), eventing.clone(), programmed, first, shutdown.clone());
    // Producers that come earlier wait for an answer: before the first table there are no brokers.
    let serving = async {
        if ready.await.is_ok() {
            eventing.serve(listener, shutdown.clone()).await;
        }
    };
    tokio::join!(loops, programming, serving);
    eventing.stop().await;
}
