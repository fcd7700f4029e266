//! What a certificate request asks for, and which requests a signer takes. Pure.
//! Upstream: pkg/apis/certificates/helpers.go, pkg/controller/certificates/signer.

use std::collections::BTreeSet;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME};
use x509_parser::prelude::FromDer as _;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// A request, read. The parts that go into a certificate as they are stay as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) uris: Vec<String>,
    /// 4 or 16 bytes each.
    pub(super) addresses: Vec<Vec<u8>>,
    /// DER of the subject.
    pub(super) subject: Vec<u8>,
    /// DER of the public key with its algorithm.
    pub(super) public_key: Vec<u8>,
}

/// A request cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    NotPem,
    #[error("the request is malformed")]
    Malformed,
    #[error("the request is not signed with its own key")]
    Signature,
}

/// Reads a request and checks that it is signed with the key that it carries.
pub(super) fn parse(pem: &[u8]) -> Result<Request, RequestError> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| RequestError::NotPem)?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(RequestError::NotPem);
    }
    let malformed = |_| RequestError::Malformed;
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).map_err(malformed)?;
    parsed.verify_signature().map_err(|_| RequestError::Signature)?;
    let info = &parsed.certification_request_info;
    let mut request = Request {
        subject: info.subject.as_raw().to_vec(),
        public_key: info.subject_pki.raw.to_vec(),
        ..Request::default()
    };
    for attribute in info.subject.iter_attributes() {
        let text = || attribute.as_str().map(str::to_owned).map_err(|_| RequestError::Malformed);
        if *attribute.attr_type() == OID_X509_COMMON_NAME {
            request.common_name = text()?;
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            request.organizations.push(text()?);
        }
    }
    for extension in parsed.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => request.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => request.emails.push((*name).to_owned()),
                GeneralName::URI(name) => request.uris.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) if matches!(bytes.len(), 4 | 16) => {
                    request.addresses.push(bytes.to_vec());
                }
                GeneralName::IPAddress(_) => return Err(RequestError::Malformed),
                // As upstream, which knows no others.
                _ => {}
            }
        }
    }
    Ok(request)
}

/// Why a signer does not sign a request; `None` if it does. `signer` is one of the four.
pub(super) fn fault(request: &Request, usages: &[String], signer: &str) -> Option<String> {
    match signer {
        KUBELET_CLIENT => kubelet_fault(request, usages, "client auth"),
        KUBELET_SERVING => kubelet_fault(request, usages, "server auth"),
        CLIENT => client_fault(usages),
        _ => None,
    }
}

fn kubelet_fault(request: &Request, usages: &[String], purpose: &str) -> Option<String> {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let required =
        [of(&["digital signature", "key encipherment", purpose]), of(&["digital signature", purpose])];
    let is_serving = purpose == "server auth";
    let why = if request.organizations != ["system:nodes"] {
        "subject organization is not system:nodes"
    } else if is_serving && request.dns_names.is_empty() && request.addresses.is_empty() {
        "DNS or IP subjectAltName is required"
    } else if !is_serving && !request.dns_names.is_empty() {
        "DNS subjectAltNames are not allowed"
    } else if !request.emails.is_empty() {
        "Email subjectAltNames are not allowed"
    } else if !is_serving && !request.addresses.is_empty() {
        "IP subjectAltNames are not allowed"
    } else if !request.uris.is_empty() {
        "URI subjectAltNames are not allowed"
    } else if !required.contains(&usages.iter().cloned().collect()) {
        let sorted: Vec<_> = required[0].iter().map(String::as_str).collect();
        return Some(format!("usages did not match [{}]", sorted.join(" ")));
    } else if !request.common_name.starts_with("system:node:") {
        "subject common name does not begin with system:node:"
    } else {
        return None;
    };
    Some(why.to_owned())
}

fn client_fault(usages: &[String]) -> Option<String> {
    let allowed = ["client auth", "digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Some(format!("invalid usage for client certificate: {other}"));
    }
    let has_client = usages.iter().any(|usage| usage == "client auth");
    (!has_client).then(|| "missing required usage for client certificate: client auth".to_owned())
}
