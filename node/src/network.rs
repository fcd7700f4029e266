//! What gives pods their network: the seam to a pod network, which the kubelet does not know.

use futures::future::BoxFuture;
use std::net::IpAddr;
use std::path::PathBuf;

/// Gives pods their network.
///
/// # Guarantees
/// `attach` of a pod that is attached answers what it answered before, also after a restart. `detach` may be repeated.
pub trait PodNetwork: Send + Sync + 'static {
    /// Makes the pod's network namespace with its addresses and ports of the machine.
    fn attach<'a>(&'a self, pod: &'a PodAttachment) -> BoxFuture<'a, Result<Attached, NetworkError>>;

    /// Gives up what `attach` made for the pod with this uid.
    fn detach<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>>;

    /// The uids of all pods that are attached, for removing what nobody needs any more.
    fn attached(&self) -> BoxFuture<'_, Result<Vec<String>, NetworkError>>;

    /// Whether pods can be attached now, else why not, in words for the node's `Ready` condition.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A pod that wants a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAttachment {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid, by which it is detached.
    pub uid: String,
    /// Ports of the machine that lead to it.
    pub host_ports: Vec<HostPort>,
    /// Its annotations that speak of bandwidth, in bits per second (`kubernetes.io/ingress-bandwidth` and `egress-bandwidth`).
    pub ingress_bits_per_second: Option<u64>,
    /// See `ingress_bits_per_second`.
    pub egress_bits_per_second: Option<u64>,
}

/// A port of the machine that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// On which address of the machine; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// On the machine.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// A pod's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The path of its network namespace.
    pub namespace_path: PathBuf,
    /// Its addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
}

/// Why a pod cannot have its network.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct NetworkError(#[from] pub Box<dyn std::error::Error + Send + Sync>);
