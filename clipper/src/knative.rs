//! Knative in this process: where its data plane listens, the objects by which clients find it, and the seams between it and the
//! node, which do not know each other.

use crate::config::Config;
use anyhow::{Context as _, Result};
use client::{Cache, Caches, Client, Patch};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Service;
use net::pod_network::PodNetwork;
use runtime::Runtime;
use serde_json::{Value, json};
use serving::data_plane::{Entrances, PodSockets};
use serving::digest::{Resolve, ResolveError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Which address of the services' range the data plane answers on, as DNS does on the tenth: so no port of the machine is taken.
const ADDRESS_INDEX: u32 = 11;
/// Where requests for hosts of the cluster arrive.
const LOCAL_PORT: u16 = 80;
/// Where requests for revisions without pods arrive. Upstream: the activator's port.
const ACTIVATOR_PORT: u16 = 8012;
/// Where events come in.
const EVENTS_PORT: u16 = 8280;
/// How many names may stand for one another.
const NAMES_MAX: usize = 8;
/// How long a tag may take to be resolved. Upstream: `config-deployment`, `digest-resolution-timeout`.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The namespace of Knative Serving.
const NAMESPACE: &str = "knative-serving";
/// The namespace of Knative Eventing.
const EVENTING: &str = "knative-eventing";

/// The address within the cluster at which the data plane answers.
pub fn address(config: &Config) -> Ipv4Addr {
    config.service_cidr.address(ADDRESS_INDEX)
}

/// Opens what the data plane listens on.
///
/// # Errors
/// A port is taken: says which, and what to do.
pub async fn entrances(config: &Config, node_ip: Ipv4Addr) -> Result<Entrances> {
    let own = address(config);
    let external = TcpListener::bind((node_ip, config.http_port)).await.with_context(|| {
        format!(
            "port {} cannot be bound: stop what uses it, or choose another with --http-port",
            config.http_port
        )
    })?;
    let listen = async |port: u16| {
        TcpListener::bind((own, port)).await.with_context(|| format!("{own}:{port} cannot be bound"))
    };
    Ok(Entrances { external, local: listen(LOCAL_PORT).await?, activator: listen(ACTIVATOR_PORT).await? })
}

/// The services by which clients find the data plane, and where they lead to.
pub fn objects(config: &Config, node_ip: Ipv4Addr) -> Vec<Value> {
    let own = address(config);
    let mut objects = Vec::new();
    let external = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "ports": [{"name": "http2", "port": 80, "targetPort": config.http_port, "protocol": "TCP"}]});
    service(&mut objects, (NAMESPACE, "clipper-gateway"), external, node_ip, &[("http2", config.http_port)]);
    let local = json!({"clusterIP": own, "clusterIPs": [own],
        "ports": [{"name": "http2", "port": 80, "targetPort": LOCAL_PORT, "protocol": "TCP"}]});
    service(&mut objects, (NAMESPACE, "clipper-local-gateway"), local, own, &[("http2", LOCAL_PORT)]);
    let activator = json!({"ports": [
        {"name": "http", "port": 80, "targetPort": ACTIVATOR_PORT, "protocol": "TCP"},
        {"name": "http2", "port": 81, "targetPort": ACTIVATOR_PORT, "protocol": "TCP"}]});
    let ports = [("http", ACTIVATOR_PORT), ("http2", ACTIVATOR_PORT)];
    service(&mut objects, (NAMESPACE, "activator-service"), activator, own, &ports);
    for name in ["broker-ingress", "imc-dispatcher"] {
        let events = json!({"ports": [
            {"name": "http", "port": 80, "targetPort": EVENTS_PORT, "protocol": "TCP"}]});
        service(&mut objects, (EVENTING, name), events, own, &[("http", EVENTS_PORT)]);
    }
    objects
}

/// Says at the gateway's service which address clients from outside dial.
///
/// # Errors
/// The server refuses.
pub async fn tell_address(client: &Client, node_ip: Ipv4Addr) -> Result<()> {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": node_ip, "ipMode": "VIP"}]}}});
    let services = client.namespaced::<Service>(NAMESPACE);
    let told = services.patch_sub("clipper-gateway", "status", Patch::Merge(status)).await;
    told.context("the gateway's service refuses its address")?;
    Ok(())
}

/// A service without selector and the slice of its one endpoint.
fn service(
    objects: &mut Vec<Value>,
    (namespace, name): (&str, &str),
    spec: Value,
    to: Ipv4Addr,
    ports: &[(&str, u16)],
) {
    let labels = json!({"app.kubernetes.io/name": namespace, "app": name});
    objects.push(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec}));
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"})).collect();
    objects.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-clipper"), "namespace": namespace, "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "clipper"}},
        "endpoints": [{"addresses": [to], "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": ports}));
}

/// Digests of tags, from the images of this node or their registries.
pub struct Digests(pub Arc<dyn Runtime>);

impl Resolve for Digests {
    fn resolve<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<String, ResolveError>> {
        Box::pin(async move {
            let failed = |reason: String| ResolveError { image: image.to_owned(), reason };
            match tokio::time::timeout(RESOLVE_TIMEOUT, self.0.resolve_image(image)).await {
                Ok(Ok(digest)) => Ok(digest),
                Ok(Err(error)) => Err(failed(error.to_string())),
                Err(_) => Err(failed(format!("no answer within {RESOLVE_TIMEOUT:?}"))),
            }
        })
    }
}

/// Opens what events come in by.
///
/// # Errors
/// The port is taken.
pub async fn events(config: &Config) -> Result<TcpListener> {
    let own = address(config);
    TcpListener::bind((own, EVENTS_PORT))
        .await
        .with_context(|| format!("{own}:{EVENTS_PORT} cannot be bound"))
}

/// Names of destinations: services of the cluster, and whatever the machine knows.
pub struct Names {
    services: Cache<Service>,
    cluster_domain: String,
}

impl Names {
    /// Over the process's caches.
    pub fn new(caches: &Caches, cluster_domain: &str) -> Self {
        Self { services: caches.of::<Service>(), cluster_domain: cluster_domain.to_owned() }
    }

    /// What a service of the cluster leads to: an address, or another name; `None` for names of others.
    fn service(&self, host: &str) -> Option<Result<IpAddr, String>> {
        let host = host.strip_suffix(&format!(".{}", self.cluster_domain)).unwrap_or(host);
        let (name, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
        let spec = self.services.read(namespace, name)?.spec?;
        match spec.external_name.filter(|own| !own.is_empty()) {
            Some(other) => Some(Err(other)),
            None => Some(Ok(spec.cluster_ip?.parse().ok()?)),
        }
    }
}

impl eventing::delivery::Resolve for Names {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<SocketAddr>> {
        let mut host = host.to_owned();
        for _ in 0..NAMES_MAX {
            match self.service(&host) {
                Some(Ok(address)) => {
                    return Box::pin(async move { Ok(SocketAddr::new(address, port)) });
                }
                Some(Err(other)) => host = other,
                None => break,
            }
        }
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await?.next();
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }
}

/// Sockets within the pods of a network.
pub struct Sockets(pub Arc<PodNetwork>);

impl PodSockets for Sockets {
    fn address<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Option<IpAddr>> {
        Box::pin(async move { self.0.get(pod_uid).await.map(|attached| IpAddr::V4(attached.address)) })
    }

    fn listen<'a>(&'a self, pod_uid: &'a str, port: u16) -> BoxFuture<'a, io::Result<std::net::TcpListener>> {
        Box::pin(self.0.listen(pod_uid, port))
    }

    fn connect<'a>(&'a self, pod_uid: &'a str, port: u16) -> BoxFuture<'a, io::Result<TcpStream>> {
        Box::pin(self.0.connect(pod_uid, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_a_slice_of_its_own() {
        let config = crate::config::Flags::default().resolve("host").unwrap();
        let objects = objects(&config, Ipv4Addr::new(192, 0, 2, 1));
        let names: Vec<_> = objects.iter().map(|own| own["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "clipper-gateway",
                "clipper-gateway-clipper",
                "clipper-local-gateway",
                "clipper-local-gateway-clipper",
                "activator-service",
                "activator-service-clipper",
                "broker-ingress",
                "broker-ingress-clipper",
                "imc-dispatcher",
                "imc-dispatcher-clipper"
            ]
        );
        assert_eq!(objects[1]["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
        assert_eq!(objects[2]["spec"]["clusterIP"], "10.43.0.11");
    }
}
