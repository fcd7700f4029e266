use super::plan::{failed, needs_scale, plan};
use super::stale::stale_at;
use api::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pods(ready: usize, not_ready: usize) -> Vec<Pod> {
    let pod = |index: usize, ready: &str| {
        serde_json::from_value(json!({"metadata": {"name": format!("p{index}"), "namespace": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    };
    let all = std::iter::repeat_n("True", ready).chain(std::iter::repeat_n("False", not_ready));
    all.enumerate().map(|(index, ready)| pod(index, ready)).collect()
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let meta = json!({"name": "b", "namespace": "n", "generation": 2});
    serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).unwrap()
}

/// Checks allowed, healthy, desired, expected.
fn check(spec: Value, pods: &[Pod], scale: i32, expect: [i32; 4]) {
    let status = plan(&budget(spec.clone(), json!(null)), pods, scale, at(1000)).status.unwrap();
    let found =
        [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods];
    assert_eq!(found, expect.map(Some), "{spec}");
    let condition = &status.conditions.unwrap()[0];
    let reason = if expect[0] > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), reason);
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn what_may_be_disrupted() {
    check(json!({"minAvailable": 1}), &pods(3, 0), 0, [2, 3, 1, 3]);
    check(json!({"minAvailable": 3}), &pods(2, 1), 0, [0, 2, 3, 3]);
    check(json!({"minAvailable": 1}), &[], 0, [0, 0, 1, 0]);
    check(json!({"minAvailable": "30%"}), &pods(5, 0), 10, [2, 5, 3, 10]);
    check(json!({"maxUnavailable": 1}), &pods(3, 0), 3, [1, 3, 2, 3]);
    check(json!({"maxUnavailable": "10%"}), &pods(3, 0), 3, [1, 3, 2, 3]);
    check(json!({"maxUnavailable": 5}), &pods(3, 0), 3, [3, 3, 0, 3]);
    check(json!({"maxUnavailable": 0}), &pods(3, 0), 3, [0, 3, 3, 3]);
}

#[test]
fn a_share_needs_to_know_the_whole() {
    assert!(needs_scale(&budget(json!({"maxUnavailable": 1}), json!(null))));
    assert!(needs_scale(&budget(json!({"minAvailable": "1%"}), json!(null))));
    assert!(!needs_scale(&budget(json!({"minAvailable": 1}), json!(null))));
}

#[test]
fn evicted_pods_do_not_count_until_they_are_overdue() {
    let status = |second| {
        json!({"disruptedPods": {"p0": at(second).to_string(), "gone": at(second).to_string()},
        "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
    };
    let spec = json!({"minAvailable": 1});
    let pods = pods(3, 0);
    let fresh_budget = budget(spec.clone(), status(950));
    let fresh = plan(&fresh_budget, &pods, 0, at(1000));
    let told = fresh.status.unwrap();
    assert_eq!((told.current_healthy, told.disruptions_allowed), (Some(2), Some(1)));
    assert_eq!(told.disrupted_pods.unwrap().keys().collect::<Vec<_>>(), ["p0"]);
    assert_eq!(fresh.next, Some(at(1070)));
    let late_budget = budget(spec, status(800));
    let late = plan(&late_budget, &pods, 0, at(1000));
    assert_eq!(late.not_deleted.len(), 1);
    assert_eq!(late.status.unwrap().disruptions_allowed, Some(2));
}

#[test]
fn what_is_the_same_is_not_written_again() {
    let spec = json!({"minAvailable": 1});
    let status = plan(&budget(spec.clone(), json!(null)), &pods(2, 0), 0, at(1000)).status.unwrap();
    let settled = budget(spec, serde_json::to_value(&status).unwrap());
    assert!(plan(&settled, &pods(2, 0), 0, at(2000)).status.is_none());
    let failed = failed(&settled, "why", at(2000)).unwrap();
    assert_eq!(failed.disruptions_allowed, Some(0));
    assert_eq!(failed.conditions.unwrap()[0].reason, "SyncFailed");
}

#[test]
fn only_a_pod_that_stays_becomes_stale() {
    let pod = |meta: Value, phase: &str, status: &str| -> Pod {
        let condition =
            json!({"type": "DisruptionTarget", "status": status, "lastTransitionTime": at(100).to_string()});
        serde_json::from_value(
            json!({"metadata": meta, "status": {"phase": phase, "conditions": [condition]}}),
        )
        .unwrap()
    };
    assert_eq!(stale_at(&pod(json!({}), "Running", "True")), Some(at(220)));
    assert_eq!(stale_at(&pod(json!({}), "Running", "False")), None);
    assert_eq!(stale_at(&pod(json!({}), "Failed", "True")), None);
    let deleting = json!({"deletionTimestamp": at(1).to_string()});
    assert_eq!(stale_at(&pod(deleting, "Running", "True")), None);
}
