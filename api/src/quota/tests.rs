use super::*;
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

#[track_caller]
fn check(group: &str, plural: &str, object: Value, expect: Value) {
    let measure = Measure::of(group, plural, &object).unwrap();
    let parsed = Object::parse(object.to_string().into_bytes().into()).unwrap();
    assert_eq!(Measure::of_object(group, plural, &parsed).unwrap(), measure);
    let usage = measure.usage(now());
    for name in usage.keys() {
        assert!(tracks(group, plural, name), "{name}");
        assert_eq!(source(name), Some((group, plural)), "{name}");
    }
    assert_eq!(serde_json::to_value(write(&usage)).unwrap(), expect, "{object}");
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn pods() {
    let one = container(
        json!({"cpu": "100m", "memory": "1Gi", "hugepages-2Mi": "2Mi", "example.com/gpu": "1"}),
        json!({"cpu": "1", "ephemeral-storage": "1Gi"}),
    );
    check(
        "",
        "pods",
        pod(json!({"containers": [one.clone(), one], "overhead": {"cpu": "1m"}})),
        json!({"count/pods": "1", "pods": "1", "cpu": "201m", "requests.cpu": "201m", "limits.cpu": "2001m",
            "memory": "2Gi", "requests.memory": "2Gi", "hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi",
            "requests.example.com/gpu": "2", "limits.ephemeral-storage": "2Gi"}),
    );
    let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}});
    let init = json!({"name": "i", "resources": {"requests": {"cpu": "1"}}});
    let small = container(json!({"cpu": "100m"}), json!({}));
    check(
        "",
        "pods",
        pod(json!({"containers": [small.clone()], "initContainers": [sidecar, init]})),
        json!({"count/pods": "1", "pods": "1", "cpu": "1200m", "requests.cpu": "1200m"}),
    );
    check(
        "",
        "pods",
        pod(json!({"containers": [small], "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}})),
        json!({"count/pods": "1", "pods": "1", "cpu": "2", "requests.cpu": "2", "limits.cpu": "3"}),
    );
}

#[test]
fn pods_that_end_are_only_counted() {
    let mut ended = pod(json!({"containers": [container(json!({"cpu": "1"}), json!({}))]}));
    ended["status"] = json!({"phase": "Succeeded"});
    check("", "pods", ended, json!({"count/pods": "1"}));
    let mut stuck = pod(json!({"containers": [container(json!({}), json!({}))]}));
    stuck["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:00Z".into();
    stuck["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    check("", "pods", stuck.clone(), json!({"count/pods": "1"}));
    stuck["metadata"]["deletionGracePeriodSeconds"] = 90.into();
    check("", "pods", stuck, json!({"count/pods": "1", "pods": "1"}));
}

#[test]
fn pods_hold_what_they_have_until_a_resize_is_done() {
    let mut shrinking = pod(json!({"containers": [container(json!({"cpu": "1"}), json!({}))]}));
    shrinking["status"] = json!({"containerStatuses": [
        {"name": "c", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "1"},
         "image": "i", "imageID": "", "ready": true, "restartCount": 0}]});
    check(
        "",
        "pods",
        shrinking.clone(),
        json!({"count/pods": "1", "pods": "1", "cpu": "2", "requests.cpu": "2"}),
    );
    shrinking["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "9".into();
    shrinking["status"]["conditions"] =
        json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
    check("", "pods", shrinking, json!({"count/pods": "1", "pods": "1", "cpu": "2", "requests.cpu": "2"}));
}

#[test]
fn services() {
    let service = |kind: &str, allocate: Option<bool>| {
        let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
        let mut spec = json!({"type": kind, "ports": ports});
        if let Some(allocate) = allocate {
            spec["allocateLoadBalancerNodePorts"] = allocate.into();
        }
        json!({"metadata": {"name": "s"}, "spec": spec})
    };
    let expect = |balancers: &str, ports: &str| json!({"count/services": "1", "services": "1", "services.loadbalancers": balancers, "services.nodeports": ports});
    check("", "services", service("ClusterIP", None), expect("0", "0"));
    check("", "services", service("NodePort", None), expect("0", "2"));
    check("", "services", service("LoadBalancer", Some(true)), expect("1", "2"));
    check("", "services", service("LoadBalancer", Some(false)), expect("1", "1"));
}

#[test]
fn claims() {
    let claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "gold",
        "resources": {"requests": {"storage": "1500m"}}}, "status": {"allocatedResources": {"storage": "1"}}});
    check(
        "",
        "persistentvolumeclaims",
        claim,
        json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "gold.storageclass.storage.k8s.io/requests.storage": "2"}),
    );
    let exactly =
        |count: i64| json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count});
    let all = json!({"name": "x", "deviceClassName": "gpu", "allocationMode": "All"});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "a", "exactly": exactly(2)}, {"name": "b", "firstAvailable": [all]}]}}});
    check(
        "resource.k8s.io",
        "resourceclaims",
        claim,
        json!({"count/resourceclaims.resource.k8s.io": "1", "gpu.deviceclass.resource.k8s.io/devices": "34"}),
    );
}

#[test]
fn anything_is_counted() {
    check("apps", "deployments", json!({"metadata": {"name": "d"}}), json!({"count/deployments.apps": "1"}));
    check("", "secrets", json!({"metadata": {"name": "s"}}), json!({"count/secrets": "1", "secrets": "1"}));
    assert!(!tracks("", "events", "count/events"));
    assert_eq!(source("count/events.events.k8s.io"), None);
    assert_eq!(source("nonsense"), None);
}

fn term(scope: &str, operator: &str, values: &[&str]) -> Term {
    let values = values.iter().map(|own| (*own).to_owned()).collect();
    Term { scope_name: scope.to_owned(), operator: operator.to_owned(), values: Some(values) }
}

#[test]
fn scopes() {
    let plain = Measure::of("", "pods", &pod(json!({"containers": [{"name": "c"}]}))).unwrap();
    let rich = json!({"containers": [container(json!({"cpu": "1"}), json!({}))], "activeDeadlineSeconds": 0,
        "priorityClassName": "high", "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "podAffinityTerm": {"topologyKey": "k", "namespaceSelector": {}}}]}}});
    let rich = Measure::of("", "pods", &pod(rich)).unwrap();
    for (scope, operator, values, in_plain, in_rich) in [
        ("Terminating", "Exists", &[][..], false, true),
        ("NotTerminating", "Exists", &[], true, false),
        ("BestEffort", "Exists", &[], true, false),
        ("NotBestEffort", "Exists", &[], false, true),
        ("PriorityClass", "Exists", &[], false, true),
        ("PriorityClass", "DoesNotExist", &[], true, false),
        ("PriorityClass", "In", &["high", "low"], false, true),
        ("PriorityClass", "NotIn", &["high"], true, false),
        ("CrossNamespacePodAffinity", "Exists", &[], false, true),
        ("VolumeAttributesClass", "Exists", &[], false, false),
    ] {
        let terms = [term(scope, operator, values)];
        assert_eq!((plain.is_in(&terms), rich.is_in(&terms)), (in_plain, in_rich), "{scope} {operator}");
    }
    assert!(plain.is_in(&[]));
    let claim = json!({"metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": "a"},
        "status": {"currentVolumeAttributesClassName": "b"}});
    let claim = Measure::of("", "persistentvolumeclaims", &claim).unwrap();
    assert!(claim.is_in(&[term("VolumeAttributesClass", "In", &["b"])]));
    assert!(!claim.is_in(&[term("BestEffort", "Exists", &[])]));
    let spec: ResourceQuotaSpec = serde_json::from_value(json!({"scopes": ["BestEffort"],
        "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["x"]}]}}))
    .unwrap();
    let names: Vec<_> = self::terms(&spec).into_iter().map(|own| own.scope_name).collect();
    assert_eq!(names, ["BestEffort", "PriorityClass"]);
}

#[test]
fn what_a_container_must_set() {
    let check = |spec: Value, bounded: &[&str], expect: Option<&str>| {
        let pod = serde_json::from_value(pod(spec)).unwrap();
        assert_eq!(unset(&pod, bounded.iter().copied()).as_deref(), expect);
    };
    let spec = json!({"containers": [{"name": "b"}, {"name": "a", "resources": {"limits": {"cpu": "1"}}}],
        "initContainers": [{"name": "i"}]});
    check(spec.clone(), &["pods", "requests.ephemeral-storage"], None);
    check(spec.clone(), &["limits.cpu", "memory"], Some("limits.cpu for: b,i; memory for: a,b,i"));
    let mut whole = spec;
    whole["resources"] = json!({"requests": {"memory": "1Gi"}});
    check(whole, &["limits.cpu", "memory"], None);
}

#[test]
fn totals_take_what_is_in_scope_and_name_what_is_served() {
    let pods = [
        pod(json!({"containers": [container(json!({"cpu": "1"}), json!({}))]})),
        pod(json!({"containers": [container(json!({"cpu": "2"}), json!({}))], "activeDeadlineSeconds": 5})),
    ];
    let list = |group: &str, plural: &str| match plural {
        "pods" => Some(pods.iter().map(|own| Arc::new(Measure::of("", "pods", own).unwrap())).collect()),
        "secrets" => Some(Vec::new()),
        _ => {
            assert_eq!(group, "nobody.example");
            None
        }
    };
    let names = ["cpu", "pods", "limits.cpu", "secrets", "count/things.nobody.example", "odd"];
    let total = total(names, &[term("NotTerminating", "Exists", &[])], now(), list);
    assert_eq!(
        serde_json::to_value(write(&total)).unwrap(),
        json!({"cpu": "1", "pods": "1", "limits.cpu": "0", "secrets": "0"})
    );
}
