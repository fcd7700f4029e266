use super::super::testing::{Case, create, create_in, update};
use super::*;
use crate::testing::Objects;
use serde_json::json;

fn namespace(labels: &[(&str, &str)]) -> Value {
    let labels: BTreeMap<String, &str> =
        labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), *value)).collect();
    json!({"metadata": {"name": "n", "labels": labels}})
}

fn within(labels: &[(&str, &str)]) -> Objects {
    Objects::default().with("", "namespaces", namespace(labels))
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

fn host_pod() -> Value {
    pod(json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}))
}

#[test]
fn pods_are_refused_recorded_and_warned_of() {
    let case = create("pods");
    let refused = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    case.refuses(&PodSecurity, host_pod(), &within(&[("enforce", "baseline")]), 403, refused);
    let plain = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    assert!(case.run(&PodSecurity, plain, &within(&[("enforce", "baseline")])).is_ok());

    let labels = [("audit", "baseline"), ("warn", "baseline"), ("warn-version", "v1.30")];
    let admitted = case.run(&PodSecurity, host_pod(), &within(&labels)).unwrap();
    assert_eq!(
        admitted.warnings,
        ["would violate PodSecurity \"baseline:v1.30\": host namespaces (hostNetwork=true)"]
    );
    assert_eq!(
        admitted.annotations,
        BTreeMap::from([
            (
                format!("{PREFIX}audit-violations"),
                "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
                    .to_owned()
            ),
            (format!("{PREFIX}enforce-policy"), "privileged:latest".to_owned()),
        ])
    );
    let admitted = case.run(&PodSecurity, host_pod(), &within(&[])).unwrap();
    assert_eq!(admitted.annotations[&format!("{PREFIX}enforce-policy")], "privileged:latest");
    let missing = "Internal error occurred: failed to lookup namespace \"n\"";
    case.refuses(&PodSecurity, host_pod(), &Objects::default(), 500, missing);
}

#[test]
fn which_changes_of_pods_are_looked_at() {
    let lookup = within(&[("enforce", "baseline")]);
    let old = host_pod();
    let check = |subresource: &str, change: &dyn Fn(&mut Value), refused: bool| {
        let mut new = old.clone();
        change(&mut new);
        let outcome = update("pods", subresource, &old).run(&PodSecurity, new, &lookup);
        assert_eq!(outcome.is_err(), refused, "{subresource}");
    };
    check("", &|pod| pod["metadata"]["labels"] = json!({"a": "b"}), false);
    check("", &|pod| pod["spec"]["containers"][0]["image"] = "j".into(), true);
    check("status", &|pod| pod["spec"]["containers"][0]["image"] = "j".into(), false);
    check("ephemeralcontainers", &|pod| pod["spec"]["ephemeralContainers"] = json!([{"name": "e"}]), true);
}

#[test]
fn templates_are_warned_of() {
    let lookup = within(&[("enforce", "restricted"), ("warn", "baseline")]);
    for (group, plural, pointer) in TEMPLATES {
        let spec = json!({"hostPID": true, "containers": [{"name": "c"}]});
        let fields: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
        let nested = fields.iter().rev().fold(json!({"spec": spec}), |inner, field| json!({*field: inner}));
        let mut object = json!({"metadata": {"name": "x"}});
        object.as_object_mut().unwrap().extend(nested.as_object().unwrap().clone());
        let admitted = create_in(group, plural).run(&PodSecurity, object, &lookup).unwrap();
        let expect = "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
        assert_eq!(admitted.warnings, [expect], "{plural}");
    }
    let bare = json!({"metadata": {"name": "x"}, "spec": {}});
    assert!(create("replicationcontrollers").run(&PodSecurity, bare, &lookup).is_ok());
}

#[test]
fn labels_of_namespaces_must_be_good() {
    let bad = namespace(&[("enforce", "x")]);
    let why = format!(
        "Namespace \"n\" is invalid: metadata.labels[{PREFIX}enforce]: Invalid value: \"x\": must be one of privileged, baseline, restricted"
    );
    create("namespaces").refuses(&PodSecurity, bad.clone(), &Objects::default(), 422, &why);
    update("namespaces", "", &namespace(&[])).refuses(
        &PodSecurity,
        bad.clone(),
        &Objects::default(),
        422,
        &why,
    );
    assert!(update("namespaces", "", &bad).run(&PodSecurity, bad.clone(), &Objects::default()).is_ok());
}

#[test]
fn stricter_namespaces_warn_of_their_pods() {
    let named = |name: &str, owner: Option<&str>, spec: Value| {
        let owners: Vec<Value> = owner
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owners}, "spec": spec})
    };
    let host = || json!({"hostNetwork": true, "hostPID": true, "containers": []});
    let lookup = Objects::default()
        .with("", "pods", named("c", Some("u"), host()))
        .with("", "pods", named("b", Some("u"), host()))
        .with("", "pods", named("a", None, json!({"containers": []})))
        .with(
            "",
            "pods",
            named(
                "z",
                None,
                json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            ),
        );
    let check = |old: &[(&str, &str)], new: &[(&str, &str)], expect: &[&str]| {
        let case: Case<'_> = update("namespaces", "", &namespace(old));
        let admitted = case.run(&PodSecurity, namespace(new), &lookup).unwrap();
        assert_eq!(admitted.warnings, expect);
    };
    let head =
        "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"";
    let each = ["b (and 1 other pod): host namespaces", "z: hostPath volumes"];
    check(&[], &[("enforce", "baseline")], &[head, each[0], each[1]]);
    check(&[("enforce", "restricted")], &[("enforce", "baseline")], &[]);
    check(&[("enforce", "baseline")], &[("enforce", "baseline"), ("warn", "restricted")], &[]);
    check(&[("enforce", "baseline")], &[("enforce", "privileged")], &[]);
}
