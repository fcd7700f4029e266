//! `certificates.k8s.io/v1`. Upstream: `pkg/registry/certificates`.

use crate::cells::{NONE, list, text};
use api::age::human_duration;
use api::resource::{Action, Column, Field, Resource, Scope, Subresource, VERBS_PART};
use api::strategy::Thin;
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
            action: Action::Part(Arc::new(Thin)),
        })
        .status()
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
