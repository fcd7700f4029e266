//! `clipper scheduler` and `clipper controllers`: one part of the control plane alone, for an API server elsewhere.

use crate::config::log_json;
use crate::kubeconfig;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use client::{Caches, Client, Clock, Context, Election, EventRecorder, Remote};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Where upstream's components hold their elections: who comes later waits, whether it is ours or theirs.
const ELECTION_NAMESPACE: &str = "kube-system";
/// Lengths of a node's prefix. Upstream: `--node-cidr-mask-size-ipv4` and `-ipv6`.
const NODE_PREFIX_IPV4: u8 = 24;
const NODE_PREFIX_IPV6: u8 = 64;

#[derive(Args)]
pub(crate) struct Apart {
    /// Where the API server is, and as whom to speak with it.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Format of the log [default: text].
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// Says more in the log; twice, everything.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Args)]
pub(crate) struct Controllers {
    #[command(flatten)]
    pub(super) apart: Apart,
    /// Certificate of the authority that signs for the cluster's own signers (PEM) [default: others sign].
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
    /// Gives every node a range of --cluster-cidr.
    #[arg(long, requires = "cluster_cidr")]
    allocate_node_cidrs: bool,
    /// Addresses of pods; one network, or one of each family.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', requires = "allocate_node_cidrs")]
    cluster_cidr: Vec<String>,
    /// Addresses of services, which no node gets.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', requires = "allocate_node_cidrs")]
    service_cluster_ip_range: Vec<String>,
    /// Length of a node's prefix [default: 24, and 64 for IPv6].
    #[arg(long, value_name = "BITS", requires = "allocate_node_cidrs")]
    node_cidr_mask_size: Option<u8>,
}

impl Apart {
    /// Starts the log.
    pub(super) fn start_log(&self) -> Result<()> {
        crate::log::start(log_json(self.log_format.as_deref())?, self.verbose);
        Ok(())
    }
}

impl Controllers {
    fn options(&self, root_ca: String) -> Result<controllers::Options> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let files = self.cluster_signing_cert_file.as_ref().zip(self.cluster_signing_key_file.as_ref());
        let signer = files.map(|(certificate, key)| {
            Ok::<_, anyhow::Error>(controllers::Signer::new(&read(certificate)?, &read(key)?)?)
        });
        Ok(controllers::Options { root_ca, signer: signer.transpose()?, node_ranges: self.node_ranges()? })
    }

    fn node_ranges(&self) -> Result<Vec<controllers::NodeRange>> {
        let range = |network: &String| {
            let usual = if network.contains(':') { NODE_PREFIX_IPV6 } else { NODE_PREFIX_IPV4 };
            let prefix = self.node_cidr_mask_size.unwrap_or(usual);
            controllers::NodeRange::new(network, prefix, &self.service_cluster_ip_range)
                .context("--cluster-cidr")
        };
        let ranges = self.cluster_cidr.iter().map(range).collect::<Result<Vec<_>>>()?;
        match &ranges[..] {
            [] | [_] => Ok(ranges),
            [one, other] if one.is_ipv6() != other.is_ipv6() => Ok(ranges),
            _ => bail!("--cluster-cidr: allowed are one network, or one of each family"),
        }
    }
}

/// Runs the scheduler until SIGTERM or SIGINT, while no other instance leads.
///
/// # Errors
/// The kubeconfig cannot be used, or leadership is lost.
pub(super) fn scheduler(own: &Apart) -> Result<()> {
    let remote = kubeconfig::read(&own.kubeconfig)?;
    run(remote, "kube-scheduler", "default-scheduler", |context, leading| {
        async move {
            let Context { client, caches, events, clock, .. } = context;
            tokio::select! {
                () = scheduler::run(client, caches, events, clock, scheduler::Options::default()) => {}
                () = leading.cancelled() => {}
            }
        }
        .boxed()
    })
}

/// Runs the controllers until SIGTERM or SIGINT, while no other instance leads.
///
/// # Errors
/// The kubeconfig or another setting cannot be used, or leadership is lost.
pub(super) fn controllers(own: &Controllers) -> Result<()> {
    let remote = kubeconfig::read(&own.apart.kubeconfig)?;
    let root_ca = String::from_utf8(remote.ca.clone()).context("the certificate-authority is not PEM")?;
    let options = own.options(root_ca)?;
    run(remote, "kube-controller-manager", "kube-controller-manager", |context, leading| {
        async move { controllers::run(&context, &options, leading).await }.boxed()
    })
}

/// `name` is upstream's: of the lease, and of the field manager. `source` is who events say they are from.
fn run(
    remote: Remote,
    name: &'static str,
    source: &'static str,
    work: impl FnOnce(Context, CancellationToken) -> BoxFuture<'static, ()>,
) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(lead(remote, name, source, work));
    runtime.shutdown_background();
    result
}

async fn lead(
    remote: Remote,
    name: &'static str,
    source: &'static str,
    work: impl FnOnce(Context, CancellationToken) -> BoxFuture<'static, ()>,
) -> Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let client = Client::remote(remote)?.named(name);
    let clock = Clock::system();
    let shutdown = CancellationToken::new();
    let identity = identity(&clock);
    let election = Election::new(client.clone(), clock.clone(), ELECTION_NAMESPACE, name, &identity);
    let election = election.lead(shutdown.clone(), |leading| {
        let events = EventRecorder::new(client.clone(), clock.clone(), source, "");
        let caches = Caches::new(client.clone());
        work(Context::new(client, caches, events, clock), leading)
    });
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        shutdown.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = election => {}
        () = stop => {}
    }
    if !shutdown.is_cancelled() {
        bail!("the lease {ELECTION_NAMESPACE}/{name} is lost: another instance may lead by now");
    }
    Ok(())
}

/// Differs between machines, processes and restarts.
fn identity(clock: &Clock) -> String {
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    let (host_name, process) = (host_name.to_string_lossy().into_owned(), std::process::id());
    format!("{host_name}_{process}_{:x}", clock.now().as_nanosecond())
}
