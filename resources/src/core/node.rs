//! `Node`. Upstream: `pkg/registry/core/node`.

use crate::cells::{NONE, list, or, text};
use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "Node", "nodes", Scope::Cluster)
        .short_names(&["no"])
        .fields(vec![Field::new("spec.unschedulable").missing("false")])
        .columns(vec![
            Column::computed("Status", |o, _| status(o).into()),
            Column::computed("Roles", |o, _| roles(o).into()),
            Column::age(),
            Column::or("Version", "/status/nodeInfo/kubeletVersion", ""),
            Column::computed("Internal-IP", |o, _| address(o, "InternalIP").into()).wide(),
            Column::computed("External-IP", |o, _| address(o, "ExternalIP").into()).wide(),
            Column::computed("OS-Image", |o, _| or(text(o, "/status/nodeInfo/osImage"), "<unknown>").into())
                .wide(),
            Column::computed("Kernel-Version", |o, _| kernel(o).into()).wide(),
            Column::computed("Container-Runtime", |o, _| {
                or(text(o, "/status/nodeInfo/containerRuntimeVersion"), "<unknown>").into()
            })
            .wide(),
        ])
        .subresource(Subresource {
            name: "proxy",
            verbs: crate::VERBS_PROXY,
            body: Some(("", "v1", "NodeProxyOptions")),
            action: Action::Connect,
        })
        .status()
}

fn status(node: &Value) -> String {
    let ready = list(node, "/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut shown = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten() {
        match (key.strip_prefix("node-role.kubernetes.io/"), value.as_str().unwrap_or("")) {
            (Some(role), _) if !role.is_empty() => roles.push(role),
            (None, role) if key == "kubernetes.io/role" && !role.is_empty() => roles.push(role),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), NONE).to_owned()
}

fn address(node: &Value, kind: &str) -> String {
    let found = list(node, "/status/addresses").iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or(NONE).to_owned()
}

fn kernel(node: &Value) -> String {
    let version = or(text(node, "/status/nodeInfo/kernelVersion"), "<unknown>");
    match text(node, "/status/nodeInfo/architecture") {
        "" => version.to_owned(),
        architecture => format!("{version} ({architecture})"),
    }
}
