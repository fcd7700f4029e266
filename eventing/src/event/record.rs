//! Events as the log keeps them: a version byte, then fields with their lengths.

use super::{ATTRIBUTES_MAX, EVENT_BYTES_MAX, Event, EventError, SpecVersion, VALUE_BYTES_MAX};
use bytes::{Buf, Bytes};

/// The form that this program writes.
const FORM: u8 = 1;

/// The most headers that are kept with an event.
pub const HEADERS_MAX: usize = 32;

/// An event and the headers that travel with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The event.
    pub event: Event,
    /// Headers that are passed on, lower-case names.
    pub headers: Vec<(String, String)>,
}

const HAS_DATA: u8 = 1;
const IS_BASE64: u8 = 2;
const IS_V03: u8 = 4;

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Bounds of attributes and data are far below four gigabytes.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put(out, text.as_bytes());
    }
}

fn put_pairs<'a>(out: &mut Vec<u8>, count: usize, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    for (name, value) in pairs.take(usize::from(u16::MAX)) {
        put(out, name.as_bytes());
        put(out, value.as_bytes());
    }
}

/// The bytes of a record.
pub fn encode(kept: &Kept) -> Vec<u8> {
    let event = &kept.event;
    let mut out = Vec::with_capacity(512 + event.data.as_ref().map_or(0, Bytes::len));
    let mut flags = 0;
    flags |= if event.data.is_some() { HAS_DATA } else { 0 };
    flags |= if event.base64 { IS_BASE64 } else { 0 };
    flags |= if event.version == SpecVersion::V03 { IS_V03 } else { 0 };
    out.extend_from_slice(&[FORM, flags]);
    for own in [&event.id, &event.source, &event.kind] {
        put(&mut out, own.as_bytes());
    }
    for own in [&event.content_type, &event.schema, &event.subject, &event.time] {
        put_optional(&mut out, own.as_deref());
    }
    let pairs = event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    put_pairs(&mut out, event.extensions.len(), pairs);
    let pairs = kept.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    put_pairs(&mut out, kept.headers.len(), pairs);
    if let Some(data) = &event.data {
        put(&mut out, data);
    }
    out
}

fn byte(from: &mut Bytes) -> Result<u8, EventError> {
    if from.is_empty() { Err(EventError::Record) } else { Ok(from.get_u8()) }
}

fn bytes(from: &mut Bytes, max: usize) -> Result<Bytes, EventError> {
    if from.len() < 4 {
        return Err(EventError::Record);
    }
    let len = usize::try_from(from.get_u32_le()).map_err(|_| EventError::Record)?;
    if len > max || len > from.len() {
        return Err(EventError::Record);
    }
    Ok(from.split_to(len))
}

fn text(from: &mut Bytes) -> Result<String, EventError> {
    let own = bytes(from, VALUE_BYTES_MAX)?;
    std::str::from_utf8(&own).map(str::to_owned).map_err(|_| EventError::Record)
}

fn optional(from: &mut Bytes) -> Result<Option<String>, EventError> {
    match byte(from)? {
        0 => Ok(None),
        1 => text(from).map(Some),
        _ => Err(EventError::Record),
    }
}

fn pairs(from: &mut Bytes, max: usize) -> Result<Vec<(String, String)>, EventError> {
    if from.len() < 2 {
        return Err(EventError::Record);
    }
    let count = usize::from(from.get_u16_le());
    if count > max {
        return Err(EventError::Record);
    }
    (0..count).map(|_| Ok((text(from)?, text(from)?))).collect()
}

/// Reads a record. Data is not copied.
///
/// # Errors
/// `Record` where the bytes are not what [`encode`] writes.
pub fn decode(mut from: Bytes) -> Result<Kept, EventError> {
    if byte(&mut from)? != FORM {
        return Err(EventError::Record);
    }
    let flags = byte(&mut from)?;
    let (id, source, kind) = (text(&mut from)?, text(&mut from)?, text(&mut from)?);
    let (content_type, schema) = (optional(&mut from)?, optional(&mut from)?);
    let (subject, time) = (optional(&mut from)?, optional(&mut from)?);
    // Attributes that the data plane itself adds come on top of the producer's.
    let extensions = pairs(&mut from, ATTRIBUTES_MAX + 8)?.into_iter().collect();
    let headers = pairs(&mut from, HEADERS_MAX)?;
    let data = if flags & HAS_DATA == 0 { None } else { Some(bytes(&mut from, EVENT_BYTES_MAX)?) };
    let version = if flags & IS_V03 == 0 { SpecVersion::V1 } else { SpecVersion::V03 };
    let base64 = flags & IS_BASE64 != 0;
    if !from.is_empty() {
        return Err(EventError::Record);
    }
    let event =
        Event { version, id, source, kind, content_type, schema, subject, time, extensions, data, base64 };
    Ok(Kept { event, headers })
}
