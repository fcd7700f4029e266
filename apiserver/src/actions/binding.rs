//! `pods/binding`: gives a pod its node. Upstream: `pkg/registry/core/pod/storage` (`BindingREST`).

use crate::Response;
use crate::hooks::{Call, Handler};
use crate::options::WriteOptions;
use api::status::ResourceId;
use api::{FieldErrors, Operation, Status, Timestamp};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

const ID: ResourceId<'_> = ResourceId { group: "", plural: "pods/binding" };

/// Answers POST of a `Binding`, by which schedulers and people assign pods.
pub struct PodBinding;

impl Handler for PodBinding {
    fn handle(&self, mut call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(async move {
            let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
            let binding = call.read("v1", "Binding").await?;
            check(&call.target.name, &binding)?;
            let binding = call
                .admit(Operation::Create, ("", "v1", "Binding"), binding, &json!({}), options.dry_run)
                .await?;
            let now = Timestamp::now();
            call.change(options.dry_run, &mut |pod| bound(pod, &binding, now)).await?;
            let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
            call.answer(201, success)
        })
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What must be true of a binding by itself. Upstream: `validation.ValidatePodBinding`.
fn check(name: &str, binding: &Value) -> Result<(), Status> {
    if text(binding, "/metadata/name") != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errors = FieldErrors::default();
    let kind = text(binding, "/target/kind");
    if !matches!(kind, "" | "Node") {
        errors.not_supported("target.kind", kind, &["Node", "<empty>"]);
    }
    if text(binding, "/target/name").is_empty() {
        errors.required("target.name", "");
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("", "Binding", name, errors)),
    }
}

/// The pod with its node, or why it cannot have it. Pure.
fn bound(pod: &Value, binding: &Value, now: Timestamp) -> Result<Value, Status> {
    let name = text(pod, "/metadata/name");
    let refused = |why: String| Err(Status::conflict(ID, name, &why));
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, found) =
            (text(&binding["metadata"], &format!("/{field}")), text(&pod["metadata"], &format!("/{field}")));
        if !wanted.is_empty() && wanted != found {
            return refused(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            ));
        }
    }
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return refused(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return refused(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return refused(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        if let Some(more) =
            binding["metadata"].get(field).and_then(Value::as_object).filter(|more| !more.is_empty())
        {
            let own = &mut pod["metadata"][field];
            if !own.is_object() {
                *own = Value::Object(Map::new());
            }
            more.iter().for_each(|(key, value)| own[key] = value.clone());
        }
    }
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("nominatedNodeName");
    }
    mark_scheduled(&mut pod, now);
    Ok(pod)
}

/// Sets the condition `PodScheduled`; the time changes only with the status.
fn mark_scheduled(pod: &mut Value, now: Timestamp) {
    let mut condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()});
    if let Some(generation) = pod["metadata"].get("generation") {
        condition["observedGeneration"] = generation.clone();
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    match list.iter_mut().find(|own| own["type"] == "PodScheduled") {
        Some(own) => {
            if own["status"] == "True" {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "5", "generation": 1, "labels": {"a": "1"}},
            "spec": {}, "status": {"nominatedNodeName": "n0", "conditions": [{"type": "PodScheduled", "status": "False"}]}})
    }

    fn binding() -> Value {
        json!({"metadata": {"name": "p", "uid": "u", "labels": {"b": "2"}}, "target": {"kind": "Node", "name": "n1"}})
    }

    #[test]
    fn a_pod_gets_its_node_its_condition_and_the_bindings_labels() {
        let pod = bound(&pod(), &binding(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(pod["spec"]["nodeName"], "n1");
        assert_eq!(pod["metadata"]["labels"], json!({"a": "1", "b": "2"}));
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        assert_eq!(pod["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert!(pod["status"].get("nominatedNodeName").is_none());
    }

    #[test]
    fn what_cannot_be_bound_is_a_conflict() {
        for (pointer, value, expect) in [
            ("/metadata/deletionTimestamp", json!("x"), "is being deleted"),
            ("/spec/nodeName", json!("n9"), "already assigned to node \"n9\""),
            ("/spec/schedulingGates", json!([{"name": "g"}]), "non-empty .spec.schedulingGates"),
            ("/metadata/uid", json!("other"), "Precondition failed: UID"),
        ] {
            let mut pod = pod();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[name] = value;
            let status = bound(&pod, &binding(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(status.code == 409 && status.message.contains(expect), "{}", status.message);
        }
    }

    #[test]
    fn a_binding_names_its_pod_and_a_node() {
        assert!(check("p", &binding()).is_ok());
        assert_eq!(check("q", &binding()).unwrap_err().code, 400);
        let nowhere = json!({"metadata": {"name": "p"}, "target": {"kind": "Pod"}});
        let status = check("p", &nowhere).unwrap_err();
        assert_eq!(status.code, 422);
        assert!(status.message.contains("target.name: Required value"), "{}", status.message);
    }
}
