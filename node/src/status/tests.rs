use super::*;
use crate::observed::tests::{at, exited, ready, seen};
use crate::observed::{ContainerSeen, State};
use crate::probe::ProbeKind;
use crate::spec::tests::pod;
use serde_json::{Value, json};

struct Case {
    spec: Value,
    sandbox: bool,
    containers: Vec<(&'static str, i32, State)>,
    waiting: Vec<(&'static str, &'static str)>,
    ending: bool,
    ready: bool,
    old: Value,
}

fn case(spec: Value, containers: Vec<(&'static str, i32, State)>) -> Case {
    Case { spec, sandbox: true, containers, waiting: Vec::new(), ending: false, ready: true, old: json!({}) }
}

fn compute(case: &Case) -> Value {
    let def = pod(json!({"metadata": {"generation": 3}, "spec": case.spec}));
    let mut observed = Observed { sandbox: case.sandbox.then(ready).flatten(), ..Default::default() };
    let mut probes = ProbeResults::default();
    for (name, count, state) in &case.containers {
        let one: ContainerSeen = seen(name, *count, state.clone());
        probes.set(&one.id, ProbeKind::Readiness, case.ready);
        observed.put(one);
    }
    let waiting = case.waiting.iter().map(|(name, reason)| {
        ((*name).to_owned(), WaitReason { reason: (*reason).to_owned(), message: "why".into() })
    });
    let old = serde_json::from_value(case.old.clone()).unwrap();
    let inputs = Inputs {
        def: &def,
        observed: &observed,
        old: &old,
        probes: &probes,
        waiting: &waiting.collect(),
        verdict: None,
        ending: case.ending,
        resize: &[],
        disruption: None,
        host_addresses: &["192.168.0.1".to_owned()],
        now: at(1000),
    };
    serde_json::to_value(status(&inputs)).unwrap()
}

/// Checks phase, the conditions that are true, and each container's state and last state in short.
fn check(case: Case, phase: &str, holds: &[&str], states: &[&str]) {
    let status = compute(&case);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found: Vec<String> = list(&status["conditions"])
        .iter()
        .filter(|condition| condition["status"] == "True")
        .map(|condition| condition["type"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    let short = |state: &Value| match state.as_object().and_then(|state| state.iter().next()) {
        Some((kind, inner)) => format!("{kind}:{}", inner["reason"].as_str().unwrap_or_default()),
        None => "-".to_owned(),
    };
    let mut shown = Vec::new();
    for field in ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"] {
        for one in list(&status[field]) {
            let name = one["name"].as_str().unwrap();
            shown.push(format!(
                "{name} {} {} {}",
                short(&one["state"]),
                short(&one["lastState"]),
                one["restartCount"]
            ));
        }
    }
    assert_eq!(status["phase"], phase, "{:?} {status}", case.containers);
    assert_eq!(found, holds, "{:?} {status}", case.containers);
    assert_eq!(shown, states, "{:?}", case.containers);
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

const READY: [&str; 5] =
    ["ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"];
const UNREADY: [&str; 3] = ["Initialized", "PodReadyToStartContainers", "PodScheduled"];

#[test]
fn from_creation_to_ready() {
    let new = Case { sandbox: false, ..case(one("Always"), vec![]) };
    check(new, "Pending", &["Initialized", "PodScheduled"], &["a waiting:ContainerCreating - 0"]);
    check(case(one("Always"), vec![]), "Pending", &UNREADY, &["a waiting:ContainerCreating - 0"]);
    check(case(one("Always"), vec![("a", 0, State::Running)]), "Running", &READY, &["a running: - 0"]);
}

#[test]
fn probes_and_failures_show() {
    let probed = json!({"containers": [{"name": "a", "image": "i", "readinessProbe": {}}]});
    let unready = Case { ready: false, ..case(probed.clone(), vec![("a", 0, State::Running)]) };
    check(unready, "Running", &UNREADY, &["a running: - 0"]);
    check(case(probed, vec![("a", 0, State::Running)]), "Running", &READY, &["a running: - 0"]);
    let pull = Case { waiting: vec![("a", "ImagePullBackOff")], ..case(one("Always"), vec![]) };
    check(pull, "Pending", &UNREADY, &["a waiting:ImagePullBackOff - 0"]);
    let crash =
        Case { waiting: vec![("a", "CrashLoopBackOff")], ..case(one("Always"), vec![("a", 2, exited(1))]) };
    check(crash, "Running", &UNREADY, &["a waiting:CrashLoopBackOff terminated:Error 2"]);
}

#[test]
fn pods_that_run_to_an_end() {
    let done = ["Initialized", "PodReadyToStartContainers", "PodScheduled"];
    check(case(one("Never"), vec![("a", 0, exited(0))]), "Succeeded", &done, &["a terminated:Completed - 0"]);
    check(case(one("Never"), vec![("a", 0, exited(2))]), "Failed", &done, &["a terminated:Error - 0"]);
    check(case(one("OnFailure"), vec![("a", 0, exited(2))]), "Running", &done, &["a terminated:Error - 0"]);
    let ending = Case { ending: true, ..case(one("Always"), vec![("a", 0, exited(0))]) };
    check(ending, "Succeeded", &done, &["a terminated:Completed - 0"]);
    check(
        case(one("Always"), vec![("a", 0, exited(2)), ("a", 1, State::Running)]),
        "Running",
        &READY,
        &["a running: terminated:Error 1"],
    );
}

#[test]
fn initialisation() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "x", "image": "i"}], "containers": [{"name": "a", "image": "i"}]});
    let starting = ["PodReadyToStartContainers", "PodScheduled"];
    let waiting = "a waiting:PodInitializing - 0";
    check(
        case(spec("Always"), vec![("x", 0, State::Running)]),
        "Pending",
        &starting,
        &["x running: - 0", waiting],
    );
    check(
        case(spec("Always"), vec![("x", 0, exited(0))]),
        "Pending",
        &UNREADY,
        &["x terminated:Completed - 0", waiting],
    );
    check(
        case(spec("Never"), vec![("x", 0, exited(1))]),
        "Failed",
        &starting,
        &["x terminated:Error - 0", waiting],
    );
    let retry =
        Case { waiting: vec![("x", "CrashLoopBackOff")], ..case(spec("Always"), vec![("x", 0, exited(1))]) };
    check(retry, "Pending", &starting, &["x waiting:CrashLoopBackOff terminated:Error 0", waiting]);
}

#[test]
fn what_was_running_and_is_gone_is_not_forgotten() {
    let old = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
        "containerID": "clipper://x", "state": {"running": {}}}]});
    let gone = Case { old: old.clone(), ..case(one("Always"), vec![]) };
    check(gone, "Running", &UNREADY, &["a waiting:ContainerCreating terminated:ContainerStatusUnknown 2"]);
    let ending = Case { old, ending: true, ..case(one("Always"), vec![]) };
    check(ending, "Failed", &UNREADY, &["a terminated:ContainerStatusUnknown - 1"]);
}

#[test]
fn conditions_remember_since_when_they_hold() {
    let old = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"}]});
    let status = compute(&Case { old, ..case(one("Always"), vec![("a", 0, State::Running)]) });
    let of = |type_: &str| {
        let list = status["conditions"].as_array().unwrap();
        list.iter().find(|condition| condition["type"] == type_).unwrap().clone()
    };
    assert_eq!(of("Ready")["lastTransitionTime"], "1970-01-01T00:00:07Z");
    assert_eq!(of("Initialized")["lastTransitionTime"], "1970-01-01T00:16:40Z");
    assert_eq!(of("Ready")["observedGeneration"], 3);
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("10.0.0.1"), &json!("192.168.0.1")));
}
