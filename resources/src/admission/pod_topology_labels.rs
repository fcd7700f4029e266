//! Pods learn where in the topology they run. Upstream: `plugin/pkg/admission/podtopologylabels`.

use super::map_mut;
use crate::cells::text;
use api::{Admission, AdmissionRequest, Operation, Status};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub(super) struct PodTopologyLabels;

impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    /// A binding hands its labels on to the pod.
    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !request.resource.group.is_empty() || request.resource.plural != "pods" {
            return Ok(());
        }
        let node = match request.subresource {
            "" => text(&request.object, "/spec/nodeName"),
            "binding" if request.object["target"]["kind"] == "Node" => text(&request.object, "/target/name"),
            _ => "",
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = request.lookup.get("", "nodes", "", node) else { return Ok(()) };
        for key in LABELS {
            if let Some(value) = node.meta.label(key)
                && let Some(meta) = request.object.get_mut("metadata")
                && let Some(labels) = map_mut(meta, "labels")
            {
                labels.insert(key.to_owned(), value.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, create};
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value, json};

    #[test]
    fn labels_come_from_the_node() {
        let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let lookup = Objects::default()
            .with("", "nodes", node("n1", json!({LABELS[0]: "z", LABELS[1]: "r", "x": "y"})))
            .with("", "nodes", node("n2", json!({"x": "y"})));
        let ours = json!({LABELS[0]: "z", LABELS[1]: "r"});
        let check = |case: Case<'_>, object: Value, expect: Value| {
            case.admits(&PodTopologyLabels, object, &lookup, "/metadata/labels", expect);
        };
        let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        check(create("pods"), pod("n1"), ours.clone());
        for node in ["n2", "missing", ""] {
            check(create("pods"), pod(node), Value::Null);
        }
        let binding = |kind: &str| json!({"metadata": {"name": "p", "labels": {LABELS[0]: "old"}}, "target": {"kind": kind, "name": "n1"}});
        let case = || Case { subresource: "binding", kind: Some(("", "v1", "Binding")), ..create("pods") };
        check(case(), binding("Node"), ours);
        check(case(), binding("Other"), json!({LABELS[0]: "old"}));
    }
}
