//! Where events come in over HTTP.
//!
//! Upstream: `pkg/broker/ingress`, `pkg/channel/event_receiver.go`.

pub mod serve;

use crate::delivery::passed_headers;
use crate::dispatch::{Kind, Name, Shared, hops};
use crate::event::record::Kept;
use crate::event::{EventError, http as binding};
use crate::log::LogError;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use std::time::Duration;

/// The most bytes of the body of a request: an event of the largest size in base64, with its attributes, or a batch.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// How long the body of a request may take to arrive.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Why a request is not accepted.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only POST and OPTIONS are allowed")]
    Method,
    #[error("there is nothing at this address")]
    NotFound,
    #[error("the path must be /NAMESPACE/BROKER, or / of a channel's host")]
    Path,
    #[error("the body is larger than {REQUEST_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the body took too long")]
    Slow,
    #[error("the body broke off")]
    Broken,
    #[error(transparent)]
    Event(#[from] EventError),
    #[error("the event has passed too many brokers")]
    Hops,
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Slow => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooLarge
            | Refusal::Event(EventError::TooLarge { .. })
            | Refusal::Log(LogError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Path | Refusal::Broken | Refusal::Event(_) | Refusal::Hops => StatusCode::BAD_REQUEST,
            Refusal::Log(LogError::Full) => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Log(LogError::Stopped | LogError::Io(_)) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The channel that a host names: `NAME-kn-channel.NAMESPACE[.svc[...]]`. Upstream: `pkg/channel/references.go`.
fn channel_of(host: &str) -> Option<Name> {
    let host =
        host.rsplit_once(':').map_or(host, |(host, _)| host).trim_end_matches('.').to_ascii_lowercase();
    let mut labels = host.split('.');
    let name = labels.next()?.strip_suffix("-kn-channel")?.to_owned();
    let namespace = labels.next()?.to_owned();
    Some(Name { kind: Kind::Channel, namespace, name })
}

/// The broker that a path names.
fn broker_of(path: &str) -> Result<Name, Refusal> {
    if path == "/" {
        return Err(Refusal::NotFound);
    }
    match path.strip_suffix('/').unwrap_or(path).split('/').collect::<Vec<_>>()[..] {
        ["", namespace, name] => {
            Ok(Name { kind: Kind::Broker, namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(Refusal::Path),
    }
}

async fn body<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let promised = headers.get(CONTENT_LENGTH).and_then(|own| own.to_str().ok()?.parse::<u64>().ok());
    if promised.is_some_and(|own| own > REQUEST_BYTES_MAX as u64) {
        return Err(Refusal::TooLarge);
    }
    match tokio::time::timeout(REQUEST_MAX, Limited::new(body, REQUEST_BYTES_MAX).collect()).await {
        Err(_) => Err(Refusal::Slow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Refusal::Broken),
        Ok(Ok(own)) => Ok(own.to_bytes()),
    }
}

async fn accept<B>(shared: &Shared, request: Request<B>) -> Result<(), Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let (head, own_body) = request.into_parts();
    let host = head.uri.host().or_else(|| head.headers.get(HOST)?.to_str().ok()).unwrap_or_default();
    let channel = channel_of(host);
    let name = match channel {
        None => broker_of(head.uri.path())?,
        Some(_) if head.uri.path() != "/" => return Err(Refusal::Path),
        // A channel that nobody has is told before its event is looked at, a broker afterwards, as upstream does.
        Some(name) if shared.stream(&name).is_none() => return Err(Refusal::NotFound),
        Some(name) => name,
    };
    let events = binding::decode(&head.headers, body(&head.headers, own_body).await?)?;
    let stream = shared.stream(&name).ok_or(Refusal::NotFound)?;
    let headers = passed_headers(&head.headers);
    let mut kept: Vec<Kept> =
        events.into_iter().map(|event| Kept { event, headers: headers.clone() }).collect();
    if stream.name.kind == Kind::Broker {
        let now = shared.clock.now();
        if !kept.iter_mut().all(|own| hops::enter(own, now)) {
            return Err(Refusal::Hops);
        }
    }
    Ok(stream.keep(&kept).await?)
}

/// Answers one request.
pub(crate) async fn answer<B>(shared: &Shared, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut response = Response::new(Full::default());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    if request.method() == Method::OPTIONS {
        for name in ["webhook-allowed-origin", "webhook-allowed-rate"] {
            response.headers_mut().insert(name, HeaderValue::from_static("*"));
        }
        return response;
    }
    match accept(shared, request).await {
        Ok(()) => *response.status_mut() = StatusCode::ACCEPTED,
        Err(refusal) => {
            let status = refusal.status();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            *response.status_mut() = status;
            *response.body_mut() = Full::from(format!("{refusal}\n"));
        }
    }
    response
}

#[cfg(test)]
mod tests;
