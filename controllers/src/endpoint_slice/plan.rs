//! Which endpoints a service has. Pure.

use super::pack::Groups;
use crate::backend::{Backend, is_headless};
use crate::owner::name_of;
use client::controller_reference;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The address families in which a service has endpoints.
fn address_types(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let families = spec.and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let known: Vec<_> = families
        .iter()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !known.is_empty() {
        return known;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => vec!["IPv4"],
        Ok(IpAddr::V6(_)) => vec!["IPv6"],
        Err(_) => vec!["IPv4", "IPv6"],
    }
}

/// The endpoints of a service, by address family and ports. `zone` tells the zone of a node.
pub(crate) fn groups(
    service: &Service,
    pods: &[Arc<Backend>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Groups {
    let mut groups = Groups::default();
    for address_type in address_types(service) {
        for pod in pods {
            let addresses =
                pod.addresses.iter().filter(|address| address.is_ipv4() == (address_type == "IPv4"));
            let addresses: Vec<_> = addresses.map(ToString::to_string).collect();
            if !addresses.is_empty() {
                let endpoint = endpoint(service, pod, addresses, zone(&pod.node_name));
                groups.group(address_type, ports(service, pod)).endpoints.push(endpoint);
            }
        }
        if !groups.has_type(address_type) {
            // Consumers see that the service is known and has nothing behind it.
            groups.group(address_type, Vec::new());
        }
    }
    groups
}

fn ports(service: &Service, pod: &Backend) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let known = ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(pod.port(port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    known.collect()
}

fn endpoint(service: &Service, pod: &Backend, addresses: Vec<String>, zone: Option<String>) -> Endpoint {
    let spec = service.spec.as_ref();
    let publishes_all = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let is_ready = publishes_all || (pod.is_ready && !pod.is_deleting);
    let node_name = (!pod.node_name.is_empty()).then(|| pod.node_name.to_string());
    let distribution = spec.and_then(|spec| spec.traffic_distribution.as_deref()).filter(|_| is_ready);
    let hints = hints(distribution, zone.as_deref(), node_name.as_deref());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            serving: Some(pod.is_ready),
            terminating: Some(pod.is_deleting),
        }),
        hints,
        hostname: pod.has_hostname_of(service).then(|| pod.hostname.to_string()),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.name.namespace.to_string()),
            name: Some(pod.name.name.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    }
}

/// From where traffic should come, as the service wishes. Upstream: endpointslice `trafficdist`.
fn hints(distribution: Option<&str>, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    match distribution? {
        "PreferClose" | "PreferSameZone" if for_zones.is_some() => {
            Some(EndpointHints { for_zones, for_nodes: None })
        }
        "PreferSameNode" => node.map(|node| EndpointHints {
            for_zones,
            for_nodes: Some(vec![ForNode { name: node.to_owned() }]),
        }),
        _ => None,
    }
}

/// The metadata of the slices of a service.
pub(crate) fn meta(service: &Service) -> ObjectMeta {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()));
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let name = name_of(&service.metadata);
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    }
}
