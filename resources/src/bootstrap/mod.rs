//! The objects that every cluster has from its first second on, as data.
//!
//! `policy.txt` is the table of default roles and bindings (the facts of upstream's `bootstrappolicy`). A line that starts
//! in the first column begins a role or binding; the indented lines below are its rules or subjects:
//!
//! ```text
//! ClusterRole NAMESPACE NAME [label=KEY]... [aggregates=KEY]...
//!   VERBS GROUPS RESOURCES [NAMES]
//!   VERBS urls URLS
//! ClusterRoleBinding NAMESPACE NAME KIND/ROLE
//!   KIND [NAMESPACE/]NAME
//! ```
//! Lists are separated by commas, `""` is the core group, `-` is nothing.

use serde_json::{Value, json};
use std::net::Ipv4Addr;

const POLICY: &str = include_str!("policy.txt");

/// What the objects depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the service `kubernetes`.
    pub kubernetes_ip: Ipv4Addr,
    /// Where the API server is reached.
    pub server: (Ipv4Addr, u16),
    /// Address of the cluster's DNS.
    pub dns_ip: Ipv4Addr,
    /// Networks of service addresses.
    pub service_cidrs: Vec<String>,
}

/// All objects, in an order in which they can be created.
pub fn objects(settings: &Settings) -> Vec<Value> {
    let mut objects: Vec<Value> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    for (name, value, about) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        objects.push(
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": about}),
        );
    }
    objects.extend(policy(POLICY));
    objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": settings.service_cidrs}}));
    objects.extend(services(settings));
    objects
}

fn services(settings: &Settings) -> Vec<Value> {
    let (server_ip, server_port) = settings.server;
    let own = json!({"component": "apiserver", "provider": "kubernetes"});
    let mut of_slice = own.clone();
    of_slice["kubernetes.io/service-name"] = "kubernetes".into();
    vec![
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": own},
            "spec": {"type": "ClusterIP", "clusterIP": settings.kubernetes_ip, "clusterIPs": [settings.kubernetes_ip],
                "ports": [{"name": "https", "port": 443, "targetPort": server_port, "protocol": "TCP"}]}}),
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": server_ip}],
                "ports": [{"name": "https", "port": server_port, "protocol": "TCP"}]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": of_slice},
            "endpoints": [{"addresses": [server_ip], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": server_port, "protocol": "TCP"}]}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system",
                "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}},
            "spec": {"type": "ClusterIP", "clusterIP": settings.dns_ip, "clusterIPs": [settings.dns_ip],
                "ports": [{"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"}]}}),
    ]
}

fn list(text: &str) -> Vec<&str> {
    match text {
        "-" => Vec::new(),
        text => text.split(',').map(|part| if part == "\"\"" { "" } else { part }).collect(),
    }
}

/// Reads the table. Aggregating roles get the union of what they aggregate, as the controller would compute it.
fn policy(table: &str) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (line.starts_with(' '), objects.last_mut()) {
            (false, _) => objects.extend(begin(&words)),
            (true, Some(object)) if object.get("rules").is_some() => push(object, "rules", rule(&words)),
            (true, Some(object)) => push(object, "subjects", subject(&words)),
            (true, None) => {}
        }
    }
    aggregate(&mut objects);
    objects
}

fn push(object: &mut Value, field: &str, value: Option<Value>) {
    if let (Some(list), Some(value)) = (object[field].as_array_mut(), value) {
        list.push(value);
    }
}

fn begin(words: &[&str]) -> Option<Value> {
    let [kind, namespace, name, rest @ ..] = words else { return None };
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}});
    if *namespace != "-" {
        object["metadata"]["namespace"] = (*namespace).into();
    }
    if kind.ends_with("Binding") {
        let (role_kind, role) = rest.first()?.split_once('/')?;
        object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role});
        object["subjects"] = json!([]);
        return Some(object);
    }
    object["rules"] = json!([]);
    let mut selectors = Vec::new();
    for word in rest {
        match word.split_once('=') {
            Some(("label", key)) => object["metadata"]["labels"][key] = "true".into(),
            Some(("aggregates", key)) => selectors.push(json!({"matchLabels": {key: "true"}})),
            _ => {}
        }
    }
    if !selectors.is_empty() {
        object["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    Some(object)
}

fn rule(words: &[&str]) -> Option<Value> {
    match words {
        [verbs, "urls", urls] => Some(json!({"verbs": list(verbs), "nonResourceURLs": list(urls)})),
        [verbs, groups, resources] => {
            Some(json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)}))
        }
        [verbs, groups, resources, names] => Some(json!({"verbs": list(verbs), "apiGroups": list(groups),
            "resources": list(resources), "resourceNames": list(names)})),
        _ => None,
    }
}

fn subject(words: &[&str]) -> Option<Value> {
    match words {
        ["ServiceAccount", name] => {
            let (namespace, name) = name.split_once('/')?;
            Some(json!({"kind": "ServiceAccount", "namespace": namespace, "name": name}))
        }
        [kind, name] => Some(json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})),
        _ => None,
    }
}

/// Fills aggregating roles until nothing is added: `admin` aggregates `edit`, which aggregates `view`.
fn aggregate(objects: &mut [Value]) {
    loop {
        let mut changed = false;
        for index in 0..objects.len() {
            let selectors =
                objects[index].pointer("/aggregationRule/clusterRoleSelectors").cloned().unwrap_or_default();
            let keys: Vec<String> = selectors
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|selector| selector["matchLabels"].as_object())
                .flat_map(|labels| labels.keys().cloned())
                .collect();
            let mut rules: Vec<Value> = Vec::new();
            for other in objects
                .iter()
                .filter(|other| keys.iter().any(|key| other["metadata"]["labels"].get(key).is_some()))
            {
                for rule in other["rules"].as_array().into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if !keys.is_empty() && objects[index]["rules"].as_array() != Some(&rules) {
                objects[index]["rules"] = rules.into();
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Value> {
        objects(&Settings {
            kubernetes_ip: [10, 43, 0, 1].into(),
            server: ([192, 0, 2, 1].into(), 6443),
            dns_ip: [10, 43, 0, 10].into(),
            service_cidrs: vec!["10.43.0.0/16".into()],
        })
    }

    #[test]
    fn every_line_of_the_table_is_understood() {
        let rules = POLICY.lines().filter(|line| line.starts_with(' ')).count();
        let heads = POLICY.lines().filter(|line| !line.starts_with(' ')).count();
        let objects = policy(POLICY);
        assert_eq!(objects.len(), heads);
        let own = |object: &Value| {
            let list = if object.get("subjects").is_some() { &object["subjects"] } else { &object["rules"] };
            if object.get("aggregationRule").is_some() { 0 } else { list.as_array().map_or(0, Vec::len) }
        };
        assert_eq!(objects.iter().map(own).sum::<usize>(), rules);
    }

    #[test]
    fn every_binding_names_a_role_that_is_there() {
        let objects = policy(POLICY);
        for binding in objects.iter().filter(|object| object.get("roleRef").is_some()) {
            let role = &binding["roleRef"];
            let found = objects.iter().any(|other| {
                other["kind"] == role["kind"]
                    && other["metadata"]["name"] == role["name"]
                    && (role["kind"] == "ClusterRole"
                        || other["metadata"]["namespace"] == binding["metadata"]["namespace"])
            });
            assert!(found, "{binding}");
        }
    }

    #[test]
    fn admin_includes_edit_and_view() {
        let objects = policy(POLICY);
        let rules = |name: &str| {
            let role =
                objects.iter().find(|own| own["metadata"]["name"] == name && own["kind"] == "ClusterRole");
            role.unwrap()["rules"].as_array().unwrap().clone()
        };
        let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
        assert!(edit.iter().all(|rule| admin.contains(rule)) && view.iter().all(|rule| edit.contains(rule)));
        assert!(!view.is_empty() && edit.len() > view.len() && admin.len() > edit.len());
    }

    #[test]
    fn each_object_has_a_row_and_comes_after_its_namespace() {
        let rows = crate::all();
        let mut namespaces = Vec::new();
        for object in all() {
            let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
            assert!(
                rows.iter().any(|row| row.kind == kind && row.api_version() == version),
                "{version} {kind}"
            );
            match object["metadata"]["namespace"].as_str() {
                Some(namespace) => assert!(namespaces.contains(&namespace.to_owned()), "{namespace}"),
                None if kind == "Namespace" => {
                    namespaces.push(object["metadata"]["name"].as_str().unwrap().to_owned())
                }
                None => {}
            }
        }
    }
}
