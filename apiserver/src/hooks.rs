//! What others plug into the server: authentication, authorisation, asynchronous admission, subresource handlers,
//! audit and encryption at rest.

use crate::codec::negotiate::{Shape, Wanted, accepts_object, not_acceptable};
use crate::codec::reply::{Recipe, Reply};
use crate::codec::{body, wire};
use crate::options::{DeleteOptions, WriteOptions};
use crate::path::{Query, Target};
use crate::verbs::part::Part;
use crate::verbs::update::Change;
use crate::verbs::{Notes, Scope};
use crate::{Request, Response, Server};
use api::admission::Awaited;
use api::{AdmissionRequest, Operation, Resource, Status, UserInfo};
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use serde_json::Value;
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
    /// See [`api::Admission::awaits`].
    fn awaits(&self, _request: &AdmissionRequest<'_>) -> Option<Awaited> {
        None
    }
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
    fn awaits(&self, request: &AdmissionRequest<'_>) -> Option<Awaited> {
        self.0.awaits(request)
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
    /// The query's parameters.
    pub query: Query,
    /// How the client wants to read the answer.
    pub wanted: Wanted,
    /// What goes into the answer's head and into audit.
    pub(crate) notes: Arc<Mutex<Notes>>,
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
    /// How much of this request is recorded. `source` is absent where it comes from this process. It is called for every request
    /// and must be cheap.
    fn level(&self, attributes: &Attributes<'_>, source: Option<SocketAddr>) -> AuditLevel;
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

impl Call {
    /// Adds a warning to the answer.
    pub fn warn(&self, warning: impl Into<String>) {
        self.notes.lock().warnings.push(warning.into());
    }

    /// Adds an annotation to the audit record.
    pub fn annotate(&self, key: &str, value: &str) {
        self.notes.lock().annotate(key, value);
    }

    /// Reads the body as a value of this `apiVersion` and `kind` (which it may leave out).
    ///
    /// # Errors
    /// 400, 413 or 415 where it is none.
    pub async fn read(&mut self, api_version: &str, kind: &str) -> Result<Value, Status> {
        let media = wire::media_of(body::media_type(self.request.headers()))?;
        let bytes = std::mem::replace(self.request.body_mut(), body::full(Bytes::new()));
        let bytes = body::read(bytes, body::BODY_BYTES_MAX).await?;
        let mut value = wire::read(media, &bytes, api_version, kind)?.value;
        crate::verbs::expect_kind(&mut value, api_version, kind)?;
        self.notes.lock().request_object = Some(value.to_string().into());
        Ok(value)
    }

    /// Answers with a value in the encoding that the client wants.
    ///
    /// # Errors
    /// It cannot be encoded that way.
    pub fn answer(&self, code: u16, value: Value) -> Result<Response, Status> {
        self.notes.lock().response_object = Some(value.to_string().into());
        if self.wanted.shape != Shape::Object && !accepts_object(self.request.headers()) {
            return Err(not_acceptable());
        }
        let resource = self.resource.as_deref();
        let wanted = Wanted { shape: Shape::Object, ..self.wanted };
        let recipe = Recipe { resource, wanted, include: Default::default(), now: api::Timestamp::now() };
        Reply::Value { code, value }.respond(&recipe)
    }

    /// The object that the URL names (whatever the subresource) as the row shows it.
    ///
    /// # Errors
    /// 404.
    pub fn object(&self) -> Result<Value, Status> {
        let resource = self.resource.as_ref().ok_or_else(Status::no_such_path)?;
        let namespace = if resource.is_namespaced() { self.target.namespace.as_str() } else { "" };
        let lookup = self.server.registry();
        let object =
            api::Lookup::get(&**lookup, &resource.group, &resource.plural, namespace, &self.target.name)
                .ok_or_else(|| Status::not_found(resource.id(), &self.target.name))?;
        object.decode().map_err(Status::internal)
    }

    /// Runs the admission chain on a body of a subresource: CREATE for actions, CONNECT for streams. `kind` is group, version
    /// and kind of the body. The body as admission left it.
    ///
    /// # Errors
    /// The refusal of a step.
    pub async fn admit(
        &mut self,
        operation: Operation,
        kind: (&str, &str, &str),
        object: Value,
        options: &Value,
        dry_run: bool,
    ) -> Result<Value, Status> {
        let resource = self.resource.as_ref().ok_or_else(Status::no_such_path)?;
        let mut request = AdmissionRequest {
            operation,
            resource,
            subresource: &self.target.subresource,
            kind,
            namespace: &self.target.namespace,
            name: &self.target.name,
            object,
            old: None,
            options,
            user: &self.identity.user,
            dry_run,
            lookup: &**self.server.registry(),
            now: api::Timestamp::now(),
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
            reinvocation: Default::default(),
        };
        let mut outcome = self.server.admit(&mut request).await;
        if outcome.is_ok() {
            outcome = self.server.validate(&mut request).await;
        }
        let mut notes = self.notes.lock();
        notes.warnings.append(&mut request.warnings);
        notes.annotations.append(&mut request.annotations);
        outcome.map(|()| std::mem::take(&mut request.object))
    }

    /// Changes the object that the URL names, under the rules of its row: for actions that end in a write (`binding`). `make`
    /// gets the present object and may run more than once.
    ///
    /// # Errors
    /// 404, a refusal of `make` or of the rules, or 409 where somebody else is always faster.
    pub async fn change(
        &mut self,
        dry_run: bool,
        make: &mut (dyn FnMut(&Value) -> Result<Value, Status> + Send),
    ) -> Result<Value, Status> {
        let scope = self.scope()?;
        let options = WriteOptions { dry_run, ..WriteOptions::default() };
        let change = Change {
            name: &self.target.name,
            part: Part::Raw,
            options: &options,
            options_kind: "PatchOptions",
            may_create: false,
            has_managers: true,
        };
        let mut make_part = |old: Option<&Value>| match old {
            Some(old) => make(old),
            None => Err(scope.not_found(&self.target.name)),
        };
        let (written, _) = change.run(&scope, &mut make_part).await?;
        written.into_value()
    }

    /// Deletes the object that the URL names, as DELETE does: for actions that end in a delete (`eviction`).
    ///
    /// # Errors
    /// As DELETE.
    pub async fn delete(&mut self, options: &DeleteOptions) -> Result<(), Status> {
        let scope = self.scope()?;
        crate::verbs::delete::remove(&scope, &self.target.name, options).await.map(|_| ())
    }

    fn scope(&self) -> Result<Scope, Status> {
        let target = Target { subresource: String::new(), ..self.target.clone() };
        let table = self.server.registry().table();
        let entry = table
            .find(&target.group, &target.version, &target.resource)
            .cloned()
            .ok_or_else(Status::no_such_path)?;
        Ok(Scope {
            server: self.server.clone(),
            entry,
            target,
            query: Query::default(),
            identity: self.identity.clone(),
            headers: self.request.headers().clone(),
            wanted: self.wanted,
            now: api::Timestamp::now(),
            notes: self.notes.clone(),
        })
    }
}
