//! `Node`. Upstream: `pkg/registry/core/node`, `ValidateNode`, `ValidateNodeUpdate`.

use crate::cells::{NONE, list, or, text};
use crate::pod_spec::resources::{Amounts, check_amount, check_name};
use crate::pod_spec::{self, canonical, check_taint_effect};
use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::Value;
use std::collections::BTreeSet;

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
        .rules(Typed(Rules))
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

struct Rules;

impl Strategy for Rules {
    type Kind = Node;

    /// A node registers itself with its status.
    fn keeps_status(&self) -> bool {
        true
    }

    /// A heartbeat that says nothing new.
    fn may_lose(&self, new: &Value, old: Option<&Value>) -> bool {
        old.is_some_and(|old| without_heartbeats(new) == without_heartbeats(old))
    }

    fn default(&self, node: &mut Node) {
        node.spec.get_or_insert_default();
        let status = node.status.get_or_insert_default();
        canonical(&mut status.capacity);
        canonical(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn prepare_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, node: &Node, errors: &mut FieldErrors) {
        validate(node, errors);
    }

    fn validate_update(&self, new: &Node, old: &Node, errors: &mut FieldErrors) {
        validate_change(new, old, errors);
    }

    fn prepare_status_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Node, old: &Node, errors: &mut FieldErrors) {
        validate(new, errors);
        validate_change(new, old, errors);
    }
}

fn without_heartbeats(node: &Value) -> Value {
    let mut node = node.clone();
    node["metadata"]["resourceVersion"] = Value::Null;
    node["metadata"]["managedFields"] = Value::Null;
    let conditions = node.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastHeartbeatTime"] = Value::Null;
    }
    node
}

fn spec_of(node: &Node) -> NodeSpec {
    node.spec.clone().unwrap_or_default()
}

fn validate(node: &Node, errors: &mut FieldErrors) {
    let spec = spec_of(node);
    check_taints(spec.taints.as_deref().unwrap_or_default(), errors);
    let none = Amounts::new();
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref()).unwrap_or(&none);
    for (name, own) in capacity {
        let field = format!("status.capacity[{name}]");
        check_name(errors, &field, name);
        check_amount(errors, &field, name, own);
    }
    let networks = spec.pod_cidrs.as_deref().unwrap_or_default();
    for (at, network) in networks.iter().enumerate() {
        names::check_cidr(errors, &format!("spec.podCIDRs[{at}]"), network);
    }
    let families: Vec<_> = networks.iter().map(|network| network.contains(':')).collect();
    if families.len() > 2 || families.len() == 2 && families[0] == families[1] {
        errors.invalid(
            "spec.podCIDRs",
            networks.to_vec(),
            "may specify no more than one CIDR for each IP family",
        );
    }
}

/// Upstream names the taints' field after the metadata.
fn check_taints(taints: &[Taint], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (at, taint) in taints.iter().enumerate() {
        errors.at(&format!("metadata.taints[{at}]"), |errors| {
            names::report(errors, "key", &taint.key, names::qualified(&taint.key));
            let value = pod_spec::text(&taint.value);
            let faults = names::label_value(value);
            if !faults.is_empty() {
                errors.invalid("value", value, faults.join(";"));
            }
            match taint.effect.as_str() {
                "" => errors.required("effect", ""),
                effect => check_taint_effect(errors, "effect", effect),
            }
            if !seen.insert((taint.effect.as_str(), taint.key.as_str())) {
                errors.push(
                    api::errors::FieldErrorKind::Duplicate,
                    "",
                    serde_json::to_value(taint).unwrap_or_default(),
                    "taints must be unique by key and effect pair",
                );
            }
        });
    }
}

fn validate_change(new: &Node, old: &Node, errors: &mut FieldErrors) {
    let addresses = new.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    for (at, address) in addresses.iter().enumerate() {
        if addresses[..at].contains(address) {
            let shown = serde_json::to_value(address).unwrap_or_default();
            errors.duplicate(&format!("status.addresses[{at}]"), shown);
        }
    }
    let (new, old) = (spec_of(new), spec_of(old));
    let before = old.pod_cidrs.unwrap_or_default();
    if !before.is_empty() && new.pod_cidrs.unwrap_or_default() != before {
        errors.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
    }
    let (id, before) = (pod_spec::text(&new.provider_id), pod_spec::text(&old.provider_id));
    if !before.is_empty() && id != before {
        let why = match id {
            "" => "field cannot be cleared once set",
            _ => "field cannot be modified once set",
        };
        errors.invalid("spec.providerID", Value::Null, why);
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{check, check_update};
    use serde_json::json;

    #[test]
    fn nodes() {
        let row = resource();
        let node = || json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.0.0/24", "podCIDRs": ["10.42.0.0/24"]}});
        check(&row, node(), &[]);
        check(
            &row,
            json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "Sometimes"}]}}),
            &[
                "metadata.taints[0].effect: Unsupported value: \"Sometimes\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ],
        );
        check_update(&row, node(), |new| new["spec"]["unschedulable"] = json!(true), &[]);
        check_update(
            &row,
            node(),
            |new| new["spec"]["podCIDRs"] = json!(["10.43.0.0/24"]),
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        );
    }
}
