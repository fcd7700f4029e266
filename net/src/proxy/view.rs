//! What the proxy needs of services, endpoint slices and its node: extracted once for each version.

use std::net::Ipv4Addr;

use api::Object;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{Cidr, Protocol};

/// Services with it are somebody else's to proxy (`service.kubernetes.io/service-proxy-name`, `k8s.io/kubernetes/pkg/proxy/apis`).
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Headless services are not proxied.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Whose endpoints a slice has.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The zone of a node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// `k8s.io/api/core/v1`, `DefaultClientIPServiceAffinitySeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

/// A service that is proxied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceView {
    pub cluster_ip: Option<Ipv4Addr>,
    /// Its `externalIPs` and the addresses of its load balancer.
    pub external_ips: Vec<Ipv4Addr>,
    /// The addresses of its load balancer, once more.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty for everybody.
    pub source_ranges: Vec<Cidr>,
    pub ports: Vec<ServicePort>,
    /// `ClientIP` affinity, and for how long.
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty where it has none.
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// Some endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SliceView {
    /// The service's name, in the namespace of the slice.
    pub service: Box<str>,
    pub ports: Vec<(Box<str>, Protocol, u16)>,
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub address: Ipv4Addr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<Box<str>>,
    /// The nodes and zones that should use it; empty for all.
    pub for_nodes: Vec<Box<str>>,
    pub for_zones: Vec<Box<str>>,
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn protocol(text: Option<&str>) -> Option<Protocol> {
    Protocol::parse(text.unwrap_or("TCP"))
}

fn decode<T: serde::de::DeserializeOwned>(object: &Object) -> Option<T> {
    let decoded = object.decode();
    decoded
        .inspect_err(|error| tracing::error!(key = %object.meta.key, %error, "an object cannot be decoded"))
        .ok()
}

/// `None` for services that are not proxied.
pub(crate) fn service(object: &Object) -> Option<ServiceView> {
    if object.meta.label(PROXY_NAME_LABEL).is_some() || object.meta.label(HEADLESS_LABEL).is_some() {
        return None;
    }
    let service: Service = decode(object)?;
    let spec = service.spec?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let addresses = |texts: Option<Vec<String>>| -> Vec<Ipv4Addr> {
        texts.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect()
    };
    let cluster_ip = addresses(spec.cluster_ips).first().copied();
    let cluster_ip = cluster_ip.or_else(|| spec.cluster_ip.as_deref().and_then(|text| text.parse().ok()));
    let ingress =
        service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
    // What a load balancer in mode `Proxy` sends has the node's address already.
    let ingress =
        ingress.unwrap_or_default().into_iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let load_balancer_ips: Vec<Ipv4Addr> = ingress.filter_map(|ingress| ingress.ip?.parse().ok()).collect();
    let mut external_ips = addresses(spec.external_ips);
    external_ips.extend(&load_balancer_ips);
    external_ips.sort();
    external_ips.dedup();
    let affinity = spec
        .session_affinity_config
        .and_then(|config| config.client_ip)
        .and_then(|config| config.timeout_seconds);
    let affinity = u32::try_from(affinity.unwrap_or(AFFINITY_SECONDS)).ok();
    let ranges = spec.load_balancer_source_ranges.unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        Some(ServicePort {
            name: port.name.unwrap_or_default().into(),
            protocol: protocol(port.protocol.as_deref())?,
            port: port_number(port.port)?,
            node_port: port.node_port.and_then(port_number),
        })
    });
    Some(ServiceView {
        cluster_ip: Some(cluster_ip?),
        external_ips,
        load_balancer_ips,
        source_ranges: ranges.iter().filter_map(|range| range.trim().parse().ok()).collect(),
        ports: ports.collect(),
        affinity_seconds: affinity.filter(|_| spec.session_affinity.as_deref() == Some("ClientIP")),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
    })
}

/// `None` for slices of no service, of headless ones and of other address families.
pub(crate) fn slice(object: &Object) -> Option<SliceView> {
    let service = object.meta.label(SERVICE_NAME_LABEL)?.into();
    if object.meta.label(PROXY_NAME_LABEL).is_some() || object.meta.label(HEADLESS_LABEL).is_some() {
        return None;
    }
    let slice: EndpointSlice = decode(object)?;
    if slice.address_type != "IPv4" {
        return None;
    }
    let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| {
        Some((
            port.name.unwrap_or_default().into(),
            protocol(port.protocol.as_deref())?,
            port.port.and_then(port_number)?,
        ))
    });
    let endpoints = slice.endpoints.unwrap_or_default().into_iter().filter_map(|endpoint| {
        let conditions = endpoint.conditions.unwrap_or_default();
        let hints = endpoint.hints.unwrap_or_default();
        Some(Endpoint {
            address: endpoint.addresses.first()?.parse().ok()?,
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            node: endpoint.node_name.map(Into::into),
            for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name.into()).collect(),
            for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name.into()).collect(),
        })
    });
    Some(SliceView { service, ports: ports.collect(), endpoints: endpoints.collect() })
}

/// The zone that a node is in; empty where it has none.
pub(crate) fn zone(object: &Object) -> Option<Box<str>> {
    Some(object.meta.label(ZONE_LABEL).unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: &Value) -> Object {
        Object::parse(value.to_string().into()).expect("an object")
    }

    #[test]
    fn a_service_is_what_its_fields_say() {
        let check = |labels: Value, spec: Value, expect: Option<ServiceView>| {
            let value = json!({"metadata": {"name": "s", "namespace": "n", "labels": labels}, "spec": spec,
                "status": {"loadBalancer": {"ingress": [{"ip": "5.5.5.5"}, {"ip": "6.6.6.6", "ipMode": "Proxy"}, {"hostname": "h"}]}}});
            assert_eq!(service(&object(&value)), expect, "{value}");
        };
        let plain = ServiceView {
            cluster_ip: Some(Ipv4Addr::new(10, 0, 0, 1)),
            external_ips: vec![Ipv4Addr::new(5, 5, 5, 5)],
            load_balancer_ips: vec![Ipv4Addr::new(5, 5, 5, 5)],
            ..ServiceView::default()
        };
        check(json!({}), json!({"clusterIP": "10.0.0.1"}), Some(plain.clone()));
        check(json!({}), json!({"clusterIP": "None"}), None);
        check(json!({}), json!({"clusterIP": ""}), None);
        check(json!({}), json!({"clusterIPs": ["fd00::1"], "clusterIP": "fd00::1"}), None);
        check(json!({}), json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}), None);
        check(json!({PROXY_NAME_LABEL: "other"}), json!({"clusterIP": "10.0.0.1"}), None);
        let ports = json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local", "externalIPs": ["7.7.7.7", "5.5.5.5"], "loadBalancerSourceRanges": [" 1.0.0.0/8"],
            "ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}, {"port": 0}]});
        let port = |name: &str, protocol, port, node_port| ServicePort {
            name: name.into(),
            protocol,
            port,
            node_port,
        };
        check(
            json!({}),
            ports,
            Some(ServiceView {
                external_ips: vec![Ipv4Addr::new(5, 5, 5, 5), Ipv4Addr::new(7, 7, 7, 7)],
                source_ranges: vec!["1.0.0.0/8".parse().expect("a range")],
                ports: vec![port("", Protocol::Tcp, 80, None), port("dns", Protocol::Udp, 53, Some(30053))],
                affinity_seconds: Some(10_800),
                internal_local: true,
                external_local: true,
                ..plain
            }),
        );
    }

    #[test]
    fn a_slice_is_what_its_fields_say() {
        let value = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {SERVICE_NAME_LABEL: "s"}}, "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "any"}],
            "endpoints": [{"addresses": ["1.1.1.1", "2.2.2.2"]},
                {"addresses": ["3.3.3.3"], "nodeName": "a", "conditions": {"ready": false, "serving": true, "terminating": true}}]});
        let view = slice(&object(&value)).expect("a slice");
        assert_eq!(view.ports, [("".into(), Protocol::Tcp, 80)]);
        let [first, second] = view.endpoints.as_slice() else { panic!("{view:?}") };
        assert!(first.ready && first.serving && !first.terminating && first.node.is_none());
        assert!(!second.ready && second.serving && second.terminating && second.node.as_deref() == Some("a"));
    }
}
