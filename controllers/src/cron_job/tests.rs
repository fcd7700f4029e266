use super::plan::plan;
use super::*;
use api::Timestamp;
use serde_json::{Value, json};

fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut all = json!({"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}},
        "spec": {"template": {"spec": {"containers": []}}}}});
    spec.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "c",
        "creationTimestamp": "2026-01-01T00:05:00Z"}, "spec": all, "status": status}))
    .unwrap()
}

fn job(name: &str, end: Option<&str>, start: &str) -> Job {
    let conditions: Vec<_> = end.into_iter().map(|end| json!({"type": end, "status": "True"})).collect();
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": {"template": {}},
        "status": {"startTime": start, "conditions": conditions,
            "completionTime": (end == Some("Complete")).then_some(start)}}))
    .unwrap()
}

fn active(names: &[&str]) -> Value {
    json!({"active": names.iter().map(|name| json!({"name": name, "uid": name})).collect::<Vec<_>>()})
}

/// The job that is started at a minute past midnight, how many make way, and events.
fn check(spec: Value, status: Value, jobs: &[Job], minute: i64, expect: (Option<&str>, usize, &[&str])) {
    let now = "2026-01-01T00:00:30Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_mins(minute);
    let found = plan(&cron_job(spec, status), jobs, now);
    let name = found.create.as_ref().and_then(|job| job.metadata.name.clone());
    let events: Vec<_> = found.events.iter().map(|(_, reason, _)| *reason).collect();
    assert_eq!((name.as_deref(), found.replace.len(), &events[..]), expect);
}

#[test]
fn a_job_is_started_once_for_its_time() {
    // Minutes since 1970 of ten past midnight.
    let name = Some("c-29453770");
    check(json!({}), json!({}), &[], 9, (None, 0, &[]));
    check(json!({}), json!({}), &[], 10, (name, 0, &[]));
    check(json!({}), json!({}), &[], 19, (name, 0, &[]));
    check(json!({}), json!({"lastScheduleTime": "2026-01-01T00:10:00Z"}), &[], 19, (None, 0, &[]));
    check(json!({"suspend": true}), json!({}), &[], 10, (None, 0, &[]));
    check(json!({"startingDeadlineSeconds": 60}), json!({}), &[], 10, (name, 0, &[]));
    check(json!({"startingDeadlineSeconds": 60}), json!({}), &[], 15, (None, 0, &[]));
    check(json!({"schedule": "x"}), json!({}), &[], 10, (None, 0, &["UnparseableSchedule"]));
    check(json!({"timeZone": "No/Where"}), json!({}), &[], 10, (None, 0, &["UnknownTimeZone"]));
    check(
        json!({"schedule": "* * * * *"}),
        json!({}),
        &[],
        300,
        (Some("c-29454060"), 0, &["TooManyMissedTimes"]),
    );
}

#[test]
fn a_running_job_is_kept_forbids_or_makes_way() {
    let (name, running) = (Some("c-29453770"), [job("r", None, "2026-01-01T00:00:00Z")]);
    check(json!({}), active(&["r"]), &running, 10, (name, 0, &[]));
    check(
        json!({"concurrencyPolicy": "Forbid"}),
        active(&["r"]),
        &running,
        10,
        (None, 0, &["JobAlreadyActive"]),
    );
    check(json!({"concurrencyPolicy": "Replace"}), active(&["r"]), &running, 10, (name, 1, &[]));
    check(json!({"concurrencyPolicy": "Forbid"}), active(&["gone"]), &[], 10, (name, 0, &["MissingJob"]));
    check(json!({}), json!({}), &running, 1, (None, 0, &["UnexpectedJob"]));
}

#[test]
fn finished_jobs_are_noted_and_the_oldest_forgotten() {
    let jobs = [
        job("a", Some("Complete"), "2026-01-01T00:01:00Z"),
        job("b", Some("Complete"), "2026-01-01T00:02:00Z"),
        job("c", Some("Failed"), "2026-01-01T00:03:00Z"),
    ];
    let spec = json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1});
    let found = plan(&cron_job(spec, active(&["b"])), &jobs, "2026-01-01T00:06:00Z".parse().unwrap());
    let names: Vec<_> = found.forget.iter().map(|job| name_of(&job.metadata)).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(found.status.active, None);
    assert_eq!(found.status.last_successful_time.unwrap().0.to_string(), "2026-01-01T00:02:00Z");
    assert_eq!(found.events[0].2, "Saw completed job: b, condition: Complete");
    assert_eq!(found.next.unwrap().to_string(), "2026-01-01T00:10:00.1Z");
}

#[test]
fn a_job_tells_its_time_in_its_zone() {
    let spec = json!({"timeZone": "Asia/Tokyo"});
    let found = plan(&cron_job(spec, json!({})), &[], "2026-01-01T00:10:00Z".parse().unwrap());
    let job = found.create.unwrap();
    let annotations = job.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"], "2026-01-01T09:10:00+09:00");
    assert_eq!(job.metadata.labels.as_ref().unwrap()["a"], "b");
}
