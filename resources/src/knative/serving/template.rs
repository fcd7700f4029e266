//! Defaults of a revision's spec. Upstream: `pkg/apis/serving/v1/revision_defaults.go`.

use super::settings::{Defaults, Features};
use api::Context;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Whether a field is missing, null or zero.
fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Null) || value.as_i64() == Some(0)
}

/// Looking at a field of a [`Value`] to write it makes it; what stayed null was not there.
pub(super) fn drop_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

fn list<'v>(spec: &'v mut Value, field: &str) -> &'v mut [Value] {
    spec.get_mut(field).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// Fills in a spec.
pub(super) fn default(spec: &mut Value, is_create: bool, cx: &Context<'_>) {
    if !spec.is_object() {
        *spec = json!({});
    }
    let (defaults, features) = (Defaults::of(cx), Features::of(cx));
    if is_zero(&spec["timeoutSeconds"]) {
        spec["timeoutSeconds"] = defaults.timeout_seconds.into();
    }
    let timeout = spec["timeoutSeconds"].as_i64().unwrap_or(defaults.timeout_seconds);
    for (field, own) in [
        ("idleTimeoutSeconds", defaults.idle_timeout_seconds),
        ("responseStartTimeoutSeconds", defaults.response_start_timeout_seconds),
    ] {
        if spec[field].is_null() && own != 0 && own < timeout {
            spec[field] = own.into();
        }
    }
    if spec["containerConcurrency"].is_null() {
        spec["containerConcurrency"] = defaults.container_concurrency.into();
    }
    let taken: BTreeSet<String> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|field| spec[field].as_array().cloned().unwrap_or_default())
        .filter_map(|container| container["name"].as_str().map(str::to_owned))
        .collect();
    name_containers(list(spec, "containers"), &taken, &defaults.container_name);
    name_containers(list(spec, "initContainers"), &taken, &defaults.init_container_name);
    let writable: BTreeSet<String> = spec["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|own| {
            ["emptyDir", "persistentVolumeClaim", "ephemeral"].iter().any(|kind| own.get(*kind).is_some())
        })
        .filter_map(|own| own["name"].as_str().map(str::to_owned))
        .collect();
    let is_single = list(spec, "containers").len() == 1;
    for container in list(spec, "containers") {
        default_container(container, is_single, &defaults, &writable);
    }
    if spec["enableServiceLinks"].is_null()
        && is_create
        && let Some(links) = defaults.enable_service_links
        && !list(spec, "containers").is_empty()
    {
        spec["enableServiceLinks"] = links.into();
    }
    drop_nulls(spec);
    let mode = features.get("secure-pod-defaults");
    if matches!(mode.as_str(), "enabled" | "allowrootbounded") {
        let pod = spec["securityContext"].clone();
        drop_nulls(spec);
        for field in ["containers", "initContainers"] {
            list(spec, field).iter_mut().for_each(|own| secure(own, &pod, mode == "enabled"));
        }
    }
}

fn name_containers(containers: &mut [Value], taken: &BTreeSet<String>, base: &str) {
    let (mut next, several) = (0, containers.len() > 1);
    for container in containers.iter_mut().filter(|own| own.is_object()) {
        if container["name"].as_str().is_some_and(|name| !name.is_empty()) {
            continue;
        }
        let mut name = base.to_owned();
        if several || taken.contains(&name) {
            loop {
                name = format!("{base}-{next}");
                next += 1;
                if !taken.contains(&name) {
                    break;
                }
            }
        }
        container["name"] = name.into();
    }
}

fn default_container(
    container: &mut Value,
    is_single: bool,
    defaults: &Defaults,
    writable: &BTreeSet<String>,
) {
    if !container.is_object() {
        return;
    }
    if !container["resources"].is_object() {
        container["resources"] = json!({});
    }
    for (resource, request, limit) in &defaults.resources {
        for (field, own) in [("requests", request), ("limits", limit)] {
            if let Some(own) = own
                && container["resources"][field][*resource].is_null()
            {
                container["resources"][field][*resource] = own.as_str().into();
            }
        }
    }
    let has_ports = container["ports"].as_array().is_some_and(|own| !own.is_empty());
    if is_single || has_ports {
        let probe = &mut container["readinessProbe"];
        if !probe.is_object() {
            *probe = json!({});
        }
        if ["tcpSocket", "httpGet", "exec", "grpc"].iter().all(|kind| probe.get(*kind).is_none()) {
            probe["tcpSocket"] = json!({"port": 0});
        }
    }
    default_probes(container);
    for mount in list(container, "volumeMounts") {
        if !mount["name"].as_str().is_some_and(|name| writable.contains(name)) {
            mount["readOnly"] = true.into();
        }
    }
    drop_nulls(container);
}

fn default_probes(container: &mut Value) {
    if let Some(probe) = container.get_mut("readinessProbe").filter(|own| own.is_object()) {
        let mut wants = vec![("successThreshold", 1)];
        if probe.get("periodSeconds").is_some_and(|own| !is_zero(own)) {
            wants.extend([("failureThreshold", 3), ("timeoutSeconds", 1)]);
        }
        for (field, own) in wants {
            if probe.get(field).is_none_or(is_zero) {
                probe[field] = own.into();
            }
        }
    }
    for field in ["readinessProbe", "livenessProbe", "startupProbe"] {
        if let Some(grpc) = container.pointer_mut(&format!("/{field}/grpc"))
            && grpc.is_object()
            && grpc.get("service").is_none_or(Value::is_null)
        {
            grpc["service"] = "".into();
        }
    }
}

fn secure(container: &mut Value, pod: &Value, non_root: bool) {
    let needs_low_port = container["ports"]
        .as_array()
        .is_some_and(|ports| ports.iter().any(|own| own["containerPort"].as_i64().unwrap_or(0) < 1024));
    if !container["securityContext"].is_object() {
        container["securityContext"] = json!({});
    }
    let own = &mut container["securityContext"];
    if own.get("allowPrivilegeEscalation").is_none() {
        own["allowPrivilegeEscalation"] = false.into();
    }
    let has_type = |value: &Value| value["type"].as_str().is_some_and(|text| !text.is_empty());
    if !has_type(&pod["seccompProfile"]) && !own.get("seccompProfile").is_some_and(has_type) {
        own["seccompProfile"]["type"] = "RuntimeDefault".into();
    }
    if own.get("capabilities").is_none() {
        own["capabilities"] = json!({"drop": ["ALL"]});
        if needs_low_port {
            own["capabilities"]["add"] = json!(["NET_BIND_SERVICE"]);
        }
    }
    if non_root && pod.get("runAsNonRoot").is_none_or(Value::is_null) && own.get("runAsNonRoot").is_none() {
        own["runAsNonRoot"] = true.into();
    }
}
