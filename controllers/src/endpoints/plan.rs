//! The older form of what is behind a service. Pure.

use crate::backend::{Backend, is_headless};
use crate::endpoint_slice::plan::HEADLESS;
use crate::template::canonical;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// More addresses are cut off. Upstream: `maxCapacity`.
const ADDRESSES_LEN_MAX: usize = 1000;

/// One address, by the order in which upstream shows them.
type Key = (IpAddr, String);

/// Which addresses a port has, ready or not.
type Of = BTreeMap<Key, (EndpointAddress, bool)>;

/// The subsets of a service: ports that have the same addresses share one.
pub(crate) fn subsets(service: &Service, pods: &[Arc<Backend>]) -> Vec<EndpointSubset> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let publishes_all = spec.publish_not_ready_addresses == Some(true);
    let wants_six =
        spec.ip_families.as_deref().and_then(<[String]>::first).is_some_and(|family| family == "IPv6");
    let mut by_port: BTreeMap<Option<String>, (Option<EndpointPort>, Of)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| publishes_all || !pod.is_deleting) {
        let Some(address) = pod.addresses.iter().find(|address| address.is_ipv6() == wants_six) else {
            continue;
        };
        let made = (endpoint_address(service, pod, *address), publishes_all || pod.is_ready);
        let ports = spec.ports.as_deref().unwrap_or_default();
        let mut found: Vec<Option<EndpointPort>> = Vec::new();
        if ports.is_empty() && is_headless(service) {
            found.push(None);
        }
        for port in ports {
            if let Some(number) = pod.port(port) {
                found.push(Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: number,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                }));
            }
        }
        for port in found {
            let key = port.as_ref().map(|port| canonical(port).to_string());
            let entry = by_port.entry(key).or_insert_with(|| (port, Of::new()));
            entry.1.insert((*address, pod.uid.to_string()), made.clone());
        }
    }
    join(by_port.into_values())
}

fn endpoint_address(service: &Service, pod: &Backend, address: IpAddr) -> EndpointAddress {
    EndpointAddress {
        ip: address.to_string(),
        hostname: pod.has_hostname_of(service).then(|| pod.hostname.to_string()),
        node_name: (!pod.node_name.is_empty()).then(|| pod.node_name.to_string()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.name.namespace.to_string()),
            name: Some(pod.name.name.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        }),
    }
}

/// Joins ports with the same addresses.
fn join(by_port: impl Iterator<Item = (Option<EndpointPort>, Of)>) -> Vec<EndpointSubset> {
    let mut joined: BTreeMap<BTreeSet<(Key, bool)>, (Vec<EndpointPort>, Of)> = BTreeMap::new();
    for (port, addresses) in by_port {
        let set = addresses.iter().map(|(key, (_, ready))| (key.clone(), *ready)).collect();
        joined.entry(set).or_insert_with(|| (Vec::new(), addresses)).0.extend(port);
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    let subset = |(ports, addresses): (Vec<EndpointPort>, Of)| {
        let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_values().partition(|(_, ready)| *ready);
        let plain =
            |list: Vec<(EndpointAddress, bool)>| list.into_iter().map(|(address, _)| address).collect();
        EndpointSubset {
            addresses: some(plain(ready)),
            not_ready_addresses: some(plain(not_ready)),
            ports: (!ports.is_empty()).then_some(ports),
        }
    };
    joined.into_values().map(subset).collect()
}

/// The object as it should be, made from what it is.
pub(crate) fn wanted(current: Option<&Endpoints>, service: &Service, pods: &[Arc<Backend>]) -> Endpoints {
    let mut endpoints = current.cloned().unwrap_or_default();
    let mut subsets = subsets(service, pods);
    let is_cut = cut(&mut subsets);
    endpoints.metadata.name = service.metadata.name.clone();
    endpoints.metadata.namespace = service.metadata.namespace.clone();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    endpoints.metadata.labels = Some(labels);
    if is_cut {
        let annotations = endpoints.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = &mut endpoints.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

/// Cuts off what is too much, addresses that are not ready first.
fn cut(subsets: &mut [EndpointSubset]) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize =
        subsets.iter().map(|subset| count(&subset.addresses) + count(&subset.not_ready_addresses)).sum();
    if total <= ADDRESSES_LEN_MAX {
        return false;
    }
    let mut room = ADDRESSES_LEN_MAX;
    let mut keep = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(list) = list {
            list.truncate(room);
            room -= list.len();
        }
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    true
}
