//! What others plug into the server: authentication, authorisation, asynchronous admission, subresource handlers,
//! audit and encryption at rest.

use crate::path::Target;
use crate::{Request, Response, Server};
use api::{AdmissionRequest, Operation, Resource, Status, UserInfo};
use bytes::Bytes;
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The verified certificate chain of the client, leaf first. `serve` puts it into the extensions of a request; it is
/// absent where the client showed none.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// The client's address. `serve` puts it into the extensions of a request; it is absent for in-process callers.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub SocketAddr);

/// Who makes the request, and for whom.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user in whose name the request is authorised (after impersonation).
    pub user: Arc<UserInfo>,
    /// The user who was authenticated, where that is another one.
    pub impersonator: Option<Arc<UserInfo>>,
}

impl From<UserInfo> for Identity {
    fn from(user: UserInfo) -> Self {
        Self { user: Arc::new(user), impersonator: None }
    }
}

/// Finds out who makes a request. Upstream: `apiserver/pkg/authentication/authenticator`.
///
/// In-process callers (a `UserInfo` in the extensions) never get here.
pub trait Authenticate: Send + Sync {
    /// `Ok(None)`: not known to this authenticator, the next one is asked; if nobody knows, the request is anonymous or
    /// refused as the server is configured.
    ///
    /// # Errors
    /// 401 for credentials that are wrong (not merely unknown); 403 for a refused impersonation.
    fn authenticate<'a>(
        &'a self,
        head: &'a http::request::Parts,
    ) -> BoxFuture<'a, Result<Option<Identity>, Status>>;
}

/// What is asked of authorisation. Upstream: `authorizer.Attributes`.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a UserInfo,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or for non-resource paths the
    /// HTTP method in lower case.
    pub verb: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural; empty for a non-resource request.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped requests and for lists over all namespaces.
    pub namespace: &'a str,
    /// Empty where the request names no object.
    pub name: &'a str,
    /// The URL's path.
    pub path: &'a str,
    /// Whether this is about a resource; else only `path` and `verb` matter.
    pub is_resource: bool,
    /// The `labelSelector` parameter of list, watch and deletecollection; empty if none.
    pub label_selector: &'a str,
    /// The `fieldSelector` parameter of list, watch and deletecollection; empty if none.
    pub field_selector: &'a str,
}

/// What an authorizer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and nobody else is asked.
    Allow,
    /// No, and nobody else is asked.
    Deny,
    /// The next one decides; if nobody allows, it is refused.
    NoOpinion,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Upstream's words; goes into the refusal and into the audit record.
    pub reason: String,
}

impl Verdict {
    /// Allowed, without a reason.
    pub const ALLOW: Self = Self { decision: Decision::Allow, reason: String::new() };
    /// No opinion, without a reason.
    pub const NO_OPINION: Self = Self { decision: Decision::NoOpinion, reason: String::new() };
}

/// Decides who may do what. Upstream: `apiserver/pkg/authorization/authorizer`.
pub trait Authorize: Send + Sync {
    /// The decision. It must not be cached across changes of what it depends on.
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Verdict>;
}

/// One step of admission that may wait for others: webhooks, policies with parameters. What is pure implements
/// [`api::Admission`] instead; the server runs both in one chain.
pub trait AdmissionStep: Send + Sync {
    /// Upstream's name of the plugin, such as `MutatingAdmissionWebhook`.
    fn name(&self) -> &'static str;
    /// Which operations it wants to see.
    fn handles(&self, operation: Operation) -> bool;
    /// See [`api::Admission::exclusive`].
    fn exclusive(&self, _request: &AdmissionRequest<'_>) -> Option<String> {
        None
    }
    /// See [`api::Admission::mutate`].
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn mutate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>>;
    /// See [`api::Admission::validate`].
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>>;
}

/// A pure step in the asynchronous chain.
pub struct Pure(pub Arc<dyn api::Admission>);

impl AdmissionStep for Pure {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn handles(&self, operation: Operation) -> bool {
        self.0.handles(operation)
    }
    fn exclusive(&self, request: &AdmissionRequest<'_>) -> Option<String> {
        self.0.exclusive(request)
    }
    fn mutate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.0.mutate(request)))
    }
    fn validate<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.0.validate(request)))
    }
}

/// A request on its way to a [`Handler`]: authenticated and authorised, body unread.
pub struct Call {
    /// The server, for reading and writing objects and for encoding.
    pub server: Arc<Server>,
    /// What the URL names.
    pub target: Target,
    /// The row, for resource requests.
    pub resource: Option<Arc<Resource>>,
    /// Who.
    pub identity: Identity,
    /// The whole request. `hyper::upgrade::on(&mut request)` works on it where the connection allows.
    pub request: Request,
}

/// Answers what the verbs do not: subresource actions (`binding`, `eviction`, `token`), computed resources (reviews),
/// streams (`exec`, `log`, `proxy`), non-resource paths (`/healthz`, `/version`, discovery), and whole groups that are
/// served elsewhere.
pub trait Handler: Send + Sync {
    /// The answer. The server turns an error into a `Status` body in the encoding the client asked for.
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>>;
}

/// How much of a request is recorded. Upstream: `audit/v1.Level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditLevel {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when and the result's code.
    Metadata,
    /// And the request's object.
    Request,
    /// And the response's object.
    RequestResponse,
}

/// When a record is made. Upstream: `audit/v1.Stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditStage {
    /// Authenticated, before anything else.
    RequestReceived,
    /// The head of a long answer (watch, stream) was sent.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler panicked.
    Panic,
}

/// One request as audit sees it.
#[derive(Clone, Debug)]
pub struct AuditRecord {
    /// `Audit-ID` of the request.
    pub id: String,
    /// Level that the policy chose.
    pub level: AuditLevel,
    /// Stage.
    pub stage: AuditStage,
    /// The request's URI.
    pub uri: String,
    /// Verb, as in [`Attributes`].
    pub verb: String,
    /// Who.
    pub identity: Identity,
    /// Where from; absent in process.
    pub source: Option<SocketAddr>,
    /// `User-Agent`.
    pub user_agent: String,
    /// What the URL names.
    pub target: Target,
    /// HTTP code, from `ResponseStarted` on.
    pub code: Option<u16>,
    /// The refusal, if it was one.
    pub status: Option<Box<Status>>,
    /// JSON of the request's object, from level `Request` on, where there is one.
    pub request_object: Option<Bytes>,
    /// JSON of the response's object, at level `RequestResponse`, where there is one.
    pub response_object: Option<Bytes>,
    /// When the request arrived.
    pub received: jiff::Timestamp,
    /// When this stage was reached.
    pub now: jiff::Timestamp,
    /// Of authorisation and admission.
    pub annotations: BTreeMap<String, String>,
}

/// Keeps a record of requests. Upstream: `apiserver/pkg/audit`.
pub trait Audit: Send + Sync {
    /// How much of this request is recorded. It is called for every request and must be cheap.
    fn level(&self, attributes: &Attributes<'_>) -> AuditLevel;
    /// Keeps a record. It must not block: what does not fit a bounded queue is counted and dropped.
    fn record(&self, record: AuditRecord);
}

/// Changes values on their way to and from the store: encryption at rest. Upstream:
/// `apiserver/pkg/storage/value`.
pub trait Transform: Send + Sync {
    /// To what is kept. `key` is the store's key and may be authenticated.
    ///
    /// # Errors
    /// The value cannot be encrypted; the write fails with 500.
    fn seal(&self, key: &[u8], plain: Bytes) -> Result<Bytes, Status>;
    /// From what is kept. It must also read what was written before encryption was switched on.
    ///
    /// # Errors
    /// The value cannot be decrypted.
    fn open(&self, key: &[u8], kept: Bytes) -> Result<Bytes, Status>;
}
