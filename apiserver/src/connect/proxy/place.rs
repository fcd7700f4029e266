//! Where a proxied request goes. Upstream: `ResourceLocation` of `pkg/registry/core/{pod,service,node}`.

use crate::connect::dial::Destination;
use crate::connect::node::Nodes;
use api::status::ResourceId;
use api::{Lookup, Status};
use serde_json::Value;
use std::net::IpAddr;

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    is_https: bool,
    name: &'a str,
    port: &'a str,
}

fn split<'a>(text: &'a str, word: &str) -> Result<Asked<'a>, Status> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => ("?", "", ""),
    };
    match (scheme, name.is_empty()) {
        ("" | "http" | "https", false) => Ok(Asked { is_https: scheme == "https", name, port }),
        _ => Err(Status::bad_request(format!("invalid {word} request \"{text}\""))),
    }
}

fn read(lookup: &dyn Lookup, plural: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let found = lookup.get("", plural, namespace, name);
    let found = found.ok_or_else(|| Status::not_found(ResourceId { group: "", plural }, name))?;
    found.decode().map_err(Status::internal)
}

/// Whether an address is one that others can have: no loopback, no link-local, no multicast.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_unspecified()
                || v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified())
        }
    }
}

fn pod_address(pod: &Value) -> Option<IpAddr> {
    let first = pod["status"]["podIPs"][0]["ip"].as_str().or_else(|| pod["status"]["podIP"].as_str());
    first?.parse().ok().filter(|address| is_reachable(*address))
}

fn destination(nodes: &Nodes, asked: &Asked<'_>, address: IpAddr, port: u16) -> Destination {
    Destination { address, port, tls: asked.is_https.then(|| nodes.unverified.clone()), name: None }
}

/// A pod's port; without one, its first.
pub(super) fn pod(nodes: &Nodes, namespace: &str, text: &str) -> Result<Destination, Status> {
    let asked = split(text, "pod")?;
    let pod = read(nodes.lookup(), "pods", namespace, asked.name)?;
    let port = match asked.port {
        "" => first_port(&pod).unwrap_or(if asked.is_https { 443 } else { 80 }),
        port => port.parse().map_err(|_| Status::bad_request(format!("invalid pod request \"{text}\"")))?,
    };
    let address = pod_address(&pod).ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(destination(nodes, &asked, address, port))
}

fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?.iter();
    let port =
        containers.flat_map(|own| own["ports"].as_array()).flatten().next()?["containerPort"].as_u64()?;
    u16::try_from(port).ok()
}

/// A ready endpoint of a service's port, by its number or name.
pub(super) fn service(nodes: &Nodes, namespace: &str, text: &str) -> Result<Destination, Status> {
    let asked = split(text, "service")?;
    let lookup = nodes.lookup();
    let mut port_name = asked.port.to_owned();
    if let Ok(number) = asked.port.parse::<i64>() {
        let service = read(lookup, "services", namespace, asked.name)?;
        let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let port = ports.find(|own| own["port"] == number).ok_or_else(|| {
            Status::unavailable(format!("no service port {number} found for service \"{}\"", asked.name))
        })?;
        port_name = port["name"].as_str().unwrap_or_default().to_owned();
    }
    let slices = lookup.list("discovery.k8s.io", "endpointslices", namespace);
    let own =
        slices.iter().filter(|slice| slice.meta.label("kubernetes.io/service-name") == Some(asked.name));
    let slices: Vec<Value> = own.filter_map(|slice| slice.decode().ok()).collect();
    let found = candidates(&slices, &port_name, |endpoint| is_of_pod(lookup, namespace, endpoint));
    if found.is_empty() {
        return Err(Status::unavailable(format!("no endpoints available for service \"{}\"", asked.name)));
    }
    // Any will do; the hash of a new identifier spreads requests well enough.
    let index = uuid::Uuid::new_v4().as_u128() % found.len() as u128;
    let (address, port) = found[index as usize];
    Ok(destination(nodes, &asked, address, port))
}

/// Ready endpoints of a service's port, whoever they are: for those who configure where the server itself goes to.
///
/// # Errors
/// The service or its port does not exist.
pub(crate) fn endpoints_of(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    port: i64,
) -> Result<Vec<(IpAddr, u16)>, Status> {
    let found = lookup.get("", "services", namespace, name);
    let service = found.ok_or_else(|| Status::unavailable(format!("service \"{name}\" not found")))?;
    let service: Value = service.decode().map_err(Status::internal)?;
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let port = ports
        .find(|own| own["port"] == port)
        .ok_or_else(|| Status::unavailable(format!("no service port {port} found for service \"{name}\"")))?;
    let slices = lookup.list("discovery.k8s.io", "endpointslices", namespace);
    let own = slices.iter().filter(|slice| slice.meta.label("kubernetes.io/service-name") == Some(name));
    let slices: Vec<Value> = own.filter_map(|slice| slice.decode().ok()).collect();
    Ok(candidates(&slices, port["name"].as_str().unwrap_or_default(), |_| true))
}

/// Ready endpoints that have the port.
fn candidates(slices: &[Value], port_name: &str, is_valid: impl Fn(&Value) -> bool) -> Vec<(IpAddr, u16)> {
    let mut found = Vec::new();
    for slice in slices {
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find(|own| own["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|own| u16::try_from(own["port"].as_u64()?).ok()) else { continue };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let ready = endpoints.filter(|own| own["conditions"]["ready"] != false && is_valid(own));
        let addresses = ready.filter_map(|own| own["addresses"][0].as_str()?.parse().ok());
        found.extend(addresses.map(|address| (address, port)));
    }
    found
}

/// Whether an endpoint is the address of a pod of the same namespace: nobody reaches elsewhere by writing endpoints.
fn is_of_pod(lookup: &dyn Lookup, namespace: &str, endpoint: &Value) -> bool {
    let target = &endpoint["targetRef"];
    let Some(name) = target["name"].as_str() else { return false };
    if target["namespace"].as_str() != Some(namespace) {
        return false;
    }
    let pod = lookup.get("", "pods", namespace, name).and_then(|pod| pod.decode::<Value>().ok());
    let Some(pod) = pod else { return false };
    let mut addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    addresses.any(|own| own["ip"].is_string() && own["ip"] == endpoint["addresses"][0])
}

/// A node's own API, or another port of it.
pub(super) fn node(nodes: &Nodes, text: &str) -> Result<Destination, Status> {
    let asked = split(text, "node")?;
    let own = nodes.of(asked.name)?;
    if !is_reachable(own.address) {
        return Err(Status::bad_request("address not allowed"));
    }
    if asked.port.is_empty() || asked.port == own.port.to_string() {
        return Ok(own);
    }
    let port =
        asked.port.parse().map_err(|_| Status::bad_request(format!("invalid node request \"{text}\"")))?;
    Ok(destination(nodes, &asked, own.address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_with_schemes_and_ports() {
        let check = |text: &str, expect: Option<(bool, &str, &str)>| {
            let found = split(text, "pod").ok();
            assert_eq!(found, expect.map(|(is_https, name, port)| Asked { is_https, name, port }), "{text}");
        };
        check("p", Some((false, "p", "")));
        check("p:80", Some((false, "p", "80")));
        check("p:http", Some((false, "p", "http")));
        check("https:p:443", Some((true, "p", "443")));
        check("https:p:", Some((true, "p", "")));
        check("ftp:p:21", None);
        check(":80", None);
        check("a:b:c:d", None);
    }

    #[test]
    fn endpoints() {
        let slice = json!({"ports": [{"name": "web", "port": 8080}, {"name": "admin", "port": 9090}], "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"]}]});
        let check = |name: &str, expect: &[&str]| {
            let found =
                candidates(std::slice::from_ref(&slice), name, |own| own["addresses"][0] != "10.0.0.9");
            let found: Vec<_> = found.iter().map(|(address, port)| format!("{address}:{port}")).collect();
            assert_eq!(found, expect);
        };
        check("web", &["10.0.0.1:8080", "10.0.0.3:8080"]);
        check("admin", &["10.0.0.1:9090", "10.0.0.3:9090"]);
        check("", &[]);
    }

    #[test]
    fn addresses_that_are_only_here_are_not_reached() {
        for (text, expect) in [
            ("10.0.0.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("fd00::1", true),
        ] {
            assert_eq!(is_reachable(text.parse().unwrap()), expect, "{text}");
        }
    }
}
