use super::pack::{Groups, Writes, pack};
use super::plan::{groups, meta};
use crate::backend::Backend;
use api::ObjectName;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};
use std::sync::Arc;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "s", "labels": {"a": "b"}}, "spec": spec}))
        .unwrap()
}

fn pod(name: &str, address: &str, is_ready: bool, is_deleting: bool) -> Arc<Backend> {
    Arc::new(Backend {
        name: ObjectName::new("n", name),
        uid: name.into(),
        labels: Box::default(),
        addresses: vec![address.parse().unwrap()],
        is_ready,
        is_deleting,
        node_name: "m".into(),
        hostname: "host".into(),
        subdomain: "web".into(),
        ports: vec![("http".into(), "TCP".into(), 8080)],
    })
}

fn zone(_: &str) -> Option<String> {
    Some("z".to_owned())
}

#[test]
fn conditions_tell_readiness_and_ending() {
    let check = |publishes_all: bool, is_ready, is_deleting, expect: [bool; 3]| {
        let service = service(json!({"clusterIP": "10.0.0.1", "publishNotReadyAddresses": publishes_all}));
        let groups = groups(&service, &[pod("a", "10.1.0.1", is_ready, is_deleting)], &zone).into_vec();
        let conditions = groups[0].endpoints[0].conditions.clone().unwrap();
        let found = [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap);
        assert_eq!(found, expect);
    };
    check(false, true, false, [true, true, false]);
    check(false, false, false, [false, false, false]);
    check(false, true, true, [false, true, true]);
    check(true, false, true, [true, false, true]);
}

#[test]
fn endpoints_are_grouped_by_family_and_ports() {
    let service = service(
        json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.0.0.1", "trafficDistribution": "PreferClose",
        "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": "none"}]}),
    );
    let found = groups(&service, &[pod("a", "10.1.0.1", true, false)], &zone).into_vec();
    assert_eq!(found.len(), 2);
    let (four, six) = (&found[0], &found[1]);
    assert_eq!((four.address_type, four.ports.len(), four.endpoints.len()), ("IPv4", 1, 1));
    assert_eq!((four.ports[0].name.as_deref(), four.ports[0].port), (Some("a"), Some(8080)));
    assert_eq!((six.address_type, six.ports.len(), six.endpoints.len()), ("IPv6", 0, 0));
    let endpoint = &four.endpoints[0];
    assert_eq!(endpoint.hostname.as_deref(), Some("host"));
    assert_eq!(endpoint.zone.as_deref(), Some("z"));
    assert_eq!(endpoint.hints.as_ref().unwrap().for_zones.as_ref().unwrap()[0].name, "z");
    let meta = meta(&service);
    assert_eq!(meta.generate_name.as_deref(), Some("web-"));
    assert!(!meta.labels.as_ref().unwrap().contains_key("service.kubernetes.io/headless"));
}

fn endpoints(numbers: std::ops::Range<u8>) -> Vec<Endpoint> {
    let endpoint = |number| Endpoint { addresses: vec![format!("10.1.0.{number}")], ..Endpoint::default() };
    numbers.map(endpoint).collect()
}

fn slice(name: &str, numbers: std::ops::Range<u8>) -> EndpointSlice {
    let mut metadata = meta(&service(json!({"clusterIP": "10.0.0.1"})));
    metadata.name = Some(name.to_owned());
    EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints(numbers)),
        ports: Some(Vec::new()),
    }
}

/// Sizes of what is created and updated (by name), and what is deleted.
fn check(
    existing: Vec<EndpointSlice>,
    wanted: std::ops::Range<u8>,
    expect: (&[usize], &[(&str, usize)], &[&str]),
) {
    let mut groups = Groups::default();
    groups.group("IPv4", Vec::new()).endpoints = endpoints(wanted);
    let meta = meta(&service(json!({"clusterIP": "10.0.0.1"})));
    let Writes { create, update, delete } = pack(existing, groups.into_vec(), &meta, 10);
    let len = |slice: &EndpointSlice| slice.endpoints.as_ref().unwrap().len();
    assert_eq!(create.iter().map(len).collect::<Vec<_>>(), expect.0);
    let update: Vec<_> =
        update.iter().map(|slice| (slice.metadata.name.as_deref().unwrap(), len(slice))).collect();
    assert_eq!(update, expect.1);
    assert_eq!(delete, expect.2);
}

#[test]
fn slices_are_filled_with_few_writes() {
    check(vec![], 0..0, (&[0], &[], &[]));
    check(vec![], 0..25, (&[10, 10, 5], &[], &[]));
    check(vec![slice("a", 0..10), slice("b", 10..15)], 0..15, (&[], &[], &[]));
    check(vec![slice("a", 0..10), slice("b", 10..15)], 0..17, (&[], &[("b", 7)], &[]));
    check(vec![slice("a", 0..10), slice("b", 10..15)], 0..28, (&[10], &[("b", 8)], &[]));
    check(vec![slice("a", 0..10)], 0..3, (&[], &[("a", 3)], &[]));
    check(vec![slice("a", 0..5), slice("b", 5..9)], 0..5, (&[], &[], &["b"]));
    check(vec![slice("a", 0..5), slice("b", 5..9)], 0..0, (&[], &[("a", 0)], &["b"]));
    check(vec![slice("a", 0..0)], 0..0, (&[], &[], &[]));
}

#[test]
fn a_change_of_ports_or_labels_rewrites_slices_in_place() {
    let mut other = slice("a", 0..3);
    other.ports = serde_json::from_value(json!([{"port": 1}])).unwrap();
    check(vec![other], 0..3, (&[], &[("a", 3)], &[]));
    let mut labelled = slice("a", 0..3);
    labelled.metadata.labels.as_mut().unwrap().insert("x".to_owned(), "y".to_owned());
    check(vec![labelled], 0..3, (&[], &[("a", 3)], &[]));
}
