//! Tables of the rules of services.

use super::resource;
use crate::testing::{Objects, check, check_update, created};
use serde_json::{Value, json};

fn service(extra: Value) -> Value {
    let mut service =
        json!({"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": {"ports": [{"port": 80}]}});
    for (key, value) in extra.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    service
}

#[test]
fn defaults_and_allocation() {
    let (made, errors) = created(&resource(), service(json!({})), &Objects::default());
    assert!(errors.is_empty(), "{errors:?}");
    let spec = &made["spec"];
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.43."));
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    for (field, expect) in [
        ("type", json!("ClusterIP")),
        ("sessionAffinity", json!("None")),
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
        ("internalTrafficPolicy", json!("Cluster")),
    ] {
        assert_eq!(spec[field], expect, "{field}");
    }
    assert_eq!(spec["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}, {"name": "c", "port": 81}]);
    let (made, _) =
        created(&resource(), service(json!({"type": "NodePort", "ports": ports})), &Objects::default());
    let port = |at: usize| made["spec"]["ports"][at]["nodePort"].as_i64().unwrap();
    assert_eq!(port(0), port(1));
    assert_ne!(port(0), port(2));
    assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
}

#[test]
fn headless_and_external_names() {
    let (made, errors) = created(
        &resource(),
        service(json!({"clusterIP": "None", "selector": {"a": "b"}})),
        &Objects::default(),
    );
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(made["spec"]["ipFamilyPolicy"], "SingleStack");
    let (made, _) = created(&resource(), service(json!({"clusterIP": "None"})), &Objects::default());
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let (made, errors) = created(
        &resource(),
        json!({"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com."}}),
        &Objects::default(),
    );
    assert!(errors.is_empty(), "{errors:?}");
    assert!(made["spec"]["clusterIP"].is_null() && made["spec"]["internalTrafficPolicy"].is_null());
}

#[test]
fn what_is_refused() {
    let row = resource();
    check(
        &row,
        service(json!({"clusterIP": "192.168.1.1"})),
        &[
            "Service \"s\" is invalid: spec.clusterIPs: Invalid value: [\"192.168.1.1\"]: failed to allocate IP 192.168.1.1: \
           the provided network does not match the current range",
        ],
    );
    check(
        &row,
        service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 1}]})),
        &[
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 1: provided port is not in the valid range. \
           The range of valid ports is 30000-32767",
        ],
    );
    check(
        &row,
        service(json!({"ports": [{"port": 80}, {"port": 81}]})),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        &row,
        service(json!({"ipFamilyPolicy": "RequireDualStack"})),
        &[
            "Service \"s\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not \
           configured for dual-stack services",
        ],
    );
    check(&row, service(json!({"ports": []})), &["spec.ports: Required value"]);
    let taken = Objects::default().with(
        "",
        "services",
        json!({"metadata": {"name": "t"}, "spec": {"ports": [{"nodePort": 30080}]}}),
    );
    let (_, errors) = created(
        &row,
        service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]})),
        &taken,
    );
    assert_eq!(
        errors,
        [
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        ]
    );
}

#[test]
fn what_may_change() {
    let row = resource();
    let change_type = |kind: &'static str| move |new: &mut Value| new["spec"]["type"] = json!(kind);
    check_update(&row, service(json!({})), change_type("NodePort"), &[]);
    check_update(&row, service(json!({"type": "NodePort"})), change_type("ClusterIP"), &[]);
    check_update(&row, service(json!({"type": "LoadBalancer"})), change_type("ClusterIP"), &[]);
    check_update(
        &row,
        service(json!({})),
        |new| new["spec"] = json!({"type": "ExternalName", "externalName": "example.com"}),
        &[],
    );
    check_update(
        &row,
        json!({"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        |new| new["spec"] = json!({"type": "ClusterIP", "ports": [{"port": 80}]}),
        &[],
    );
    check_update(&row, service(json!({})), |new| new["spec"]["clusterIP"] = Value::Null, &[]);
    check_update(
        &row,
        service(json!({"clusterIP": "10.43.0.7"})),
        |new| {
            new["spec"]["clusterIP"] = json!("10.43.0.8");
            new["spec"]["clusterIPs"] = json!(["10.43.0.8"]);
        },
        &["spec.clusterIPs[0]: Invalid value: [\"10.43.0.8\"]: may not change once set"],
    );
}
