//! Workloads that a SinkBinding of their namespace names learn where to send events: `K_SINK` and `K_CE_OVERRIDES` in the
//! environment of the containers that they make. Upstream: knative.dev/pkg `webhook/psbinding`, knative.dev/eventing
//! `pkg/apis/sources/v1/sinkbinding_lifecycle.go`; there it is a webhook (`sinkbindings.webhook.sources.knative.dev`).
//!
//! Workloads that were there before their binding are written anew by its loop, and so come by here.

use api::{Admission, AdmissionRequest, LabelSelector, Operation, Status};
use serde_json::{Value, json};

/// Where a container is to send events.
const SINK: &str = "K_SINK";
/// What it is to write over them.
const OVERRIDES: &str = "K_CE_OVERRIDES";
/// A namespace or workload that has this label (`true`) is left alone.
const EXCLUDE: &str = "bindings.knative.dev/exclude";
/// Workloads whose template never changes once they are there.
const IMMUTABLE: (&str, &str) = ("batch", "jobs");

pub(super) struct SinkBinding;

impl Admission for SinkBinding {
    fn name(&self) -> &'static str {
        "SinkBinding"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let is_workload =
            request.object.pointer("/spec/template/spec/containers").is_some_and(Value::is_array);
        if !request.subresource.is_empty() || !is_workload || request.namespace.is_empty() {
            return Ok(());
        }
        let is_late = request.operation == Operation::Update && request.is(IMMUTABLE.0, IMMUTABLE.1);
        if is_late || request.object["metadata"]["labels"][EXCLUDE] == "true" {
            return Ok(());
        }
        let bindings = request.lookup.list("sources.knative.dev", "sinkbindings", request.namespace);
        if bindings.is_empty() {
            return Ok(());
        }
        let namespace = request.lookup.get("", "namespaces", "", request.namespace);
        if namespace.is_some_and(|own| own.meta.label(EXCLUDE) == Some("true")) {
            return Ok(());
        }
        for binding in bindings.iter().filter(|own| !own.meta.deleting) {
            let binding: Value = binding.decode().map_err(Status::internal)?;
            let Some(sink) = binding["status"]["sinkUri"].as_str() else { continue };
            if is_subject(&binding["spec"]["subject"], request) {
                let overrides = &binding["spec"]["ceOverrides"];
                let overrides = if overrides.is_null() { String::new() } else { overrides.to_string() };
                bind(&mut request.object, sink, &overrides);
            }
        }
        Ok(())
    }
}

/// Whether a subject is, or selects, the object of a request.
fn is_subject(subject: &Value, request: &AdmissionRequest<'_>) -> bool {
    let (group, version, kind) = request.kind;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if subject["kind"] != kind || subject["apiVersion"] != *api_version {
        return false;
    }
    if let Some(name) = subject["name"].as_str().filter(|own| !own.is_empty()) {
        return request.object["metadata"]["name"] == name;
    }
    let selector = serde_json::from_value(subject["selector"].clone()).ok();
    let selector = selector.and_then(|own| LabelSelector::from_object(&own).ok());
    let labels = &request.object["metadata"]["labels"];
    selector.is_some_and(|own| own.matches(|key| labels.get(key).and_then(Value::as_str)))
}

/// Sets both variables in all containers of a template.
fn bind(object: &mut Value, sink: &str, overrides: &str) {
    let Some(spec) = object.pointer_mut("/spec/template/spec") else { return };
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(env) = super::list_mut(container, "env") else { continue };
            for (name, value) in [(SINK, sink), (OVERRIDES, overrides)] {
                // As decoding leaves a variable without value.
                let wanted = match value {
                    "" => json!({"name": name}),
                    value => json!({"name": name, "value": value}),
                };
                match env.iter_mut().find(|own| own["name"] == name) {
                    Some(own) => *own = wanted,
                    None => env.push(wanted),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create_in;
    use super::*;
    use crate::testing::Objects;

    #[test]
    fn subjects_learn_where_to_send_events() {
        let binding = |subject: Value, status: Value| {
            json!({"metadata": {"namespace": "n", "name": "b"}, "spec": {"subject": subject, "ceOverrides":
                {"extensions": {"own": "x"}}}, "status": status})
        };
        let known = json!({"sinkUri": "http://sink"});
        let by_name = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let by_label =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "selector": {"matchLabels": {"a": "b"}}});
        let check = |name: &str, subject: &Value, status: &Value, expect: Value| {
            let lookup = Objects::default().with(
                "sources.knative.dev",
                "sinkbindings",
                binding(subject.clone(), status.clone()),
            );
            let deployment = json!({"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"template": {"spec":
                {"containers": [{"name": "c", "env": [{"name": "K_SINK", "value": "old"}]}]}}}});
            let case = create_in("apps", "deployments");
            case.admits(&SinkBinding, deployment, &lookup, "/spec/template/spec/containers/0/env", expect);
        };
        let bound = json!([{"name": SINK, "value": "http://sink"},
            {"name": OVERRIDES, "value": "{\"extensions\":{\"own\":\"x\"}}"}]);
        let as_it_was = json!([{"name": SINK, "value": "old"}]);
        check("web", &by_name, &known, bound.clone());
        check("other", &by_name, &known, as_it_was.clone());
        check("other", &by_label, &known, bound);
        check("web", &by_name, &json!({}), as_it_was);
    }
}
