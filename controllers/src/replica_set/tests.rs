use super::plan::{plan, status};
use super::*;
use api::Timestamp;
use serde_json::{Value, json};

fn pod(name: &str, change: Value) -> Pod {
    let mut json = json!({"metadata": {"name": name, "uid": name, "labels": {"app": "web"},
        "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    json_patch(&mut json, &change);
    serde_json::from_value(json).unwrap()
}

fn json_patch(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                json_patch(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn view(replicas: i32) -> View<'static> {
    View { generation: 3, deleting: false, replicas, min_ready_seconds: 0, template: None }
}

#[test]
fn the_number_of_pods_follows_the_number_asked_for() {
    let check = |replicas, have: usize, create, delete| {
        let pods: Vec<_> = (0..have).map(|number| pod(&number.to_string(), json!({}))).collect();
        let plan = plan(&view(replicas), &pods, &HashMap::new(), now());
        assert_eq!((plan.create, plan.delete.len()), (create, delete));
    };
    check(3, 0, 3, 0);
    check(3, 3, 0, 0);
    check(3, 5, 0, 2);
    check(0, 2, 0, 2);
    check(-1, 1, 0, 1);
    check(1000, 0, 500, 0);
}

#[test]
fn the_least_useful_pod_goes_first() {
    let check = |first: Value, last: Value| {
        for order in [["first", "last"], ["last", "first"]] {
            let pods =
                order.map(|name| pod(name, if name == "first" { first.clone() } else { last.clone() }));
            let related = HashMap::from([("n1".to_owned(), 1), ("n2".to_owned(), 5)]);
            let plan = plan(&view(1), &pods, &related, now());
            assert_eq!(plan.delete[0].metadata.name.as_deref(), Some("first"), "{first} before {last}");
        }
    };
    check(json!({"spec": {"nodeName": null}}), json!({}));
    check(json!({"status": {"phase": "Pending"}}), json!({}));
    check(json!({"status": {"phase": "Unknown"}}), json!({}));
    check(json!({"status": {"phase": "Pending"}}), json!({"status": {"phase": "Unknown"}}));
    check(json!({"status": {"conditions": []}}), json!({}));
    let cost = |cost: &str| json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": cost}}});
    check(cost("-5"), json!({}));
    check(cost("1"), cost("2"));
    check(json!({"spec": {"nodeName": "n2"}}), json!({}));
    let since = |at: &str| json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at}]}});
    check(since("2026-01-01T23:59:00Z"), since("2026-01-01T00:00:00Z"));
    let restarts = |count| json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count}]}});
    check(restarts(7), restarts(2));
    check(json!({"metadata": {"creationTimestamp": "2026-01-01T23:00:00Z"}}), json!({}));
    check(json!({"metadata": {"uid": "a"}}), json!({"metadata": {"uid": "b"}}));
}

#[test]
fn the_status_counts_pods_and_tells_failures_once() {
    let template: k8s_openapi::api::core::v1::PodTemplateSpec =
        serde_json::from_value(json!({"metadata": {"labels": {"app": "web", "tier": "a"}}})).unwrap();
    let view = View { template: Some(&template), min_ready_seconds: 3600, ..view(3) };
    let pods = [
        pod("a", json!({"metadata": {"labels": {"tier": "a"}}})),
        pod(
            "b",
            json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T23:59:00Z"}]}}),
        ),
        pod("c", json!({"status": {"conditions": []}})),
    ];
    let first = status(&view, &SetStatus::default(), &pods[..2], 4, Some("no more"), now());
    assert_eq!((first.replicas, first.fully_labeled, first.ready, first.available), (2, 1, 2, 1));
    assert_eq!((first.terminating, first.observed_generation), (Some(4), 3));
    assert_eq!(first.conditions[0].reason.as_deref(), Some("FailedCreate"));
    assert_eq!(first.conditions[0].message.as_deref(), Some("no more"));
    let again = status(&view, &first, &pods, 0, Some("another"), now());
    assert_eq!(again.conditions, first.conditions);
    assert_eq!((again.replicas, again.ready), (3, 2));
    assert!(status(&view, &again, &pods, 0, None, now()).conditions.is_empty());
}
