//! Changes of a pod that its node cannot follow are refused. Upstream: `plugin/pkg/admission/nodedeclaredfeatures`,
//! `component-helpers/nodedeclaredfeatures`.

use super::decode_kept;
use crate::cells::list;
use api::{Admission, AdmissionRequest, Operation, Quantity, Status};
use serde_json::Value;

pub(super) struct NodeDeclaredFeatureValidator;

/// Features that a change needs, in the order of their names.
const FEATURES: [(&str, fn(&Value, &Value) -> bool); 3] = [
    ("InPlacePodLevelResourcesVerticalScaling", changes_pod_resources),
    ("InPlacePodVerticalScalingInitContainers", changes_init_containers),
    ("InPlacePodVerticalScalingMemoryBackedVolumes", changes_memory_volumes),
];

/// Whether two parts say the same, whatever is left out or empty, and however amounts are written.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(own), Value::Object(other)) => {
            own.keys().chain(other.keys()).all(|key| same(&a[key], &b[key]))
        }
        (Value::Object(map), Value::Null) | (Value::Null, Value::Object(map)) => {
            map.values().all(|value| same(value, &Value::Null))
        }
        (Value::String(own), Value::String(other)) => {
            own == other || Quantity::parse(own).is_ok_and(|own| Quantity::parse(other) == Ok(own))
        }
        _ => a == b,
    }
}

fn changes_pod_resources(old: &Value, new: &Value) -> bool {
    !same(&old["spec"]["resources"], &new["spec"]["resources"])
}

fn changes_init_containers(old: &Value, new: &Value) -> bool {
    let (old, new) = (list(old, "/spec/initContainers"), list(new, "/spec/initContainers"));
    old.iter()
        .zip(new)
        .any(|(old, new)| old["restartPolicy"] != "Always" && !same(&old["resources"], &new["resources"]))
}

fn changes_memory_volumes(old: &Value, new: &Value) -> bool {
    let (old, new) = (list(old, "/spec/volumes"), list(new, "/spec/volumes"));
    old.len() == new.len()
        && old.iter().zip(new).any(|(old, new)| {
            let limits = (&old["emptyDir"]["sizeLimit"], &new["emptyDir"]["sizeLimit"]);
            old["name"] == new["name"]
                && new["emptyDir"]["medium"] == "Memory"
                && !limits.0.is_null()
                && !limits.1.is_null()
                && !same(limits.0, limits.1)
        })
}

/// The assigned pod whose spec a request changes, with its old version and its node.
pub(super) fn changed<'a>(
    request: &'a AdmissionRequest<'_>,
    subresources: &[&str],
) -> Option<(&'a Value, &'a str)> {
    let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
    let old = request.old.filter(|_| is_pod && subresources.contains(&request.subresource))?;
    let node = request.object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())?;
    // The generation counts changes of the spec.
    (old["metadata"]["generation"] != request.object["metadata"]["generation"]).then_some((old, node))
}

/// The node, or the refusal for its lack.
pub(super) fn node(request: &AdmissionRequest<'_>, name: &str) -> Result<Value, Status> {
    match request.lookup.get("", "nodes", "", name) {
        Some(node) => decode_kept(&node),
        None => Err(request.forbidden(&format!("node \"{name}\" not found"))),
    }
}

impl Admission for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some((old, name)) = changed(request, &["", "resize"]) else { return Ok(()) };
        let needed = FEATURES.into_iter().filter(|(_, needs)| needs(old, &request.object));
        let needed: Vec<&str> = needed.map(|(feature, _)| feature).collect();
        if needed.is_empty() {
            return Ok(());
        }
        let found = node(request, name)?;
        let declared = list(&found, "/status/declaredFeatures");
        let missing: Vec<&str> =
            needed.into_iter().filter(|own| !declared.iter().any(|declared| declared == own)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(request.forbidden(&format!(
                "pod update requires features {} which are not available on node \"{name}\"",
                missing.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::update;
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    #[test]
    fn what_a_node_must_declare() {
        let node = json!({"metadata": {"name": "n1"}, "status": {"declaredFeatures": [FEATURES[1].0]}});
        let lookup = Objects::default().with("", "nodes", node);
        let pod = |generation: i64, mut spec: Value, node: &str| {
            spec["nodeName"] = node.into();
            json!({"metadata": {"name": "p", "generation": generation}, "spec": spec})
        };
        let amount = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let init = |cpu: &str| json!({"initContainers": [amount(cpu)]});
        let volume = |size: &str| json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": size}}]});
        let check = |old: Value, new: Value, node: &str, generation: i64, expect: Option<&str>| {
            let case = update("pods", "resize", &pod(1, old, node));
            let outcome = case.run(&NodeDeclaredFeatureValidator, pod(generation, new, node), &lookup);
            let expect = expect.map(|why| format!("pods \"p\" is forbidden: {why}"));
            assert_eq!(outcome.err().map(|status| status.message), expect);
        };
        let missing = |at: usize| {
            format!("pod update requires features {} which are not available on node \"n1\"", FEATURES[at].0)
        };
        check(amount("1"), amount("2"), "n1", 2, Some(&missing(0)));
        check(amount("1"), amount("1000m"), "n1", 2, None);
        check(amount("1"), amount("2"), "n1", 1, None);
        check(amount("1"), amount("2"), "", 2, None);
        check(amount("1"), amount("2"), "n2", 2, Some("node \"n2\" not found"));
        check(init("1"), init("2"), "n1", 2, None);
        check(volume("1Gi"), volume("2Gi"), "n1", 2, Some(&missing(2)));
        check(json!({}), json!({"resources": {}}), "n1", 2, None);
    }
}
