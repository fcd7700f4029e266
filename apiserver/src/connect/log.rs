//! `pods/log`. Upstream: `pkg/registry/core/pod/rest/log.go`, `apiserver/pkg/registry/generic/rest`.

use super::dial::{self, DialError};
use super::node::Nodes;
use super::{pod, websocket};
use crate::Response;
use crate::codec::body::full;
use crate::hooks::{Call, Handler};
use api::status::ResourceId;
use api::{Reason, Status};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use std::sync::Arc;

/// Bytes of a node's explanation that are read. Upstream: `maxReadLength`.
const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// The handler of `pods/log`.
pub struct Log(pub Arc<Nodes>);

impl Handler for Log {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.read(call))
    }
}

impl Log {
    async fn read(&self, call: Call) -> Result<Response, Status> {
        let name = call.target.name.as_str();
        let query = pod::log_query(name, &call.query)?;
        let object = call.object()?;
        let container = pod::container(&object, call.query.get("container").unwrap_or_default())?;
        let text = http::Response::builder().header(CONTENT_TYPE, "text/plain");
        let Some(node) = pod::node(&object) else {
            return text.body(full(Bytes::new())).map_err(Status::internal);
        };
        let mut to = self.0.of(node)?;
        if call.query.flag("insecureSkipTLSVerifyBackend") {
            to.tls = Some(self.0.unverified.clone());
        }
        let uri = format!("/containerLogs/{}/{name}/{container}?{query}", call.target.namespace);
        let request = http::Request::builder().method(Method::GET).uri(uri);
        let mut request = request.body(full(Bytes::new())).map_err(Status::internal)?;
        *request.headers_mut() = dial::forwarded(&http::HeaderMap::new(), &to);
        let response = dial::send(to.clone(), request).await.map_err(|error| refusal(&error))?;
        if !matches!(response.status().as_u16(), 200..=206) {
            return Err(explanation(response, name).await);
        }
        let body = dial::answer(response).into_body();
        if websocket::is_wanted(call.request.headers()) {
            return websocket::send(call.request, body, self.0.permit()?);
        }
        text.body(body).map_err(Status::internal)
    }
}

/// Upstream answers 500 here, with what Go says of the failed request.
fn refusal(error: &DialError) -> Status {
    Status::internal(format!("Get containerLogs: {error}"))
}

/// What the node said, as a refusal of ours. Upstream: `GenericHttpResponseChecker`.
async fn explanation(response: http::Response<hyper::body::Incoming>, name: &str) -> Status {
    let code = response.status();
    let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let text = text.trim_end_matches('\n');
    let id = ResourceId { group: "", plural: "pods/log" };
    match code {
        StatusCode::INTERNAL_SERVER_ERROR => Status::internal(text),
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( pods/log {name})");
            Status::failure(404, Reason::NotFound, message).about(id, name)
        }
        code => {
            let message = format!("the server responded with the status code {}: {text}", code.as_u16());
            Status::failure(code.as_u16(), Reason::Unknown, message).about(id, name)
        }
    }
}
