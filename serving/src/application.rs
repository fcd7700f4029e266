//! The container of a revision that serves requests. Pure. Upstream: `RevisionSpec.GetContainer`, `RevisionSpec.GetProtocol`.

use crate::kinds::text;
use serde_json::Value;

/// Where an application listens that does not say so.
const USER_PORT: u16 = 8080;

fn has_ports(container: &Value) -> bool {
    container["ports"].as_array().is_some_and(|ports| !ports.is_empty())
}

fn containers(spec: &Value) -> &[Value] {
    spec["containers"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether a container of the spec is the one that serves requests: the only one, or the one with a port.
pub(crate) fn serves(spec: &Value, container: &Value) -> bool {
    containers(spec).len() == 1 || has_ports(container)
}

/// The container that serves requests.
pub(crate) fn of(spec: &Value) -> &Value {
    containers(spec).iter().find(|own| serves(spec, own)).unwrap_or(&Value::Null)
}

/// The port that it listens on.
pub(crate) fn port(container: &Value) -> u16 {
    let port = container.pointer("/ports/0/containerPort").and_then(Value::as_u64);
    port.and_then(|own| own.try_into().ok()).filter(|port| *port != 0).unwrap_or(USER_PORT)
}

/// Whether it speaks HTTP/2 by prior knowledge.
pub(crate) fn is_h2c(spec: &Value) -> bool {
    text(of(spec), "/ports/0/name") == "h2c"
}

/// `h2c` or `http1`, as objects name the protocol.
pub(crate) fn protocol(spec: &Value) -> &'static str {
    if is_h2c(spec) { "h2c" } else { "http1" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_with_a_port_serves() {
        let check = |spec: Value, expect: (&str, u16, &str)| {
            let own = of(&spec);
            assert_eq!((text(own, "/name"), port(own), protocol(&spec)), expect, "{spec}");
        };
        check(json!({"containers": [{"name": "a"}]}), ("a", 8080, "http1"));
        let ports = json!([{"name": "h2c", "containerPort": 9000}]);
        check(json!({"containers": [{"name": "a"}, {"name": "b", "ports": ports}]}), ("b", 9000, "h2c"));
        check(json!({"containers": [{"name": "a", "ports": [{"containerPort": 0}]}]}), ("a", 8080, "http1"));
        check(json!({}), ("", 8080, "http1"));
    }
}
