use super::plan::{fits, new_pod, plan, status, target, tolerations};
use super::*;
use crate::owner::name_of;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn set(strategy: Value, spec: Value) -> DaemonSet {
    let mut pod = json!({"containers": []});
    spec.as_object().unwrap().iter().for_each(|(key, value)| pod[key] = value.clone());
    serde_json::from_value(json!({"metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": pod}}}))
    .unwrap()
}

fn rolling(surge: i32, unavailable: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn node(name: &str, taint: Option<(&str, &str)>) -> NodeView {
    let taints = taint.map(|(key, effect)| json!({"key": key, "effect": effect}));
    NodeView {
        name: name.to_owned(),
        taints: taints.into_iter().map(|taint| serde_json::from_value(taint).unwrap()).collect(),
        ..NodeView::default()
    }
}

/// A pod on a node: `r` ready, `x` not, `f` failed, `s` succeeded, `d` being deleted.
fn pod(set: &DaemonSet, name: &str, node: &str, hash: &str, state: char) -> Pod {
    let mut pod = new_pod(set, &Owner::of(set), hash, node);
    pod.metadata.name = Some(name.to_owned());
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    let phase = match state {
        'f' => "Failed",
        's' => "Succeeded",
        _ => "Running",
    };
    let ready = if state == 'r' { "True" } else { "False" };
    pod.status =
        serde_json::from_value(json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}))
            .unwrap();
    pod.metadata.deletion_timestamp = (state == 'd').then(|| client::time(now()));
    pod
}

/// `pods`: name, node, hash, state. Answers nodes that get a pod, and pods that go.
fn check(strategy: Value, pods: &[(&str, &str, &str, char)], create: &[&str], delete: &[&str]) {
    let set = set(strategy, json!({}));
    let nodes = [
        node("a", None),
        node("b", None),
        node("c", Some(("full", "NoSchedule"))),
        node("e", Some(("bad", "NoExecute"))),
    ];
    let pods: Vec<_> =
        pods.iter().map(|(name, node, hash, state)| self::pod(&set, name, node, hash, *state)).collect();
    let world = World {
        set: &set,
        nodes: &nodes,
        pods: &pods,
        hashes: &["new".to_owned()],
        may_remove_failed: &|node| (node == "b").then(now),
        now: now(),
    };
    let found = plan(&world);
    let deleted: Vec<_> = found.delete.iter().map(|pod| name_of(&pod.metadata)).collect();
    assert_eq!(
        (found.create.iter().map(String::as_str).collect::<Vec<_>>(), deleted),
        (create.to_vec(), delete.to_vec())
    );
}

#[test]
fn every_fitting_node_has_one_pod() {
    let on_delete = || json!({"type": "OnDelete"});
    check(on_delete(), &[], &["a", "b"], &[]);
    check(on_delete(), &[("1", "a", "old", 'r'), ("2", "b", "old", 'r')], &[], &[]);
    check(on_delete(), &[("1", "a", "old", 'r'), ("2", "a", "old", 'r')], &["b"], &["2"]);
    check(on_delete(), &[("1", "a", "new", 'r'), ("2", "b", "new", 'r'), ("3", "c", "new", 'r')], &[], &[]);
    check(
        on_delete(),
        &[("1", "a", "new", 'r'), ("2", "b", "new", 'r'), ("3", "e", "new", 'r')],
        &[],
        &["3"],
    );
    check(on_delete(), &[("1", "a", "new", 'f'), ("2", "b", "new", 'f')], &[], &["1"]);
    check(on_delete(), &[("1", "a", "new", 's'), ("2", "b", "new", 'r')], &[], &["1"]);
    check(on_delete(), &[("1", "a", "new", 'd'), ("2", "b", "new", 'r')], &[], &[]);
}

#[test]
fn an_update_replaces_within_its_fences() {
    check(rolling(0, 1), &[("1", "a", "old", 'r'), ("2", "b", "old", 'r')], &[], &["1"]);
    check(rolling(0, 2), &[("1", "a", "old", 'r'), ("2", "b", "old", 'r')], &[], &["1", "2"]);
    check(rolling(0, 1), &[("1", "a", "new", 'x'), ("2", "b", "old", 'r')], &[], &[]);
    check(rolling(0, 1), &[("1", "a", "old", 'x'), ("2", "b", "old", 'r')], &[], &["1"]);
    check(rolling(0, 0), &[("1", "a", "new", 'r'), ("2", "b", "old", 'r')], &[], &["2"]);
    check(rolling(1, 0), &[("1", "a", "old", 'r'), ("2", "b", "old", 'r')], &["a"], &[]);
    check(rolling(1, 0), &[("1", "a", "old", 'r'), ("2", "b", "old", 'r'), ("3", "a", "new", 'x')], &[], &[]);
    check(
        rolling(1, 0),
        &[("1", "a", "old", 'r'), ("2", "b", "old", 'r'), ("3", "a", "new", 'r')],
        &[],
        &["1"],
    );
    check(rolling(1, 0), &[("1", "a", "old", 'x'), ("2", "b", "old", 'r')], &["a", "b"], &[]);
}

#[test]
fn daemons_tolerate_what_happens_to_nodes() {
    let check = |host_network: bool, taint: (&str, &str), expect: (bool, bool)| {
        let set = set(rolling(0, 1), json!({"hostNetwork": host_network}));
        assert_eq!(fits(&set, &tolerations(&set), &node("a", Some(taint))), expect, "{taint:?}");
    };
    check(false, ("node.kubernetes.io/not-ready", "NoExecute"), (true, true));
    check(false, ("node.kubernetes.io/unschedulable", "NoSchedule"), (true, true));
    check(false, ("node.kubernetes.io/network-unavailable", "NoSchedule"), (false, true));
    check(true, ("node.kubernetes.io/network-unavailable", "NoSchedule"), (true, true));
    check(false, ("other", "NoSchedule"), (false, true));
    check(false, ("other", "NoExecute"), (false, false));
    check(false, ("other", "PreferNoSchedule"), (true, true));
}

#[test]
fn the_status_counts_nodes() {
    let set = set(rolling(0, 1), json!({}));
    let nodes = [node("a", None), node("b", None), node("c", Some(("full", "NoSchedule")))];
    let pods = [pod(&set, "1", "a", "new", 'r'), pod(&set, "2", "c", "old", 'r')];
    let world = World {
        set: &set,
        nodes: &nodes,
        pods: &pods,
        hashes: &["new".to_owned()],
        may_remove_failed: &|_| None,
        now: now(),
    };
    let found = status(&world, 0);
    assert_eq!(
        (found.desired_number_scheduled, found.current_number_scheduled, found.number_misscheduled),
        (2, 1, 1)
    );
    assert_eq!((found.number_ready, found.number_available, found.number_unavailable), (1, Some(1), Some(1)));
    assert_eq!(found.updated_number_scheduled, Some(1));
}

#[test]
fn a_pod_names_its_node_before_it_is_placed() {
    let set = set(
        rolling(0, 1),
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}}}}),
    );
    let made = new_pod(&set, &Owner::of(&set), "h", "a");
    assert_eq!(target(&made), Some("a"));
}
