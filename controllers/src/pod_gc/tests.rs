use super::plan::{Cause, Ended, Fate, ended, failed, fate, too_many};
use api::{Object, ObjectName, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};
use std::sync::Arc;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(node: &str, deleting: bool, phase: &str) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "generation": 3}, "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase}});
    if deleting {
        pod["metadata"]["deletionTimestamp"] = at(1).to_string().into();
    }
    serde_json::from_value(pod).unwrap()
}

fn node(taint: &str, ready: &str) -> Node {
    serde_json::from_value(
        json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
    )
    .unwrap()
}

#[test]
fn who_goes() {
    let check = |node_name: &str, deleting: bool, node: Option<Node>, expect: Fate| {
        assert_eq!(
            fate(&pod(node_name, deleting, "Running"), node.as_ref()),
            expect,
            "{node_name} {deleting}"
        );
    };
    let out = "node.kubernetes.io/out-of-service";
    check("", false, None, Fate::Stays);
    check("", true, None, Fate::Goes(Cause::Unscheduled));
    check("n", false, None, Fate::Misses);
    check("n", true, None, Fate::Misses);
    check("n", false, Some(node(out, "Unknown")), Fate::Stays);
    check("n", true, Some(node(out, "Unknown")), Fate::Goes(Cause::OutOfService));
    check("n", true, Some(node(out, "True")), Fate::Stays);
    check("n", true, Some(node("other", "False")), Fate::Stays);
}

#[test]
fn what_has_not_ended_fails_first() {
    let check = |phase: &str, cause: Cause, expect: Option<Value>| {
        assert_eq!(failed(&pod("n", true, phase), cause, at(9)), expect, "{phase} {cause:?}");
    };
    check("Running", Cause::Unscheduled, Some(json!({"phase": "Failed", "observedGeneration": 3})));
    check("Succeeded", Cause::Orphaned, None);
    check("Failed", Cause::OutOfService, None);
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "observedGeneration": 3, "lastTransitionTime": at(9).to_string()});
    let status = json!({"phase": "Failed", "observedGeneration": 3, "conditions": [condition]});
    check("Running", Cause::Orphaned, Some(status));
}

#[test]
fn what_is_kept_of_pods_that_have_ended() {
    let check = |status: Value, expect: Option<bool>| {
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u",
            "creationTimestamp": at(5).to_string()}, "status": status});
        let found = ended(&Object::parse(object.to_string().into()).unwrap());
        let expect = expect.map(|evicted| Ended {
            key: ObjectName::new("n", "p"),
            uid: "u".into(),
            evicted,
            created: at(5),
        });
        assert_eq!(found, expect);
    };
    check(json!({}), None);
    check(json!({"phase": "Running", "reason": "Evicted"}), None);
    check(json!({"phase": "Succeeded"}), Some(false));
    check(json!({"phase": "Failed", "reason": "Evicted"}), Some(true));
}

#[test]
fn evicted_ones_go_first_then_the_oldest() {
    let check = |len_max: usize, expect: &[&str]| {
        let of = |name: &str, evicted: bool, created: i64| {
            let key = ObjectName::new("n", name);
            Arc::new(Ended { key, uid: name.into(), evicted, created: at(created) })
        };
        let all = vec![of("young", false, 9), of("b", false, 1), of("a", false, 1), of("evicted", true, 5)];
        let gone: Vec<_> = too_many(all, len_max).iter().map(|own| own.key.name.to_string()).collect();
        assert_eq!(gone, expect, "{len_max}");
    };
    check(4, &[]);
    check(9, &[]);
    check(3, &["evicted"]);
    check(1, &["evicted", "a", "b"]);
}
