//! Tables of the rules of pods.

use super::resource;
use crate::testing::{Objects, check, check_update, created, warnings};
use api::resource::Action;
use api::{FieldErrors, Resource};
use serde_json::{Value, json};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

fn container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "busybox:1"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"containers": [container]})
}

#[test]
fn defaults() {
    let (made, errors) = created(
        &resource(),
        pod(json!({"containers": [{"name": "c", "image": "busybox",
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
            "readinessProbe": {"httpGet": {"port": 80}},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": 80}]}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "s"}}]})),
        &Objects::default(),
    );
    assert!(errors.is_empty(), "{errors:?}");
    let at = |pointer: &str| made.pointer(pointer).cloned().unwrap_or(Value::Null);
    for (pointer, expect) in [
        ("/spec/restartPolicy", json!("Always")),
        ("/spec/dnsPolicy", json!("ClusterFirst")),
        ("/spec/schedulerName", json!("default-scheduler")),
        ("/spec/securityContext", json!({})),
        ("/spec/terminationGracePeriodSeconds", json!(30)),
        ("/spec/enableServiceLinks", json!(true)),
        ("/spec/containers/0/imagePullPolicy", json!("Always")),
        ("/spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
        ("/spec/containers/0/resources/limits/memory", json!("1Gi")),
        ("/spec/containers/0/resources/requests/cpu", json!("1")),
        ("/spec/containers/0/readinessProbe/periodSeconds", json!(10)),
        ("/spec/containers/0/readinessProbe/httpGet/scheme", json!("HTTP")),
        ("/spec/containers/0/ports/0/protocol", json!("TCP")),
        ("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion", json!("v1")),
        ("/spec/volumes/0/emptyDir", json!({})),
        ("/spec/volumes/1/secret/defaultMode", json!(420)),
        ("/status/phase", json!("Pending")),
        ("/status/qosClass", json!("Guaranteed")),
        ("/metadata/generation", json!(1)),
    ] {
        assert_eq!(at(pointer), expect, "{pointer}");
    }
}

#[test]
fn what_is_refused() {
    let row = resource();
    check(&row, pod(container(json!({}))), &[]);
    check(&row, pod(json!({})), &["spec.containers: Required value"]);
    check(&row, pod(container(json!({"name": ""}))), &["spec.containers[0].name: Required value"]);
    check(&row, pod(container(json!({"image": ""}))), &["spec.containers[0].image: Required value"]);
    check(
        &row,
        pod(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}))),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    );
    check(
        &row,
        pod(container(json!({"ports": [{"containerPort": 70000}]}))),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        &row,
        pod(container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}))),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check(
        &row,
        pod(container(json!({"resources": {"limits": {"cpu": "a"}}}))),
        &[
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"a\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            "spec.containers[0].resources.requests[cpu]: Invalid value: \"a\": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ],
    );
    check(
        &row,
        pod(container(json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}))),
        &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
    );
    check(
        &row,
        pod(container(json!({"livenessProbe": {}}))),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check(
        &row,
        pod(container(json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}))),
        &[
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: \
           cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    let mut spec = container(json!({}));
    spec["restartPolicy"] = json!("Sometimes");
    spec["securityContext"] =
        json!({"sysctls": [{"name": "foo-", "value": "1"}, {"name": "bar..", "value": "2"}]});
    const SYSCTL: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    check(
        &row,
        pod(spec),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            &format!("spec.securityContext.sysctls[0].name: Invalid value: \"foo-\": {SYSCTL}"),
            &format!("spec.securityContext.sysctls[1].name: Invalid value: \"bar..\": {SYSCTL}"),
        ],
    );
    let mut spec = container(json!({}));
    spec["initContainers"] =
        json!([{"name": "c", "image": "i:1", "readinessProbe": {"exec": {"command": ["x"]}}}]);
    check(
        &row,
        pod(spec),
        &[
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
    let mut spec = container(json!({}));
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "../a", "expirationSeconds": 10}}]}}]);
    spec["serviceAccountName"] = json!("default");
    check(
        &row,
        pod(spec),
        &[
            "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
            "spec.volumes[1].projected.path: Invalid value: \"../a\": must not contain '..'",
        ],
    );
}

#[test]
fn what_may_change() {
    let row = resource();
    let old = || pod(container(json!({})));
    check_update(&row, old(), |new| new["spec"]["containers"][0]["image"] = json!("busybox:2"), &[]);
    check_update(&row, old(), |new| new["spec"]["activeDeadlineSeconds"] = json!(5), &[]);
    check_update(&row, old(), |new| new["spec"]["tolerations"] = json!([{"operator": "Exists"}]), &[]);
    check_update(&row, old(), |new| new["spec"]["hostNetwork"] = json!(false), &[]);
    check_update(&row, old(), |new| new["metadata"]["labels"] = json!({"a": "b"}), &[]);
    check_update(
        &row,
        old(),
        |new| new["spec"]["containers"] = json!([{"name": "a", "image": "b"}, {"name": "c", "image": "d"}]),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    check_update(
        &row,
        old(),
        |new| new["spec"]["nodeName"] = json!("n1"),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
           `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
           tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n\
           - nodeName: null\n+ nodeName: \"n1\""],
    );
}

fn part(row: &Resource, name: &str, old: Value, change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
    let (old, _) = created(row, old, &Objects::default());
    let mut new = old.clone();
    change(&mut new);
    let part = row.subresources.iter().find(|part| part.name == name).unwrap();
    let Action::Part(rules) = &part.action else { panic!("no part") };
    let mut errors = FieldErrors::default();
    crate::testing::with_context(&Objects::default(), |cx| {
        rules.default(&mut new).unwrap();
        rules.update(&mut new, &old, &mut errors, cx).unwrap();
    });
    (new, errors.into_vec().iter().map(ToString::to_string).collect())
}

#[test]
fn ephemeral_containers_are_only_added() {
    let row = resource();
    let (made, errors) = part(&row, "ephemeralcontainers", pod(container(json!({}))), |new| {
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox:1"}]);
        new["spec"]["nodeName"] = json!("ignored");
    });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(made["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File");
    assert_eq!(made["metadata"]["generation"], 2);
    assert!(made["spec"]["nodeName"].is_null());
}

#[test]
fn resize_changes_requests_and_limits_only() {
    let row = resource();
    let old = || pod(container(json!({"resources": {"requests": {"cpu": "1"}}})));
    let (made, errors) = part(&row, "resize", old(), |new| {
        new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
        new["spec"]["containers"][0]["image"] = json!("ignored");
    });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert_eq!(made["spec"]["containers"][0]["image"], "busybox:1");
    let (_, errors) = part(&row, "resize", old(), |new| {
        new["spec"]["containers"][0]["resources"] = json!({});
    });
    assert_eq!(
        errors,
        [
            "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ]
    );
}

#[test]
fn a_pod_without_a_node_dies_at_once() {
    let row = resource();
    let grace = |spec: Value, phase: &str, asked| {
        let pod = json!({"metadata": {}, "spec": spec, "status": {"phase": phase}});
        row.strategy.grace_seconds(&pod, asked).unwrap()
    };
    let on_node = || json!({"nodeName": "n", "terminationGracePeriodSeconds": 30});
    assert_eq!(grace(json!({}), "Pending", None), Some(0));
    assert_eq!(grace(on_node(), "Running", None), Some(30));
    assert_eq!(grace(on_node(), "Running", Some(5)), Some(5));
    assert_eq!(grace(on_node(), "Succeeded", Some(5)), Some(0));
}

#[test]
fn warned_of() {
    let mut spec = container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}));
    spec["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    assert_eq!(
        warnings(&resource(), pod(spec)),
        [
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        ]
    );
}
