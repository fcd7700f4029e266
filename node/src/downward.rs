//! What a pod can learn about itself: fields and resources, for its environment and for files. Pure.
//! Upstream: `pkg/fieldpath`, `pkg/api/v1/resource`, `pkg/kubelet` `podFieldSelectorRuntimeValue`.

use crate::amount::{self, Amount, ResourceList};
use crate::spec::PodDef;
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the pod's fields are read from besides the pod.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts<'a> {
    /// The pod's addresses, the primary one first.
    pub pod_addresses: &'a [String],
    /// The node's addresses, the primary one first.
    pub host_addresses: &'a [String],
    /// What limits are where a container has none.
    pub allocatable: Option<&'a ResourceList>,
}

/// A map as the downward API shows it: `key="value"` per line, ordered by key.
pub(crate) fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(key);
        text.push('=');
        quote(value, &mut text);
    }
    text
}

/// Go's quoting of a string.
fn quote(value: &str, text: &mut String) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\u{7}' => text.push_str("\\a"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\u{b}' => text.push_str("\\v"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(text, "\\x{:02x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// The value of a field of the pod, by its path.
pub(crate) fn field(path: &str, def: &PodDef, facts: &Facts<'_>) -> Result<String, String> {
    let meta = &def.pod.metadata;
    if let Some((list, key)) = path.strip_suffix(']').and_then(|path| path.split_once("['")) {
        let key = key.strip_suffix('\'').unwrap_or(key);
        let map = match list {
            "metadata.annotations" => meta.annotations.as_ref(),
            "metadata.labels" => meta.labels.as_ref(),
            _ => return Err(format!("fieldPath \"{path}\" does not support subscript")),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let text = match path {
        "metadata.name" => def.name().to_owned(),
        "metadata.namespace" => def.namespace().to_owned(),
        "metadata.uid" => def.uid().to_owned(),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "spec.nodeName" => def.spec().node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => def.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_addresses.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_addresses.join(","),
        "status.podIP" => facts.pod_addresses.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_addresses.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(text)
}

/// The value of a container's resource, in units of the selector's divisor. Limits default to what the node can give.
pub(crate) fn resource(
    selector: &ResourceFieldSelector,
    def: &PodDef,
    own: Option<&Container>,
    facts: &Facts<'_>,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => def.container(name).map(|container| &container.spec),
        (None, own) => own,
    };
    let Some(container) = container else {
        return Err(format!("container {} not found", named.unwrap_or_default()));
    };
    let (list, name) = selector.resource.split_once('.').unwrap_or_default();
    let requirements = container.resources.as_ref();
    let list = match list {
        "limits" => requirements.and_then(|own| own.limits.as_ref()),
        "requests" => requirements.and_then(|own| own.requests.as_ref()),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(format!("unsupported container resource : {}", selector.resource));
    }
    let mut value = amount::in_list(list, name);
    if value.is_zero() && selector.resource.starts_with("limits.") && !name.starts_with("hugepages-") {
        let pod = def.spec().resources.as_ref().and_then(|own| own.limits.as_ref());
        value = amount::in_list(pod, name);
        if value.is_zero() {
            value = amount::in_list(facts.allocatable, name);
        }
    }
    let divisor = selector.divisor.as_ref().map(Amount::of).unwrap_or_default();
    Ok(value.divided_by(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::pod;
    use serde_json::json;

    #[test]
    fn fields() {
        let def = pod(
            json!({"metadata": {"name": "n", "namespace": "s", "uid": "u", "labels": {"a": "1", "b": "x\"y\n"},
            "annotations": {"k/v": "w"}}, "spec": {"nodeName": "m", "serviceAccountName": "default", "containers": []}}),
        );
        let hosts = ["1.1.1.1".to_owned(), "fd00::1".to_owned()];
        let facts = Facts { pod_addresses: &[], host_addresses: &hosts, allocatable: None };
        let check = |path: &str, expect: Result<&str, &str>| {
            assert_eq!(field(path, &def, &facts), expect.map(str::to_owned).map_err(str::to_owned), "{path}");
        };
        check("metadata.name", Ok("n"));
        check("metadata.labels", Ok("a=\"1\"\nb=\"x\\\"y\\n\""));
        check("metadata.annotations['k/v']", Ok("w"));
        check("metadata.labels['none']", Ok(""));
        check("status.hostIPs", Ok("1.1.1.1,fd00::1"));
        check("spec.nodeName", Ok("m"));
        check("status.podIP", Ok(""));
        check("spec.containers", Err("unsupported fieldPath: spec.containers"));
        check("spec.x['a']", Err("fieldPath \"spec.x['a']\" does not support subscript"));
    }

    #[test]
    fn resources() {
        let def = pod(
            json!({"spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1250m", "memory": "64Mi"},
            "requests": {"memory": "32Mi"}}}, {"name": "b"}]}}),
        );
        let allocatable = BTreeMap::from([("cpu".to_owned(), amount::from_milli(2000))]);
        let facts = Facts { allocatable: Some(&allocatable), ..Default::default() };
        let check = |container: &str, name: &str, divisor: &str, expect: Result<&str, &str>| {
            let selector = ResourceFieldSelector {
                container_name: Some(container.to_owned()),
                resource: name.to_owned(),
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.to_owned())),
            };
            let found = resource(&selector, &def, None, &facts);
            assert_eq!(
                found,
                expect.map(str::to_owned).map_err(str::to_owned),
                "{container} {name} {divisor}"
            );
        };
        check("a", "limits.cpu", "0", Ok("2"));
        check("a", "limits.cpu", "1m", Ok("1250"));
        check("a", "limits.memory", "1Mi", Ok("64"));
        check("a", "requests.memory", "0", Ok("33554432"));
        check("b", "limits.cpu", "0", Ok("2"));
        check("b", "requests.cpu", "0", Ok("0"));
        check("c", "limits.cpu", "0", Err("container c not found"));
        check("a", "limits.disk", "0", Err("unsupported container resource : limits.disk"));
    }
}
