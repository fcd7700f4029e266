//! The server as its own client: what it writes by itself goes the way of every request.

use crate::Server;
use crate::codec::body;
use api::{Reason, Status, UserInfo};
use bytes::Bytes;
use http::header;
use serde_json::Value;
use std::sync::Arc;

/// Bytes of an answer that the server reads from itself.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Who the server is to itself.
pub(crate) fn own_user() -> UserInfo {
    UserInfo {
        name: "system:apiserver".to_owned(),
        groups: vec![api::user::GROUP_MASTERS.to_owned(), api::user::GROUP_AUTHENTICATED.to_owned()],
        ..UserInfo::default()
    }
}

/// Sends a request with a JSON body, or none where it is null.
///
/// # Errors
/// The refusal.
pub(crate) async fn call(
    server: &Arc<Server>,
    method: http::Method,
    path: &str,
    body: &Value,
) -> Result<Value, Status> {
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver")
        .body(body::full(Bytes::from(bytes)))
        .map_err(Status::internal)?;
    request.extensions_mut().insert(own_user());
    let (head, answer) = server.clone().serve(request).await.into_parts();
    let bytes = body::read(answer, ANSWER_BYTES_MAX).await?;
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if head.status.is_success() {
        return Ok(value);
    }
    let failed = || Status::failure(head.status.as_u16(), Reason::InternalError, "the server refused itself");
    Err(serde_json::from_value(value).unwrap_or_else(|_| failed()))
}
