//! `CertificateSigningRequest`. Upstream: `pkg/registry/certificates/certificates`,
//! `pkg/apis/certificates/validation`.

use super::{check_signer_name, pem};
use crate::equal::same;
use api::names::check_one_of;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// The shortest life of a certificate, in seconds.
const SECONDS_MIN: i32 = 600;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The request itself and its status.
pub(super) struct Rules;

/// The `approval` subresource.
pub(super) struct Approval;

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    let found = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    found.map_or(&[], |ByteString(bytes)| bytes)
}

/// Gives every condition its times.
fn fill_times(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, cx: &Context<'_>) {
    let own = new.status.iter_mut().filter_map(|status| status.conditions.as_mut()).flatten();
    for condition in own {
        condition.last_update_time.get_or_insert(Time(cx.now));
        if condition.last_transition_time.is_none() {
            let before = conditions(old)
                .iter()
                .find(|old| old.type_ == condition.type_ && old.status == condition.status)
                .and_then(|old| old.last_transition_time.clone());
            condition.last_transition_time = before.or(Some(Time(cx.now)));
        }
    }
}

impl Strategy for Rules {
    type Kind = CertificateSigningRequest;

    fn name_faults(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn default(&self, request: &mut CertificateSigningRequest) {
        if request.spec.usages.is_none() {
            request.spec.usages = Some(vec!["digital signature".to_owned(), "key encipherment".to_owned()]);
        }
    }

    fn prepare_create(
        &self,
        request: &mut CertificateSigningRequest,
        cx: &Context<'_>,
    ) -> Result<(), Status> {
        let (spec, user) = (&mut request.spec, cx.user);
        let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
        spec.username = filled(&user.name);
        spec.uid = filled(&user.uid);
        spec.groups = (!user.groups.is_empty()).then(|| user.groups.clone());
        spec.extra = (!user.extra.is_empty()).then(|| user.extra.clone());
        request.status = Some(CertificateSigningRequestStatus::default());
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.spec = old.spec.clone();
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, request: &CertificateSigningRequest, errors: &mut FieldErrors) {
        validate(request, errors);
    }

    fn validate_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut FieldErrors,
    ) {
        check_kept(new, old, errors);
    }

    fn prepare_status_update(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
        cx: &Context<'_>,
    ) {
        new.spec = old.spec.clone();
        for kind in ["Approved", "Denied"] {
            let before: Vec<_> = conditions(old).iter().filter(|own| own.type_ == kind).cloned().collect();
            let own = new.status.iter_mut().filter_map(|status| status.conditions.as_mut()).flatten();
            let own: Vec<_> = own.filter(|own| own.type_ == kind).collect();
            if own.len() == before.len() {
                own.into_iter().zip(before).for_each(|(own, before)| *own = before);
            }
        }
        fill_times(new, old, cx);
    }

    fn validate_status_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut FieldErrors,
    ) {
        validate(new, errors);
        check_kept(new, old, errors);
        for kind in ["Approved", "Denied"] {
            let of = |request| -> Vec<_> {
                conditions(request).iter().filter(|own| own.type_ == kind).cloned().collect()
            };
            let (own, before) = (of(new), of(old));
            if own.len() > before.len() {
                let why = format!("updates may not add a condition of type \"{kind}\"");
                errors.forbidden("status.conditions", why);
            } else if own.len() == before.len() && !same(&own, &before) {
                let why = format!("updates may not modify a condition of type \"{kind}\"");
                errors.forbidden("status.conditions", why);
            }
        }
        if certificate(new) != certificate(old) {
            if !certificate(old).is_empty() {
                errors.forbidden("status.certificate", "updates may not modify existing certificate content");
            }
            if let Err(why) = check_certificate(certificate(new)) {
                errors.invalid("status.certificate", "<certificate data>", why);
            }
        }
    }
}

impl Strategy for Approval {
    type Kind = CertificateSigningRequest;

    fn prepare_update(
        &self,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
        cx: &Context<'_>,
    ) -> Result<(), Status> {
        fill_times(new, old, cx);
        let own = new.status.as_mut().and_then(|status| status.conditions.take());
        new.spec = old.spec.clone();
        let mut status = old.status.clone().unwrap_or_default();
        status.conditions = own;
        new.status = Some(status);
        Ok(())
    }

    fn validate(&self, request: &CertificateSigningRequest, errors: &mut FieldErrors) {
        validate(request, errors);
    }

    fn validate_update(
        &self,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut FieldErrors,
    ) {
        check_kept(new, old, errors);
    }
}

/// Decided is decided.
fn check_kept(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut FieldErrors) {
    for kind in ["Approved", "Denied", "Failed"] {
        let count = |request| conditions(request).iter().filter(|own| own.type_ == kind).count();
        if count(new) < count(old) {
            let why = format!("updates may not remove a condition of type \"{kind}\"");
            errors.forbidden("status.conditions", why);
        }
    }
}

fn validate(request: &CertificateSigningRequest, errors: &mut FieldErrors) {
    let spec = &request.spec;
    if let Err(why) = check_request(&spec.request.0) {
        let shown = serde_json::to_value(&spec.request).unwrap_or_default();
        errors.invalid("spec.request", shown, why);
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    if usages.is_empty() {
        errors.required("spec.usages", "");
    }
    let mut seen = BTreeSet::new();
    for (at, usage) in usages.iter().enumerate() {
        let field = format!("spec.usages[{at}]");
        check_one_of(errors, &field, usage, &USAGES);
        if !seen.insert(usage) {
            errors.duplicate(&field, usage.as_str());
        }
    }
    match spec.signer_name.as_str() {
        own @ "kubernetes.io/legacy-unknown" => errors.invalid(
            "spec.signerName",
            own,
            "the legacy signerName is not allowed via this API version",
        ),
        own => check_signer_name("spec.signerName", own, errors),
    }
    if let Some(seconds) = spec.expiration_seconds
        && seconds < SECONDS_MIN
    {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid("spec.expirationSeconds", seconds, why);
    }
    errors.at("status.conditions", |errors| check_conditions(conditions(request), errors));
}

fn check_conditions(conditions: &[CertificateSigningRequestCondition], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let kind = condition.type_.as_str();
        errors.index(at, |errors| {
            if kind.is_empty() {
                errors.required("type", "");
            }
            let allowed: &[&str] = match kind {
                "Approved" | "Denied" | "Failed" => &["True"],
                _ => &["False", "True", "Unknown"],
            };
            match condition.status.as_str() {
                "" => errors.required("status", ""),
                status => check_one_of(errors, "status", status, allowed),
            }
        });
        let other = match kind {
            "Approved" => "Denied",
            _ => "Approved",
        };
        if matches!(kind, "Approved" | "Denied") && seen.contains(other) {
            errors.invalid("", kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            errors.duplicate(&format!("[{at}].type"), kind);
        }
    }
}

/// The DER of the PEM block of a request.
fn request_der(pem_text: &[u8]) -> Result<Vec<u8>, &'static str> {
    const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let text = std::str::from_utf8(pem_text).map_err(|_| NOT_PEM)?;
    let block = pem::blocks(text).into_iter().next().filter(|block| block.label == "CERTIFICATE REQUEST");
    Ok(block.ok_or(NOT_PEM)?.data)
}

const MALFORMED: &str = "malformed certificate request";

/// A PEM block with a request that is signed with its own key.
fn check_request(pem_text: &[u8]) -> Result<(), &'static str> {
    X509CertificationRequest::from_der(&request_der(pem_text)?).map(|_| ()).map_err(|_| MALFORMED)
}

/// The organizations (the groups of a user) that a request names.
pub(crate) fn organizations(pem_text: &[u8]) -> Result<Vec<String>, &'static str> {
    let der = request_der(pem_text)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| MALFORMED)?;
    let organizations = request.certification_request_info.subject.iter_organization();
    // What is no text cannot be a group's name that anybody compares with.
    Ok(organizations.filter_map(|own| own.as_str().ok()).map(str::to_owned).collect())
}

fn check_certificate(pem_text: &[u8]) -> Result<(), String> {
    if pem_text.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(pem_text).unwrap_or("");
    let blocks = pem::blocks(text);
    if blocks.is_empty() {
        return Err("must contain at least one CERTIFICATE PEM block".to_owned());
    }
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found \"{}\"", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".to_owned());
        }
        x509_parser::parse_x509_certificate(&block.data).map_err(|error| error.to_string())?;
    }
    Ok(())
}
