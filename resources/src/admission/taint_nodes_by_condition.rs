//! A new node takes no pods until it is known to be ready. Upstream: `plugin/pkg/admission/nodetaint`.

use super::list_mut;
use api::{Admission, AdmissionRequest, Operation, Status};
use serde_json::json;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !request.is("", "nodes") {
            return Ok(());
        }
        let Some(spec) = request.object.as_object_mut().map(|node| node.entry("spec").or_insert(json!({})))
        else {
            return Ok(());
        };
        let Some(taints) = list_mut(spec, "taints") else { return Ok(()) };
        let same =
            |effect: &str| taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == effect);
        if !same("NoSchedule") {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, update};
    use super::*;
    use crate::testing::Objects;
    use serde_json::Value;

    #[test]
    fn new_nodes_are_tainted_once() {
        let ours = json!({"key": NOT_READY, "effect": "NoSchedule"});
        let other = json!({"key": NOT_READY, "effect": "NoExecute"});
        let none = Objects::default();
        let check = |node: Value, expect: Value| {
            create("nodes").admits(&TaintNodesByCondition, node, &none, "/spec/taints", expect);
        };
        check(json!({"metadata": {"name": "a"}}), json!([ours]));
        check(json!({"spec": {"taints": [other]}}), json!([other, ours]));
        check(json!({"spec": {"taints": [ours]}}), json!([ours]));
        let node = json!({"spec": {}});
        update("nodes", "", &node).admits(&TaintNodesByCondition, node, &none, "/spec/taints", Value::Null);
    }
}
