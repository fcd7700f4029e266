use super::plan::{Rollout, Step, plan};
use super::*;
use api::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn deployment(replicas: i32, strategy: Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 2, "annotations": {"note": "x"}},
        "spec": {"replicas": replicas, "strategy": strategy, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}}}}))
    .unwrap()
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// A set of a revision: its size, and how many pods it has and how many are available.
fn set(image: &str, revision: i64, replicas: i32, actual: i32, available: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": format!("web-{image}"), "uid": image, "creationTimestamp": format!("2026-01-01T00:00:{revision:02}Z"),
            "generation": 1, "annotations": {"deployment.kubernetes.io/revision": revision.to_string(), "note": "x"}},
        "spec": {"replicas": replicas, "selector": {},
            "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": image}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
        "status": {"replicas": actual, "availableReplicas": available, "readyReplicas": available, "observedGeneration": 1,
            "terminatingReplicas": 0}}))
    .unwrap()
}

/// The set after it was sized for a deployment.
fn sized(mut set: ReplicaSet, desired: i32, most: i32) -> ReplicaSet {
    revision::note_sizes(set.metadata.annotations.get_or_insert_default(), desired, most);
    set
}

/// Sizes by image after a plan.
fn sizes(rollout: &Rollout) -> Vec<(String, i32)> {
    let image = |set: &Set| {
        let spec = set.object.spec.template.as_ref().and_then(|template| template.spec.as_ref()).unwrap();
        spec.containers[0].image.clone().unwrap()
    };
    rollout.sets().map(|set| (image(set), set.replicas())).collect()
}

fn planned(deployment: Deployment, sets: Vec<ReplicaSet>) -> Rollout {
    plan(deployment, sets, BTreeMap::new(), now())
}

fn check(deployment: &Deployment, sets: Vec<ReplicaSet>, expect: &[(&str, i32)]) {
    let rollout = planned(deployment.clone(), sets);
    let expect: Vec<_> = expect.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect();
    assert_eq!(sizes(&rollout), expect);
}

#[test]
fn a_first_set_is_made_at_full_size() {
    let rollout = planned(deployment(3, rolling(json!("25%"), json!("25%"))), Vec::new());
    let new = rollout.new.as_ref().unwrap();
    assert_eq!((new.step, new.replicas()), (Step::Create, 3));
    assert!(new.name().starts_with("web-") && new.name().len() > 8);
    let annotations = new.object.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
    assert_eq!(annotations["deployment.kubernetes.io/desired-replicas"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/max-replicas"], "4");
    assert_eq!(annotations["note"], "x");
    let hash = &new.object.metadata.labels.as_ref().unwrap()["pod-template-hash"];
    assert_eq!(new.object.spec.selector.match_labels.as_ref().unwrap()["pod-template-hash"], *hash);
    assert!(rollout.is_changed);
    let progress = status::condition(Some(&rollout.status), "Progressing").unwrap();
    assert_eq!(progress.reason.as_deref(), Some("NewReplicaSetCreated"));
    assert_eq!(rollout.deadline(), Some(now() + jiff::SignedDuration::from_secs(601)));
}

#[test]
fn a_rolling_update_stays_between_its_fences() {
    let surge = deployment(10, rolling(json!(2), json!(0)));
    let none = sized;
    check(&surge, vec![none(set("old", 1, 10, 10, 10), 10, 12)], &[("old", 10), ("new", 2)]);
    let new = |size, available| none(set("new", 2, size, size, available), 10, 12);
    let old = |size, available| none(set("old", 1, size, size, available), 10, 12);
    check(&surge, vec![old(10, 10), new(2, 0)], &[("old", 10), ("new", 2)]);
    check(&surge, vec![old(10, 10), new(2, 2)], &[("old", 8), ("new", 2)]);
    check(&surge, vec![old(8, 8), new(2, 2)], &[("old", 8), ("new", 4)]);
    check(&surge, vec![old(10, 5), new(2, 0)], &[("old", 10), ("new", 2)]);
    check(&surge, vec![old(2, 2), new(10, 10)], &[("old", 0), ("new", 10)]);
    let unavailable = deployment(10, rolling(json!(0), json!("20%")));
    let old = |size, available| sized(set("old", 1, size, size, available), 10, 10);
    check(&unavailable, vec![old(10, 10)], &[("old", 8), ("new", 0)]);
    check(&unavailable, vec![old(10, 7)], &[("old", 8), ("new", 0)]);
    let stuck = deployment(1, rolling(json!(0), json!("25%")));
    check(&stuck, vec![sized(set("old", 1, 1, 1, 1), 1, 1)], &[("old", 0), ("new", 0)]);
}

#[test]
fn a_recreation_waits_until_the_old_pods_are_gone() {
    let recreate = deployment(3, json!({"type": "Recreate"}));
    check(&recreate, vec![sized(set("old", 1, 3, 3, 3), 3, 3)], &[("old", 0)]);
    check(&recreate, vec![sized(set("old", 1, 0, 1, 0), 3, 3)], &[("old", 0)]);
    check(&recreate, vec![sized(set("old", 1, 0, 0, 0), 3, 3)], &[("old", 0), ("new", 3)]);
    let left = BTreeMap::from([("old".to_owned(), 1)]);
    let rollout = plan(recreate, vec![sized(set("old", 1, 0, 0, 0), 3, 3)], left, now());
    assert!(rollout.new.is_none());
}

#[test]
fn scaling_during_a_rollout_shares_in_proportion() {
    let scaled = |replicas| deployment(replicas, rolling(json!(3), json!(2)));
    let sets = || vec![sized(set("old", 1, 8, 8, 8), 10, 13), sized(set("new", 2, 5, 5, 0), 10, 13)];
    check(&scaled(20), sets(), &[("old", 14), ("new", 9)]);
    check(&scaled(5), sets(), &[("old", 5), ("new", 3)]);
    check(&scaled(0), sets(), &[("old", 0), ("new", 0)]);
    // One set alone takes it all.
    check(&scaled(4), vec![sized(set("new", 2, 10, 10, 10), 10, 13)], &[("new", 4)]);
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled() {
    let mut paused = deployment(4, rolling(json!(1), json!(1)));
    paused.spec.paused = Some(true);
    let rollout = planned(paused, vec![sized(set("old", 1, 2, 2, 2), 2, 3)]);
    assert_eq!(sizes(&rollout), [("old".to_owned(), 4)]);
    let progress = status::condition(Some(&rollout.status), "Progressing").unwrap();
    assert_eq!(
        (progress.status.as_deref(), progress.reason.as_deref()),
        (Some("Unknown"), Some("DeploymentPaused"))
    );
}

#[test]
fn a_set_that_comes_back_takes_the_next_revision_and_keeps_its_history() {
    let sets = vec![set("new", 1, 0, 0, 0), set("old", 2, 3, 3, 3)];
    let rollout = planned(deployment(3, rolling(json!(1), json!(1))), sets);
    let annotations = rollout.new.as_ref().unwrap().object.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    let own = rollout.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(own["deployment.kubernetes.io/revision"], "3");
}

#[test]
fn old_sets_beyond_the_history_go_when_all_is_done() {
    let mut done = deployment(1, rolling(json!(1), json!(0)));
    done.status = serde_json::from_value(
        json!({"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 2}),
    )
    .unwrap();
    let sets = vec![set("a", 1, 0, 0, 0), set("b", 2, 0, 0, 0), sized(set("new", 3, 1, 1, 1), 1, 2)];
    let rollout = planned(done, sets);
    let steps: Vec<_> = rollout.old.iter().map(|set| (set.name().to_owned(), set.step)).collect();
    assert_eq!(steps, [("web-a".to_owned(), Step::Delete), ("web-b".to_owned(), Step::Keep)]);
    let progress = status::condition(Some(&rollout.status), "Progressing").unwrap();
    assert_eq!(progress.reason.as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(rollout.deadline(), None);
}

#[test]
fn a_rollout_without_progress_times_out() {
    let mut late = deployment(1, rolling(json!(1), json!(0)));
    late.status = serde_json::from_value(json!({"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
        "unavailableReplicas": 1, "conditions": [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated",
        "lastUpdateTime": "2026-01-01T23:00:00Z", "lastTransitionTime": "2026-01-01T23:00:00Z"}]}))
    .unwrap();
    let rollout = planned(late, vec![sized(set("new", 1, 1, 1, 0), 1, 2)]);
    let progress = status::condition(Some(&rollout.status), "Progressing").unwrap();
    assert_eq!(progress.reason.as_deref(), Some("ProgressDeadlineExceeded"));
    assert_eq!(progress.message.as_deref(), Some("ReplicaSet \"web-new\" has timed out progressing."));
    let available = status::condition(Some(&rollout.status), "Available").unwrap();
    assert_eq!(available.status.as_deref(), Some("False"));
}

#[test]
fn a_rollback_takes_the_template_and_annotations_of_its_revision() {
    let mut back = deployment(1, rolling(json!(1), json!(0)));
    let annotations = back.metadata.annotations.as_mut().unwrap();
    annotations.insert("deprecated.deployment.rollback.to".to_owned(), "0".to_owned());
    let mut old = set("old", 1, 0, 0, 0);
    old.metadata.annotations.as_mut().unwrap().insert("note".to_owned(), "old".to_owned());
    let rollout = planned(back, vec![old, sized(set("new", 2, 1, 1, 1), 1, 2)]);
    let spec = rollout.deployment.spec.template.spec.as_ref().unwrap();
    assert_eq!(spec.containers[0].image.as_deref(), Some("old"));
    let annotations = rollout.deployment.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["note"], "old");
    assert!(!annotations.contains_key("deprecated.deployment.rollback.to"));
    assert_eq!(rollout.events[0].message, "Rolled back deployment \"web\" to revision 1");
}
