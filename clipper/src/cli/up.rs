//! `clipper up` and `clipper server`: settings, keys, parts; then wait for the signal to stop.

use crate::address;
use crate::components::Components;
use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::control_socket::ControlSocket;
use crate::demo;
use crate::images;
use crate::instance::Instance;
use crate::knative::{self, Digests};
use crate::local_node::{self, LocalNode, Place};
use crate::pki::Pki;
use anyhow::{Context as _, Result};
use client::Client;
use runtime::Runtime;
use serving::digest::Resolve;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the sample application may take until it answers.
const DEMO_MAX: Duration = Duration::from_secs(60);
/// How long a thread that waited for the disk stays without work: each holds some memory, and a new one costs microseconds.
const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What of a node this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Control plane and node.
    Up,
    /// Control plane and node, and the sample application on it.
    Demo,
    /// Control plane only.
    Server,
}

/// Runs in the foreground until SIGTERM or SIGINT. Containers go on running after that.
///
/// # Errors
/// One line that says what, why, and what to do.
pub(super) fn run(config: &Config, part: Part) -> Result<()> {
    let began = Instant::now();
    // Every thread has a small heap of its own: huge pages would make each of them megabytes. Where the kernel cannot be told, it may
    // cost memory and nothing else.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let _instance = Instance::claim(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(serve(config, part, began));
    // Threads that wait for the disk or the kernel must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config, part: Part, began: Instant) -> Result<()> {
    // Before anything is started: a signal during the start must not be lost.
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node_ip = config.node_ip.map_or_else(address::node_address, Ok)?;
    let pki = Arc::new(Pki::open(&config.data_dir.join("pki"))?);
    let local_node = async {
        if part == Part::Server {
            return Ok(None);
        }
        let place = Place::of(&config.data_dir)?;
        let engine = local_node::open_runtime(&place).await?;
        LocalNode::open(config, &place, pki.clone(), node_ip, engine).await.map(Some)
    };
    let (control_plane, local_node) =
        tokio::try_join!(ControlPlane::start(config, pki.clone(), node_ip), local_node)?;
    bootstrap(&control_plane, config, node_ip, local_node.is_some()).await?;
    let mut components = Components::start(&control_plane, &pki, config.without)?;
    let socket = ControlSocket::bind(&config.data_dir)?;
    let mut verbs = control_plane.verbs();
    verbs.extend(local_node.iter().flat_map(|node| images::verbs(&node.runtime())));
    components.serve_socket(socket, verbs);
    let node_name = local_node.as_ref().map(|node| node.name().to_owned());
    let demo = local_node.as_ref().filter(|_| part == Part::Demo).map(LocalNode::runtime);
    let demo = demo.map(|runtime| (runtime, control_plane.loopback()));
    let mut data_plane = None;
    let mut resolve: Option<Arc<dyn Resolve>> = None;
    if let Some(node) = local_node {
        resolve = Some(Arc::new(Digests(node.runtime())));
        let entrances = knative::entrances(config, node_ip).await?;
        let events = knative::events(config).await?;
        let directory = config.data_dir.join("events");
        components.start_eventing(&control_plane, &config.cluster_domain, &directory, events)?;
        data_plane = Some((components.start_node(&control_plane, node, entrances), IpAddr::V4(node_ip)));
    }
    components.start_knative(&control_plane, &config.cluster_domain, resolve, data_plane);
    let kubeconfig = control_plane.kubeconfig.display().to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut server = tokio::spawn(control_plane.serve(async {
        let _ = stopped.await;
    }));
    if let Some(name) = node_name {
        tokio::select! {
            () = components.node_ready(&name) => {}
            result = components.failed() => return result,
            () = ended(&mut signals) => return Ok(()),
        }
    }
    println!("clipper is ready after {:.2} s, kubeconfig {kubeconfig}", began.elapsed().as_secs_f64());
    if let Some((runtime, client)) = demo {
        let available = components.deployment_available(demo::NAMESPACE, demo::NAME);
        let demo = show_demo(&*runtime, &client, available, node_ip, &kubeconfig);
        tokio::select! {
            () = demo => {}
            result = components.failed() => return result,
            () = ended(&mut signals) => return Ok(()),
        }
    }
    let result = tokio::select! {
        () = ended(&mut signals) => Ok(()),
        result = components.failed() => result,
        result = &mut server => result.context("the API server ended"),
    };
    let _ = stop.send(());
    components.stop().await;
    if !server.is_finished() {
        server.await?;
    }
    result
}

/// Makes what a fresh cluster must hold.
async fn bootstrap(
    control_plane: &ControlPlane,
    config: &Config,
    node_ip: Ipv4Addr,
    has_node: bool,
) -> Result<()> {
    let mut objects = resources::bootstrap::objects(&resources::bootstrap::Settings {
        kubernetes_ip: config.service_cidr.address(1),
        server: (node_ip, config.api_port),
        dns_ip: config.cluster_dns,
        service_cidrs: vec![config.service_cidr.to_string()],
    });
    objects.extend(resources::knative::objects());
    if has_node {
        objects.extend(knative::objects(config, node_ip));
    }
    control_plane.bootstrap(&objects).await?;
    match has_node {
        true => knative::tell_address(&control_plane.loopback(), node_ip).await,
        false => Ok(()),
    }
}

/// Starts the sample application and says how to reach it. The node runs on where that does not work.
async fn show_demo(
    runtime: &dyn Runtime,
    client: &Client,
    available: impl Future<Output = ()>,
    node_ip: Ipv4Addr,
    kubeconfig: &str,
) {
    let started = async {
        let port = demo::start(runtime, client).await?;
        tokio::time::timeout(DEMO_MAX, available).await.with_context(|| {
            format!("it has no pods after {DEMO_MAX:?}: `clipper why deployment/{}` says why", demo::NAME)
        })?;
        anyhow::Ok(port)
    };
    match started.await {
        Ok(port) => println!("{}", demo::hints(node_ip, port, kubeconfig)),
        Err(error) => eprintln!("clipper: the sample application: {error:#}"),
    }
}

async fn ended((term, int): &mut (Signal, Signal)) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
