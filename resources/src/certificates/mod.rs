//! `certificates.k8s.io/v1`. Upstream: `pkg/registry/certificates`.

mod pem;
mod signing_request;
mod trust_bundle;

pub(crate) use signing_request::organizations;
pub(crate) use trust_bundle::bundle_name_faults;

use crate::cells::{NONE, list, text};
use api::age::human_duration;
use api::resource::{Action, Column, Field, Resource, Scope, Subresource, VERBS_PART};
use api::strategy::Typed;
use api::{FieldErrors, names};
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "certificates.k8s.io";

pub(crate) fn certificate_signing_request() -> Resource {
    Resource::new(GROUP, "v1", "CertificateSigningRequest", "certificatesigningrequests", Scope::Cluster)
        .short_names(&["csr"])
        .fields(vec![Field::new("spec.signerName")])
        .columns(vec![
            Column::age(),
            Column::or("SignerName", "/spec/signerName", NONE),
            Column::or("Requestor", "/spec/username", ""),
            Column::computed("RequestedDuration", |o, _| {
                match o.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
                    Some(seconds) => human_duration(seconds).into(),
                    None => NONE.into(),
                }
            }),
            Column::computed("Condition", |o, _| condition(o).into()),
        ])
        .subresource(Subresource {
            name: "approval",
            verbs: VERBS_PART,
            body: None,
            action: Action::Part(Arc::new(Typed(signing_request::Approval))),
        })
        .status()
        .rules(Typed(signing_request::Rules))
}

/// `domain/path` of a signer. Upstream: `ValidateSignerName`.
pub(crate) fn check_signer_name(field: &str, name: &str, errors: &mut FieldErrors) {
    /// A DNS subdomain, a label and a dot.
    const PATH_LEN_MAX: usize = 253 + 63 + 1;
    const DOMAIN_LEN_MAX: usize = 253;
    if name.is_empty() {
        return errors.required(field, "");
    }
    let parts: Vec<_> = name.split('/').collect();
    let [domain, path] = parts[..] else {
        let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(field, name, text);
    };
    if domain.len() > DOMAIN_LEN_MAX {
        errors.too_long(field, DOMAIN_LEN_MAX);
    }
    let mut check = |value: &str, faults: fn(&str) -> names::Faults| {
        let wrong = value.split('.').find(|label| !faults(label).is_empty());
        for fault in wrong.map(faults).unwrap_or_default() {
            let label = wrong.unwrap_or("");
            errors.invalid(field, value, format!("validating label \"{label}\": {fault}"));
        }
    };
    check(domain, names::dns_label);
    check(path, names::dns_subdomain);
    if !domain.contains('.') {
        errors.invalid(field, domain, "should be a domain with at least two segments separated by dots");
    }
    if name.len() > DOMAIN_LEN_MAX + PATH_LEN_MAX + 1 {
        errors.too_long(field, DOMAIN_LEN_MAX + PATH_LEN_MAX + 1);
    }
}

fn condition(request: &Value) -> String {
    let has = |kind: &str| list(request, "/status/conditions").iter().any(|c| c["type"] == kind);
    let mut shown = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        shown.push_str(",Failed");
    }
    if !text(request, "/status/certificate").is_empty() {
        shown.push_str(",Issued");
    }
    shown
}

pub(crate) fn cluster_trust_bundle() -> Resource {
    Resource::new(GROUP, "v1", "ClusterTrustBundle", "clustertrustbundles", Scope::Cluster)
        .fields(vec![Field::new("spec.signerName")])
        .columns(vec![Column::or("SignerName", "/spec/signerName", NONE)])
        .rules(Typed(trust_bundle::Rules))
}

pub(crate) fn pod_certificate_request() -> Resource {
    Resource::new(GROUP, "v1", "PodCertificateRequest", "podcertificaterequests", Scope::Namespaced)
        .fields(vec![Field::new("spec.signerName"), Field::new("spec.podName"), Field::new("spec.nodeName")])
        .columns(vec![
            Column::or("PodName", "/spec/podName", ""),
            Column::or("ServiceAccountName", "/spec/serviceAccountName", ""),
            Column::or("NodeName", "/spec/nodeName", ""),
            Column::or("SignerName", "/spec/signerName", ""),
            Column::computed("State", |o, _| {
                let mut kinds = list(o, "/status/conditions").iter().rev().map(|c| text(c, "/type"));
                kinds.find(|kind| matches!(*kind, "Issued" | "Denied" | "Failed")).unwrap_or("Pending").into()
            }),
            Column::computed("UnverifiedUserAnnotations", |o, _| {
                crate::cells::labels(o, "/spec/unverifiedUserAnnotations").into()
            })
            .wide(),
        ])
        .status()
}
