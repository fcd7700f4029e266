//! One event to one destination: the attempts, the waits between them, the reply, and the dead letter.
//!
//! Upstream: `pkg/kncloudevents`, `pkg/broker/filter`.

pub mod pool;
pub mod retry;

pub use pool::{Pool, Post, PostError, Resolve};
pub use retry::{Backoff, Retry};

use crate::event::http as binding;
use crate::event::record::{HEADERS_MAX, Kept};
use crate::event::{Event, EventError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::Clock;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use std::time::Duration;

/// The most bytes of the body of an answer that are read.
pub const REPLY_BYTES_MAX: usize = crate::event::EVENT_BYTES_MAX;

/// How long extension `knativeerrordata` may be. Upstream: `kncloudevents/attributes`.
pub const ERROR_DATA_BYTES_MAX: usize = 1024;

/// The most bytes of one header that travels with an event.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The namespace of who sends, as a header. Upstream: `pkg/apis`, `KnNamespaceHeader`.
const NAMESPACE_HEADER: HeaderName = HeaderName::from_static("kn-namespace");

/// How the event of a source is tried. Upstream: `pkg/adapter/v2`, the adapter's retries.
pub const SOURCE_RETRY: Retry = Retry {
    retry: 5,
    backoff: Backoff::Exponential,
    delay: Duration::from_millis(50),
    timeout: Duration::from_secs(30),
    retry_after_max: None,
};

/// The form in which events are sent: `spec.delivery.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Attributes in headers.
    #[default]
    Binary,
    /// One JSON object.
    Json,
}

/// The headers that travel with an event. Upstream: `pkg/utils`, `PassThroughHeaders`; trace context comes on top.
pub fn passed_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let passes = |name: &str| {
        matches!(name, "x-request-id" | "traceparent" | "tracestate")
            || name.starts_with("knative-")
            || name.starts_with("x-b3-")
    };
    headers
        .iter()
        .filter(|(name, value)| passes(name.as_str()) && value.len() <= HEADER_BYTES_MAX)
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .take(HEADERS_MAX)
        .collect()
}

/// What a request to a destination is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// The event and its headers.
    pub kept: &'a Kept,
    /// The namespace of the subscriber.
    pub namespace: &'a str,
    /// How the event is written.
    pub format: Format,
    /// Whether an event in the answer is wanted.
    pub wants_reply: bool,
}

/// The request that carries an event.
///
/// # Errors
/// `Value` where the event cannot be written, `Name` where the URI is none.
pub fn request(parcel: Parcel<'_>, uri: &str) -> Result<Request<Bytes>, EventError> {
    let unreadable = || EventError::Name { name: uri.to_owned() };
    let (mut headers, body) = match parcel.format {
        Format::Binary => binding::encode_binary(&parcel.kept.event)?,
        Format::Json => binding::encode_structured(&parcel.kept.event),
    };
    for (name, value) in &parcel.kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    if let Ok(namespace) = HeaderValue::try_from(parcel.namespace) {
        headers.insert(NAMESPACE_HEADER, namespace);
    }
    if parcel.wants_reply {
        headers.insert(HeaderName::from_static("prefer"), HeaderValue::from_static("reply"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = address(uri).ok_or_else(unreadable)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The URI of a destination; a host alone is `http://host/`. Upstream: `sanitizeURL`.
fn address(uri: &str) -> Option<Uri> {
    let parsed: Uri = match uri.contains("://") {
        true => uri.parse().ok()?,
        false => format!("http://{uri}/").parse().ok()?,
    };
    parsed.host().is_some_and(|own| !own.is_empty()).then_some(parsed)
}

/// Why an event was not taken: what a dead letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status of the answer; 500 where there was none.
    pub code: u16,
    /// The body of the answer, or what went wrong.
    pub data: Bytes,
    /// Whether another attempt may help.
    pub again: bool,
    /// `Retry-After` as it came, of 429 and 503.
    pub retry_after: Option<String>,
}

impl Failure {
    /// An attempt that brought no answer. It may help to try again.
    pub fn without_answer(reason: &str) -> Failure {
        Failure {
            code: 500,
            data: Bytes::from(format!("dispatch error: {reason}")),
            again: true,
            retry_after: None,
        }
    }

    /// An event that cannot be sent at all.
    pub fn unsendable(reason: &str) -> Failure {
        Failure { again: false, ..Failure::without_answer(reason) }
    }
}

/// What an answer that is not a failure brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Done,
    /// An event, with the headers that travel with it.
    Reply(Box<Kept>),
}

/// How strictly the body of an answer is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replies {
    /// A body that is no event is a failure. Upstream: the broker's filter, `writeResponse`.
    EventsOnly,
    /// A body that is no event is nothing. Upstream: `executeRequest`.
    Anything,
    /// No body matters: dead letters and replies have no replies.
    None,
}

/// What an answer means.
///
/// # Errors
/// The failure that it is. An answer with a malformed event is one of code 502.
pub fn judge(answer: Response<Bytes>, replies: Replies) -> Result<Answer, Failure> {
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        let retry_after = head.headers.get(http::header::RETRY_AFTER).and_then(|own| own.to_str().ok());
        let counts = matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        return Err(Failure {
            code: head.status.as_u16(),
            data: body,
            again: retry::is_retried(head.status),
            retry_after: retry_after.filter(|_| counts).map(str::to_owned),
        });
    }
    // What is only accepted has no answer yet.
    if head.status == StatusCode::ACCEPTED || replies == Replies::None {
        return Ok(Answer::Done);
    }
    let malformed =
        |reason: String| Failure { code: 502, data: Bytes::from(reason), again: true, retry_after: None };
    match binding::mode(&head.headers) {
        None if body.is_empty() || replies == Replies::Anything => Ok(Answer::Done),
        None => Err(malformed("the answer is not empty and no CloudEvent".to_owned())),
        Some(_) => match binding::decode(&head.headers, body) {
            Ok(mut events) if events.len() == 1 => {
                let headers = passed_headers(&head.headers);
                Ok(Answer::Reply(Box::new(Kept { event: events.remove(0), headers })))
            }
            Ok(events) if events.is_empty() => Ok(Answer::Done),
            Ok(_) => Err(malformed("the answer has more than one event".to_owned())),
            Err(error) => Err(malformed(error.to_string())),
        },
    }
}

/// One attempt to send an event.
///
/// # Errors
/// Why it was not taken.
pub async fn post(
    post: &dyn Post,
    parcel: Parcel<'_>,
    uri: &str,
    timeout: Duration,
    replies: Replies,
) -> Result<Answer, Failure> {
    let request = request(parcel, uri).map_err(|error| Failure::unsendable(&error.to_string()))?;
    match tokio::time::timeout(timeout, post.post(request)).await {
        Ok(Ok(answer)) => judge(answer, replies),
        Ok(Err(error)) => Err(Failure::without_answer(&error.to_string())),
        Err(_) => Err(Failure::without_answer("the attempt took too long")),
    }
}

/// Sends an event with all attempts that it has, and drops what comes back.
///
/// # Errors
/// Why the last attempt was not taken.
pub async fn post_again(
    own: &dyn Post,
    clock: &Clock,
    parcel: Parcel<'_>,
    uri: &str,
    retry: &Retry,
) -> Result<(), Failure> {
    let mut attempt = 0;
    loop {
        let posted = post(own, parcel, uri, retry.timeout, Replies::None).await;
        let Err(failure) = posted else { return Ok(()) };
        let Some(wait) = retry.wait(attempt, &failure, clock.now()) else { return Err(failure) };
        attempt += 1;
        clock.sleep(wait).await;
    }
}

/// Adds to an event why it was not delivered. Upstream: `KnativeErrorTransformers`.
pub fn mark_dead(event: &mut Event, destination: &str, failure: &Failure) {
    // Only what fits is encoded.
    let data = &failure.data[..failure.data.len().min(ERROR_DATA_BYTES_MAX)];
    let mut data = STANDARD.encode(data);
    data.truncate(ERROR_DATA_BYTES_MAX);
    event.extensions.insert("knativeerrordest".to_owned(), destination.to_owned());
    event.extensions.insert("knativeerrorcode".to_owned(), failure.code.to_string());
    event.extensions.insert("knativeerrordata".to_owned(), data);
}

#[cfg(test)]
mod tests;
