//! What a domain mapping makes of the host that it is named after. Pure. Upstream: `pkg/reconciler/domainmapping`.

use crate::ingress::CLASS;
use crate::keys;
use crate::kinds::{DomainMapping, Ingress, controller_reference, name_of, namespace_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// The conditions of a DomainMapping.
pub(super) const CONDITIONS: &[&str] =
    &["CertificateProvisioned", "DomainClaimed", "IngressReady", "ReferenceResolved"];
const UID: &str = "serving.knative.dev/domainMappingUID";
const NAMESPACE: &str = "serving.knative.dev/domainMappingNamespace";

/// Why a reference leads nowhere. The texts are upstream's.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("failed to get object {namespace}/{name}: {plural}.{group} {name:?} not found")]
    Missing { namespace: String, name: String, plural: String, group: String },
    #[error("address not set for {kind} {namespace}/{name}")]
    NoAddress { kind: String, namespace: String, name: String },
    #[error(
        "{kind} of {api_version} cannot be addressed: a Service or Route of serving.knative.dev/v1 or a Service of v1 can"
    )]
    NotAddressable { api_version: String, kind: String },
    #[error("resolved URI {uri:?} contains a path")]
    Path { uri: String },
    #[error("resolved URI {uri:?} must be of the form {{name}}.{{namespace}}.svc.{domain}")]
    Form { uri: String, domain: String },
    #[error("resolved URI {uri:?} must be in same namespace as DomainMapping")]
    Namespace { uri: String },
}

/// The host that a resolved URL leads to, and the service in front of it.
pub(super) fn host<'u>(
    uri: &'u str,
    namespace: &str,
    cluster_domain: &str,
) -> Result<(&'u str, &'u str), Unresolved> {
    let own = || uri.to_owned();
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        return Err(Unresolved::Path { uri: own() });
    }
    let form = || Unresolved::Form { uri: own(), domain: cluster_domain.to_owned() };
    let short =
        host.strip_suffix(cluster_domain).and_then(|own| own.strip_suffix(".svc.")).ok_or_else(form)?;
    let (name, of) = short.split_once('.').filter(|(_, of)| !of.contains('.')).ok_or_else(form)?;
    match of == namespace {
        true => Ok((host, name)),
        false => Err(Unresolved::Namespace { uri: own() }),
    }
}

/// The Ingress: requests for the mapping's name go on as such for `host`.
pub(super) fn ingress(mapping: &DomainMapping, host: &str, service: &str, class: &str) -> Ingress {
    let (name, namespace) = (name_of(&mapping.metadata), namespace_of(&mapping.metadata));
    let mut annotations = mapping.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(keys::LAST_APPLIED);
    annotations.entry(CLASS.to_owned()).or_insert_with(|| class.to_owned());
    let mut labels = mapping.metadata.labels.clone().unwrap_or_default();
    labels.insert(UID.to_owned(), mapping.metadata.uid.clone().unwrap_or_default());
    labels.insert(NAMESPACE.to_owned(), namespace.to_owned());
    let metadata = ObjectMeta {
        name: Some(crate::names::child(name, "")),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(mapping)]),
        ..ObjectMeta::default()
    };
    let split = json!({"serviceNamespace": namespace, "serviceName": service, "servicePort": 80, "percent": 100,
        "appendHeaders": {"K-Original-Host": name}});
    let rule = json!({"hosts": [name], "visibility": "ExternalIP",
        "http": {"paths": [{"rewriteHost": host, "splits": [split]}]}});
    Ingress::new(metadata, json!({"httpOption": "Enabled", "rules": [rule]}))
}

/// The claim of a host for a namespace. It has no owner: what has no namespace cannot belong to what has one.
pub(super) fn claim(mapping: &DomainMapping) -> Value {
    json!({"apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim",
        "metadata": {"name": name_of(&mapping.metadata)},
        "spec": {"namespace": namespace_of(&mapping.metadata)}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_services_of_the_namespace() {
        let check = |uri: &str, expect: Result<(&str, &str), &str>| {
            let found = host(uri, "a", "cluster.local").map_err(|error| error.to_string());
            assert_eq!(found, expect.map_err(str::to_owned));
        };
        check("http://web.a.svc.cluster.local", Ok(("web.a.svc.cluster.local", "web")));
        check("http://web.a.svc.cluster.local/", Ok(("web.a.svc.cluster.local", "web")));
        let path = "resolved URI \"http://web.a.svc.cluster.local/x\" contains a path";
        check("http://web.a.svc.cluster.local/x", Err(path));
        let form = "resolved URI \"http://web.org\" must be of the form {name}.{namespace}.svc.cluster.local";
        check("http://web.org", Err(form));
        let namespace =
            "resolved URI \"http://web.b.svc.cluster.local\" must be in same namespace as DomainMapping";
        check("http://web.b.svc.cluster.local", Err(namespace));
    }

    #[test]
    fn the_ingress_rewrites_the_host() {
        let metadata = json!({"name": "shop.org", "namespace": "a", "uid": "u"});
        let mapping = DomainMapping::new(serde_json::from_value(metadata).unwrap(), Value::Null);
        let made = ingress(&mapping, "web.a.svc.cluster.local", "web", "own");
        assert_eq!(made.spec["rules"][0]["http"]["paths"][0]["rewriteHost"], "web.a.svc.cluster.local");
        assert_eq!(made.metadata.annotations.unwrap()[CLASS], "own");
        assert_eq!(claim(&mapping)["spec"]["namespace"], "a");
    }
}
