use super::*;
use crate::auth::tests::{Cluster, asked};
use api::{Admission, AdmissionRequest, Operation, Resource, Scope, Status};
use serde_json::{Value, json};

fn role(namespace: &str, name: &str, rules: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "rules": rules})
}

fn binding(namespace: &str, name: &str, kind: &str, role: &str, subjects: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "subjects": subjects,
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}})
}

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::default();
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    cluster.put(GROUP, "clusterroles", role("", "view", pods));
    let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    cluster.put(GROUP, "roles", role("a", "owner", all));
    let jane = json!([{"kind": "User", "name": "jane"}]);
    cluster.put(GROUP, "clusterrolebindings", binding("", "viewers", "ClusterRole", "view", jane));
    let team = json!([{"kind": "Group", "name": "team"}, {"kind": "ServiceAccount", "name": "bot"}]);
    cluster.put(GROUP, "rolebindings", binding("a", "owners", "Role", "owner", team));
    let joe = json!([{"kind": "User", "name": "joe"}]);
    cluster.put(GROUP, "rolebindings", binding("a", "gone", "Role", "gone", joe));
    Arc::new(cluster)
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: name.to_owned(), groups, ..UserInfo::default() }
}

#[test]
fn who_may_what() {
    let rbac = Rbac::new(cluster());
    let check = |user: &UserInfo, request: &str, expect: &str| {
        let verdict = rbac.index().decide(&asked(user, request));
        let allowed = if verdict.decision == Decision::Allow { "yes" } else { "no" };
        assert_eq!(format!("{allowed} {}", verdict.reason).trim_end(), expect, "{request}");
    };
    let jane = user("jane", &[]);
    check(
        &jane,
        "get  pods b x",
        r#"yes RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "view" to User "jane""#,
    );
    check(
        &jane,
        "get  pods - x",
        r#"yes RBAC: allowed by ClusterRoleBinding "viewers" of ClusterRole "view" to User "jane""#,
    );
    check(&jane, "delete  pods b x", "no");
    let member = user("x", &["team"]);
    check(
        &member,
        "delete apps deployments a d",
        r#"yes RBAC: allowed by RoleBinding "owners/a" of Role "owner" to Group "team""#,
    );
    check(&member, "delete apps deployments b d", "no");
    let bot = UserInfo::service_account("a", "bot");
    check(
        &bot,
        "list  secrets a -",
        r#"yes RBAC: allowed by RoleBinding "owners/a" of Role "owner" to ServiceAccount "bot/a""#,
    );
    check(&UserInfo::service_account("b", "bot"), "list  secrets a -", "no");
    check(&user("joe", &[]), "list  pods a -", r#"no RBAC: role.rbac.authorization.k8s.io "gone" not found"#);
}

#[test]
fn a_change_is_seen_by_the_next_request() {
    let cluster = cluster();
    let rbac = Rbac::new(cluster.clone());
    let jane = user("jane", &[]);
    let allowed = |request: &str| rbac.index().decide(&asked(&jane, request)).decision == Decision::Allow;
    let before = rbac.index();
    assert!(allowed("get  pods b x") && !allowed("list  pods b -"));
    assert!(Arc::ptr_eq(&before, &rbac.index()));
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    cluster.put(GROUP, "clusterroles", role("", "view", rules));
    assert!(!allowed("get  pods b x") && allowed("list  pods b -"));
    cluster.remove(GROUP, "clusterrolebindings", "", "viewers");
    assert!(!allowed("list  pods b -"));
}

fn write(plural: &str, user: &UserInfo, object: Value, old: Option<Value>) -> Result<(), Status> {
    let cluster = cluster();
    let rules = json!([{"verbs": ["create", "update"], "apiGroups": [GROUP], "resources": ["*"]},
        {"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["view"]}]);
    cluster.put(GROUP, "clusterroles", role("", "rbac-writer", rules));
    let writers = json!([{"kind": "Group", "name": "writers"}]);
    cluster.put(GROUP, "clusterrolebindings", binding("", "w", "ClusterRole", "rbac-writer", writers));
    let check = EscalationCheck(Arc::new(Rbac::new(cluster.clone())));
    let scope = if plural.starts_with("cluster") { Scope::Cluster } else { Scope::Namespaced };
    let resource = Resource::new(GROUP, "v1", "X", plural, scope);
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let mut request = AdmissionRequest {
        operation,
        resource: &resource,
        subresource: "",
        kind: (GROUP, "v1", "X"),
        namespace: &namespace,
        name: &name,
        object,
        old: old.as_ref(),
        options: &Value::Null,
        user,
        dry_run: false,
        lookup: &*cluster,
        now: jiff::Timestamp::UNIX_EPOCH,
        warnings: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        reinvocation: Default::default(),
    };
    check.validate(&mut request)
}

#[test]
fn nobody_hands_out_what_they_do_not_have() {
    let writer = user("w", &["writers"]);
    let secrets = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
    let own = json!([{"verbs": ["update"], "apiGroups": [GROUP], "resources": ["*"]}]);
    let refused = write("roles", &writer, role("a", "r", secrets.clone()), None).unwrap_err();
    assert_eq!(
        refused.message,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"w\" (groups=[\"writers\"]) is attempting to grant \
         RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    assert!(write("roles", &writer, role("a", "r", own), None).is_ok());
    assert!(
        write("roles", &user("root", &["system:masters"]), role("a", "r", secrets.clone()), None).is_ok()
    );
    let old = role("a", "r", secrets.clone());
    let mut collected = old.clone();
    collected["metadata"]["finalizers"] = json!([]);
    assert!(write("roles", &writer, collected, Some(old)).is_ok());
    let subjects = json!([{"kind": "User", "name": "w"}]);
    let bind = |kind, name| binding("a", "b", kind, name, subjects.clone());
    assert!(write("rolebindings", &writer, bind("ClusterRole", "view"), None).is_ok());
    assert!(write("rolebindings", &writer, bind("ClusterRole", "rbac-writer"), None).is_ok());
    assert!(write("rolebindings", &writer, bind("Role", "owner"), None).is_err());
    assert!(write("rolebindings", &writer, bind("Role", "none"), None).unwrap_err().is_not_found());
    let mut aggregated = role("", "r", json!([]));
    aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let refused = write("clusterroles", &writer, aggregated, None).unwrap_err();
    assert!(refused.message.ends_with("must have cluster-admin privileges to use the aggregationRule"));
}

/// Objects as they are kept name their kind: none of the four may be refused for it.
#[test]
fn all_four_kinds_are_read_as_they_are_kept() {
    let object = |json: serde_json::Value| Object::parse(json.to_string().into()).unwrap();
    for kind in ["Role", "ClusterRole"] {
        let role = object(serde_json::json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "a"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}));
        assert_eq!(super::read_rules(&role).map(|rules| rules.len()), Some(1), "{kind}");
    }
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let binding = object(serde_json::json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": "a"}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "r"},
            "subjects": [{"kind": "User", "apiGroup": GROUP, "name": "u"}]}));
        assert!(super::read_binding(&binding).is_some(), "{kind}");
    }
}
