use super::*;
use crate::auth::tests::Cluster;
use api::{Resource, Scope, UserInfo};
use serde_json::json;
use std::collections::BTreeMap;

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::default();
    cluster.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "u1"}}));
    let sources = json!([{"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"path": "v", "audience": "vault"}}]);
    let pod = |name: &str, node: &str| {
        json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"nodeName": node, "containers": [],
            "volumes": [{"name": "t", "projected": {"sources": sources}}]}})
    };
    cluster.put("", "pods", pod("p1", "n1"));
    cluster.put("", "pods", pod("p2", "n2"));
    Arc::new(cluster)
}

/// `CREATE  pods/status a name`.
fn check(request: &str, object: Value, old: Option<Value>, expect: Result<(), &str>) {
    let parts: Vec<&str> = request.split(' ').collect();
    let [operation, group, plural, namespace, name] = parts.as_slice() else { panic!("{request}") };
    let (plural, subresource) = plural.split_once('/').unwrap_or((plural, ""));
    let none = |text: &'static str| if text == "-" { "" } else { text };
    let (namespace, name) = (namespace.to_string().leak(), name.to_string().leak());
    let operation = match *operation {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        _ => Operation::Delete,
    };
    let cluster = cluster();
    let resource = Resource::new(group, "v1", "X", plural, Scope::Namespaced);
    let mut request_ = AdmissionRequest {
        operation,
        resource: &resource,
        subresource,
        kind: ("", "v1", "X"),
        namespace: none(namespace),
        name: none(name),
        object,
        old: old.as_ref(),
        options: &Value::Null,
        user: &UserInfo::node("n1"),
        dry_run: false,
        lookup: &*cluster,
        now: jiff::Timestamp::UNIX_EPOCH,
        warnings: Vec::new(),
        annotations: BTreeMap::new(),
        reinvocation: Default::default(),
    };
    let found = NodeRestriction(Arc::new(Rbac::new(cluster.clone()))).mutate(&mut request_);
    let found = found.map_err(|status| status.message);
    match expect {
        Ok(()) => assert_eq!(found, Ok(()), "{request}"),
        Err(end) => {
            let message = found.unwrap_err();
            assert!(message.ends_with(end), "{request}: {message}");
        }
    }
}

#[test]
fn nodes() {
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
    let plain = || node("n1", json!({"kubernetes.io/os": "linux", "acme.com/x": "y"}));
    check("CREATE  nodes - -", plain(), None, Ok(()));
    check(
        "CREATE  nodes - -",
        node("n2", json!({})),
        None,
        Err("node \"n1\" is not allowed to modify node \"n2\""),
    );
    check(
        "CREATE  nodes - -",
        node(
            "n1",
            json!({"node-role.kubernetes.io/control-plane": "", "a.node-restriction.kubernetes.io/b": ""}),
        ),
        None,
        Err(
            "is not allowed to set the following labels: a.node-restriction.kubernetes.io/b, node-role.kubernetes.io/control-plane",
        ),
    );
    check("UPDATE  nodes/status - n1", plain(), Some(plain()), Ok(()));
    let mut tainted = plain();
    tainted["spec"]["taints"] = json!([{"key": "a", "effect": "NoSchedule"}]);
    check("UPDATE  nodes - n1", plain(), Some(tainted), Err("node \"n1\" is not allowed to modify taints"));
    let labelled = node("n1", json!({"x.k8s.io/y": "z"}));
    check("UPDATE  nodes - n1", labelled, Some(plain()), Err("is not allowed to modify labels: x.k8s.io/y"));
}

#[test]
fn pods() {
    let mirror = || {
        json!({"metadata": {"name": "m", "annotations": {ANNOTATION_MIRROR: "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": []}})
    };
    check("CREATE  pods a -", mirror(), None, Ok(()));
    let mut changed = mirror();
    changed["metadata"]["annotations"] = json!({});
    check("CREATE  pods a -", changed, None, Err("node \"n1\" can only create mirror pods"));
    let mut changed = mirror();
    changed["spec"]["nodeName"] = "n2".into();
    check("CREATE  pods a -", changed, None, Err("spec.nodeName set to itself"));
    let mut changed = mirror();
    changed["metadata"]["ownerReferences"][0]["uid"] = "u2".into();
    check("CREATE  pods a -", changed, None, Err("node n1 UID mismatch: expected u2 got u1"));
    let mut changed = mirror();
    changed["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "s"}}]);
    check("CREATE  pods a -", changed, None, Err("node \"n1\" can not create pods that reference secrets"));
    check("DELETE  pods a p1", Value::Null, None, Ok(()));
    check(
        "DELETE  pods a p2",
        Value::Null,
        None,
        Err("node \"n1\" can only delete pods with spec.nodeName set to itself"),
    );
    check("DELETE  pods a p3", Value::Null, None, Err("pods \"p3\" not found"));
    check("UPDATE  pods a p1", mirror(), Some(mirror()), Err("can only create and delete mirror pods"));
    check("UPDATE  pods/status a p1", mirror(), Some(mirror()), Ok(()));
    let mut labelled = mirror();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    check(
        "UPDATE  pods/status a p1",
        labelled,
        Some(mirror()),
        Err("cannot update labels through pod status"),
    );
    check(
        "CREATE  pods/eviction a p2",
        json!({}),
        None,
        Err("node n1 can only evict pods with spec.nodeName set to itself"),
    );
    check("CREATE  pods/binding a p1", json!({}), None, Err("only 'status' and 'eviction' are allowed"));
}

#[test]
fn tokens_and_the_rest() {
    let token = |pod: &str, uid: &str, audiences: Value| json!({"spec": {"audiences": audiences, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
    let path = "CREATE  serviceaccounts/token a bot";
    check(path, token("p1", "p1", json!([])), None, Ok(()));
    check(path, token("p1", "p1", json!(["vault"])), None, Ok(()));
    check(
        path,
        token("p1", "p1", json!(["x"])),
        None,
        Err("is not authorized to request tokens for audience \"x\""),
    );
    check(path, token("p2", "p2", json!([])), None, Err("bound to a pod scheduled on a different node"));
    check(path, token("p1", "", json!([])), None, Err("without a uid"));
    check(path, json!({"spec": {}}), None, Err("node requested token not bound to a pod"));
    let lease = |name: &str| json!({"metadata": {"name": name}});
    check("CREATE coordination.k8s.io leases kube-node-lease -", lease("n1"), None, Ok(()));
    check(
        "CREATE coordination.k8s.io leases kube-node-lease -",
        lease("n2"),
        None,
        Err("with the same name as the requesting node"),
    );
    let claim =
        |phase: &str, capacity: &str| json!({"status": {"phase": phase, "capacity": {"storage": capacity}}});
    let path = "UPDATE  persistentvolumeclaims/status a c";
    check(path, claim("Bound", "2Gi"), Some(claim("Bound", "1Gi")), Ok(()));
    check(
        path,
        claim("Lost", "1Gi"),
        Some(claim("Bound", "1Gi")),
        Err("other than status.quantity and status.conditions"),
    );
    check("UPDATE  persistentvolumeclaims a c", json!({}), None, Err("may only update PVC status"));
    check("CREATE apps deployments a -", json!({}), None, Ok(()));
}

#[test]
fn certificates() {
    let request = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
        json!({"spec": {"signerName": "kubernetes.io/kubelet-serving", "request": text}})
    };
    let path = "CREATE certificates.k8s.io certificatesigningrequests - -";
    check(path, request("system:node:n1"), None, Ok(()));
    check(path, request("system:node:n2"), None, Err("can only create a node CSR with CN=system:node:n1"));
}
