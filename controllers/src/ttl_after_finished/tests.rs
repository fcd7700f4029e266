use super::plan::expires_at;
use api::Timestamp;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn when_a_job_expires() {
    let check = |ttl: Option<i32>, deleting: bool, conditions: Value, expect: Option<i64>| {
        let mut job = json!({"metadata": {"name": "j"}, "status": {"conditions": conditions},
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}}});
        if deleting {
            job["metadata"]["deletionTimestamp"] = at(1).to_string().into();
        }
        assert_eq!(expires_at(&serde_json::from_value(job).unwrap()), expect.map(at), "{ttl:?} {deleting}");
    };
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": at(100).to_string()});
    check(Some(30), false, json!([condition("Complete", "True")]), Some(130));
    check(Some(0), false, json!([condition("Suspended", "False"), condition("Failed", "True")]), Some(100));
    check(None, false, json!([condition("Complete", "True")]), None);
    check(Some(30), true, json!([condition("Complete", "True")]), None);
    check(Some(30), false, json!([condition("Complete", "False"), condition("Suspended", "True")]), None);
    check(Some(30), false, json!([{"type": "Complete", "status": "True"}]), None);
}
