//! Each case is a namespace and what must be said of it.

use super::*;
use serde_json::{Value, json};

fn objects(all: Vec<Value>) -> Objects {
    let mut objects = Objects { namespace: "ns".to_owned(), ..Objects::default() };
    let node = json!({"kind": "Node", "metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    for value in all.into_iter().chain([node]) {
        let kind = value["kind"].as_str().unwrap().to_owned();
        fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
            serde_json::from_value(value).unwrap()
        }
        match kind.as_str() {
            "Pod" => objects.pods.push(of(value)),
            "ReplicaSet" => objects.replica_sets.push(of(value)),
            "Deployment" => objects.deployments.push(of(value)),
            "Service" => objects.services.push(of(value)),
            "EndpointSlice" => objects.slices.push(of(value)),
            "PersistentVolumeClaim" => objects.claims.push(of(value)),
            "Event" => objects.events.push(of(value)),
            _ => objects.nodes.push(of(value)),
        }
    }
    objects
}

/// A pod on node1 with one container, changed by a merge.
fn pod(change: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "example.com/app:1"}]},
        "status": {"phase": "Pending", "podIP": "10.42.0.2", "containerStatuses": []},
    });
    merge(&mut pod, change);
    pod
}

fn merge(target: &mut Value, change: Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change,
    }
}

fn status(state: Value, more: Value) -> Value {
    let mut status =
        json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 4, "state": state});
    merge(&mut status, more);
    json!({"status": {"containerStatuses": [status]}})
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "ns"},
        "involvedObject": {"kind": kind, "name": name}, "reason": reason, "message": message,
    })
}

const READY: &str =
    r#"{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}"#;

fn ready() -> Value {
    serde_json::from_str(READY).unwrap()
}

#[track_caller]
fn check(subject: &str, all: Vec<Value>, level: Level, says: &[&str]) {
    let findings = explain(&Subject::parse(subject).unwrap(), &objects(all)).unwrap();
    let text = findings.iter().map(|finding| format!("{finding}\n")).collect::<String>();
    for word in says {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    let worst = |level| findings.iter().any(|finding| finding.level == level);
    let found = match () {
        () if worst(Level::Stuck) => Level::Stuck,
        () if worst(Level::Waiting) => Level::Waiting,
        () => Level::Fine,
    };
    assert_eq!(found, level, "{text}");
}

#[test]
fn subjects_are_named_as_in_kubectl() {
    assert_eq!(Subject::parse("deploy/a"), Ok(Subject::Deployment("a".to_owned())));
    assert_eq!(Subject::parse("SVC/a"), Ok(Subject::Service("a".to_owned())));
    for wrong in ["a", "pod/", "node/a"] {
        assert!(Subject::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(explain(&Subject::Pod("none".to_owned()), &objects(vec![])), None);
}

#[test]
fn pods_that_have_not_started() {
    let refused = |message: &str| {
        json!({"spec": {"nodeName": null}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
        ]}})
    };
    let p = "pod/p";
    let cases: Vec<(Value, Vec<Value>, Level, &[&str])> = vec![
        (
            json!({"spec": {"nodeName": null}}),
            vec![],
            Level::Waiting,
            &["waits for the scheduler default-scheduler"],
        ),
        (
            json!({"spec": {"nodeName": null, "schedulerName": "own"}}),
            vec![],
            Level::Waiting,
            &["is a scheduler of this name running"],
        ),
        (
            json!({"spec": {"nodeName": null, "schedulingGates": [{"name": "g"}]}}),
            vec![],
            Level::Stuck,
            &["gates are removed: g"],
        ),
        (
            refused("0/1 nodes are available: 1 Insufficient cpu."),
            vec![],
            Level::Stuck,
            &["fits on no node: 0/1 nodes", "ask for less"],
        ),
        (
            refused("0/1 nodes are available: 1 node(s) had untolerated taint(s)."),
            vec![],
            Level::Stuck,
            &["tolerate the taint"],
        ),
        (
            json!({"spec": {"nodeName": "node9"}}),
            vec![],
            Level::Stuck,
            &["bound to node node9, which does not exist"],
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
            vec![],
            Level::Stuck,
            &["volume claim data, which does not exist"],
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
            vec![
                json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "status": {"phase": "Pending"}}),
                event("PersistentVolumeClaim", "data", "FailedBinding", "no persistent volumes available"),
            ],
            Level::Stuck,
            &["waits for the volume claim data: no persistent volumes available"],
        ),
        (
            json!({}),
            vec![event("Pod", "p", "FailedMount", "configmap \"x\" not found")],
            Level::Stuck,
            &["cannot have its volumes: configmap \"x\" not found"],
        ),
        (
            json!({"status": {"podIP": null}}),
            vec![event("Pod", "p", "FailedCreatePodSandBox", "no address is free")],
            Level::Stuck,
            &["no address is free"],
        ),
        (
            json!({}),
            vec![event("Pod", "other", "FailedMount", "not mine")],
            Level::Waiting,
            &["has not reported it ready yet"],
        ),
    ];
    for (change, more, level, says) in cases {
        check(p, [vec![pod(change)], more].concat(), level, says);
    }
}

#[test]
fn containers_that_do_not_run() {
    let waiting = |reason: &str, message: &str| {
        status(json!({"waiting": {"reason": reason, "message": message}}), json!({}))
    };
    let crashed = |end: Value| {
        status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"lastState": {"terminated": end}}))
    };
    let limit = json!({"spec": {"containers": [
        {"name": "c", "image": "i", "resources": {"limits": {"memory": "32Mi"}}},
    ]}});
    let mut killed = crashed(json!({"exitCode": 137, "reason": "OOMKilled"}));
    merge(&mut killed, limit);
    let cases: Vec<(Value, Level, &[&str])> = vec![
        (waiting("ContainerCreating", ""), Level::Waiting, &["container c is being made"]),
        (
            waiting("ImagePullBackOff", "no such host"),
            Level::Stuck,
            &["example.com/app:1 cannot be pulled: no such host", "clipper image import"],
        ),
        (waiting("ErrImageNeverPull", "x"), Level::Stuck, &["imagePullPolicy is Never"]),
        (waiting("InvalidImageName", "x"), Level::Stuck, &["is no valid name"]),
        (
            waiting("CreateContainerConfigError", "secret \"s\" not found"),
            Level::Stuck,
            &["misses a setting: secret \"s\" not found"],
        ),
        (
            waiting("RunContainerError", "no such file"),
            Level::Stuck,
            &["does not start (RunContainerError): no such file"],
        ),
        (
            crashed(json!({"exitCode": 3})),
            Level::Stuck,
            &["ends with exit code 3", "restarted 4 times", "logs p -c c --previous"],
        ),
        (crashed(json!({"exitCode": 127})), Level::Stuck, &["names a command that does not exist"]),
        (crashed(json!({"exitCode": 139})), Level::Stuck, &["ended by signal 11"]),
        (crashed(json!({"exitCode": 0})), Level::Stuck, &["ends although it should go on"]),
        (killed, Level::Stuck, &["more memory than its limit of 32Mi", "raise resources.limits.memory"]),
        (
            status(json!({"terminated": {"exitCode": 1}}), json!({})),
            Level::Waiting,
            &["will be started again"],
        ),
    ];
    for (change, level, says) in cases {
        check("pod/p", vec![pod(change)], level, says);
    }
}

#[test]
fn an_init_container_comes_before_the_others() {
    let change = json!({
        "spec": {"initContainers": [{"name": "i", "image": "x"}]},
        "status": {
            "initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}],
        },
    });
    check("pod/p", vec![pod(change)], Level::Waiting, &["its init container i is still running"]);
}

#[test]
fn pods_that_run_and_are_not_ready() {
    let probed = |probe: &str, started: bool| {
        let mut change = status(json!({"running": {}}), json!({"started": started}));
        let mut container = json!({"name": "c", "image": "i"});
        container[probe] = json!({"exec": {"command": ["true"]}});
        merge(&mut change, json!({"spec": {"containers": [container]}}));
        change
    };
    let unhealthy = |text: &str| event("Pod", "p", "Unhealthy", text);
    check("pod/p", vec![pod(probed("readinessProbe", true))], Level::Waiting, &["has not succeeded yet"]);
    let failed = unhealthy("Readiness probe failed: HTTP probe failed with statuscode: 503");
    check(
        "pod/p",
        vec![pod(probed("readinessProbe", true)), failed],
        Level::Stuck,
        &["says that it is not ready: Readiness probe failed: HTTP", "logs p -c c"],
    );
    let failed = unhealthy("Startup probe failed: x");
    check(
        "pod/p",
        vec![pod(probed("startupProbe", false)), failed],
        Level::Waiting,
        &["is starting: Startup probe failed: x"],
    );
    let gated = json!({"spec": {"readinessGates": [{"conditionType": "example.com/up"}]}});
    check("pod/p", vec![pod(gated)], Level::Stuck, &["readiness gates are not true: example.com/up"]);
}

#[test]
fn pods_at_their_end() {
    check("pod/p", vec![pod(ready())], Level::Fine, &["is running and ready"]);
    check("pod/p", vec![pod(json!({"status": {"phase": "Succeeded"}}))], Level::Fine, &["exited with 0"]);
    let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}});
    check("pod/p", vec![pod(evicted)], Level::Stuck, &["has failed (Evicted): The node was low"]);
    let mut failed = status(json!({"terminated": {"exitCode": 2}}), json!({}));
    merge(&mut failed, json!({"status": {"phase": "Failed"}}));
    check("pod/p", vec![pod(failed)], Level::Stuck, &["container c exited with 2"]);
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
    check("pod/p", vec![pod(deleted)], Level::Stuck, &["waits for its finalizers: a/b"]);
}

fn deployment(change: Value) -> Value {
    let mut own = json!({
        "kind": "Deployment", "metadata": {"name": "web", "uid": "d", "generation": 1},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
    });
    merge(&mut own, change);
    own
}

fn replica_set(uid: &str, revision: &str, change: Value) -> Value {
    let mut own = json!({
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("web-{uid}"), "uid": uid, "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}],
        },
        "spec": {"replicas": 2, "selector": {}}, "status": {"replicas": 2},
    });
    merge(&mut own, change);
    own
}

fn owned(set: &str, change: Value) -> Value {
    let mut own = pod(change);
    merge(
        &mut own,
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": set, "controller": true},
        ]}}),
    );
    own
}

#[test]
fn deployments() {
    let d = "deployment/web";
    let complete = json!({"status": {"availableReplicas": 2}});
    check(d, vec![deployment(complete)], Level::Fine, &["has its 2 pods"]);
    check(
        d,
        vec![deployment(json!({"metadata": {"generation": 2}}))],
        Level::Waiting,
        &["has not seen that yet"],
    );
    let none = json!({"spec": {"replicas": 0}, "status": {"replicas": null, "updatedReplicas": null, "availableReplicas": null}});
    check(d, vec![deployment(none)], Level::Fine, &["asks for no pods"]);
    check(
        d,
        vec![deployment(json!({"spec": {"paused": true}}))],
        Level::Stuck,
        &["is paused", "rollout resume deployment/web"],
    );
    let waiting = status(json!({"waiting": {"reason": "ErrImagePull", "message": "no route"}}), json!({}));
    check(
        d,
        vec![
            deployment(json!({})),
            replica_set("old", "1", json!({})),
            replica_set("new", "2", json!({})),
            owned("new", waiting),
            owned("old", json!({})),
        ],
        Level::Stuck,
        &[
            "wants 2 pods: 2 are of the newest template, 1 are available, 2 exist",
            "pod/p: container c has no image",
            "no route",
        ],
    );
    let late = json!({"status": {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}});
    check(d, vec![deployment(late)], Level::Stuck, &["no progress within its deadline", "rollout undo"]);
    check(
        d,
        vec![
            deployment(json!({})),
            replica_set("old", "1", json!({})),
            replica_set("new", "2", json!({})),
            owned("new", ready()),
            owned("old", ready()),
        ],
        Level::Waiting,
        &["1 pods of older templates go"],
    );
}

#[test]
fn a_deployment_whose_pods_are_refused() {
    let refused = "pods \"web-x\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1";
    let condition = json!({"status": {"replicas": 1, "updatedReplicas": 1, "conditions": [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refused},
    ]}});
    let says: &[&str] = &[
        "replicaset/web-new: may not make its pods: pods \"web-x\" is forbidden: exceeded quota",
        "describe quota",
    ];
    check(
        "deployment/web",
        vec![deployment(condition), replica_set("new", "1", json!({}))],
        Level::Stuck,
        says,
    );
    // Before the condition is there, the event says it.
    let set = replica_set("new", "1", json!({"status": {"replicas": 1}}));
    let event = event("ReplicaSet", "web-new", "FailedCreate", refused);
    check("deployment/web", vec![deployment(json!({})), set, event], Level::Stuck, says);
}

fn service(change: Value) -> Value {
    let mut own = json!({
        "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.43.0.7", "type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    merge(&mut own, change);
    own
}

fn slice(ready: bool) -> Value {
    json!({
        "kind": "EndpointSlice", "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.42.0.2"], "conditions": {"ready": ready}}],
    })
}

#[test]
fn services() {
    let s = "service/web";
    check(
        s,
        vec![service(json!({})), pod(ready()), slice(true)],
        Level::Fine,
        &["sends 10.43.0.7 to 10.42.0.2:8080"],
    );
    let headless = json!({"spec": {"clusterIP": "None"}});
    check(
        s,
        vec![service(headless), pod(ready()), slice(true)],
        Level::Fine,
        &["is headless: its name stands for 10.42.0.2:8080"],
    );
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    check(s, vec![service(external)], Level::Fine, &["another name for example.com"]);
    let other = json!({"spec": {"selector": {"app": "wbe"}}});
    check(
        s,
        vec![service(other), pod(ready())],
        Level::Stuck,
        &["selects no pod: none in namespace ns has app=wbe", "pod/p has app=web"],
    );
    let waiting = status(json!({"waiting": {"reason": "ErrImagePull", "message": "no route"}}), json!({}));
    check(
        s,
        vec![service(json!({})), pod(waiting), slice(false)],
        Level::Stuck,
        &["selects 1 pods, and none of them takes connections", "pod/p: container c has no image"],
    );
    check(
        s,
        vec![service(json!({})), pod(ready())],
        Level::Waiting,
        &["ready pods that are not among its endpoints yet"],
    );
    let by_hand = json!({"spec": {"selector": null}});
    check(
        s,
        vec![service(by_hand.clone())],
        Level::Stuck,
        &["has no selector, and nobody has written endpoints"],
    );
    check(s, vec![service(by_hand), slice(true)], Level::Fine, &["to 10.42.0.2:8080"]);
    let balancer = json!({"spec": {"type": "LoadBalancer"}});
    check(
        s,
        vec![service(balancer), pod(ready()), slice(true)],
        Level::Waiting,
        &["has no address outside yet"],
    );
}

#[test]
fn ports_of_services_that_no_pod_has() {
    let with_port = |port: Value| {
        let mut change = ready();
        merge(&mut change, json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [port]}]}}));
        pod(change)
    };
    let named = json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}]}});
    check(
        "svc/web",
        vec![service(named.clone()), with_port(json!({"name": "web", "containerPort": 8080}))],
        Level::Stuck,
        &["the port named http, which no container has"],
    );
    check(
        "svc/web",
        vec![service(named), with_port(json!({"name": "http", "containerPort": 8080})), slice(true)],
        Level::Fine,
        &[],
    );
    check(
        "svc/web",
        vec![service(json!({})), with_port(json!({"containerPort": 80})), slice(true)],
        Level::Waiting,
        &["sends port 80 to 8080; its pods say that they listen on 80"],
    );
}
