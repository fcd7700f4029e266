//! Events in HTTP messages. Source of the rules: the CloudEvents HTTP binding 1.0.2.

use super::{ATTRIBUTES_MAX, Event, EventError, SpecVersion, json};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The content type of one event in JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// The content type of many events in JSON.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// What the binding encodes: everything outside of printable ASCII, space, the double quote and the percent sign.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

const PREFIX: &str = "ce-";
const VERSION: &str = "ce-specversion";

/// How a message carries events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, data in the body.
    Binary,
    /// One event as JSON.
    Structured,
    /// A JSON array of events.
    Batch,
}

/// How the message with these headers carries events; `None` where it does not.
pub fn mode(headers: &HeaderMap) -> Option<Mode> {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|own| own.to_str().ok())
        .map(|own| own.split(';').next().unwrap_or(own).trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some(STRUCTURED) => Some(Mode::Structured),
        Some(BATCH) => Some(Mode::Batch),
        _ => headers.contains_key(VERSION).then_some(Mode::Binary),
    }
}

/// The events of a message, each valid.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn decode(headers: &HeaderMap, body: Bytes) -> Result<Vec<Event>, EventError> {
    let events = match mode(headers).ok_or(EventError::NotAnEvent)? {
        Mode::Binary => vec![binary(headers, body)?],
        Mode::Structured => vec![json::decode(&body)?],
        Mode::Batch => json::decode_batch(&body)?,
    };
    for event in &events {
        event.validate()?;
    }
    Ok(events)
}

fn binary(headers: &HeaderMap, body: Bytes) -> Result<Event, EventError> {
    let version = text(VERSION, headers.get(VERSION).ok_or(EventError::NotAnEvent)?)?;
    let known = SpecVersion::parse(&version).ok_or(EventError::Version { version })?;
    let mut event = Event { version: known, ..Event::new("", "", "") };
    let mut count = 0;
    for name in headers.keys() {
        let (Some(attribute), Some(value)) = (name.as_str().strip_prefix(PREFIX), headers.get(name)) else {
            continue;
        };
        if attribute == "specversion" {
            continue;
        }
        count += 1;
        if count > ATTRIBUTES_MAX {
            return Err(EventError::TooLarge { what: "the number of attributes", max: ATTRIBUTES_MAX });
        }
        event.set(attribute, text(attribute, value)?)?;
    }
    if let Some(value) = headers.get(CONTENT_TYPE) {
        event.set("datacontenttype", text("datacontenttype", value)?)?;
    }
    event.data = (!body.is_empty()).then_some(body);
    Ok(event)
}

/// The value of a header, percent escapes decoded. What is not UTF-8 afterwards is refused.
fn text(name: &str, value: &HeaderValue) -> Result<String, EventError> {
    let wrong = || EventError::Value { name: name.to_owned(), wanted: "UTF-8 text" };
    let raw = std::str::from_utf8(value.as_bytes()).map_err(|_| wrong())?;
    percent_decode_str(raw).decode_utf8().map(|own| own.into_owned()).map_err(|_| wrong())
}

/// The event in binary mode: headers and body.
///
/// # Errors
/// `Value` where an attribute cannot be a header.
pub fn encode_binary(event: &Event) -> Result<(HeaderMap, Bytes), EventError> {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(VERSION), HeaderValue::from_static(event.version.as_str()));
    for (name, value) in event.attributes() {
        let wrong = || EventError::Value { name: name.to_owned(), wanted: "a header" };
        let header = HeaderName::try_from(format!("{PREFIX}{name}")).map_err(|_| wrong())?;
        let value = utf8_percent_encode(value, ENCODED).to_string();
        headers.insert(header, HeaderValue::try_from(value).map_err(|_| wrong())?);
    }
    if let Some(content_type) = &event.content_type {
        let wrong = |_| EventError::Value { name: "datacontenttype".to_owned(), wanted: "a header" };
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(content_type.as_str()).map_err(wrong)?);
    }
    Ok((headers, event.data.clone().unwrap_or_default()))
}

/// The event in structured mode: headers and body.
pub fn encode_structured(event: &Event) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
    (headers, Bytes::from(json::encode(event)))
}
