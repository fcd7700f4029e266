use super::plan::{subsets, wanted};
use crate::backend::Backend;
use api::ObjectName;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(number: usize, is_ready: bool, is_deleting: bool, ports: &[(&str, i32)]) -> Arc<Backend> {
    Arc::new(Backend {
        name: ObjectName::new("n", &format!("p{number}")),
        uid: format!("u{number}").into(),
        labels: Box::default(),
        addresses: vec![format!("10.1.{}.{}", number / 250, number % 250).parse().unwrap()],
        is_ready,
        is_deleting,
        node_name: "m".into(),
        hostname: "".into(),
        subdomain: "".into(),
        ports: ports.iter().map(|(name, number)| ((*name).into(), "TCP".into(), *number)).collect(),
    })
}

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"}, "spec": spec})).unwrap()
}

/// For each subset: ready addresses, others, ports.
fn shape(service: &Service, pods: &[Arc<Backend>]) -> Vec<(usize, usize, Vec<i32>)> {
    let count = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::len);
    subsets(service, pods)
        .iter()
        .map(|subset| {
            let ports = subset.ports.iter().flatten().map(|port| port.port).collect();
            (count(&subset.addresses), count(&subset.not_ready_addresses), ports)
        })
        .collect()
}

#[test]
fn ports_with_the_same_addresses_share_a_subset() {
    let named = service(json!({"clusterIP": "10.0.0.1", "ports": [
        {"name": "a", "port": 1, "targetPort": "x"}, {"name": "b", "port": 2, "targetPort": "y"}]}));
    let same = [("x", 10), ("y", 20)];
    assert_eq!(
        shape(&named, &[pod(1, true, false, &same), pod(2, false, false, &same)]),
        [(1, 1, vec![10, 20])]
    );
    let mixed = [pod(1, true, false, &same), pod(2, true, false, &[("x", 10), ("y", 21)])];
    assert_eq!(shape(&named, &mixed), [(1, 0, vec![20]), (2, 0, vec![10]), (1, 0, vec![21])]);
    assert_eq!(shape(&named, &[pod(1, true, false, &[])]), []);
}

#[test]
fn pods_that_end_are_left_out_unless_all_are_published() {
    let plain = service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}));
    assert_eq!(shape(&plain, &[pod(1, true, true, &[]), pod(2, true, false, &[])]), [(1, 0, vec![1])]);
    let all =
        service(json!({"clusterIP": "10.0.0.1", "publishNotReadyAddresses": true, "ports": [{"port": 1}]}));
    assert_eq!(shape(&all, &[pod(1, false, true, &[]), pod(2, false, false, &[])]), [(2, 0, vec![1])]);
    let headless = service(json!({"clusterIP": "None"}));
    assert_eq!(shape(&headless, &[pod(1, true, false, &[])]), [(1, 0, vec![])]);
}

#[test]
fn too_many_addresses_are_cut_and_said_so() {
    let plain = service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}));
    let pods: Vec<_> = (0..1100).map(|number| pod(number, number % 2 == 0, false, &[])).collect();
    let made = wanted(None, &plain, &pods);
    let subset = &made.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 550);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 450);
    assert_eq!(
        made.metadata.annotations.as_ref().unwrap()["endpoints.kubernetes.io/over-capacity"],
        "truncated"
    );
    let fewer = wanted(Some(&made), &plain, &pods[..10]);
    assert!(fewer.metadata.annotations.unwrap().is_empty());
    assert_eq!(fewer.metadata.labels.unwrap()["endpoints.kubernetes.io/managed-by"], "endpoint-controller");
}
