//! Events as JSON. Source of the rules: the CloudEvents JSON format 1.0.2, and 0.3 with its `datacontentencoding`.

use super::{Event, EventError, SpecVersion, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The most events of a batch.
pub const BATCH_EVENTS_MAX: usize = 1000;

fn unreadable(error: serde_json::Error) -> EventError {
    EventError::Json { message: error.to_string() }
}

/// One event of a JSON object. It is not validated.
///
/// # Errors
/// What is wrong with it.
pub fn decode(body: &[u8]) -> Result<Event, EventError> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).map_err(unreadable)?;
    of_members(members)
}

/// The events of a JSON array. They are not validated.
///
/// # Errors
/// What is wrong with the first bad one.
pub fn decode_batch(body: &[u8]) -> Result<Vec<Event>, EventError> {
    let all: Vec<BTreeMap<String, Box<RawValue>>> = serde_json::from_slice(body).map_err(unreadable)?;
    if all.len() > BATCH_EVENTS_MAX {
        return Err(EventError::TooLarge { what: "the batch", max: BATCH_EVENTS_MAX });
    }
    all.into_iter().map(of_members).collect()
}

fn of_members(mut members: BTreeMap<String, Box<RawValue>>) -> Result<Event, EventError> {
    let version = match members.remove("specversion") {
        Some(raw) => scalar("specversion", &raw)?.unwrap_or_default(),
        None => return Err(EventError::Missing { name: "specversion" }),
    };
    let known = SpecVersion::parse(&version).ok_or(EventError::Version { version })?;
    let mut event = Event { version: known, ..Event::new("", "", "") };
    let (plain, mut encoded) = (members.remove("data"), None);
    match known {
        SpecVersion::V1 => encoded = members.remove("data_base64"),
        SpecVersion::V03 => match members.remove("datacontentencoding") {
            None => {}
            Some(raw) => match scalar("datacontentencoding", &raw)? {
                Some(own) if !own.eq_ignore_ascii_case("base64") => {
                    return Err(EventError::Value {
                        name: "datacontentencoding".to_owned(),
                        wanted: "base64",
                    });
                }
                own => event.base64 = own.is_some(),
            },
        },
    }
    for (name, raw) in &members {
        if let Some(value) = scalar(name, raw)? {
            event.set(name, value)?;
        }
    }
    // The SDK takes an empty text for no subject.
    event.subject = event.subject.filter(|own| !own.is_empty());
    event.data = match (plain, encoded) {
        (Some(_), Some(_)) => return Err(EventError::Twice { name: "data".to_owned() }),
        (None, None) => None,
        (None, Some(raw)) => {
            event.base64 = true;
            Some(from_base64(&raw)?)
        }
        (Some(raw), None) if event.base64 => Some(from_base64(&raw)?),
        (Some(raw), None) if raw.get() == "null" => None,
        (Some(raw), None) if text::is_json(event.content_type.as_deref()) => {
            Some(Bytes::copy_from_slice(raw.get().as_bytes()))
        }
        (Some(raw), None) => {
            let own: String = serde_json::from_str(raw.get())
                .map_err(|_| EventError::Value { name: "data".to_owned(), wanted: "a text" })?;
            Some(Bytes::from(own))
        }
    };
    Ok(event)
}

fn from_base64(raw: &RawValue) -> Result<Bytes, EventError> {
    let wrong = || EventError::Value { name: "data".to_owned(), wanted: "base64" };
    let own: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    STANDARD.decode(own).map(Bytes::from).map_err(|_| wrong())
}

/// The text of an attribute: texts, booleans and integers of 32 bits are allowed, null is as if it were not there.
fn scalar(name: &str, raw: &RawValue) -> Result<Option<String>, EventError> {
    let wrong = || EventError::Value { name: name.to_owned(), wanted: "a text, a boolean or an integer" };
    match serde_json::from_str(raw.get()).map_err(|_| wrong())? {
        Value::Null => Ok(None),
        Value::String(own) => Ok(Some(own)),
        Value::Bool(own) => Ok(Some(own.to_string())),
        Value::Number(own) => {
            let own = own.as_i64().and_then(|own| i32::try_from(own).ok()).ok_or_else(wrong)?;
            Ok(Some(own.to_string()))
        }
        Value::Array(_) | Value::Object(_) => Err(wrong()),
    }
}

/// The event as a JSON object. Data that is neither JSON nor UTF-8 text becomes base64.
pub fn encode(event: &Event) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("specversion".to_owned(), event.version.as_str().into());
    for (name, value) in event.attributes() {
        object.insert(name.to_owned(), value.into());
    }
    if let Some(content_type) = &event.content_type {
        object.insert("datacontenttype".to_owned(), content_type.as_str().into());
    }
    let mut raw = None;
    if let Some(data) = &event.data {
        let plain = std::str::from_utf8(data).ok().filter(|_| !event.base64);
        match plain {
            Some(own) if text::is_json(event.content_type.as_deref()) => {
                raw = serde_json::from_str::<&RawValue>(own).ok().map(RawValue::get);
                if raw.is_none() {
                    insert_base64(&mut object, event, data);
                }
            }
            Some(own) => drop(object.insert("data".to_owned(), own.into())),
            None => insert_base64(&mut object, event, data),
        }
    }
    let mut body = Value::Object(object).to_string().into_bytes();
    // JSON data goes out byte for byte as it came: numbers and the order of members are the producer's.
    if let Some(raw) = raw {
        body.pop();
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(raw.as_bytes());
        body.push(b'}');
    }
    body
}

fn insert_base64(object: &mut Map<String, Value>, event: &Event, data: &[u8]) {
    let encoded = STANDARD.encode(data);
    match event.version {
        SpecVersion::V1 => drop(object.insert("data_base64".to_owned(), encoded.into())),
        SpecVersion::V03 => {
            object.insert("datacontentencoding".to_owned(), "base64".into());
            object.insert("data".to_owned(), encoded.into());
        }
    }
}
