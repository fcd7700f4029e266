//! The seam between node agent and pod network, which do not know each other.

use futures::future::BoxFuture;
use net::Protocol;
use net::pod_network::{self, PodNetwork};
use node::{Attached, HostPort, NetworkError, PodAttachment};
use serving::data_plane::DataPlane;
use std::net::IpAddr;
use std::sync::Arc;

/// The pod network as the node agent wants it. The data plane of Knative Serving hears of pods before their containers start.
pub struct Pods {
    network: Arc<PodNetwork>,
    data_plane: DataPlane,
}

impl Pods {
    /// Over an opened pod network.
    pub fn new(network: Arc<PodNetwork>, data_plane: DataPlane) -> Self {
        Self { network, data_plane }
    }
}

/// A port that cannot be opened on this network.
#[derive(Debug, thiserror::Error)]
#[error(
    "host port {port} of protocol {protocol} on {address:?} cannot be opened: this network is IPv4 with TCP, UDP and SCTP"
)]
struct NoHostPort {
    port: u16,
    protocol: String,
    address: Option<IpAddr>,
}

fn host_port(port: &HostPort) -> Result<pod_network::HostPort, NoHostPort> {
    let refused =
        || NoHostPort { port: port.host_port, protocol: port.protocol.clone(), address: port.host_ip };
    let host_address = match port.host_ip {
        None => None,
        Some(IpAddr::V4(address)) if address.is_unspecified() => None,
        Some(IpAddr::V4(address)) => Some(address),
        Some(IpAddr::V6(_)) => return Err(refused()),
    };
    Ok(pod_network::HostPort {
        host_address,
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: Protocol::parse(&port.protocol).ok_or_else(refused)?,
    })
}

fn wrapped(error: impl std::error::Error + Send + Sync + 'static) -> NetworkError {
    NetworkError(Box::new(error))
}

impl node::PodNetwork for Pods {
    fn attach<'a>(&'a self, pod: &'a PodAttachment) -> BoxFuture<'a, Result<Attached, NetworkError>> {
        Box::pin(async move {
            let ports: Vec<_> =
                pod.host_ports.iter().map(host_port).collect::<Result<_, _>>().map_err(wrapped)?;
            let attached = self.network.attach(&pod.uid, &ports).await.map_err(wrapped)?;
            self.data_plane.pod_attached(&pod.namespace, &pod.name, &pod.uid).await;
            Ok(Attached {
                namespace_path: attached.namespace_path,
                addresses: vec![IpAddr::V4(attached.address)],
            })
        })
    }

    fn detach<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<(), NetworkError>> {
        Box::pin(async move {
            self.data_plane.pod_detached(uid);
            self.network.detach(uid).await.map_err(wrapped)
        })
    }

    fn attached(&self) -> BoxFuture<'_, Result<Vec<String>, NetworkError>> {
        Box::pin(async move { Ok(self.network.list().await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_are_translated_or_refused() {
        let port = |host_ip: Option<&str>, protocol: &str| HostPort {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 80,
            container_port: 8080,
            protocol: protocol.to_owned(),
        };
        assert_eq!(host_port(&port(None, "TCP")).unwrap().host_address, None);
        assert_eq!(host_port(&port(Some("0.0.0.0"), "UDP")).unwrap().host_address, None);
        let own = host_port(&port(Some("127.0.0.1"), "SCTP")).unwrap();
        assert_eq!((own.host_address, own.protocol), (Some([127, 0, 0, 1].into()), Protocol::Sctp));
        assert!(host_port(&port(Some("::1"), "TCP")).is_err());
        assert!(host_port(&port(None, "ICMP")).is_err());
    }
}
