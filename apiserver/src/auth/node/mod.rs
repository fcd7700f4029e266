//! The Node authorizer: a node reads what its pods need and writes about itself, nothing else.
//! Upstream: `plugin/pkg/auth/authorizer/node`.
//!
//! Whether a pod of a node refers to an object is looked up in the pods of that object's namespace; what a version of a pod
//! refers to is worked out once and remembered.

mod references;
mod restriction;

pub use references::{ANNOTATION_MIRROR, Kind, References};
pub use restriction::NodeRestriction;

use super::rbac::Rule;
use crate::hooks::{Attributes, Authorize, Decision, Verdict};
use api::{FieldSelector, Lookup, Object, ObjectName, UserInfo};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// More pods than this are not remembered at once; one takes about 300 bytes.
const REMEMBERED_LEN_MAX: usize = 200_000;

/// The namespace of node leases.
const NAMESPACE_LEASES: &str = "kube-node-lease";

/// The name of the node that a user is, if it is one; empty where it is an unknown one. Upstream:
/// `pkg/auth/nodeidentifier`.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.is_in("system:nodes").then_some(name)
}

/// What every node may do alike. What the authorizer divides further is not here. Upstream:
/// `bootstrappolicy.NodeRules`.
fn common_rules() -> Vec<Rule> {
    const READ: &[&str] = &["get", "list", "watch"];
    vec![
        Rule::resources(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
        Rule::resources(
            &["create"],
            &["authorization.k8s.io"],
            &["subjectaccessreviews", "localsubjectaccessreviews"],
        ),
        Rule::resources(READ, &[""], &["services"]),
        Rule::resources(&["create", "update", "patch"], &["", "events.k8s.io"], &["events"]),
        Rule::resources(&["get"], &[""], &["endpoints"]),
        Rule::resources(
            &["create", "get", "list", "watch"],
            &["certificates.k8s.io"],
            &["certificatesigningrequests"],
        ),
        Rule::resources(READ, &["storage.k8s.io"], &["csidrivers"]),
        Rule::resources(READ, &["node.k8s.io"], &["runtimeclasses"]),
        Rule::resources(READ, &["certificates.k8s.io"], &["clustertrustbundles"]),
    ]
}

/// The authorizer.
pub struct NodeAuthorizer {
    lookup: Arc<dyn Lookup>,
    rules: Vec<Rule>,
    remembered: Mutex<HashMap<ObjectName, (u64, Arc<References>)>>,
}

/// `Ok`: allowed. `Err`: upstream's reason why not, which may be empty.
type Answer = Result<(), String>;

impl NodeAuthorizer {
    /// Over these objects.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, rules: common_rules(), remembered: Mutex::default() }
    }

    fn decide(&self, asked: &Attributes<'_>) -> Verdict {
        let Some(node) = node_of(asked.user) else { return Verdict::NO_OPINION };
        let answer = match node {
            "" => Err(format!("unknown node for user \"{}\"", asked.user.name)),
            node if asked.is_resource => self.decide_resource(node, asked),
            _ => self.decide_common(asked),
        };
        match answer {
            Ok(()) => Verdict::ALLOW,
            Err(reason) => Verdict { decision: Decision::NoOpinion, reason },
        }
    }

    fn decide_common(&self, asked: &Attributes<'_>) -> Answer {
        self.rules.iter().any(|rule| rule.allows(asked)).then_some(()).ok_or_else(String::new)
    }

    fn decide_resource(&self, node: &str, asked: &Attributes<'_>) -> Answer {
        match (asked.group, asked.resource) {
            ("", "secrets") => self.read_in_namespace(node, asked, Kind::Secret),
            ("", "configmaps") => self.read_in_namespace(node, asked, Kind::ConfigMap),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => {
                if !matches!(asked.verb, "update" | "patch") {
                    return refuse("can only get/update/patch this type");
                }
                self.related(node, asked, |own| own.pod_refers(node, asked, Kind::Claim))
            }
            ("", "persistentvolumeclaims") => {
                self.get_one(node, asked, |own| own.pod_refers(node, asked, Kind::Claim))
            }
            ("", "persistentvolumes") => self.get_one(node, asked, |own| own.volume_on(node, asked.name)),
            ("resource.k8s.io", "resourceclaims") => {
                self.get_one(node, asked, |own| own.pod_refers(node, asked, Kind::ResourceClaim))
            }
            ("storage.k8s.io", "volumeattachments") => self.get_one(node, asked, |own| {
                own.field("storage.k8s.io", "volumeattachments", "", asked.name, "nodeName")
                    == Some(node.into())
            }),
            ("", "serviceaccounts") => self.service_account(node, asked),
            ("coordination.k8s.io", "leases") => lease(node, asked),
            ("storage.k8s.io", "csinodes") => csi_node(node, asked),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, asked),
            ("", "nodes") => own_node(node, asked),
            ("", "pods") => self.pod(node, asked),
            ("certificates.k8s.io", "podcertificaterequests") => self.pod_certificate(node, asked),
            _ => self.decide_common(asked),
        }
    }

    /// `get` of one object that is related.
    fn get_one(&self, node: &str, asked: &Attributes<'_>, related: impl FnOnce(&Self) -> bool) -> Answer {
        if asked.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, asked, related)
    }

    /// `get`, `list` and `watch` of one related object of a namespace.
    fn read_in_namespace(&self, node: &str, asked: &Attributes<'_>, kind: Kind) -> Answer {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, asked, |own| own.pod_refers(node, asked, kind))
    }

    fn related(&self, node: &str, asked: &Attributes<'_>, related: impl FnOnce(&Self) -> bool) -> Answer {
        if asked.name.is_empty() {
            return refuse("No Object name found");
        }
        match related(self) {
            true => Ok(()),
            false => Err(format!("no relationship found between node '{node}' and this object")),
        }
    }

    fn service_account(&self, node: &str, asked: &Attributes<'_>) -> Answer {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.read_in_namespace(node, asked, Kind::ServiceAccount);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if asked.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, asked, |own| own.pod_refers(node, asked, Kind::ServiceAccount))
    }

    fn resource_slice(&self, node: &str, asked: &Attributes<'_>) -> Answer {
        if !asked.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match asked.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, asked, |own| {
                own.field("resource.k8s.io", "resourceslices", "", asked.name, "nodeName")
                    == Some(node.into())
            }),
            "list" | "watch" | "deletecollection" if selects(asked, "spec.nodeName", node) => Ok(()),
            "list" | "watch" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, asked: &Attributes<'_>) -> Answer {
        let is_own = |own: &Self| {
            let pod = own.lookup.get("", "pods", asked.namespace, asked.name);
            pod.is_some_and(|pod| *own.references(&pod).node == *node)
        };
        match (asked.subresource, asked.verb) {
            ("", "get") => self.get_one(node, asked, is_own),
            ("", "list" | "watch") if selects(asked, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !asked.name.is_empty() => self.related(node, asked, is_own),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction sees to it that these are the node's own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }

    fn pod_certificate(&self, node: &str, asked: &Attributes<'_>) -> Answer {
        const GROUP: &str = "certificates.k8s.io";
        if !asked.subresource.is_empty() {
            return refuse("nodes may not access the status subresource of PodCertificateRequests");
        }
        match asked.verb {
            "create" => Ok(()),
            "get" => self.related(node, asked, |own| {
                let plural = "podcertificaterequests";
                own.field(GROUP, plural, asked.namespace, asked.name, "nodeName") == Some(node.into())
            }),
            "list" | "watch" if selects(asked, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => {
                refuse("can only list/watch podcertificaterequests with nodeName field selector")
            }
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    /// Whether a pod of the node refers to the asked object, directly or, for secrets, by the volume behind a claim.
    fn pod_refers(&self, node: &str, asked: &Attributes<'_>, kind: Kind) -> bool {
        if self.some_pod(node, asked.namespace, |references| references.has(kind, asked.name)) {
            return true;
        }
        kind == Kind::Secret && self.secret_of_volume(node, asked)
    }

    fn some_pod(&self, node: &str, namespace: &str, wanted: impl Fn(&References) -> bool) -> bool {
        let pods = self.lookup.list("", "pods", namespace);
        pods.iter().any(|pod| {
            let references = self.references(pod);
            *references.node == *node && wanted(&references)
        })
    }

    fn secret_of_volume(&self, node: &str, asked: &Attributes<'_>) -> bool {
        let volumes = self.lookup.list("", "persistentvolumes", "");
        volumes.iter().any(|volume| {
            // Most volumes name no secret at all; only those that do are decoded.
            let text = &volume.json;
            let names_it = text.windows(asked.name.len()).any(|part| part == asked.name.as_bytes());
            names_it
                && volume.decode::<Value>().is_ok_and(|volume| {
                    references::volume_needs_secret(&volume, asked.namespace, asked.name)
                        && self.claim_on(node, &volume)
                })
        })
    }

    /// Whether a pod of the node uses the claim that a volume is bound to.
    fn claim_on(&self, node: &str, volume: &Value) -> bool {
        let claim = &volume["spec"]["claimRef"];
        let (Some(namespace), Some(name)) = (claim["namespace"].as_str(), claim["name"].as_str()) else {
            return false;
        };
        self.some_pod(node, namespace, |references| references.has(Kind::Claim, name))
    }

    fn volume_on(&self, node: &str, name: &str) -> bool {
        let volume = self.lookup.get("", "persistentvolumes", "", name);
        let volume = volume.and_then(|volume| volume.decode::<Value>().ok());
        volume.is_some_and(|volume| self.claim_on(node, &volume))
    }

    /// A text field of an object's spec.
    fn field(&self, group: &str, plural: &str, namespace: &str, name: &str, field: &str) -> Option<String> {
        let object = self.lookup.get(group, plural, namespace, name)?.decode::<Value>().ok()?;
        object["spec"][field].as_str().map(str::to_owned)
    }

    fn references(&self, pod: &Object) -> Arc<References> {
        let mut remembered = self.remembered.lock();
        if let Some((version, references)) = remembered.get(&pod.meta.key)
            && *version == pod.meta.resource_version
        {
            return references.clone();
        }
        let decoded = pod.decode::<Pod>();
        let references = Arc::new(decoded.map(|pod| References::of(&pod)).unwrap_or_default());
        if remembered.len() >= REMEMBERED_LEN_MAX {
            remembered.clear();
        }
        remembered.insert(pod.meta.key.clone(), (pod.meta.resource_version, references.clone()));
        references
    }
}

impl Authorize for NodeAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(self.decide(attributes)))
    }
}

fn refuse(reason: &str) -> Answer {
    Err(reason.to_owned())
}

fn selects(asked: &Attributes<'_>, field: &str, value: &str) -> bool {
    FieldSelector::parse(asked.field_selector).is_ok_and(|selector| selector.required(field) == Some(value))
}

fn lease(node: &str, asked: &Attributes<'_>) -> Answer {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != NAMESPACE_LEASES {
        return Err(format!("can only access leases in the \"{NAMESPACE_LEASES}\" system namespace"));
    }
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, asked: &Attributes<'_>) -> Answer {
    if !asked.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if asked.verb != "create" && asked.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Answer {
    match (asked.subresource, asked.verb, asked.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => refuse(""),
    }
}

#[cfg(test)]
mod tests;
