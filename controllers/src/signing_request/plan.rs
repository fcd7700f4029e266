//! Where a signing request stands, and how long it is kept. Pure.

use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long what is decided is kept.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long what waits is kept.
const WAITING: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

pub(super) fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|own| own.type_ == kind && own.status == "True")
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let bytes = request.status.as_ref()?.certificate.as_ref()?;
    Some(bytes.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

/// Whether nobody has approved, denied or signed it.
pub(super) fn is_undecided(request: &CertificateSigningRequest) -> bool {
    let is_decided =
        |own: &CertificateSigningRequestCondition| matches!(own.type_.as_str(), "Approved" | "Denied");
    certificate(request).is_none() && !conditions(request).iter().any(is_decided)
}

/// Whether it waits for its signer.
pub(super) fn is_to_be_signed(request: &CertificateSigningRequest) -> bool {
    has(request, "Approved")
        && !has(request, "Denied")
        && !has(request, "Failed")
        && certificate(request).is_none()
}

/// With one more condition.
pub(super) fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequest {
    let mut changed = request.clone();
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..CertificateSigningRequestCondition::default()
        },
    );
    changed
}

/// When a certificate ends.
fn not_after(pem: &[u8]) -> Option<Timestamp> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// When a request is deleted if nothing more happens to it.
pub(super) fn expires_at(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let own = conditions(request);
    if own.is_empty() {
        let created = request.metadata.creation_timestamp.as_ref()?.0;
        return created.checked_add(WAITING).ok();
    }
    let issued = certificate(request);
    let deadlines = own.iter().filter_map(|condition| {
        let kept = match condition.type_.as_str() {
            "Approved" if issued.is_none() => WAITING,
            "Approved" | "Denied" | "Failed" => DECIDED,
            _ => return None,
        };
        condition.last_update_time.as_ref()?.0.checked_add(kept).ok()
    });
    deadlines.chain(issued.and_then(not_after)).min()
}
