//! Pods get the overhead and the place of their runtime class. Upstream: `plugin/pkg/admission/runtimeclass`.

use super::{decode, decode_kept, is_pod};
use api::quota::read;
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass as Class;
use serde_json::{Value, json};

pub(super) struct RuntimeClass;

fn class_of(request: &AdmissionRequest<'_>) -> Result<Option<Class>, Status> {
    let Some(name) = request.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    match request.lookup.get("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => decode_kept(&class).map(Some),
        None => Err(request.forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found"))),
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// Whether the pod's overhead is what the class says.
fn has_overhead_of(spec: &PodSpec, class: &Class) -> bool {
    let fixed = class.overhead.as_ref().and_then(|own| own.pod_fixed.as_ref());
    read(fixed) == read(spec.overhead.as_ref())
}

/// Whether one toleration tolerates all that the other does.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    fn text(own: &Option<String>) -> &str {
        own.as_deref().unwrap_or_default()
    }
    if wide == narrow {
        return true;
    }
    let any_key = text(&wide.key).is_empty() && text(&wide.operator) == "Exists";
    if text(&wide.key) != text(&narrow.key) && !any_key {
        return false;
    }
    if text(&wide.effect) != text(&narrow.effect) && !text(&wide.effect).is_empty() {
        return false;
    }
    let longest = wide.toleration_seconds.filter(|_| text(&wide.effect) == "NoExecute");
    if longest.is_some_and(|most| narrow.toleration_seconds.is_none_or(|own| own > most)) {
        return false;
    }
    match text(&wide.operator) {
        "" | "Equal" => text(&narrow.operator) == "Equal" && text(&narrow.value) == text(&wide.value),
        "Exists" => true,
        _ => false,
    }
}

/// Both lists, without what others of them cover. Upstream: `tolerations.MergeTolerations`.
fn merge(first: Vec<Toleration>, second: Vec<Toleration>) -> Vec<Toleration> {
    let all: Vec<Toleration> = first.into_iter().chain(second).collect();
    let mut merged: Vec<Toleration> = Vec::new();
    for (at, own) in all.iter().enumerate() {
        let is_covered = merged.iter().any(|kept| covers(kept, own))
            || all[at + 1..].iter().any(|later| later != own && covers(later, own));
        if !is_covered {
            merged.push(own.clone());
        }
    }
    merged
}

impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !is_pod(request) {
            return Ok(());
        }
        let Some(class) = class_of(request)? else { return Ok(()) };
        let spec = decode::<Pod>(&request.object)?.spec.unwrap_or_default();
        if let Some(overhead) = &class.overhead {
            let has_own = spec.overhead.as_ref().is_some_and(|own| !own.is_empty());
            if has_own && !has_overhead_of(&spec, &class) {
                return Err(request.forbidden(MISMATCH));
            }
            request.object["spec"]["overhead"] = json!(overhead.pod_fixed);
        }
        let Some(scheduling) = class.scheduling else { return Ok(()) };
        let mut selector = spec.node_selector.unwrap_or_default();
        for (key, wanted) in scheduling.node_selector.unwrap_or_default() {
            if let Some(own) = selector.get(&key).filter(|own| **own != wanted) {
                return Err(request.forbidden(&format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                )));
            }
            selector.insert(key, wanted);
        }
        let tolerations =
            merge(spec.tolerations.unwrap_or_default(), scheduling.tolerations.unwrap_or_default());
        if let Some(spec) = request.object["spec"].as_object_mut() {
            let mut set = |field: &str, value: Value, is_empty: bool| match is_empty {
                true => spec.remove(field),
                false => spec.insert(field.to_owned(), value),
            };
            set("nodeSelector", json!(selector), selector.is_empty());
            set("tolerations", json!(tolerations), tolerations.is_empty());
        }
        Ok(())
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !is_pod(request) {
            return Ok(());
        }
        let class = class_of(request)?.filter(|class| class.overhead.is_some());
        let overhead = &request.object["spec"]["overhead"];
        let Some(class) = class else {
            return match overhead.is_null() {
                true => Ok(()),
                false => Err(request.forbidden(
                    "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
                )),
            };
        };
        let spec = decode::<Pod>(&request.object)?.spec.unwrap_or_default();
        match has_overhead_of(&spec, &class) {
            true => Ok(()),
            false => Err(request.forbidden(MISMATCH)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use crate::testing::Objects;

    fn classes() -> Objects {
        let heavy = json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": {"cpu": "100m"}},
            "scheduling": {"nodeSelector": {"kind": "vm"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let plain = json!({"metadata": {"name": "plain"}, "handler": "p"});
        Objects::default().with("node.k8s.io", "runtimeclasses", heavy).with(
            "node.k8s.io",
            "runtimeclasses",
            plain,
        )
    }

    fn pod(mut spec: Value, class: Option<&str>) -> Value {
        spec["containers"] = json!([]);
        if let Some(class) = class {
            spec["runtimeClassName"] = class.into();
        }
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn pods_get_what_the_class_says() {
        let one = json!({"key": "vm", "operator": "Equal", "value": "x"});
        let other = json!({"key": "o", "operator": "Exists", "effect": "NoSchedule"});
        let object = pod(json!({"tolerations": [one, other], "nodeSelector": {"a": "b"}}), Some("heavy"));
        let made = create("pods").run(&RuntimeClass, object, &classes()).unwrap().object;
        assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
        assert_eq!(made["spec"]["nodeSelector"], json!({"a": "b", "kind": "vm"}));
        assert_eq!(made["spec"]["tolerations"], json!([other, {"key": "vm", "operator": "Exists"}]));
        let same = pod(json!({"overhead": {"cpu": "0.1"}}), Some("heavy"));
        assert!(create("pods").run(&RuntimeClass, same, &classes()).is_ok());
        assert!(create("pods").run(&RuntimeClass, pod(json!({}), Some("plain")), &classes()).is_ok());
        assert!(create("pods").run(&RuntimeClass, pod(json!({}), None), &classes()).is_ok());
    }

    #[test]
    fn what_does_not_fit_the_class() {
        let check = |spec: Value, class: Option<&str>, why: &str| {
            let message = format!("pods \"p\" is forbidden: {why}");
            create("pods").refuses(&RuntimeClass, pod(spec, class), &classes(), 403, &message);
        };
        check(json!({}), Some("none"), "pod rejected: RuntimeClass \"none\" not found");
        check(json!({"overhead": {"cpu": "1"}}), Some("heavy"), MISMATCH);
        let unexplained =
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        check(json!({"overhead": {"cpu": "1"}}), Some("plain"), unexplained);
        check(json!({"overhead": {"cpu": "1"}}), None, unexplained);
        check(
            json!({"nodeSelector": {"kind": "metal"}}),
            Some("heavy"),
            "conflict: runtimeClass.scheduling.nodeSelector[kind] = vm; pod.spec.nodeSelector[kind] = metal",
        );
    }

    #[test]
    fn wider_tolerations_win() {
        let check = |first: Value, second: Value, expect: Value| {
            let list = |value: Value| serde_json::from_value(value).unwrap();
            assert_eq!(json!(merge(list(first), list(second))), expect);
        };
        let equal = json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 10});
        let longer =
            json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 20});
        let forever = json!({"key": "k", "operator": "Exists", "effect": "NoExecute"});
        check(json!([equal]), json!([equal]), json!([equal]));
        check(json!([equal]), json!([longer]), json!([longer]));
        check(json!([longer]), json!([equal]), json!([longer]));
        check(json!([longer]), json!([forever]), json!([forever]));
        check(json!([equal, forever]), json!([{"operator": "Exists"}]), json!([{"operator": "Exists"}]));
        let other = json!({"key": "o", "operator": "Exists"});
        check(json!([equal]), json!([other]), json!([equal, other]));
    }
}
