use super::identity::{claim_owners, claims, has_identity, new_pod, split};
use super::plan::{Plan, Step, Template, World, plan};
use super::*;
use api::Timestamp;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(spec: Value) -> StatefulSet {
    let mut all = json!({"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "db"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}});
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(
        json!({"metadata": {"name": "db", "namespace": "n", "uid": "s", "generation": 1}, "spec": all}),
    )
    .unwrap()
}

/// A pod of a revision. `state`: `r` ready, `p` pending, `f` failed, `d` being deleted but ready.
fn pod(set: &StatefulSet, ordinal: i32, revision: &str, state: char) -> Pod {
    let template: PodTemplateSpec = set.spec.template.clone();
    let mut pod = new_pod(set, &template, revision, ordinal);
    pod.metadata.uid = Some(format!("u{ordinal}"));
    let phase = match state {
        'p' => "Pending",
        'f' => "Failed",
        _ => "Running",
    };
    let ready = if matches!(state, 'r' | 'd') { "True" } else { "False" };
    pod.status = serde_json::from_value(json!({"phase": phase, "conditions": [
        {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
    .unwrap();
    if state == 'd' {
        pod.metadata.deletion_timestamp = Some(client::time(now()));
    }
    pod
}

fn planned(set: &StatefulSet, pods: &[Pod], current: &str) -> Plan {
    let spec = set.spec.template.clone();
    plan(&World {
        set,
        pods,
        current: Template { revision: current, spec: &spec },
        update: Template { revision: "new", spec: &spec },
        collision_count: 0,
        claim: &|_| None,
        now: now(),
    })
}

/// `pods` is `number revision-letter state` each; steps are `+1n`, `-2`, `?0` (claims), `~1` (fix).
fn check(spec: Value, pods: &[(i32, &str, char)], expect: &[&str]) {
    let set = set(spec);
    let pods: Vec<_> =
        pods.iter().map(|(ordinal, revision, state)| pod(&set, *ordinal, revision, *state)).collect();
    let found: Vec<_> = planned(&set, &pods, "old")
        .steps
        .iter()
        .map(|step| {
            let (sign, pod) = match step {
                Step::Create(pod) => ('+', pod),
                Step::Delete(pod) => ('-', pod),
                Step::Claims(pod) => ('?', pod),
                Step::Fix(pod) => ('~', pod),
            };
            let revision = pod::label(&pod.metadata, identity::REVISION).unwrap();
            let created = if sign == '+' { &revision[..1] } else { "" };
            format!("{sign}{}{created}", identity::ordinal(pod).unwrap())
        })
        .collect();
    assert_eq!(found, expect);
}

#[test]
fn in_order_one_pod_follows_the_other() {
    check(json!({}), &[], &["+0n"]);
    check(json!({}), &[(0, "new", 'p')], &["?0"]);
    check(json!({}), &[(0, "new", 'x')], &[]);
    check(json!({}), &[(0, "new", 'r')], &["+1n"]);
    check(json!({}), &[(0, "new", 'r'), (1, "new", 'r'), (2, "new", 'r')], &[]);
    check(json!({}), &[(0, "new", 'f'), (1, "new", 'r')], &["-0"]);
    check(json!({}), &[(0, "new", 'd')], &[]);
    check(json!({"minReadySeconds": 7200}), &[(0, "new", 'r')], &[]);
    check(json!({"ordinals": {"start": 5}}), &[(5, "new", 'r')], &["+6n"]);
}

#[test]
fn scaling_down_takes_the_highest_number_first() {
    let one = json!({"replicas": 1});
    check(one.clone(), &[(0, "new", 'r'), (1, "new", 'r'), (2, "new", 'r')], &["-2"]);
    check(one.clone(), &[(0, "new", 'r'), (1, "new", 'r'), (2, "new", 'd')], &[]);
    check(one.clone(), &[(0, "new", 'r'), (1, "new", 'x'), (2, "new", 'r')], &["-2"]);
    check(one.clone(), &[(0, "new", 'r'), (1, "new", 'x')], &["-1"]);
    check(one.clone(), &[(0, "new", 'x'), (1, "new", 'r')], &[]);
    check(one, &[(0, "new", 'r'), (1, "new", 'x'), (2, "new", 'x')], &[]);
}

#[test]
fn in_parallel_nothing_waits() {
    let parallel = json!({"podManagementPolicy": "Parallel"});
    check(parallel.clone(), &[], &["+0n", "+1n", "+2n"]);
    check(
        parallel.clone(),
        &[(0, "new", 'x'), (3, "new", 'r'), (4, "new", 'x')],
        &["+1n", "+2n", "-4", "-3"],
    );
    check(parallel, &[(0, "old", 'x'), (1, "old", 'r'), (2, "old", 'r')], &["-0"]);
}

#[test]
fn an_update_replaces_one_pod_after_the_other_down_to_the_partition() {
    let all = |states: [char; 3]| [(0, "old", states[0]), (1, "old", states[1]), (2, "old", states[2])];
    check(json!({}), &all(['r', 'r', 'r']), &["-2"]);
    check(json!({}), &[(0, "old", 'r'), (1, "old", 'r'), (2, "new", 'x')], &[]);
    check(json!({}), &[(0, "old", 'r'), (1, "old", 'r'), (2, "new", 'r')], &["-1"]);
    let partition = |number: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}});
    check(partition(2), &[(0, "old", 'r'), (1, "old", 'r'), (2, "new", 'r')], &[]);
    check(partition(2), &[(0, "old", 'r')], &["+1o"]);
    check(partition(2), &[(0, "old", 'r'), (1, "old", 'r')], &["+2n"]);
    let two = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}});
    check(two, &all(['r', 'r', 'r']), &["-2", "-1"]);
    check(json!({"updateStrategy": {"type": "OnDelete"}}), &all(['r', 'r', 'r']), &[]);
}

#[test]
fn the_status_moves_to_the_new_revision_when_all_are_ready() {
    let set = set(json!({}));
    let pods = [pod(&set, 0, "old", 'r'), pod(&set, 1, "new", 'r'), pod(&set, 2, "new", 'x')];
    let status = planned(&set, &pods, "old").status;
    assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (3, Some(2), Some(2)));
    assert_eq!((status.current_replicas, status.current_revision.as_deref()), (Some(1), Some("old")));
    let done = [0, 1, 2].map(|number| pod(&set, number, "new", 'r'));
    let status = planned(&set, &done, "old").status;
    assert_eq!((status.current_replicas, status.current_revision.as_deref()), (Some(3), Some("new")));
}

#[test]
fn a_pod_has_its_name_host_and_claims() {
    let set = set(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}));
    let mut pod = pod(&set, 1, "new", 'r');
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("svc")));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert_eq!(volume.persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-1");
    assert!(has_identity(&set, &pod));
    pod.spec.as_mut().unwrap().volumes = None;
    assert!(!has_identity(&set, &pod));
    assert_eq!(split("db-1"), Some(("db", 1)));
    assert_eq!((split("db"), split("db-x")), (None, None));
    let keys: Vec<_> =
        of_claim(&ObjectName::new("n", "data-my-db-1")).iter().map(ToString::to_string).collect();
    assert_eq!(keys, ["n/my-db", "n/db"]);
}

#[test]
fn claims_are_owned_as_the_retention_policy_asks() {
    let check = |deleted: &str, scaled: &str, ordinal: i32, expect: Option<&str>| {
        let set = set(json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}));
        let pod = pod(&set, ordinal, "new", 'r');
        let (_, claim) = claims(&set, ordinal).remove(0);
        let owners = claim_owners(&set, &pod, &claim);
        let kinds =
            owners.map(|owners| owners.iter().map(|own| own.kind.clone()).collect::<Vec<_>>().join(","));
        assert_eq!(kinds.as_deref(), expect);
    };
    check("Retain", "Retain", 0, None);
    check("Delete", "Retain", 0, Some("StatefulSet"));
    check("Delete", "Retain", 7, Some("StatefulSet"));
    check("Retain", "Delete", 0, None);
    check("Retain", "Delete", 7, Some("Pod"));
    check("Delete", "Delete", 0, Some("StatefulSet"));
    check("Delete", "Delete", 7, Some("Pod"));
}
