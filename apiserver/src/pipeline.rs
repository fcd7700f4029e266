//! The way of a request: path → who → may → row → verb → answer.
//!
//! Flow: `serve` never fails; every refusal becomes a `Status` in the encoding that the client asked for. Requests that change
//! something run in a task of their own: a client that goes away does not stop a write half way, and a panic stays where it is.

use crate::codec::negotiate::{self, Media, Shape, Wanted};
use crate::codec::reply::{Recipe, Reply, refuse};
use crate::codec::table;
use crate::hooks::{
    Attributes, AuditLevel, AuditRecord, AuditStage, Call, Decision, Handler, Identity, RemoteAddress,
};
use crate::path::{self, Query, Target};
use crate::registry::Entry;
use crate::server::Server;
use crate::verbs::{self, Notes, Scope, part::Part};
use crate::{Request, Response, Service};
use api::resource::Action;
use api::{Reason, Status, Timestamp, UserInfo};
use http::{HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tower::util::BoxCloneSyncService;

/// Identifies a request in audit and logs.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Bytes of an `Audit-ID` that a client may bring. Upstream: `audit.maxAuditIDLength`.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// How long a request may wait for others to end.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Requests that wait: some KB each.
pub(crate) const QUEUE_LEN_MAX: usize = 5_000;

/// 405 with upstream's words.
pub(crate) fn not_allowed() -> Status {
    let mut status = Status::failure(
        405,
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    );
    status.details = Some(Box::default());
    status
}

/// A request with what was found out about it.
struct Course {
    server: Arc<Server>,
    target: Target,
    query: Query,
    identity: Identity,
    wanted: Wanted,
    now: Timestamp,
    notes: Arc<Mutex<Notes>>,
}

/// What the audit of a request needs until its end.
struct Trail {
    level: AuditLevel,
    record: AuditRecord,
}

impl Server {
    /// The server as a service. It is always ready: what is too much is refused with 429.
    pub fn service(self: &Arc<Self>) -> Service {
        let server = self.clone();
        BoxCloneSyncService::new(tower::service_fn(move |request: Request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.serve(request).await) }
        }))
    }

    /// Answers one request.
    pub async fn serve(self: Arc<Self>, mut request: Request) -> Response {
        let now = Timestamp::now();
        let query = Query::parse(request.uri().query());
        let wanted = negotiate::wanted(request.headers(), &query, true);
        let soft = wanted.as_ref().copied().unwrap_or_default();
        let id = self.audit_id(&mut request);
        let target = match path::parse(request.method(), request.uri().path(), &query) {
            Ok(target) => target,
            Err(status) => return finish(refuse(&status, soft), &id, &Notes::default()),
        };
        let (request, identity) = match self.identify(request).await {
            Ok(found) => found,
            Err(status) => return finish(refuse(&status, soft), &id, &Notes::default()),
        };
        let notes = Arc::new(Mutex::new(Notes::default()));
        let mut trail = self.begin_audit(&request, &target, &query, &identity, &id, now);
        let course =
            Course { server: self.clone(), target, query, identity, wanted: soft, now, notes: notes.clone() };
        let result = match wanted {
            // A handler may make its answer itself; only rows need an encoding of ours.
            Err(status) if course.target.is_resource && course.target.subresource.is_empty() => Err(status),
            _ => course.run(request).await,
        };
        let (response, status) = match result {
            Ok(response) => (response, None),
            Err(status) => (refuse(&status, soft), Some(status)),
        };
        let notes = std::mem::take(&mut *notes.lock());
        if let Some(trail) = trail.take() {
            self.end_audit(trail, &response, status, &notes);
        }
        finish(response, &id, &notes)
    }

    /// The request's id: the client's, or a new one.
    fn audit_id(&self, request: &mut Request) -> HeaderValue {
        let given = request.headers().get(&AUDIT_ID).filter(|id| id.len() <= AUDIT_ID_BYTES_MAX);
        match given {
            Some(id) => id.clone(),
            None => HeaderValue::from_str(&uuid::Uuid::new_v4().to_string())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
        }
    }

    /// Who makes the request. In-process callers say so in the extensions, where nothing from the wire can put it.
    async fn identify(&self, mut request: Request) -> Result<(Request, Identity), Status> {
        if let Some(identity) = request.extensions_mut().remove::<Identity>() {
            return Ok((request, identity));
        }
        if let Some(user) = request.extensions_mut().remove::<Arc<UserInfo>>() {
            return Ok((request, Identity { user, impersonator: None }));
        }
        if let Some(user) = request.extensions_mut().remove::<UserInfo>() {
            return Ok((request, user.into()));
        }
        let (head, body) = request.into_parts();
        let found = self.authenticate(&head).await?;
        let identity = match found {
            Some(identity) => identity,
            None if self.config().anonymous => Self::anonymous().into(),
            None => return Err(Status::unauthorized()),
        };
        Ok((Request::from_parts(head, body), identity))
    }

    fn begin_audit(
        &self,
        request: &Request,
        target: &Target,
        query: &Query,
        identity: &Identity,
        id: &HeaderValue,
        now: Timestamp,
    ) -> Option<Trail> {
        let audit = self.hooks.audit.as_ref()?;
        let source = request.extensions().get::<RemoteAddress>().map(|address| address.0);
        let level = audit.level(&attributes(target, query, &identity.user), source);
        if level == AuditLevel::None {
            return None;
        }
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let record = AuditRecord {
            id: id.to_str().unwrap_or("").to_owned(),
            level,
            stage: AuditStage::RequestReceived,
            // HTTP/2 brings scheme and host along.
            uri: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            verb: target.verb.to_owned(),
            identity: identity.clone(),
            source,
            user_agent: agent.unwrap_or("").to_owned(),
            target: target.clone(),
            code: None,
            status: None,
            request_object: None,
            response_object: None,
            received: now,
            now,
            annotations: Default::default(),
        };
        audit.record(record.clone());
        Some(Trail { level, record })
    }

    fn end_audit(&self, trail: Trail, response: &Response, status: Option<Status>, notes: &Notes) {
        let Some(audit) = &self.hooks.audit else { return };
        let Trail { level, mut record } = trail;
        let is_long = is_long_running(&record.target);
        record.stage = if is_long && status.is_none() {
            AuditStage::ResponseStarted
        } else {
            AuditStage::ResponseComplete
        };
        record.code = Some(response.status().as_u16());
        record.status = status.map(Box::new);
        if level >= AuditLevel::Request {
            record.request_object.clone_from(&notes.request_object);
        }
        if level >= AuditLevel::RequestResponse {
            record.response_object.clone_from(&notes.response_object);
        }
        record.annotations.extend(notes.annotations.clone());
        record.now = Timestamp::now();
        audit.record(record);
    }
}

/// What authorisation is asked about a request.
pub(crate) fn attributes<'a>(target: &'a Target, query: &'a Query, user: &'a UserInfo) -> Attributes<'a> {
    let selects = matches!(target.verb, "list" | "watch" | "deletecollection");
    let selector = |key: &str| query.get(key).filter(|_| selects && target.is_resource).unwrap_or("");
    Attributes {
        user,
        verb: target.verb,
        group: &target.group,
        version: &target.version,
        resource: &target.resource,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        path: &target.path,
        is_resource: target.is_resource,
        label_selector: selector("labelSelector"),
        field_selector: selector("fieldSelector"),
    }
}

/// Whether a request lasts as long as the client wants: it counts against no bound and has no time limit of its own.
fn is_long_running(target: &Target) -> bool {
    target.verb == "watch"
        || matches!(target.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
}

/// Adds what every answer carries.
fn finish(mut response: Response, id: &HeaderValue, notes: &Notes) -> Response {
    let headers = response.headers_mut();
    headers.insert(AUDIT_ID, id.clone());
    for warning in &notes.warnings {
        let text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

impl Course {
    /// Authorises the request and finds who answers it.
    async fn run(self, request: Request) -> Result<Response, Status> {
        self.authorize().await?;
        let _permit = self.admit_load().await?;
        if !self.target.is_resource {
            return self.serve_path(request).await;
        }
        let table = self.server.registry().table();
        if let Some(delegate) = table.delegate(&self.target.group, &self.target.version).cloned() {
            drop(table);
            return self.hand_over(&*delegate.handler, None, request).await;
        }
        let entry = table.find(&self.target.group, &self.target.version, &self.target.resource).cloned();
        drop(table);
        let entry = entry.ok_or_else(Status::no_such_path)?;
        self.check_scope(&entry)?;
        if self.must_be_fresh() {
            self.server.registry().storage().fresh().await?;
        }
        if let Some(handler) = self.handler(&entry)? {
            return self.hand_over(&*handler, Some(&entry), request).await;
        }
        let seconds_max = self.seconds_max()?;
        if matches!(self.target.verb, "get" | "list" | "watch") {
            return self.serve_row(entry, request).await;
        }
        let task = tokio::spawn(self.serve_row(entry, request));
        match tokio::time::timeout(seconds_max, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                tracing::error!(%error, "a request's task ended early");
                Err(Status::internal("the request's task ended early"))
            }
            Err(_) => Err(Status::timeout(
                "Timeout: request did not complete within requested timeout - context deadline exceeded",
            )),
        }
    }

    async fn authorize(&self) -> Result<(), Status> {
        let attributes = attributes(&self.target, &self.query, &self.identity.user);
        let verdict = self.server.authorize(&attributes).await;
        if verdict.decision == Decision::Allow {
            let mut notes = self.notes.lock();
            notes.annotate("authorization.k8s.io/decision", "allow");
            notes.annotate("authorization.k8s.io/reason", &verdict.reason);
            return Ok(());
        }
        let mut notes = self.notes.lock();
        notes.annotate("authorization.k8s.io/decision", "forbid");
        notes.annotate("authorization.k8s.io/reason", &verdict.reason);
        Err(forbidden(&attributes, &verdict.reason))
    }

    /// Whether the request must see every write that was acknowledged before it: what reads may say that it need not.
    fn must_be_fresh(&self) -> bool {
        let says = |key: &str| self.query.get(key).is_some_and(|text| !text.is_empty());
        let reads = matches!(self.target.verb, "get" | "list" | "watch");
        !reads || !(says("resourceVersion") || says("continue"))
    }

    /// Lets what is too much at once wait a while, and refuses what is too much even for that.
    /// Upstream: `filters/maxinflight.go`, `util/flowcontrol`.
    async fn admit_load(&self) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if is_long_running(&self.target) || self.identity.user.is_in(api::user::GROUP_MASTERS) {
            return Ok(None);
        }
        let reads = matches!(self.target.verb, "get" | "list" | "head");
        let bound = if reads { &self.server.reads } else { &self.server.writes };
        if let Ok(permit) = bound.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        let too_many = || Status::too_many_requests("too many requests, please try again later", 1);
        let _place = self.server.waiting.clone().try_acquire_owned().map_err(|_| too_many())?;
        match tokio::time::timeout(QUEUE_WAIT_MAX, bound.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(too_many()),
        }
    }

    /// How long this request may take.
    fn seconds_max(&self) -> Result<Duration, Status> {
        let bound = self.server.config().request_seconds_max;
        let asked = match self.query.get("timeout").filter(|text| !text.is_empty()) {
            Some(text) => Some(parse_seconds(text).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid timeout specified in the request URL - time: invalid duration \"{text}\""
                ))
            })?),
            None => None,
        };
        Ok(Duration::from_secs(asked.filter(|seconds| *seconds > 0).unwrap_or(bound).min(bound)))
    }

    fn check_scope(&self, entry: &Entry) -> Result<(), Status> {
        let resource = &entry.resource;
        let target = &self.target;
        let about_itself = target.resource == "namespaces" && target.name == target.namespace;
        let fits = match resource.is_namespaced() {
            true => !target.namespace.is_empty() || !target.has_name,
            false => target.namespace.is_empty() || about_itself,
        };
        if !fits {
            return Err(Status::no_such_path());
        }
        let needs_namespace = resource.is_namespaced() && target.namespace.is_empty();
        if needs_namespace && !matches!(target.verb, "list" | "watch") {
            return Err(not_allowed());
        }
        match target.subresource.as_str() {
            "" if resource.verbs.contains(&target.verb) => Ok(()),
            "" => Err(not_allowed()),
            name => {
                let found = verbs::find_subresource(entry, name).ok_or_else(Status::no_such_path)?;
                let any_method = matches!(found.action, Action::Connect) && found.verbs.contains(&"patch");
                let allowed = found.verbs.contains(&target.verb) || (target.is_options && any_method);
                if allowed { Ok(()) } else { Err(not_allowed()) }
            }
        }
    }

    /// Who answers in place of the verbs.
    fn handler(&self, entry: &Entry) -> Result<Option<Arc<dyn Handler>>, Status> {
        let target = &self.target;
        let hooks = &self.server.hooks;
        if target.subresource.is_empty() && entry.cache.is_some() {
            return Ok(None);
        }
        let key = (target.group.clone(), target.resource.clone(), target.subresource.clone());
        if let Some(handler) = hooks.handlers.get(&key) {
            return Ok(Some(handler.clone()));
        }
        let part = verbs::find_subresource(entry, &target.subresource)
            .and_then(|subresource| verbs::subresource::part_of(&subresource.action));
        match part {
            Some(_) => Ok(None),
            None => Err(Status::unavailable(format!(
                "nobody in this server answers {}/{}",
                entry.resource.id(),
                target.subresource
            ))),
        }
    }

    async fn hand_over(
        &self,
        handler: &dyn Handler,
        entry: Option<&Entry>,
        request: Request,
    ) -> Result<Response, Status> {
        let call = Call {
            server: self.server.clone(),
            target: self.target.clone(),
            resource: entry.map(|entry| entry.resource.clone()),
            identity: self.identity.clone(),
            wanted: self.wanted,
            query: self.query.clone(),
            notes: self.notes.clone(),
            request,
        };
        handler.handle(call).await
    }

    async fn serve_path(&self, request: Request) -> Result<Response, Status> {
        let path = &self.target.path;
        let below = |prefix: &str| {
            path == prefix
                || (prefix != "/" && path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
        };
        let found = self.server.hooks.paths.iter().find(|(prefix, _)| below(prefix));
        let (_, handler) = found.ok_or_else(Status::no_such_path)?;
        self.hand_over(&**handler, None, request).await
    }

    async fn serve_row(self, entry: Entry, request: Request) -> Result<Response, Status> {
        let (head, body) = request.into_parts();
        let resource = &entry.resource;
        let mut wanted = self.wanted;
        if wanted.media == Media::Protobuf
            && wanted.shape == Shape::Object
            && !api::protobuf::is_supported(&entry.api_version, &resource.kind)
        {
            wanted = negotiate::wanted(&head.headers, &self.query, false)?;
        }
        let scope = Scope {
            server: self.server,
            entry,
            target: self.target,
            query: self.query,
            identity: self.identity,
            headers: head.headers,
            wanted,
            now: self.now,
            notes: self.notes,
        };
        if let Some(warning) = &scope.entry.resource.deprecation {
            scope.warn(warning.as_str());
        }
        let reply = match (scope.target.verb, scope.target.subresource.as_str()) {
            ("get", "") => verbs::get::get(&scope).await?,
            ("list", "") => verbs::list::list(&scope).await?,
            ("watch", "") => verbs::watch::watch(&scope).await?,
            ("create", "") => verbs::create::create(&scope, body).await?,
            ("update", "") => verbs::update::update(&scope, body, Part::Whole).await?,
            ("patch", "") => verbs::patch::patch(&scope, body, Part::Whole).await?,
            ("delete", "") => verbs::delete::delete(&scope, body).await?,
            ("deletecollection", "") => verbs::delete::delete_collection(&scope, body).await?,
            (_, name) => {
                let subresource =
                    verbs::find_subresource(&scope.entry, name).ok_or_else(Status::no_such_path)?;
                let part = verbs::subresource::part_of(&subresource.action).ok_or_else(not_allowed)?;
                verbs::subresource::serve(&scope, body, part).await?
            }
        };
        scope.respond(reply)
    }
}

impl Scope {
    /// The answer in the encoding and shape that the client wants.
    fn respond(&self, reply: Reply) -> Result<Response, Status> {
        let include = match self.wanted.shape {
            Shape::Table(_) => verbs::watch::table_include(self)?,
            _ => table::Include::default(),
        };
        if let Reply::Object { object, .. } = &reply {
            self.notes.lock().response_object = Some(object.json.clone());
        }
        let recipe =
            Recipe { resource: Some(&self.entry.resource), wanted: self.wanted, include, now: self.now };
        reply.respond(&recipe)
    }
}

/// Seconds of a duration such as `30s` or `1m30s`, or of a plain number.
fn parse_seconds(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut total, mut number) = (0.0, String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            rest = &rest[1..];
            continue;
        }
        let (unit, factor) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        total += number.parse::<f64>().ok()? * factor;
        number.clear();
        rest = &rest[unit.len()..];
    }
    (number.is_empty() && total.is_finite() && total >= 0.0).then_some(total.ceil() as u64)
}

/// 403 with upstream's words. Upstream: `handlers/responsewriters/errors.go`.
fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = &attributes.user.name;
    if !attributes.is_resource {
        let message = format!("User \"{user}\" cannot {} path \"{}\"", attributes.verb, attributes.path);
        let message = if reason.is_empty() { message } else { format!("{message}: {reason}") };
        let mut status = Status::failure(403, Reason::Forbidden, format!("forbidden: {message}"));
        status.details = Some(Box::default());
        return status;
    }
    let mut resource = attributes.resource.to_owned();
    if !attributes.subresource.is_empty() {
        resource = format!("{resource}/{}", attributes.subresource);
    }
    let place = match attributes.namespace {
        "" => " at the cluster scope".to_owned(),
        namespace => format!(" in the namespace \"{namespace}\""),
    };
    let mut why = format!(
        "User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\"{place}",
        attributes.verb, attributes.group
    );
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    let id = api::status::ResourceId { group: attributes.group, plural: attributes.resource };
    Status::forbidden(id, attributes.name, &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in [
            ("30s", Some(30)),
            ("1m30s", Some(90)),
            ("5", Some(5)),
            ("500ms", Some(1)),
            ("x", None),
            ("5x", None),
            ("3s4", None),
        ] {
            assert_eq!(parse_seconds(text), expect, "{text}");
        }
    }

    #[test]
    fn refusals_read_as_upstream() {
        let user = UserInfo { name: "u".to_owned(), ..UserInfo::default() };
        let check = |method: http::Method, path: &str, expect: &str| {
            let query = Query::default();
            let target = path::parse(&method, path, &query).unwrap();
            assert_eq!(forbidden(&attributes(&target, &query, &user), "").message, expect);
        };
        check(
            http::Method::GET,
            "/apis/apps/v1/namespaces/a/deployments",
            "deployments.apps is forbidden: User \"u\" cannot list resource \"deployments\" in API group \"apps\" in the namespace \"a\"",
        );
        check(
            http::Method::GET,
            "/api/v1/nodes/n",
            "nodes \"n\" is forbidden: User \"u\" cannot get resource \"nodes\" in API group \"\" at the cluster scope",
        );
        check(http::Method::GET, "/healthz", "forbidden: User \"u\" cannot get path \"/healthz\"");
    }
}
