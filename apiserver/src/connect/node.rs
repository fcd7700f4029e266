//! Where a node's own API is. Upstream: `pkg/kubelet/client`.

use super::dial::Destination;
use api::status::ResourceId;
use api::{Lookup, Status};
use arc_swap::ArcSwap;
use rustls::ClientConfig;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The port where a node says none.
const PORT_DEFAULT: u16 = 10250;

/// Everything about reaching nodes, shared by all handlers of this folder.
pub struct Nodes {
    lookup: Arc<dyn Lookup>,
    tls: ArcSwap<ClientConfig>,
    pub(super) unverified: Arc<ClientConfig>,
    pub(super) streams: Arc<Semaphore>,
}

impl Nodes {
    /// `tls`: which certificates of nodes are trusted, and the certificate to show them.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(lookup: Arc<dyn Lookup>, tls: Arc<ClientConfig>) -> Result<Self, rustls::Error> {
        let streams = Arc::new(Semaphore::new(super::STREAMS_MAX));
        Ok(Self { lookup, tls: ArcSwap::new(tls), unverified: super::dial::tls_unverified()?, streams })
    }

    /// Shows nodes a renewed certificate from now on.
    pub fn renew(&self, tls: Arc<ClientConfig>) {
        self.tls.store(tls);
    }

    /// Where the API of a node is.
    ///
    /// # Errors
    /// 404, or 500 with upstream's words for a node without an address.
    pub(super) fn of(&self, name: &str) -> Result<Destination, Status> {
        let node = self.lookup.get("", "nodes", "", name);
        let id = ResourceId { group: "", plural: "nodes" };
        let node: Value =
            node.ok_or_else(|| Status::not_found(id, name))?.decode().map_err(Status::internal)?;
        let (address, port) = address(&node).ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found; known addresses: {}",
                node["status"]["addresses"]
            ))
        })?;
        Ok(Destination { address, port, tls: Some(self.tls.load_full()), name: None })
    }

    /// A place among the streams.
    ///
    /// # Errors
    /// 429 where there are too many.
    pub(super) fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        let permit = self.streams.clone().try_acquire_owned();
        permit.map_err(|_| Status::too_many_requests("too many streams, please try again later", 1))
    }

    pub(super) fn lookup(&self) -> &dyn Lookup {
        &*self.lookup
    }
}

/// Address and port of a node's API: the internal address before the external one.
fn address(node: &Value) -> Option<(IpAddr, u16)> {
    let of = |kind: &str| {
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let mut own = addresses.filter(|own| own["type"] == kind);
        own.find_map(|own| own["address"].as_str()?.parse().ok())
    };
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    Some((of("InternalIP").or_else(|| of("ExternalIP"))?, port.unwrap_or(PORT_DEFAULT)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_a_node_is() {
        let node = |addresses: Value, port: Value| json!({"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        let internal = json!({"type": "InternalIP", "address": "10.0.0.1"});
        let external = json!({"type": "ExternalIP", "address": "1.2.3.4"});
        let check = |node: Value, expect: Option<(&str, u16)>| {
            assert_eq!(address(&node), expect.map(|(address, port)| (address.parse().unwrap(), port)));
        };
        check(node(json!([external, internal]), json!(10251)), Some(("10.0.0.1", 10251)));
        check(node(json!([external]), Value::Null), Some(("1.2.3.4", 10250)));
        check(node(json!([{"type": "Hostname", "address": "n"}]), Value::Null), None);
    }
}
