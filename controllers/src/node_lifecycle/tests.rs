use super::plan::{plan, signs};
use api::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(spec: Value, conditions: &[(&str, &str)]) -> Node {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(kind, status)| json!({"type": kind, "status": status, "lastHeartbeatTime": at(900).to_string()}))
        .collect();
    serde_json::from_value(
        json!({"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": conditions}}),
    )
    .unwrap()
}

const NEW: &str = r#"{"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}"#;

/// Checks the taints (`key:effect` without the common prefix) that a node that lives gets; `None` where they stay.
fn check(spec: Value, conditions: &[(&str, &str)], expect: Option<&[&str]>) {
    let plan = plan(&node(spec.clone(), conditions), at(1000), at(1010));
    let taints = plan.taints.map(|taints| {
        let text = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
        taints.iter().map(|own| format!("{}:{}", text(&own.key), own.effect)).collect::<Vec<_>>()
    });
    let expect = expect.map(|list| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(taints, expect, "{spec} {conditions:?}");
    assert_eq!((plan.conditions, plan.pods_not_ready, plan.next), (None, false, Some(at(1050))));
}

#[test]
fn conditions_become_taints() {
    let new: Value = serde_json::from_str(NEW).unwrap();
    check(new.clone(), &[("Ready", "True")], Some(&[]));
    check(new.clone(), &[], None);
    check(new, &[("Ready", "False")], Some(&["not-ready:NoSchedule", "not-ready:NoExecute"]));
    check(json!({}), &[("Ready", "True")], None);
    check(json!({}), &[("Ready", "True"), ("MemoryPressure", "True")], Some(&["memory-pressure:NoSchedule"]));
    check(json!({"unschedulable": true}), &[("Ready", "True")], Some(&["unschedulable:NoSchedule"]));
    let own = json!({"taints": [{"key": "a", "effect": "NoExecute"}, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
    check(own, &[("Ready", "True")], Some(&["a:NoExecute"]));
}

#[test]
fn a_silent_node_is_unknown_and_its_pods_are_not_ready() {
    let silent = node(json!({}), &[("Ready", "True"), ("MemoryPressure", "True")]);
    let found = plan(&silent, at(1000), at(1050));
    let conditions = found.conditions.unwrap();
    assert!(conditions.iter().all(|own| own.status == "Unknown") && conditions.len() == 4);
    assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(conditions[3].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    assert!(found.pods_not_ready && found.next.is_none());
    let keys: Vec<_> =
        found.taints.unwrap().iter().map(|own| (own.key.clone(), own.effect.clone())).collect();
    assert_eq!(
        keys,
        [
            ("node.kubernetes.io/unreachable".to_owned(), "NoSchedule".to_owned()),
            ("node.kubernetes.io/unreachable".to_owned(), "NoExecute".to_owned()),
        ]
    );
    // Said once, it is not said again.
    let mut told = silent;
    told.status.as_mut().unwrap().conditions = Some(conditions);
    let again = plan(&told, at(1000), at(2000));
    assert!(again.conditions.is_none() && !again.pods_not_ready);
}

#[test]
fn lease_and_heartbeat_are_signs_of_life() {
    let lease =
        |time: &str| serde_json::from_value(json!({"metadata": {}, "spec": {"renewTime": time}})).unwrap();
    let own = node(json!({}), &[("Ready", "True")]);
    let (one, two) = (lease("2026-01-01T00:00:00.000000Z"), lease("2026-01-01T00:00:10.000000Z"));
    assert_ne!(signs(&own, Some(&one)), signs(&own, Some(&two)));
    assert_ne!(signs(&own, Some(&one)), signs(&node(json!({}), &[]), Some(&one)));
    assert_eq!(signs(&own, Some(&one)), signs(&own, Some(&one)));
}
