//! The node of this process: runtime, pod network, service proxy, DNS and node agent on this machine, and taking all of it
//! down again.

use crate::config::{Cidr, Config};
use crate::knative::Sockets;
use crate::pki::{Leaf, Pki};
use crate::pod_network::Pods;
use anyhow::{Context as _, Result};
use client::{Caches, Client};
use futures::future::BoxFuture;
use net::pod_network::{self, PodNetwork};
use net::{Instance, dns, proxy};
use node::{NodeOptions, ServerOptions};
use runtime::cgroup::Cgroups;
use runtime::{Engine, EngineConfig, Runtime};
use serving::data_plane::{DataPlane, PodSockets};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where the node's API listens.
const NODE_PORT: u16 = 10250;
/// Where DNS listens.
const DNS_PORT: u16 = 53;
/// Bits of the pod addresses of one node. Upstream: `--node-cidr-mask-size`.
const NODE_PREFIX_BITS: u8 = 24;
/// The largest packet on the pods' links: what Ethernet carries.
const MTU_BYTES: u32 = 1500;
/// Network namespaces that are ready before a pod asks: a burst finds them made.
const WARM_NAMESPACES: usize = 8;
/// How many pods a node takes: the addresses of a /24 but for network, gateway and broadcast would allow more. Upstream: `--max-pods`.
const PODS_MAX: u32 = 110;

/// Where things of one data directory are, and what they are called on the machine.
#[derive(Clone, Debug)]
pub struct Place {
    data_dir: PathBuf,
    instance: Instance,
}

impl Place {
    /// Of a data directory that exists.
    ///
    /// # Errors
    /// It does not exist.
    pub fn of(data_dir: &Path) -> Result<Self> {
        // The same directory must have the same name whatever links lead to it.
        let data_dir =
            data_dir.canonicalize().with_context(|| format!("cannot resolve {}", data_dir.display()))?;
        let instance = Instance::of_path(&data_dir);
        Ok(Self { data_dir, instance })
    }

    /// The control group of everything that this instance runs.
    fn cgroup(&self) -> String {
        format!("/clipper-{}", self.instance.as_str())
    }

    fn volumes(&self) -> PathBuf {
        self.data_dir.join("volumes")
    }

    fn namespaces(&self) -> PathBuf {
        self.data_dir.join("run/netns")
    }
}

/// Opens the runtime over a data directory and adopts what runs there.
///
/// # Errors
/// The directory or the machine cannot be used.
pub async fn open_runtime(place: &Place) -> Result<Engine> {
    let config = EngineConfig { directory: place.data_dir.clone(), plain_http_registries: Vec::new() };
    Engine::open(config).await.context("the container runtime cannot start")
}

/// A node that is about to run.
pub struct LocalNode {
    name: String,
    options: NodeOptions,
    engine: Arc<Engine>,
    network: Arc<PodNetwork>,
    proxy: proxy::Options,
    dns: dns::Options,
    serving: Serving,
}

/// What is needed to renew the certificate of the node's API.
struct Serving {
    pki: Arc<Pki>,
    name: String,
    address: IpAddr,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
}

impl Serving {
    fn tls(pki: &Pki, name: &str, address: IpAddr) -> Result<Arc<rustls::ServerConfig>> {
        let common_name = format!("system:node:{name}");
        let leaf = Leaf {
            common_name: &common_name,
            organizations: &["system:nodes"],
            dns_names: vec![name.to_owned()],
            addresses: vec![address],
        };
        let pair = pki.ensure("kubelet", &leaf, OffsetDateTime::now_utc())?;
        Ok(Arc::new(apiserver::serve::tls(&pair.certificate_pem, &pair.key_pem, pki.ca_pem())?))
    }

    async fn renew(self) {
        loop {
            tokio::time::sleep(crate::pki::renewal_interval()).await;
            match Self::tls(&self.pki, &self.name, self.address) {
                Ok(config) => _ = self.tls.send_replace(config),
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "the node's certificate cannot be renewed");
                }
            }
        }
    }
}

/// A task of the node by its name.
pub type Task = (&'static str, BoxFuture<'static, Result<()>>);

impl LocalNode {
    /// Makes the pod network; the rest is started by [`LocalNode::tasks`].
    ///
    /// # Errors
    /// What the machine refuses.
    pub async fn open(
        config: &Config,
        place: &Place,
        pki: Arc<Pki>,
        node_ip: Ipv4Addr,
        engine: Engine,
    ) -> Result<Self> {
        let node_cidr = node_cidr(config.cluster_cidr);
        let cluster_cidr = net_cidr(config.cluster_cidr)?;
        let service_cidr = net_cidr(config.service_cidr)?;
        let network = PodNetwork::open(pod_network::Options {
            instance: place.instance.clone(),
            folder: place.namespaces(),
            node_cidr: net_cidr(node_cidr)?,
            cluster_cidr,
            service_cidr: Some(service_cidr),
            local_addresses: vec![config.cluster_dns, crate::knative::address(config)],
            mtu: MTU_BYTES,
            warm_len: WARM_NAMESPACES,
        })
        .await
        .context("the pod network cannot be made")?;
        let (name, address) = (config.node_name.clone(), IpAddr::V4(node_ip));
        let (tls, renewed) = watch::channel(Serving::tls(&pki, &name, address)?);
        let mut options =
            NodeOptions::new(name.clone(), &place.data_dir, format!("{}/kubepods", place.cgroup()));
        options.addresses = vec![address];
        options.cluster_dns = vec![IpAddr::V4(config.cluster_dns)];
        options.cluster_domain.clone_from(&config.cluster_domain);
        options.pods_max = PODS_MAX;
        options.pod_cidrs = vec![node_cidr.to_string()];
        options.kubelet_version = apiserver::health::GIT_VERSION.to_owned();
        options.server = Some(ServerOptions { listen: ([0, 0, 0, 0], NODE_PORT).into(), tls: renewed });
        let forward_to = resolvers(&options.resolv_conf, config.cluster_dns);
        Ok(Self {
            proxy: proxy::Options {
                instance: place.instance.clone(),
                node_name: name.clone(),
                cluster_cidr: Some(cluster_cidr),
                service_cidrs: vec![service_cidr],
                served_here: vec![config.cluster_dns, crate::knative::address(config)],
            },
            dns: dns::Options {
                listen: (config.cluster_dns, DNS_PORT).into(),
                domain: config.cluster_domain.clone(),
                forward_to,
            },
            serving: Serving { pki, name: name.clone(), address, tls },
            name,
            options,
            engine: Arc::new(engine),
            network: Arc::new(network),
        })
    }

    /// Name of the node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs its containers.
    pub fn runtime(&self) -> Arc<dyn Runtime> {
        self.engine.clone()
    }

    /// Sockets inside its pods.
    pub fn sockets(&self) -> Arc<dyn PodSockets> {
        Arc::new(Sockets(self.network.clone()))
    }

    /// What runs until `stop`: node agent, service proxy, DNS, and the renewal of the node's certificate. `client` is the node's
    /// own identity; `caches` are the process's; `data_plane` hears of pods before their containers start.
    pub fn tasks(
        self,
        client: Client,
        caches: &Caches,
        data_plane: DataPlane,
        stop: CancellationToken,
    ) -> Vec<Task> {
        let (engine, network) = (self.engine, Arc::new(Pods::new(self.network, data_plane)));
        let agent = node::run(self.options, client, caches.clone(), engine, network, stop);
        let proxy = proxy::run(caches.clone(), self.proxy);
        let dns = dns::run(caches.clone(), self.dns);
        let renewal = self.serving.renew();
        vec![
            ("kubelet", Box::pin(async { Ok(agent.await?) })),
            ("proxy", Box::pin(async { Ok(proxy.await?) })),
            ("dns", Box::pin(async { dns.await.context("DNS cannot be served") })),
            (
                "kubelet-certificate",
                Box::pin(async {
                    renewal.await;
                    Ok(())
                }),
            ),
        ]
    }
}

/// Removes everything of the data directory's node from the machine: containers, network, rules, volumes, control groups. Images and
/// logs stay. The process of the data directory must have ended. May be repeated.
///
/// # Errors
/// What the system refuses; the rest is tried nevertheless, and the first error is told.
pub async fn down(place: &Place) -> Result<()> {
    let containers = async {
        let engine = open_runtime(place).await?;
        engine.remove_all().await.context("some containers cannot be removed")
    };
    let containers = containers.await;
    let network = pod_network::down(&place.instance, &place.namespaces()).await;
    let network = network.context("the pod network cannot be removed");
    let rules = proxy::remove(&place.instance).context("the rules of services cannot be removed");
    let volumes = node::remove_volumes(&place.volumes()).context("some volumes cannot be removed");
    let (cgroup, groups) = (place.cgroup(), Cgroups::detect()?);
    let cgroups = tokio::task::spawn_blocking(move || groups.remove(&cgroup)).await?;
    let cgroups = cgroups.context("the control groups cannot be removed");
    containers.and(network).and(rules).and(volumes).and(cgroups)
}

/// The pod addresses of the first node.
fn node_cidr(cluster: Cidr) -> Cidr {
    Cidr { network: cluster.network, prefix: cluster.prefix.max(NODE_PREFIX_BITS) }
}

fn net_cidr(cidr: Cidr) -> Result<net::Cidr> {
    Ok(cidr.to_string().parse()?)
}

/// The machine's own name servers, without the cluster's.
fn resolvers(resolv_conf: &Path, own: Ipv4Addr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    name_servers(&text)
        .filter(|address| *address != IpAddr::V4(own))
        .map(|ip| (ip, DNS_PORT).into())
        .collect()
}

fn name_servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text =
            "# comment\nsearch a.b\nnameserver 10.0.0.1\nnameserver ::1\nnameserver wrong\noptions ndots:5\n";
        let found: Vec<_> = name_servers(text).collect();
        assert_eq!(found, [IpAddr::from([10, 0, 0, 1]), "::1".parse().unwrap()]);
    }

    #[test]
    fn a_node_gets_a_24_of_a_larger_range() {
        let check = |cluster: &str, node: &str| {
            assert_eq!(node_cidr(Cidr::parse(cluster).unwrap()).to_string(), node);
        };
        check("10.42.0.0/16", "10.42.0.0/24");
        check("10.42.0.0/26", "10.42.0.0/26");
    }
}
