//! `clipper up` and `clipper server`: settings, keys, parts; then wait for the signal to stop.

use crate::address;
use crate::components::Components;
use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::instance::Instance;
use crate::pki::Pki;
use anyhow::{Context as _, Result};
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a control plane in the foreground until SIGTERM or SIGINT.
///
/// # Errors
/// One line that says what, why, and what to do.
pub(super) fn server(config: &Config) -> Result<()> {
    let began = Instant::now();
    let _instance = Instance::claim(&config.data_dir)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(run_server(config, began))
}

async fn run_server(config: &Config, began: Instant) -> Result<()> {
    // Before anything is started: a signal during the start must not be lost.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let node_ip = config.node_ip.map_or_else(address::node_address, Ok)?;
    let pki = Arc::new(Pki::open(&config.data_dir.join("pki"))?);
    let control_plane = ControlPlane::start(config, pki.clone(), node_ip).await?;
    control_plane
        .bootstrap(&resources::bootstrap::objects(&resources::bootstrap::Settings {
            kubernetes_ip: config.service_cidr.address(1),
            server: (node_ip, config.api_port),
            dns_ip: config.cluster_dns,
            service_cidrs: vec![config.service_cidr.to_string()],
        }))
        .await?;
    let components = Components::start(&control_plane, &pki);
    let kubeconfig = control_plane.kubeconfig.display().to_string();
    println!("clipper is ready after {:.2} s, kubeconfig {kubeconfig}", began.elapsed().as_secs_f64());
    control_plane
        .serve(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        })
        .await;
    components.stop().await;
    Ok(())
}
