use super::plan::{hard, plan, sources};
use api::Timestamp;
use api::quota::Measure;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};
use std::sync::Arc;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What a quota's status becomes when these objects of `("", plural)` are there; `null` where it stays.
fn check(spec: Value, status: Value, plural: &str, objects: &[Value], expect: Value, next: Option<i64>) {
    let quota = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": spec, "status": status});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    let hard = hard(&quota);
    let measures: Vec<_> =
        objects.iter().map(|object| Arc::new(Measure::of("", plural, object).unwrap())).collect();
    let planned = plan(&quota, &hard, at(1000), |group, asked| {
        (group.is_empty() && asked == plural).then(|| measures.clone())
    });
    assert_eq!(serde_json::to_value(&planned.status).unwrap(), expect);
    assert_eq!(planned.next.map(Timestamp::as_second), next);
}

#[test]
fn usage_is_counted_and_written_where_it_differs() {
    let config_maps = [json!({}), json!({})];
    let status = |used: &str| json!({"hard": {"configmaps": "5"}, "used": {"configmaps": used}});
    let spec = json!({"hard": {"configmaps": "5"}});
    check(spec.clone(), json!({}), "configmaps", &config_maps, status("2"), None);
    check(spec.clone(), status("1"), "configmaps", &config_maps, status("2"), None);
    check(spec.clone(), status("2"), "configmaps", &config_maps, Value::Null, None);
    check(spec, status("2"), "configmaps", &[], status("0"), None);
}

#[test]
fn what_the_quota_no_longer_bounds_leaves_the_status() {
    let before =
        json!({"hard": {"secrets": "1", "configmaps": "5"}, "used": {"secrets": "1", "configmaps": "0"}});
    let after = json!({"hard": {"configmaps": "5"}, "used": {"configmaps": "0"}});
    check(json!({"hard": {"configmaps": "5"}}), before, "configmaps", &[], after, None);
}

#[test]
fn what_nobody_serves_keeps_its_last_count() {
    let hard = json!({"count/things.example.com": "3"});
    let status = json!({"hard": hard, "used": {"count/things.example.com": "2"}});
    check(json!({"hard": hard}), status, "configmaps", &[], Value::Null, None);
}

#[test]
fn a_pod_that_is_ending_counts_until_its_time_is_over() {
    let pod = |deletion: &str| {
        json!({"metadata": {"deletionTimestamp": deletion, "deletionGracePeriodSeconds": 30},
            "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}})
    };
    let status = |used: &str| json!({"hard": {"pods": "5"}, "used": {"pods": used}});
    let spec = json!({"hard": {"pods": "5"}});
    check(spec, json!({}), "pods", &[pod("1970-01-01T00:20:00Z")], status("1"), Some(1230));
}

#[test]
fn names_lead_to_resources() {
    let spec = json!({"hard": {"pods": "1", "requests.cpu": "1", "count/deployments.apps": "1", "requests.storage": "1"}});
    let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let hard = hard(&quota);
    let found: Vec<_> = sources(&hard).into_iter().collect();
    assert_eq!(found, [("", "persistentvolumeclaims"), ("", "pods"), ("apps", "deployments")]);
}
