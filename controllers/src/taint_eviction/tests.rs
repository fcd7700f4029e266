use super::plan::{Fate, fate};
use api::Timestamp;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn how_long_a_pod_may_stay() {
    let check = |tolerations: Value, taints: &[(&str, i64)], expect: Fate| {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations}});
        let taints: Vec<_> = taints
            .iter()
            .map(|(key, added)| {
                let taint = json!({"key": key, "effect": "NoExecute", "timeAdded": at(*added).to_string()});
                serde_json::from_value(taint).unwrap()
            })
            .collect();
        assert_eq!(fate(&serde_json::from_value(pod).unwrap(), &taints, at(1000)), expect, "{tolerations}");
    };
    let for_seconds = |key: &str, seconds: i64| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    check(json!([]), &[], Fate::Stays);
    check(json!([]), &[("a", 990)], Fate::Goes);
    check(json!([{"operator": "Exists"}]), &[("a", 990)], Fate::Stays);
    check(json!([for_seconds("a", 300)]), &[("a", 990)], Fate::GoesAt(at(1290)));
    check(json!([for_seconds("a", 300)]), &[("a", 600)], Fate::Goes);
    check(json!([for_seconds("a", 0)]), &[("a", 990)], Fate::Goes);
    check(
        json!([for_seconds("a", 300), for_seconds("b", 100)]),
        &[("a", 980), ("b", 990)],
        Fate::GoesAt(at(1090)),
    );
    check(json!([for_seconds("a", 300)]), &[("a", 980), ("b", 990)], Fate::Goes);
}

#[test]
fn what_is_being_deleted_is_left_alone() {
    let pod = json!({"metadata": {"name": "p", "deletionTimestamp": at(1).to_string()}, "spec": {"containers": []}});
    let taint = serde_json::from_value(json!({"key": "a", "effect": "NoExecute"})).unwrap();
    assert_eq!(fate(&serde_json::from_value(pod).unwrap(), &[taint], at(1000)), Fate::Stays);
}
