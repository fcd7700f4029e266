//! Certificate signing requests: approves those of nodes, signs those that are approved, deletes old ones.
//! Upstream: pkg/controller/certificates/{approver,signer,cleaner}.

mod authority;
mod der;
mod plan;
mod request;
#[cfg(test)]
mod tests;

pub(crate) use authority::Authority;
pub use authority::AuthorityError;

use api::{ObjectName, Reason, Status};
use authority::SERIAL_BYTES;
use client::gone_is_fine;
use client::{Context, Controller, DeleteParams, Error, Next};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Request};
use std::sync::Arc;

/// The signers that are this cluster's own.
const SIGNERS: [&str; 4] = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY];
/// Requests worked on at once. Upstream: `ConcurrentSyncs` of these controllers is 5.
const WORKERS: usize = 5;

fn read(key: &ObjectName, context: &Context) -> Option<CertificateSigningRequest> {
    context.caches.of::<CertificateSigningRequest>().read("", &key.name)
}

fn own(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Own(Box::new(error))
}

/// Approves certificates of nodes for who may ask for them.
pub(crate) fn approver() -> Controller {
    Controller::of_some::<CertificateSigningRequest>("csrapproving", |delta| delta.new.is_some())
        .workers(WORKERS)
        .reconcile(|key, context| async move {
            match read(&key, &context) {
                Some(csr) if csr.spec.signer_name == KUBELET_CLIENT && plan::is_undecided(&csr) => {
                    approve(&context, &csr).await
                }
                _ => Ok(Next::Done),
            }
        })
}

async fn approve(context: &Context, csr: &CertificateSigningRequest) -> Result<Next, Error> {
    let request = request::parse(&csr.spec.request.0).map_err(own)?;
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    if request::fault(&request, usages, KUBELET_CLIENT).is_some() {
        return Ok(Next::Done);
    }
    let is_self = csr.spec.username.as_deref() == Some(&request.common_name);
    let kinds = [
        ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
        ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
    ];
    let kinds = &kinds[if is_self { 0 } else { 1 }..];
    for (subresource, message) in kinds {
        if may_create(context, csr, subresource).await? {
            let approved = plan::with_condition(csr, "Approved", "AutoApproved", message);
            let access = context.client.api::<CertificateSigningRequest>();
            gone_is_fine(access.replace_sub(&approved, "approval").await)?;
            return Ok(Next::Done);
        }
    }
    // Whoever asked may be allowed to a moment later: a new role binding is tried for like any refusal.
    let tried: Vec<_> = kinds.iter().map(|(subresource, _)| *subresource).collect();
    let name = csr.metadata.name.as_deref().unwrap_or_default();
    let why = format!(
        "recognized csr {name:?} as [{}] but subject access review was not approved",
        tried.join(" ")
    );
    Err(Status::failure(403, Reason::Forbidden, why).into())
}

async fn may_create(
    context: &Context,
    csr: &CertificateSigningRequest,
    subresource: &str,
) -> Result<bool, Status> {
    let spec = &csr.spec;
    let text = |text: &str| Some(text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text("certificates.k8s.io"),
                version: text("*"),
                resource: text("certificatesigningrequests"),
                subresource: text(subresource),
                verb: text("create"),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = context.client.api::<SubjectAccessReview>().create(&review).await?;
    Ok(matches!(answer.status, Some(SubjectAccessReviewStatus { allowed: true, .. })))
}

/// Signs what is approved, for the signers that are the cluster's own.
pub(crate) fn signer(authority: Arc<Authority>) -> Controller {
    Controller::of_some::<CertificateSigningRequest>("csrsigning", |delta| delta.new.is_some())
        .workers(WORKERS)
        .reconcile(move |key, context| {
            let authority = authority.clone();
            async move {
                match read(&key, &context) {
                    Some(csr) if is_ours(&csr) => sign(&context, &csr, &authority).await,
                    _ => Ok(Next::Done),
                }
            }
        })
}

fn is_ours(csr: &CertificateSigningRequest) -> bool {
    SIGNERS.contains(&csr.spec.signer_name.as_str()) && plan::is_to_be_signed(csr)
}

async fn sign(
    context: &Context,
    csr: &CertificateSigningRequest,
    authority: &Authority,
) -> Result<Next, Error> {
    let request: Request = request::parse(&csr.spec.request.0).map_err(own)?;
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    let changed = match request::fault(&request, usages, &csr.spec.signer_name) {
        Some(why) => plan::with_condition(csr, "Failed", "SignerValidationFailure", &why),
        None => {
            let mut serial = [0; SERIAL_BYTES];
            aws_lc_rs::rand::fill(&mut serial).map_err(|_| own(AuthorityError::Random))?;
            let life = authority::life(csr.spec.expiration_seconds);
            let signed = authority.sign(&request, usages, life, serial, context.now()).map_err(own)?;
            let mut changed = csr.clone();
            changed.status.get_or_insert_default().certificate = Some(ByteString(signed));
            changed
        }
    };
    gone_is_fine(context.client.api::<CertificateSigningRequest>().replace_status(&changed).await)?;
    Ok(Next::Done)
}

/// Deletes requests that have served, and those that nobody answers.
pub(crate) fn cleaner() -> Controller {
    Controller::of_some::<CertificateSigningRequest>("csrcleaner", |delta| delta.new.is_some()).reconcile(
        |key, context| async move {
            let Some(csr) = read(&key, &context) else { return Ok(Next::Done) };
            match plan::expires_at(&csr) {
                None => Ok(Next::Done),
                Some(at) if at > context.now() => Ok(Next::at(&context.clock, at)),
                Some(_) => {
                    let params =
                        DeleteParams::default().with_uid(csr.metadata.uid.clone().unwrap_or_default());
                    let access = context.client.api::<CertificateSigningRequest>();
                    gone_is_fine(access.delete(&key.name, &params).await)?;
                    Ok(Next::Done)
                }
            }
        },
    )
}
