//! Bodies: reading them within bounds, and making them.

use crate::{Body, BodyError};
use api::{Reason, Status};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full};
use std::time::Duration;

/// Bytes of a request's body. Upstream: `--max-request-bytes`' default for writes.
pub const BODY_BYTES_MAX: usize = 3 << 20;

/// How long a request's body may take to arrive. Upstream: `--request-timeout`.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body.
///
/// # Errors
/// 413 over the bound, 400 where the client broke off, 504 where it does not go on.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    let whole = tokio::time::timeout(BODY_TIME_MAX, read_all(body, bytes_max));
    whole.await.unwrap_or_else(|_| {
        Err(Status::timeout(format!("the body of the request did not arrive within {BODY_TIME_MAX:?}")))
    })
}

async fn read_all(body: Body, bytes_max: usize) -> Result<Bytes, Status> {
    let mut body = std::pin::pin!(body);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error: BodyError| Status::bad_request(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        len += data.len();
        if len > bytes_max {
            return Err(too_large(bytes_max));
        }
        match &first {
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(len);
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// 413 with upstream's words.
pub fn too_large(bytes_max: usize) -> Status {
    Status::failure(
        413,
        Reason::RequestEntityTooLarge,
        format!("Request entity too large: limit is {bytes_max}"),
    )
}

/// The media type of a body, without parameters; empty where it is not said.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

/// 415 with upstream's words.
pub fn unsupported(accepted: &str) -> Status {
    Status::failure(
        415,
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_go_on_is_given_up() {
        let first = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"{")))]);
        let body = StreamBody::new(futures::StreamExt::chain(first, futures::stream::pending()));
        let began = tokio::time::Instant::now();
        let status = read(body.boxed_unsync(), BODY_BYTES_MAX).await.unwrap_err();
        assert_eq!((status.code, status.reason), (504, Reason::Timeout));
        assert_eq!(began.elapsed(), BODY_TIME_MAX);
    }
}
