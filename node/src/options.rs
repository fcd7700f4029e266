//! What a node is told when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What a node is told when it starts.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Name of the node in the API.
    pub name: String,
    /// Addresses of this machine, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Where volumes and small files of pods lie (`<data>/volumes`).
    pub volume_directory: PathBuf,
    /// Where logs of containers lie (`<data>/logs/pods`).
    pub log_directory: PathBuf,
    /// The control group above all pods, from the root of the hierarchy (`/clipper-ab12/kubepods`); of this instance alone.
    pub cgroup_parent: String,
    /// Addresses of the cluster's resolver; none where there is none.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// The machine's `resolv.conf`.
    pub resolv_conf: PathBuf,
    /// How many pods it takes.
    pub pods_max: u32,
    /// Kept back for the system, by resource (`cpu`, `memory`, `ephemeral-storage`), as quantities.
    pub reserved: BTreeMap<String, String>,
    /// When pods are evicted and images collected.
    pub eviction: EvictionThresholds,
    /// Labels besides those that every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints that a new node is registered with.
    pub taints: Vec<Taint>,
    /// `spec.podCIDRs` that a new node is registered with; empty where a controller gives them.
    pub pod_cidrs: Vec<String>,
    /// Containers that say nothing get the runtime's default seccomp profile.
    pub seccomp_default: bool,
    /// Sysctls beyond the safe ones that pods may set; a name may end in `*`.
    pub unsafe_sysctls: Vec<String>,
    /// Handlers of runtime classes that this node has.
    pub runtime_handlers: BTreeSet<String>,
    /// `v1.37.2+clipper.0.1.0`.
    pub kubelet_version: String,
    /// `clipper://0.1.0`.
    pub runtime_version: String,
    /// The HTTPS API; `None` runs without one.
    pub server: Option<ServerOptions>,
}

impl NodeOptions {
    /// The defaults of everything that has one.
    pub fn new(
        name: impl Into<String>,
        data_directory: &std::path::Path,
        cgroup_parent: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            addresses: Vec::new(),
            volume_directory: data_directory.join("volumes"),
            log_directory: data_directory.join("logs/pods"),
            cgroup_parent: cgroup_parent.into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            pods_max: 110,
            reserved: BTreeMap::new(),
            eviction: EvictionThresholds::default(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            pod_cidrs: Vec::new(),
            seccomp_default: true,
            unsafe_sysctls: Vec::new(),
            runtime_handlers: ["", "clipper", "runc"].into_iter().map(str::to_owned).collect(),
            kubelet_version: "v1.37.2".to_owned(),
            runtime_version: concat!("clipper://", env!("CARGO_PKG_VERSION")).to_owned(),
            server: None,
        }
    }
}

/// A taint that a new node is registered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// When pods are evicted and images collected. Upstream: `evictionHard`, `imageGCHighThresholdPercent`; that a share of a disk stops to
/// count where there is plenty left is our own (`docs/adr/0006-disk-thresholds-have-a-ceiling.md`).
#[derive(Clone, Copy, Debug)]
pub struct EvictionThresholds {
    /// Less free memory than this evicts pods, in bytes.
    pub memory_bytes_min: u64,
    /// Less free disk under volumes and logs than this share is pressure, in percent.
    pub disk_percent_min: u8,
    /// With this much free there is no pressure, whatever the share, in bytes.
    pub disk_bytes_enough: u64,
    /// Fewer free inodes there than this share is pressure, in percent.
    pub inodes_percent_min: u8,
    /// A fuller disk under images than this starts collecting images, in percent.
    pub image_percent_high: u8,
    /// Collecting images stops below this, in percent.
    pub image_percent_low: u8,
    /// With this much free no image is collected, whatever the share, in bytes.
    pub image_bytes_enough: u64,
}

impl EvictionThresholds {
    /// What has to stay free of a disk of `bytes`.
    pub(crate) fn disk_bytes_min(&self, bytes: u64) -> u64 {
        (bytes / 100 * u64::from(self.disk_percent_min)).min(self.disk_bytes_enough)
    }
}

impl Default for EvictionThresholds {
    fn default() -> Self {
        Self {
            memory_bytes_min: 100 << 20,
            disk_percent_min: 10,
            disk_bytes_enough: 1 << 30,
            inodes_percent_min: 5,
            image_percent_high: 85,
            image_percent_low: 80,
            image_bytes_enough: 8 << 30,
        }
    }
}

/// The HTTPS API of the node.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where it listens; upstream's port is 10250.
    pub listen: SocketAddr,
    /// Certificates; client certificates are asked for but not required (others show a token).
    /// New connections use what it holds at that moment: a renewed certificate needs no restart.
    pub tls: watch::Receiver<Arc<rustls::ServerConfig>>,
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("listen", &self.listen).finish_non_exhaustive()
    }
}
