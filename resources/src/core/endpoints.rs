//! `Endpoints`. Upstream: `pkg/registry/core/endpoint`, `ValidateEndpoints`.

use crate::cells::{NONE, list};
use crate::pod_spec::text;
use api::names::{self, check_required_one_of, report};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Strategy};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use serde_json::Value;
use std::net::IpAddr;

/// How many addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) fn resource() -> Resource {
    let mut resource = Resource::new("", "v1", "Endpoints", "endpoints", Scope::Namespaced)
        .short_names(&["ep"])
        .columns(vec![Column::computed("Endpoints", |o, _| addresses(o).into()), Column::age()])
        .rules(Typed(Rules));
    resource.list_kind = "EndpointsList".to_owned();
    // Upstream: k8s.io/api `core/v1/lifecycle.go`.
    resource.deprecation =
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
    resource
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let ips = || list(subset, "/addresses").iter().filter_map(|address| address["ip"].as_str());
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports {
            let port = port["port"].as_i64().unwrap_or(0);
            all.extend(ips().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    match list(endpoints, "/subsets").is_empty() {
        true => NONE.to_owned(),
        false if all.is_empty() => String::new(),
        false => crate::cells::first(&all, SHOWN_MAX, ","),
    }
}

struct Rules;

impl Strategy for Rules {
    type Kind = Endpoints;

    fn default(&self, endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flatten().filter_map(|own| own.ports.as_mut()).flatten() {
            if text(&port.protocol).is_empty() {
                port.protocol = Some("TCP".to_owned());
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints, errors: &mut FieldErrors) {
        for (at, subset) in endpoints.subsets.iter().flatten().enumerate() {
            errors.at(&format!("subsets[{at}]"), |errors| {
                let lists = [
                    ("addresses", subset.addresses.as_deref().unwrap_or_default()),
                    ("notReadyAddresses", subset.not_ready_addresses.as_deref().unwrap_or_default()),
                ];
                if lists.iter().all(|(_, list)| list.is_empty()) {
                    errors.required("", "must specify `addresses` or `notReadyAddresses`");
                }
                for (field, list) in lists {
                    for (at, address) in list.iter().enumerate() {
                        errors.at(&format!("{field}[{at}]"), |errors| check_address(address, errors));
                    }
                }
                let ports = subset.ports.as_deref().unwrap_or_default();
                for (at, port) in ports.iter().enumerate() {
                    errors.at(&format!("ports[{at}]"), |errors| check_port(port, ports.len() > 1, errors));
                }
            });
        }
    }
}

fn check_address(address: &EndpointAddress, errors: &mut FieldErrors) {
    names::check_ip(errors, "ip", &address.ip);
    let hostname = text(&address.hostname);
    if !hostname.is_empty() {
        report(errors, "hostname", hostname, names::dns_label(hostname));
    }
    if let Some(node) = &address.node_name {
        report(errors, "nodeName", node, names::dns_subdomain(node));
    }
    check_reachable("ip", &address.ip, errors);
}

/// An address that a client on another machine may ask. Upstream: `ValidateEndpointIP`.
pub(crate) fn check_reachable(field: &str, ip: &str, errors: &mut FieldErrors) {
    let Ok(parsed) = ip.parse::<IpAddr>() else {
        return errors.invalid(field, ip, "must be a valid IP address");
    };
    let (link_local, link_local_multicast) = match parsed {
        IpAddr::V4(own) => (own.is_link_local(), own.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(own) => (own.segments()[0] & 0xFFC0 == 0xFE80, own.segments()[0] & 0xFF0F == 0xFF02),
    };
    for (wrong, why) in [
        (parsed.is_unspecified(), format!("may not be unspecified ({ip})")),
        (parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        ),
    ] {
        if wrong {
            errors.invalid(field, ip, why);
        }
    }
}

fn check_port(port: &EndpointPort, needs_name: bool, errors: &mut FieldErrors) {
    match text(&port.name) {
        "" if needs_name => errors.required("name", ""),
        "" => {}
        name => report(errors, "name", name, names::dns_label(name)),
    }
    for fault in names::port(port.port) {
        errors.invalid("port", port.port, fault);
    }
    check_required_one_of(errors, "protocol", port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = &port.app_protocol {
        report(errors, "appProtocol", protocol, names::qualified(protocol));
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::check;
    use serde_json::json;

    #[test]
    fn addresses_are_reachable() {
        let subset = |ip: &str| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]});
        check(&resource(), subset("10.1.1.1"), &[]);
        check(
            &resource(),
            subset("127.0.0.1"),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        );
        check(
            &resource(),
            json!({"subsets": [{}]}),
            &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
        );
    }
}
