//! Assigning a pod to a node. Upstream: `pkg/registry/core/pod/storage` (`BindingREST`).

use super::{create_options, refuse_invalid, set_pod_condition, success};
use crate::Response;
use crate::hooks::{Call, Handler};
use api::status::ResourceId;
use api::{FieldErrors, Operation, Status, Timestamp};
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// The handler of `pods/binding` and of `bindings`.
pub struct Binding;

impl Handler for Binding {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(bind(call))
    }
}

async fn bind(mut call: Call) -> Result<Response, Status> {
    let options = create_options(&call)?;
    let binding = call.read("v1", "Binding").await?;
    let name = binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let is_pod = call.target.resource == "pods";
    if is_pod && name != call.target.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errors = FieldErrors::default();
    validate(&binding, &mut errors);
    refuse_invalid("", "Binding", &name, errors)?;
    let option_value = options.value("CreateOptions");
    let binding =
        call.admit(Operation::Create, ("", "v1", "Binding"), binding, &option_value, options.dry_run).await?;
    let namespace = call.target.namespace.clone();
    let mut pod = call.about("", "v1", "pods", &namespace, &name)?;
    let mut make = |pod: &Value| assign(pod, &binding, Timestamp::now());
    pod.change(options.dry_run, &mut make).await?;
    call.answer(201, success())
}

fn validate(binding: &Value, errors: &mut FieldErrors) {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.not_supported("target.kind", kind, &["Node", "<empty>"]);
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        errors.required("target.name", "");
    }
}

/// The pod with its node.
fn assign(pod: &Value, binding: &Value, now: Timestamp) -> Result<Value, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| Status::conflict(ResourceId { group: "", plural: "pods/binding" }, name, why);
    let (wanted, found) = (&binding["metadata"], &pod["metadata"]);
    let preconditions = [("uid", "UID"), ("resourceVersion", "ResourceVersion")];
    for (field, word) in preconditions {
        let expect = wanted[field].as_str().unwrap_or_default();
        if !expect.is_empty() && found[field] != expect {
            return Err(refuse(&format!(
                "Precondition failed: {word} in precondition: {expect}, {word} in object meta: {}",
                found[field].as_str().unwrap_or_default()
            )));
        }
    }
    if !found["deletionTimestamp"].is_null() {
        return Err(refuse(&format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        return Err(refuse(&format!("pod {name} is already assigned to node \"{node}\"")));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(refuse(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
    for field in ["annotations", "labels"] {
        for (key, value) in wanted[field].as_object().into_iter().flatten() {
            pod["metadata"][field][key] = value.clone();
        }
    }
    set_pod_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pod: Value, meta: Value, expect: Result<&str, &str>) {
        let binding = json!({"metadata": meta, "target": {"kind": "Node", "name": "n1"}});
        let found = assign(&pod, &binding, Timestamp::UNIX_EPOCH);
        let found = found.map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned());
        let found = found.map_err(|status| status.message.split_once("\": ").unwrap().1.to_owned());
        assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn who_can_be_bound() {
        let pod = |spec: Value| json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"}, "spec": spec, "status": {}});
        check(pod(json!({})), json!({}), Ok("n1"));
        check(pod(json!({})), json!({"uid": "u", "resourceVersion": "7"}), Ok("n1"));
        check(
            pod(json!({})),
            json!({"uid": "v"}),
            Err("Precondition failed: UID in precondition: v, UID in object meta: u"),
        );
        check(pod(json!({"nodeName": "n2"})), json!({}), Err("pod p is already assigned to node \"n2\""));
        check(
            pod(json!({"schedulingGates": [{"name": "g"}]})),
            json!({}),
            Err("pod p has non-empty .spec.schedulingGates"),
        );
    }

    #[test]
    fn what_a_binding_leaves() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"nominatedNodeName": "x",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
        let binding =
            json!({"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}, "target": {"name": "n1"}});
        let pod = assign(&pod, &binding, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(
            (&pod["metadata"]["annotations"]["a"], &pod["metadata"]["labels"]["c"]),
            (&json!("b"), &json!("d"))
        );
        assert_eq!(
            pod["status"],
            json!({"conditions": [{"type": "PodScheduled", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": "1970-01-01T00:00:00Z"}]})
        );
    }
}
