use super::*;
use crate::auth::tests::{Cluster, asked};
use serde_json::json;

fn cluster() -> Arc<Cluster> {
    let cluster = Cluster::default();
    let pod = |name: &str, node: &str, secret: &str| {
        json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"nodeName": node, "containers": [],
            "serviceAccountName": "bot", "imagePullSecrets": [{"name": secret}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("claim-{name}")}}]}})
    };
    cluster.put("", "pods", pod("p1", "n1", "s1"));
    cluster.put("", "pods", pod("p2", "n2", "s2"));
    let volume = json!({"metadata": {"name": "pv1"}, "spec": {"claimRef": {"namespace": "a", "name": "claim-p1"},
        "csi": {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"namespace": "keys", "name": "key"}}}});
    cluster.put("", "persistentvolumes", volume);
    let attachment = json!({"metadata": {"name": "va1"}, "spec": {"nodeName": "n1"}});
    cluster.put("storage.k8s.io", "volumeattachments", attachment);
    Arc::new(cluster)
}

fn check(request: &str, expect: Result<(), &str>) {
    check_selected(request, "", expect);
}

fn check_selected(request: &str, field_selector: &str, expect: Result<(), &str>) {
    let authorizer = NodeAuthorizer::new(cluster());
    let user = UserInfo::node("n1");
    let verdict = authorizer.decide(&Attributes { field_selector, ..asked(&user, request) });
    let found = match verdict.decision {
        Decision::Allow => Ok(()),
        _ => Err(verdict.reason.as_str()),
    };
    assert_eq!(found, expect, "{request}");
}

const UNRELATED: Result<(), &str> = Err("no relationship found between node 'n1' and this object");

#[test]
fn only_what_its_pods_need() {
    check("get  secrets a s1", Ok(()));
    check("watch  secrets a s1", Ok(()));
    check("get  secrets a s2", UNRELATED);
    check("get  secrets b s1", UNRELATED);
    check("list  secrets a -", Err("No Object name found"));
    check("list  secrets - -", Err("can only read namespaced object of this type"));
    check("update  secrets a s1", Err("can only read resources of this type"));
    check("get  secrets keys key", Ok(()));
    check("get  configmaps a s1", UNRELATED);
    check("get  persistentvolumeclaims a claim-p1", Ok(()));
    check("get  persistentvolumeclaims a claim-p2", UNRELATED);
    check("patch  persistentvolumeclaims/status a claim-p1", Ok(()));
    check("get  persistentvolumes - pv1", Ok(()));
    check("get  persistentvolumes - pv2", UNRELATED);
    check("get storage.k8s.io volumeattachments - va1", Ok(()));
    check("create  serviceaccounts/token a bot", Ok(()));
    check("create  serviceaccounts/token a other", UNRELATED);
    check("create  serviceaccounts a bot", Err("can only create token subresource of serviceaccount"));
}

#[test]
fn only_about_itself() {
    check("get  nodes - n1", Ok(()));
    check("get  nodes - n2", Err("node 'n1' cannot read 'n2', only its own Node object"));
    check("list  nodes - -", Err("node 'n1' cannot read all nodes, only its own Node object"));
    check("patch  nodes/status - n1", Ok(()));
    check("delete  nodes - n1", Err(""));
    check("get  pods a p1", Ok(()));
    check("get  pods a p2", UNRELATED);
    check_selected("watch  pods - -", "spec.nodeName=n1", Ok(()));
    let unselected = Err("can only list/watch pods with spec.nodeName field selector");
    check_selected("list  pods - -", "spec.nodeName=n2", unselected);
    check("patch  pods/status a p1", Ok(()));
    check("create  pods/exec a p1", Err(""));
    check("update coordination.k8s.io leases kube-node-lease n1", Ok(()));
    let other = Err("can only access node lease with the same name as the requesting node");
    check("update coordination.k8s.io leases kube-node-lease n2", other);
    check(
        "update coordination.k8s.io leases a n1",
        Err("can only access leases in the \"kube-node-lease\" system namespace"),
    );
    check("create coordination.k8s.io leases kube-node-lease -", Ok(()));
    check("create certificates.k8s.io certificatesigningrequests - -", Ok(()));
    check("list  services - -", Ok(()));
    check("list apps deployments - -", Err(""));
    check("get /metrics", Err(""));
}

#[test]
fn others_are_none_of_its_business() {
    let authorizer = NodeAuthorizer::new(cluster());
    let user = UserInfo { name: "system:node:n1".to_owned(), ..UserInfo::default() };
    assert_eq!(authorizer.decide(&asked(&user, "get  secrets a s1")), Verdict::NO_OPINION);
}
