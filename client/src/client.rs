//! The client itself: one way in for requests, in process or over the network.

use crate::api_access::Api;
use crate::body::{Body, full};
use crate::dynamic::DynamicApi;
use crate::remote::{Remote, RemoteError};
use crate::resource::{Kind, ResourceRef};
use api::{Reason, Status, UserInfo};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use std::convert::Infallible;
use std::sync::Arc;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// An API server as a tower service.
pub type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The largest answer about one object. Upstream bounds requests at 3 MiB; an answer may add status and managed fields.
const OBJECT_BYTES_MAX: usize = 16 << 20;

/// The largest list. Only a fallback reads lists as a whole: 150,000 pods of 8 KB still fit.
pub(crate) const LIST_BYTES_MAX: usize = 2 << 30;

/// Speaks to one API server as one user. Cheap to clone.
///
/// # Guarantees
/// Every failure is a [`Status`]: what the server said, or `ServiceUnavailable` if it could not be reached. Nothing is
/// retried here: callers know whether trying again is right.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    agent: HeaderValue,
}

#[derive(Clone)]
enum Transport {
    InProcess { service: Service, user: Arc<UserInfo> },
    Remote(Arc<crate::remote::Connection>),
}

impl Client {
    /// A client of the API server in this process, acting as `user`.
    pub fn in_process(service: Service, user: UserInfo) -> Self {
        Self { transport: Transport::InProcess { service, user: Arc::new(user) }, agent: default_agent() }
    }

    /// A client of an API server elsewhere. Connects at the first request.
    ///
    /// # Errors
    /// The URL, the certificates or the key cannot be used.
    pub fn remote(remote: Remote) -> Result<Self, RemoteError> {
        Ok(Self { transport: Transport::Remote(Arc::new(remote.connect()?)), agent: default_agent() })
    }

    /// The same connection with another user agent, which the server takes as the default field manager.
    pub fn named(&self, component: &str) -> Self {
        let agent = HeaderValue::from_str(component).unwrap_or_else(|_| default_agent());
        Self { transport: self.transport.clone(), agent }
    }

    /// The same server as another user. Only in process: a remote server knows who we are by our credentials.
    pub fn acting_as(&self, user: UserInfo) -> Option<Self> {
        match &self.transport {
            Transport::InProcess { service, .. } => Some(Self {
                transport: Transport::InProcess { service: service.clone(), user: Arc::new(user) },
                agent: self.agent.clone(),
            }),
            Transport::Remote(_) => None,
        }
    }

    /// Whether the API server is in this process, so that whole objects cost no more than their metadata.
    pub fn is_in_process(&self) -> bool {
        matches!(self.transport, Transport::InProcess { .. })
    }

    /// Access to a kind in all namespaces, or to a cluster-scoped kind.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::new(self.dynamic(ResourceRef::of::<K>(), ""))
    }

    /// Access to a kind in one namespace.
    pub fn namespaced<K: Kind>(&self, namespace: &str) -> Api<K> {
        Api::new(self.dynamic(ResourceRef::of::<K>(), namespace))
    }

    /// Access to a resource whose type is not known. `namespace` is empty for cluster scope or all namespaces.
    pub fn dynamic(&self, resource: ResourceRef, namespace: &str) -> DynamicApi {
        DynamicApi::new(self.clone(), resource, namespace)
    }

    /// Sends any request and returns the answer as it comes, error answers included.
    ///
    /// # Errors
    /// `ServiceUnavailable` if the server cannot be reached.
    pub fn send(&self, mut request: Request<Body>) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| self.agent.clone());
        match &self.transport {
            Transport::InProcess { service, user } => {
                request.extensions_mut().insert(UserInfo::clone(user));
                service.clone().oneshot(request).map(|answer| answer.map_err(|never| match never {})).boxed()
            }
            Transport::Remote(connection) => {
                let connection = connection.clone();
                Box::pin(async move { connection.send(request).await })
            }
        }
    }

    /// Sends a request and turns an error answer into a [`Status`]. The body is still to be read.
    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let mut request = Request::new(full(body));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|error| Status::bad_request(format!("the path {path} is not valid: {error}")))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(read_status(response).await)
    }

    /// Sends a request and reads its answer as a whole.
    ///
    /// # Errors
    /// What the server answered, or that it could not be reached.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let response = self.open(method, path, content_type, accept, body).await?;
        read(response.into_body(), OBJECT_BYTES_MAX).await
    }
}

fn default_agent() -> HeaderValue {
    HeaderValue::from_static("clipper")
}

/// Reads a body as a whole. A body of one frame is handed on without a copy.
pub(crate) fn read(body: Body, bytes_max: usize) -> BoxFuture<'static, Result<Bytes, Status>> {
    let whole = Limited::new(body, bytes_max).collect();
    whole.map(|read| read.map(|body| body.to_bytes()).map_err(|error| unreachable(&*error))).boxed()
}

async fn read_status(response: Response<Body>) -> Status {
    let code = response.status().as_u16();
    let body = match read(response.into_body(), OBJECT_BYTES_MAX).await {
        Ok(body) => body,
        Err(status) => return status,
    };
    match serde_json::from_slice::<Status>(&body) {
        Ok(status) if status.kind == "Status" => Status { code, ..status },
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
            Status::failure(code, reason_of(code), text)
        }
    }
}

/// The reason of an answer that is no `Status` (a proxy in between). Upstream: `errors.NewGenericServerResponse`.
fn reason_of(code: u16) -> Reason {
    match code {
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        409 => Reason::Conflict,
        410 => Reason::Gone,
        429 => Reason::TooManyRequests,
        500 => Reason::InternalError,
        503 => Reason::ServiceUnavailable,
        504 => Reason::Timeout,
        _ => Reason::Unknown,
    }
}

/// The server could not be reached, or stopped in the middle of its answer.
pub(crate) fn unreachable(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    Status::unavailable(format!("the API server cannot be reached: {text}"))
}
