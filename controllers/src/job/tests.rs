use super::act::act;
use super::assess::{Assessment, assess, condition};
use super::policy::{Backoff, ruling, success};
use super::track::{count_untracked, finish, track, tracked_uids};
use super::*;
use api::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut all = json!({"completions": 3, "parallelism": 2, "backoffLimit": 6,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": all, "status": status}),
    )
    .unwrap()
}

fn pod(name: &str, phase: &str, extra: Value) -> Pod {
    let mut json = json!({"metadata": {"name": name, "uid": name, "namespace": "n", "finalizers": [TRACKING],
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase}});
    merge(&mut json, &extra);
    serde_json::from_value(json).unwrap()
}

fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            change.iter().for_each(|(key, value)| merge(target.entry(key).or_insert(Value::Null), value));
        }
        (target, change) => *target = change.clone(),
    }
}

fn indexed(name: &str, phase: &str, index: i32, failures: i32) -> Pod {
    pod(
        name,
        phase,
        json!({"metadata": {"annotations": {assess::INDEX: index.to_string(),
        policy::INDEX_FAILURES: failures.to_string()}}}),
    )
}

fn with<R>(job: &Job, pods: &[Pod], test: impl FnOnce(Assessment<'_>, &Owner) -> R) -> R {
    let owner = Owner::of(job);
    test(assess(job, job.spec.as_ref().unwrap(), pods, Backoff::default(), now()), &owner)
}

/// How many pods are made, which are given up, and whether to wait.
fn check_act(job: &Job, pods: &[Pod], create: usize, delete: &[&str], waits: bool) {
    with(job, pods, |found, owner| {
        let action = act(&found, owner);
        let names: Vec<_> = action.delete.iter().map(|pod| name_of(&pod.metadata)).collect();
        assert_eq!(
            (action.create.len(), names, action.wait_until.is_some()),
            (create, delete.to_vec(), waits)
        );
    });
}

#[test]
fn pods_are_made_up_to_parallelism_and_what_is_left_to_do() {
    let plain = job(json!({}), json!({}));
    check_act(&plain, &[], 2, &[], false);
    check_act(&plain, &[pod("a", "Running", json!({}))], 1, &[], false);
    let done = job(json!({}), json!({"succeeded": 2}));
    check_act(&done, &[], 1, &[], false);
    check_act(&done, &[pod("a", "Running", json!({})), pod("b", "Pending", json!({}))], 0, &["b"], false);
    let queue = job(json!({"completions": null}), json!({"succeeded": 1}));
    check_act(&queue, &[pod("a", "Running", json!({}))], 0, &[], false);
    let suspended = job(json!({"suspend": true}), json!({}));
    check_act(&suspended, &[pod("a", "Running", json!({}))], 0, &["a"], false);
    let recent = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:59:55Z"}}}]}});
    check_act(&plain, &[pod("a", "Failed", recent)], 0, &[], true);
    check_act(&plain, &[pod("a", "Failed", json!({}))], 2, &[], false);
    let ending = pod("a", "Running", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check_act(&plain, std::slice::from_ref(&ending), 2, &[], false);
    let patient = job(json!({"podReplacementPolicy": "Failed"}), json!({}));
    check_act(&patient, &[ending], 1, &[], false);
}

#[test]
fn each_index_has_one_pod() {
    let indexes = |job: &Job, pods: &[Pod]| {
        with(job, pods, |found, owner| {
            let made = act(&found, owner).create;
            made.iter().map(|pod| assess::index_of(pod).unwrap()).collect::<Vec<_>>()
        })
    };
    let spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
    let plain = job(spec.clone(), json!({"completedIndexes": "1", "succeeded": 1}));
    assert_eq!(indexes(&plain, &[]), [0, 2, 3]);
    assert_eq!(indexes(&plain, &[indexed("a", "Running", 2, 0)]), [0, 3]);
    assert_eq!(indexes(&plain, &[indexed("a", "Succeeded", 0, 0)]), [2, 3, 4]);
    check_act(&plain, &[indexed("a", "Running", 2, 0), indexed("b", "Pending", 2, 0)], 0, &["b"], false);
    check_act(&plain, &[indexed("a", "Running", 7, 0)], 0, &["a"], false);
    let mut limited = spec;
    limited["backoffLimitPerIndex"] = 1.into();
    let limited = job(limited, json!({}));
    assert_eq!(indexes(&limited, &[indexed("a", "Failed", 0, 0), indexed("b", "Failed", 1, 1)]), [0, 2, 3]);
    with(&limited, &[indexed("a", "Failed", 0, 0)], |found, owner| {
        let made = &act(&found, owner).create[0];
        assert_eq!(made.metadata.annotations.as_ref().unwrap()[policy::INDEX_FAILURES], "1");
        assert_eq!(made.metadata.generate_name.as_deref(), Some("j-0-"));
        let spec = made.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("j-0"));
        assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    });
}

#[test]
fn limits_end_a_job() {
    let end = |job: &Job, pods: &[Pod]| with(job, pods, |found, _| found.finished.and_then(|end| end.reason));
    let check = |spec: Value, status: Value, pods: &[Pod], expect: Option<&str>| {
        assert_eq!(end(&job(spec, status), pods).as_deref(), expect);
    };
    let failed = pod("a", "Failed", json!({}));
    check(json!({"backoffLimit": 0}), json!({}), std::slice::from_ref(&failed), Some("BackoffLimitExceeded"));
    check(json!({"backoffLimit": 1}), json!({}), std::slice::from_ref(&failed), None);
    let late = json!({"startTime": "2026-01-01T00:59:00Z"});
    check(json!({"activeDeadlineSeconds": 60}), late.clone(), &[], Some("DeadlineExceeded"));
    check(json!({"activeDeadlineSeconds": 61}), late.clone(), &[], None);
    check(json!({"activeDeadlineSeconds": 60, "suspend": true}), late, &[], None);
    let restarted = pod(
        "a",
        "Running",
        json!({"status": {"containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2}]}}),
    );
    let on_failure =
        json!({"backoffLimit": 2, "template": {"spec": {"restartPolicy": "OnFailure", "containers": []}}});
    check(on_failure, json!({}), &[restarted], Some("BackoffLimitExceeded"));
    let per_index = json!({"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0});
    check(per_index, json!({}), &[indexed("a", "Failed", 0, 0)], Some("MaxFailedIndexesExceeded"));
    let all_done = json!({"completionMode": "Indexed", "backoffLimitPerIndex": 0});
    let pods =
        [indexed("a", "Failed", 0, 0), indexed("b", "Succeeded", 1, 0), indexed("c", "Succeeded", 2, 0)];
    check(all_done, json!({}), &pods, Some("FailedIndexes"));
    let policy = json!({"completionMode": "Indexed", "successPolicy": {"rules": [{"succeededCount": 1}]}});
    check(policy, json!({}), &pods[1..2], Some("SuccessPolicy"));
}

#[test]
fn a_policy_rules_on_exit_codes_and_conditions() {
    let spec = job(
        json!({"podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [5]}}]}}),
        json!({}),
    )
    .spec
    .unwrap();
    let exit = |code: i32| {
        pod(
            "a",
            "Failed",
            json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}}),
        )
    };
    let message = "Container c for pod n/a failed with exit code 3 matching FailJob rule at index 1";
    assert_eq!(ruling(&spec, &exit(3)).fails_job.as_deref(), Some(message));
    assert!(ruling(&spec, &exit(4)).fails_index);
    assert_eq!(ruling(&spec, &exit(5)), policy::Ruling::default());
    let disrupted = pod(
        "a",
        "Failed",
        json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}),
    );
    assert!(ruling(&spec, &disrupted).ignored);
}

#[test]
fn success_can_be_enough_before_all_are_done() {
    let check = |rules: Value, succeeded: &str, expect: Option<&str>| {
        let policy = serde_json::from_value(json!({"rules": rules})).unwrap();
        let found = success(Some(&policy), 10, &indexes::Indexes::parse(succeeded, 10));
        assert_eq!(found.as_deref(), expect);
    };
    check(json!([{"succeededIndexes": "0,2"}]), "0-1", None);
    check(json!([{"succeededIndexes": "0,2"}]), "0-2", Some("Matched rules at index 0"));
    check(json!([{"succeededIndexes": "0-5", "succeededCount": 2}]), "4-9", Some("Matched rules at index 0"));
    check(json!([{"succeededCount": 4}, {"succeededCount": 2}]), "8,9", Some("Matched rules at index 1"));
    check(json!([{"succeededCount": 1}]), "", None);
}

#[test]
fn each_pod_is_counted_once_across_crashes() {
    let pods =
        [pod("a", "Succeeded", json!({})), pod("b", "Failed", json!({})), pod("c", "Running", json!({}))];
    let first = job(json!({}), json!({}));
    let noted = with(&first, &pods, |found, _| {
        let tracking = track(found, false);
        assert!(tracking.is_changed);
        let names: Vec<_> = tracking.untrack.iter().map(|pod| name_of(&pod.metadata).to_owned()).collect();
        assert_eq!(names, ["a", "b"]);
        tracking.job
    });
    let status = noted.status.clone().unwrap();
    let lists = status.uncounted_terminated_pods.as_ref().unwrap();
    assert_eq!(
        (lists.succeeded.as_deref(), lists.failed.as_deref()),
        (Some(&["a".to_owned()][..]), Some(&["b".to_owned()][..]))
    );
    assert_eq!((status.succeeded, status.failed), (None, None));
    // A crash before the finalizers go: nothing is noted again, and the sums are the same.
    with(&noted, &pods, |found, _| {
        assert_eq!(found.succeeded, 1);
        assert!(!track(found, false).is_changed);
    });
    // A crash after: the noted ones are counted.
    let left = [pods[2].clone()];
    with(&noted, &left, |found, _| assert_eq!(found.succeeded, 1));
    let mut status = status;
    assert!(count_untracked(&mut status, &tracked_uids(&left)));
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(1)));
    assert!(!count_untracked(&mut status, &tracked_uids(&left)));
}

#[test]
fn an_end_is_announced_first_and_written_when_all_is_counted() {
    let failing = job(json!({"backoffLimit": 0}), json!({}));
    let pods = [pod("a", "Failed", json!({})), pod("b", "Running", json!({}))];
    with(&failing, &pods, |found, _| {
        let tracking = track(found, false);
        // The end takes every pod with it: what still runs fails too.
        assert_eq!(tracking.untrack.len(), 2);
        assert_eq!(tracking.finished.as_ref().unwrap().type_, "Failed");
        let mut status = tracking.job.status.unwrap();
        assert!(condition(Some(&status), "FailureTarget").is_some());
        assert!(!finish(&mut status, tracking.finished.as_ref(), 0));
        count_untracked(&mut status, &BTreeSet::new());
        assert!(!finish(&mut status, tracking.finished.as_ref(), 1));
        assert!(finish(&mut status, tracking.finished.as_ref(), 0));
        assert_eq!(status.failed, Some(2));
        assert!(is_finished(&Job { status: Some(status), ..failing.clone() }));
    });
}

#[test]
fn waits_grow_with_failures_and_end_with_a_success() {
    let at = |seconds: i64| -> Pod {
        let at = Timestamp::from_second(seconds).unwrap();
        pod("a", "Failed", json!({"metadata": {"creationTimestamp": at.to_string()}}))
    };
    let now = Timestamp::from_second(100).unwrap();
    let wait = |backoff: Backoff| backoff.until(now).map(|at| at.as_second());
    let (one, two, old) = (at(99), at(98), at(10));
    assert_eq!(wait(Backoff::default()), None);
    assert_eq!(wait(Backoff::default().after(&[], &[&one])), Some(109));
    assert_eq!(wait(Backoff::default().after(&[], &[&one]).after(&[], &[&two, &one])), Some(139));
    assert_eq!(wait(Backoff::default().after(&[], &[&one; 40])), Some(699));
    assert_eq!(wait(Backoff::default().after(&[&two], &[&one, &old])), Some(109));
    assert_eq!(wait(Backoff::default().after(&[], &[&one]).after(&[&one], &[])), None);
}
