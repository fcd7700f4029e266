//! What services need to know of pods and nodes: narrow views, extracted once per change.
//!
//! Endpoints and EndpointSlices follow the same services and pods, so both loops share this.

use api::{LabelSelector, Object, ObjectName};
use client::{Caches, Context, Projection};
use futures::{StreamExt, stream::select};
use k8s_openapi::api::core::v1::{Node, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use std::net::IpAddr;
use std::sync::Arc;

/// A pod as services see it.
#[derive(Debug, PartialEq)]
pub(crate) struct Backend {
    pub(crate) name: ObjectName,
    pub(crate) uid: Box<str>,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) is_ready: bool,
    pub(crate) is_deleting: bool,
    pub(crate) node_name: Box<str>,
    pub(crate) hostname: Box<str>,
    pub(crate) subdomain: Box<str>,
    /// Name, protocol, number.
    pub(crate) ports: Vec<(Box<str>, Box<str>, i32)>,
}

impl Backend {
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(own, _)| (**own).cmp(key)).ok().map(|index| &*self.labels[index].1)
    }

    /// The number of a service's target port in this pod.
    pub(crate) fn port(&self, port: &ServicePort) -> Option<i32> {
        match &port.target_port {
            None => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let of_name = |own: &&(Box<str>, Box<str>, i32)| *own.0 == **name && *own.1 == *protocol;
                self.ports.iter().find(of_name).map(|(_, _, number)| *number)
            }
        }
    }

    /// Whether the service gives the pod a host name of its own.
    pub(crate) fn has_hostname_of(&self, service: &Service) -> bool {
        !self.hostname.is_empty()
            && Some(&*self.subdomain) == service.metadata.name.as_deref()
            && Some(&*self.name.namespace) == service.metadata.namespace.as_deref()
    }
}

#[derive(Deserialize)]
struct RawPod {
    #[serde(default)]
    spec: RawSpec,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    node_name: Box<str>,
    hostname: Box<str>,
    subdomain: Box<str>,
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    restart_policy: Option<String>,
    ports: Vec<RawPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: Box<str>,
    protocol: Option<Box<str>>,
    container_port: i32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<RawIp>,
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize)]
struct RawIp {
    #[serde(default)]
    ip: String,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The view of a pod; `None` if it never (again) serves: it has no address or has ended.
pub(crate) fn backend(object: &Object) -> Option<Backend> {
    let raw: RawPod = match object.decode() {
        Ok(raw) => raw,
        Err(error) => {
            tracing::error!(pod = %object.meta.key, %error, "a pod cannot be decoded");
            return None;
        }
    };
    if matches!(raw.status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let mut addresses: Vec<IpAddr> =
        raw.status.pod_ips.iter().filter_map(|own| own.ip.parse().ok()).collect();
    if addresses.is_empty() {
        addresses.extend(raw.status.pod_ip.parse::<IpAddr>().ok());
    }
    if addresses.is_empty() {
        return None;
    }
    let sidecars = raw.spec.init_containers.into_iter();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = raw.spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports);
    let ports = ports.filter(|port| !port.name.is_empty());
    let is_ready = raw.status.conditions.iter().any(|own| own.kind == "Ready" && own.status == "True");
    Some(Backend {
        name: object.meta.key.clone(),
        uid: object.meta.uid.clone(),
        labels: object.meta.labels.clone(),
        addresses,
        is_ready,
        is_deleting: object.meta.deleting,
        node_name: raw.spec.node_name,
        hostname: raw.spec.hostname,
        subdomain: raw.spec.subdomain,
        ports: ports
            .map(|port| (port.name, port.protocol.unwrap_or_else(|| "TCP".into()), port.container_port))
            .collect(),
    })
}

/// Which pods a service selects.
#[derive(PartialEq)]
pub(crate) struct Selecting {
    name: ObjectName,
    selector: LabelSelector,
}

/// The shared views.
#[derive(Clone)]
pub(crate) struct Backends {
    pods: Projection<Backend>,
    services: Projection<Selecting>,
    zones: Projection<String>,
}

impl Backends {
    pub(crate) fn new(caches: &Caches) -> Self {
        let selecting = |object: &Object| {
            let service: Service = object.decode().ok()?;
            let selector = selector(&service)?;
            Some(Selecting { name: object.meta.key.clone(), selector })
        };
        let zone = |object: &Object| object.meta.label("topology.kubernetes.io/zone").map(str::to_owned);
        Self {
            pods: caches.of::<Pod>().project(backend),
            services: caches.of::<Service>().project(selecting),
            zones: caches.of::<Node>().project(zone),
        }
    }

    /// The pods that a service selects.
    pub(crate) fn of(&self, namespace: &str, selector: &LabelSelector) -> Vec<Arc<Backend>> {
        let mut pods = self.pods.list(namespace);
        pods.retain(|pod| selector.matches(|label| pod.label(label)));
        pods
    }

    /// The zone of a node.
    pub(crate) fn zone(&self, node_name: &str) -> Option<String> {
        self.zones.get("", node_name).map(|zone| zone.to_string())
    }

    /// Puts the services of changed pods into the queue, for ever.
    pub(crate) async fn feed(self, context: Arc<Context>) {
        let pods = self.pods.subscribe().map(|delta| (delta.old, delta.new, None));
        let zones = self.zones.subscribe().map(|delta| (None, None, Some(delta.key.name)));
        let mut changes = select(pods, zones);
        while let Some((old, new, node)) = changes.next().await {
            let touched: Vec<Arc<Backend>> = match node {
                None => old.into_iter().chain(new).collect(),
                Some(node) => self.pods.list("").into_iter().filter(|pod| pod.node_name == node).collect(),
            };
            for pod in touched {
                for service in self.services.list(&pod.name.namespace) {
                    if service.selector.matches(|label| pod.label(label)) {
                        context.queue.add(service.name.clone());
                    }
                }
            }
        }
    }
}

/// What a service selects; `None` if somebody else says what is behind it.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty())?;
    (spec.type_.as_deref() != Some("ExternalName")).then(|| LabelSelector::from_map(selector))
}

/// Whether a service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    matches!(address, "" | "None")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Option<Backend> {
        let json = json!({"metadata": {"namespace": "n", "name": "a", "uid": "u", "labels": {"app": "x"}},
            "spec": {"nodeName": "m", "containers": [{"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 1}]}],
                "initContainers": [{"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9, "protocol": "UDP"}]},
                    {"ports": [{"name": "never", "containerPort": 2}]}]},
            "status": status});
        backend(&Object::parse(json.to_string().into()).unwrap())
    }

    #[test]
    fn only_a_pod_with_an_address_that_has_not_ended_is_a_backend() {
        assert!(pod(json!({"phase": "Pending"})).is_none());
        assert!(pod(json!({"phase": "Failed", "podIP": "10.0.0.1"})).is_none());
        let one = pod(
            json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}),
        );
        let one = one.unwrap();
        assert!(one.is_ready && !one.is_deleting);
        assert_eq!(one.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let two =
            pod(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})).unwrap();
        assert_eq!(two.addresses.len(), 2);
        assert!(!two.is_ready);
    }

    #[test]
    fn a_named_port_is_found_by_name_and_protocol() {
        let pod = pod(json!({"podIP": "10.0.0.1"})).unwrap();
        let check = |port: Value, expect: Option<i32>| {
            assert_eq!(pod.port(&serde_json::from_value(port).unwrap()), expect);
        };
        check(json!({"port": 5}), Some(5));
        check(json!({"port": 5, "targetPort": 7}), Some(7));
        check(json!({"port": 5, "targetPort": "web"}), Some(80));
        check(json!({"port": 5, "targetPort": "web", "protocol": "UDP"}), None);
        check(json!({"port": 5, "targetPort": "side", "protocol": "UDP"}), Some(9));
        check(json!({"port": 5, "targetPort": "never"}), None);
    }
}
