//! Pods cannot grow beyond their node. Upstream: `plugin/pkg/admission/podresize`.

use super::decode;
use super::node_declared_features::{changed, node};
use crate::cells::text;
use crate::pod_spec::resources::pod_requests;
use api::status::Cause;
use api::{Admission, AdmissionRequest, Operation, Quantity, Status};
use k8s_openapi::api::core::v1::Pod;

pub(super) struct PodResizeValidator;

fn refuse(request: &AdmissionRequest<'_>, why: &str, reason: &str) -> Status {
    let mut status = request.forbidden(why);
    let cause = Cause { reason: reason.to_owned(), ..Cause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

impl Admission for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some((_, name)) = changed(request, &["resize"]) else { return Ok(()) };
        let node = node(request, name)?;
        let system = node["metadata"]["labels"]["kubernetes.io/os"].as_str().unwrap_or("linux");
        if system != "linux" {
            let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{system}\"");
            return Err(refuse(request, &why, "UnsupportedPlatform"));
        }
        let spec = decode::<Pod>(&request.object)?.spec.unwrap_or_default();
        let requests = pod_requests(&spec);
        let mut excess = Vec::new();
        for (resource, unit) in
            [("cpu", Quantity::millis as fn(&Quantity) -> i64), ("memory", Quantity::units)]
        {
            let asked = requests.get(resource).copied().unwrap_or_default();
            let pointer = format!("/status/allocatable/{resource}");
            let most = Quantity::parse(text(&node, &pointer)).unwrap_or_default();
            if asked > most {
                excess.push(format!("{resource}, requested: {}, allocatable: {}", unit(&asked), unit(&most)));
            }
        }
        if excess.is_empty() {
            return Ok(());
        }
        let why = format!("node didn't have enough allocatable resources: {}", excess.join("; "));
        Err(refuse(request, &why, "NodeCapacity"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::update;
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value, json};

    #[test]
    fn pods_stay_within_their_node() {
        let node = |name: &str, system: &str| {
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": system}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}})
        };
        let lookup = Objects::default().with("", "nodes", node("n1", "linux")).with(
            "",
            "nodes",
            node("n2", "windows"),
        );
        let pod = |generation: i64, node: &str, requests: Value| {
            json!({"metadata": {"name": "p", "generation": generation},
                "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": requests}}]}})
        };
        let check = |node: &str, requests: Value, subresource: &str, expect: Option<(&str, &str)>| {
            let case = update("pods", subresource, &pod(1, node, json!({})));
            let outcome = case.run(&PodResizeValidator, pod(2, node, requests), &lookup);
            let found = outcome.err().map(|status| {
                (status.message, status.details.unwrap().causes.first().map(|cause| cause.reason.clone()))
            });
            let expect = expect
                .map(|(why, reason)| (format!("pods \"p\" is forbidden: {why}"), Some(reason.to_owned())));
            assert_eq!(found, expect);
        };
        check("n1", json!({"cpu": "2", "memory": "1Gi"}), "resize", None);
        let why = "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, requested: 2147483648, allocatable: 1073741824";
        check("n1", json!({"cpu": "2.5", "memory": "2Gi"}), "resize", Some((why, "NodeCapacity")));
        check("n1", json!({"cpu": "3"}), "", None);
        let why = "pod resize is only supported on linux nodes, node \"n2\" is \"windows\"";
        check("n2", json!({"cpu": "1"}), "resize", Some((why, "UnsupportedPlatform")));
    }
}
