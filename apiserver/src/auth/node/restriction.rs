//! NodeRestriction: what a node may write about itself and its pods. Upstream: `plugin/pkg/admission/noderestriction`.

use super::references::{ANNOTATION_MIRROR, Kind, References};
use super::{NAMESPACE_LEASES, node_of};
use crate::auth::rbac::Rbac;
use crate::hooks::{Attributes, Decision};
use api::status::ResourceId;
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Labels that a node may set on itself. Upstream: `k8s.io/kubelet/pkg/apis`.
const LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// And everything under these.
const LABEL_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// And never anything under this.
const LABEL_NAMESPACE_RESTRICTED: &str = "node-restriction.kubernetes.io";

/// The step of admission. RBAC may lift the bound on the audiences of tokens.
pub struct NodeRestriction(pub Arc<Rbac>);

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(node) = node_of(request.user) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user \"{}\"", request.user.name);
            return Err(request.forbidden(&why));
        }
        let refuse = |why: String| request.forbidden(&why);
        match (request.resource.group.as_str(), request.resource.plural.as_str(), request.subresource) {
            ("", "pods", "") => pod(node, request),
            ("", "pods", "status") => pod_status(node, request).map_err(refuse),
            ("", "pods", "eviction") => own_pod(node, request, request.name, |node| {
                format!("node {node} can only evict pods with spec.nodeName set to itself")
            }),
            ("", "pods", other) => Err(refuse(format!(
                "unexpected pod subresource \"{other}\", only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => node_itself(node, request).map_err(refuse),
            ("", "persistentvolumeclaims", "status") => claim_status(node, request).map_err(refuse),
            ("", "persistentvolumeclaims", _) => Err(refuse("may only update PVC status".to_owned())),
            ("", "serviceaccounts", "token") => self.token(node, request),
            ("coordination.k8s.io", "leases", _) => lease(node, request).map_err(refuse),
            ("storage.k8s.io", "csinodes", _) => {
                same_name(node, request, "can only access CSINode with the same name as the requesting node")
                    .map_err(refuse)
            }
            ("resource.k8s.io", "resourceslices", _) => slice(node, request).map_err(refuse),
            ("certificates.k8s.io", "certificatesigningrequests", _) => {
                signing_request(node, request).map_err(refuse)
            }
            ("certificates.k8s.io", "podcertificaterequests", _) => {
                pod_certificate(node, request).map_err(refuse)
            }
            _ => Ok(()),
        }
    }
}

fn pod(node: &str, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    match request.operation {
        Operation::Create => mirror_pod(node, request),
        Operation::Delete => own_pod(node, request, request.name, |node| {
            format!("node \"{node}\" can only delete pods with spec.nodeName set to itself")
        }),
        other => Err(request.forbidden(&format!(
            "unexpected operation \"{}\", node \"{node}\" can only create and delete mirror pods",
            other.as_str()
        ))),
    }
}

fn own_pod(
    node: &str,
    request: &AdmissionRequest<'_>,
    name: &str,
    why: impl Fn(&str) -> String,
) -> Result<(), Status> {
    let pod = request.lookup.get("", "pods", request.namespace, name);
    let pod = pod.ok_or_else(|| Status::not_found(ResourceId { group: "", plural: "pods" }, name))?;
    let pod: Value = pod.decode().map_err(Status::internal)?;
    match pod["spec"]["nodeName"] == node {
        true => Ok(()),
        false => Err(request.forbidden(&why(node))),
    }
}

fn mirror_pod(node: &str, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let refuse = |why: String| Err(request.forbidden(&why));
    let object = &request.object;
    if object["metadata"]["annotations"][ANNOTATION_MIRROR].is_null() {
        return refuse(format!(
            "pod does not have \"{ANNOTATION_MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        ));
    }
    if object["spec"]["nodeName"] != node {
        return refuse(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
    }
    let owners = object["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let owner = match owners {
        [owner] => owner,
        [] => {
            return refuse(format!(
                "node \"{node}\" can only create pods with an owner reference set to itself"
            ));
        }
        _ => {
            return refuse(format!(
                "node \"{node}\" can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse(format!("node \"{node}\" can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refuse(format!(
            "node \"{node}\" can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return refuse(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    let found = request.lookup.get("", "nodes", "", node);
    let found = found.ok_or_else(|| Status::not_found(ResourceId { group: "", plural: "nodes" }, node))?;
    let claimed = owner["uid"].as_str().unwrap_or_default();
    if *found.meta.uid != *claimed {
        return refuse(format!("node {node} UID mismatch: expected {claimed} got {}", found.meta.uid));
    }
    match referenced(object)? {
        Some(what) => refuse(format!("node \"{node}\" can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// What of the API a pod refers to, if anything. Upstream: `podutil.HasAPIObjectReference`.
fn referenced(object: &Value) -> Result<Option<&'static str>, Status> {
    let mut pod: Pod = serde::Deserialize::deserialize(object)
        .map_err(|error: serde_json::Error| Status::bad_request(error.to_string()))?;
    // As a mirror pod it would refer to nothing.
    pod.metadata.annotations = None;
    let references = References::of(&pod);
    let kinds = [
        (Kind::ServiceAccount, "serviceaccounts"),
        (Kind::Secret, "secrets"),
        (Kind::ConfigMap, "configmaps"),
        (Kind::ResourceClaim, "resourceclaims"),
        (Kind::Claim, "persistentvolumeclaims"),
    ];
    for (kind, what) in kinds {
        if references.names.iter().any(|(own, _)| *own == kind) {
            return Ok(Some(what));
        }
    }
    let Some(spec) = &pod.spec else { return Ok(None) };
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Ok(Some("resourceclaims"));
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.csi.is_some() {
            return Ok(Some("csidrivers (via CSI volumes)"));
        }
        if volume.glusterfs.is_some() {
            return Ok(Some("endpoints (via glusterFS volumes)"));
        }
        for source in volume.projected.iter().flat_map(|own| own.sources.iter().flatten()) {
            if source.service_account_token.is_some() {
                return Ok(Some("serviceaccounts (via projected volumes)"));
            }
            if source.cluster_trust_bundle.is_some() {
                return Ok(Some("clustertrustbundles"));
            }
            if source.pod_certificate.is_some() {
                return Ok(Some("podcertificates"));
            }
        }
    }
    Ok(None)
}

fn pod_status(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let Some(old) = request.old else {
        return Err(format!("unexpected operation \"{}\"", request.operation.as_str()));
    };
    let new = &request.object;
    if old["spec"]["nodeName"] != node {
        return Err(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !same(&new["metadata"]["labels"], &old["metadata"]["labels"]) {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    let fields = [
        ("resourceClaimStatuses", "resource claim statues"),
        ("extendedResourceClaimStatus", "extended resource claim status"),
        ("nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
    ];
    for (field, what) in fields {
        if !same(&new["status"][field], &old["status"][field]) {
            return Err(format!("node \"{node}\" cannot update {what}"));
        }
    }
    Ok(())
}

/// Equal, where nothing and empty are the same.
fn same(left: &Value, right: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    left == right || (is_empty(left) && is_empty(right))
}

fn node_itself(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let new = &request.object;
    let name = match request.name {
        "" => new["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    };
    if name != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let config_source = &new["spec"]["configSource"];
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            if !config_source.is_null() {
                return Err(format!(
                    "node \"{node}\" is not allowed to create pods with a non-nil configSource"
                ));
            }
            match forbidden_labels(new, &Value::Null).as_str() {
                "" => Ok(()),
                labels => {
                    Err(format!("node \"{node}\" is not allowed to set the following labels: {labels}"))
                }
            }
        }
        (Operation::Update, Some(old)) => {
            if !config_source.is_null() && *config_source != old["spec"]["configSource"] {
                return Err(format!(
                    "node \"{node}\" is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
                return Err(format!("node \"{node}\" is not allowed to modify taints"));
            }
            if !same(&new["metadata"]["ownerReferences"], &old["metadata"]["ownerReferences"]) {
                return Err(format!("node \"{node}\" is not allowed to modify ownerReferences"));
            }
            match forbidden_labels(new, old).as_str() {
                "" => Ok(()),
                labels => Err(format!("is not allowed to modify labels: {labels}")),
            }
        }
        _ => Ok(()),
    }
}

/// The labels that changed and that a node must leave alone, joined by commas.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let labels = |object: &Value| object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (new, old) = (labels(new), labels(old));
    let keys: BTreeSet<_> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key));
    changed.filter(|key| !is_label_allowed(key)).cloned().collect::<Vec<_>>().join(", ")
}

fn is_label_allowed(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| {
        namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if within(LABEL_NAMESPACE_RESTRICTED) {
        return false;
    }
    let is_kubernetes = within("kubernetes.io") || within("k8s.io");
    !is_kubernetes || LABELS.contains(&key) || LABEL_NAMESPACES.iter().any(|domain| within(domain))
}

fn claim_status(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let Some(old) = request.old else {
        return Err(format!("unexpected operation \"{}\"", request.operation.as_str()));
    };
    let bare = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(field);
            }
        }
        if let Some(meta) = claim.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
        claim
    };
    match bare(&request.object) == bare(old) {
        true => Ok(()),
        false => Err(format!(
            "node \"{node}\" is not allowed to update fields other than status.quantity and status.conditions"
        )),
    }
}

/// The name of the request, or on create of its object, must be the node's.
fn same_name(node: &str, request: &AdmissionRequest<'_>, why: &str) -> Result<(), String> {
    let own = match request.operation {
        Operation::Create => request.object["metadata"]["name"].as_str().unwrap_or_default(),
        _ => request.name,
    };
    (own == node).then_some(()).ok_or_else(|| why.to_owned())
}

fn lease(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.namespace != NAMESPACE_LEASES {
        return Err(format!("can only access leases in the \"{NAMESPACE_LEASES}\" system namespace"));
    }
    same_name(node, request, "can only access node lease with the same name as the requesting node")
}

fn slice(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    let (object, verb) = match request.operation {
        Operation::Create => (Some(&request.object), "create"),
        Operation::Delete => (request.old, "delete"),
        _ => return Ok(()),
    };
    match object.is_some_and(|slice| slice["spec"]["nodeName"] == node) {
        true => Ok(()),
        false => Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")),
    }
}

fn signing_request(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    use x509_parser::prelude::FromDer;
    const SIGNERS: [&str; 2] =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let spec = &request.object["spec"];
    let signer = spec["signerName"].as_str().unwrap_or_default();
    if request.operation != Operation::Create || !SIGNERS.contains(&signer) {
        return Ok(());
    }
    let unreadable = || "unable to parse csr: PEM block type must be CERTIFICATE REQUEST".to_owned();
    let text = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        spec["request"].as_str().unwrap_or_default(),
    );
    let text = text.map_err(|_| unreadable())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).map_err(|_| unreadable())?;
    let (_, parsed) = x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
        .map_err(|_| unreadable())?;
    let mut names = parsed.certification_request_info.subject.iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    match name.strip_prefix("system:node:") == Some(node) {
        true => Ok(()),
        false => Err(format!("can only create a node CSR with CN=system:node:{node}")),
    }
}

fn pod_certificate(node: &str, request: &AdmissionRequest<'_>) -> Result<(), String> {
    if request.operation != Operation::Create || !request.subresource.is_empty() {
        return Err(format!("unexpected operation {}", request.operation.as_str()));
    }
    let spec = &request.object["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default();
    if text("nodeName") != node {
        return Err(format!(
            "PodCertificateRequest.Spec.NodeName=\"{}\", which is not the requesting node \"{node}\"",
            text("nodeName")
        ));
    }
    let about = format!("{}/{}", request.namespace, text("podName"));
    let pod = request.lookup.get("", "pods", request.namespace, text("podName"));
    let pod = pod.and_then(|pod| pod.decode::<Value>().ok()).ok_or_else(|| {
        format!("while retrieving pod \"{about}\" named in the PodCertificateRequest: not found")
    })?;
    if pod["metadata"]["uid"] != text("podUID") {
        return Err(format!(
            "PodCertificateRequest for pod \"{about}\" contains pod UID (\"{}\") which differs from running pod {}",
            text("podUID"),
            pod["metadata"]["uid"]
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return Err(format!(
            "pod \"{about}\" is not running on node \"{node}\" named in the PodCertificateRequest"
        ));
    }
    if !pod["metadata"]["annotations"][ANNOTATION_MIRROR].is_null() {
        return Err(format!("pod \"{about}\" is a mirror pod"));
    }
    if pod["spec"]["serviceAccountName"] != text("serviceAccountName") {
        return Err(format!(
            "PodCertificateRequest for pod \"{about}\" contains serviceAccountName (\"{}\") that differs from running pod ({})",
            text("serviceAccountName"),
            pod["spec"]["serviceAccountName"]
        ));
    }
    let signer = text("signerName");
    let mounts = projected(&pod).any(|source| source["podCertificate"]["signerName"] == signer);
    match mounts {
        true => Ok(()),
        false => Err(format!(
            "pod \"{about}\" does not mount a podCertificate projected volume for signer \"{signer}\""
        )),
    }
}

/// Every projected source of every volume of a pod.
fn projected(pod: &Value) -> impl Iterator<Item = &Value> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten())
}

impl NodeRestriction {
    fn token(&self, node: &str, request: &AdmissionRequest<'_>) -> Result<(), Status> {
        let refuse = |why: String| Err(request.forbidden(&why));
        if request.operation != Operation::Create {
            return Ok(());
        }
        let spec = &request.object["spec"];
        let bound = &spec["boundObjectRef"];
        let name = bound["name"].as_str().unwrap_or_default();
        if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
            return refuse("node requested token not bound to a pod".to_owned());
        }
        let uid = bound["uid"].as_str().unwrap_or_default();
        if uid.is_empty() {
            return refuse("node requested token with a pod binding without a uid".to_owned());
        }
        let pod = request.lookup.get("", "pods", request.namespace, name);
        let pod = pod.ok_or_else(|| Status::not_found(ResourceId { group: "", plural: "pods" }, name))?;
        if *pod.meta.uid != *uid {
            return refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            ));
        }
        let pod: Value = pod.decode().map_err(Status::internal)?;
        if pod["spec"]["nodeName"] != node {
            return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
        }
        let audiences = spec["audiences"].as_array().map_or(&[][..], Vec::as_slice);
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return refuse("node may only request 0 or 1 audiences".to_owned()),
        };
        if self.may_ask(request, &pod, audience) {
            return Ok(());
        }
        refuse(format!(
            "{} is not authorized to request tokens for audience \"{audience}\"",
            request.user.name
        ))
    }

    /// Whether a pod mounts a token for this audience, by itself or by a CSI driver, or RBAC lets the node ask for any.
    fn may_ask(&self, request: &AdmissionRequest<'_>, pod: &Value, audience: &str) -> bool {
        let own = projected(pod).any(|source| {
            source["serviceAccountToken"].is_object()
                && source["serviceAccountToken"]["audience"].as_str().unwrap_or_default() == audience
        });
        if own || drivers(request, pod).iter().any(|driver| driver_asks(request, driver, audience)) {
            return true;
        }
        let asked = Attributes {
            user: request.user,
            verb: "request-serviceaccounts-token-audience",
            group: "",
            version: "v1",
            resource: audience,
            subresource: "",
            namespace: request.namespace,
            name: request.name,
            path: "",
            is_resource: true,
            label_selector: "",
            field_selector: "",
        };
        self.0.index().decide(&asked).decision == Decision::Allow
    }
}

/// The CSI drivers of a pod's volumes.
fn drivers(request: &AdmissionRequest<'_>, pod: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let of_claim = |claim: &str| {
        let claim: Value =
            request.lookup.get("", "persistentvolumeclaims", request.namespace, claim)?.decode().ok()?;
        let volume = claim["spec"]["volumeName"].as_str()?;
        let volume: Value = request.lookup.get("", "persistentvolumes", "", volume)?.decode().ok()?;
        text(&volume["spec"]["csi"]["driver"])
    };
    volumes
        .filter_map(|volume| {
            if let Some(driver) = text(&volume["csi"]["driver"]) {
                return Some(driver);
            }
            if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                return of_claim(claim);
            }
            volume["ephemeral"].as_object()?;
            let pod = pod["metadata"]["name"].as_str()?;
            of_claim(&format!("{pod}-{}", volume["name"].as_str()?))
        })
        .collect()
}

fn driver_asks(request: &AdmissionRequest<'_>, driver: &str, audience: &str) -> bool {
    let driver = request.lookup.get("storage.k8s.io", "csidrivers", "", driver);
    let driver = driver.and_then(|driver| driver.decode::<Value>().ok()).unwrap_or_default();
    let mut asked = driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
    asked.any(|asked| asked["audience"].as_str().unwrap_or_default() == audience)
}

#[cfg(test)]
#[path = "restriction_tests.rs"]
mod tests;
