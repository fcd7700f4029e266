//! Kubernetes protobuf, driven by the schema table: bytes to JSON values and back, byte for byte as upstream's generated
//! code. Upstream: apimachinery `pkg/runtime/serializer/protobuf` and the `generated.pb.go` of `k8s.io/api`.
//!
//! An object on the wire is `k8s\0` and a `runtime.Unknown` that holds `apiVersion`, `kind` and the message itself.
//! Nothing here panics on what a client sends, and what it allocates is bounded by the input and [`VALUES_MAX`].

mod decode;
mod encode;

pub(crate) use decode::{float, is_empty};

use crate::schema::{Schema, Shape, TypeId};
use serde_json::Value;
use std::borrow::Cow;

/// What every object starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// How deep messages may nest. The deepest published type that does not contain itself nests less than 20 levels; schemas
/// of custom resources, which do, must also fit through serde_json's 128 levels, two of which make one of theirs.
pub const DEPTH_MAX: usize = 100;

/// How many values one object may hold: more than a request body of 3 MiB can say in JSON.
pub const VALUES_MAX: usize = 2_000_000;

/// Why bytes are not an object, or an object has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The magic bytes are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    /// The input ends within a value.
    #[error("unexpected EOF")]
    Truncated,
    /// A number has more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field has another wire type than its number says.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// The wire type that was found.
        wire: u8,
        /// JSON name of the field.
        field: &'static str,
    },
    /// A wire type that does not exist, or an end of a group that did not begin.
    #[error("proto: illegal tag or wire type {wire}")]
    IllegalWireType {
        /// The wire type that was found.
        wire: u8,
    },
    /// The table does not know the kind.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// As the object says.
        api_version: String,
        /// As the object says.
        kind: String,
    },
    /// The type exists in JSON only.
    #[error(
        "object {name} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    )]
    JsonOnly {
        /// Name of the type.
        name: &'static str,
    },
    /// Deeper than [`DEPTH_MAX`].
    #[error("protobuf message is nested too deeply")]
    TooDeep,
    /// More values than [`VALUES_MAX`].
    #[error("protobuf message has too many values")]
    TooMany,
    /// Embedded JSON is malformed.
    #[error("embedded JSON of field {field} is malformed")]
    EmbeddedJson {
        /// JSON name of the field.
        field: &'static str,
    },
    /// A JSON value does not fit its field.
    #[error("field {field} cannot be written as {expected}")]
    Mismatch {
        /// JSON name of the field.
        field: &'static str,
        /// What the field is.
        expected: &'static str,
    },
}

type Result<T, E = ProtobufError> = std::result::Result<T, E>;

/// What is around a message: upstream's `runtime.Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apps/v1`; may be empty.
    pub api_version: Cow<'a, str>,
    /// `Deployment`; may be empty.
    pub kind: Cow<'a, str>,
    /// The message.
    pub raw: &'a [u8],
}

/// Takes the envelope off.
///
/// # Errors
/// It is malformed.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?;
    let mut envelope = Envelope { api_version: Cow::Borrowed(""), kind: Cow::Borrowed(""), raw: &[] };
    while !rest.is_empty() {
        match decode::field(&mut rest)? {
            (1, decode::Wire::Bytes(mut meta)) => {
                while !meta.is_empty() {
                    match decode::field(&mut meta)? {
                        (1, decode::Wire::Bytes(text)) => {
                            envelope.api_version = String::from_utf8_lossy(text)
                        }
                        (2, decode::Wire::Bytes(text)) => envelope.kind = String::from_utf8_lossy(text),
                        _ => {}
                    }
                }
            }
            (2, decode::Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes an object. It has `apiVersion` and `kind`; what Go would write as null is left out.
///
/// # Errors
/// The bytes are malformed, too large inside, or of a kind that the table does not know.
pub fn decode(bytes: &[u8]) -> Result<Value> {
    decode_as(bytes, "", "")
}

/// [`decode`], for a sender that may leave `apiVersion` or `kind` out.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(bytes: &[u8], api_version: &str, kind: &str) -> Result<Value> {
    let envelope = open(bytes)?;
    let or =
        |text: Cow<'_, str>, other: &str| if text.is_empty() { other.to_owned() } else { text.into_owned() };
    let (api_version, kind) = (or(envelope.api_version, api_version), or(envelope.kind, kind));
    let schema = Schema::published();
    let Some(id) = schema.object(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut value = decode::Decoder::new(schema).message(id, envelope.raw, DEPTH_MAX)?;
    if let Value::Object(object) = &mut value {
        object.insert("apiVersion".to_owned(), Value::String(api_version));
        object.insert("kind".to_owned(), Value::String(kind));
    }
    Ok(value)
}

/// Encodes an object that has `apiVersion` and `kind`.
///
/// # Errors
/// The table does not know the kind, it has no protobuf form, or a value does not fit its field.
pub fn encode(object: &Value) -> Result<Vec<u8>> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let schema = Schema::published();
    let id = type_of(schema, api_version, kind)?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(MAGIC);
    encode::type_meta(&mut out, api_version, kind);
    encode::nested(&mut out, 2, |out| encode::message(schema, id, object, out, DEPTH_MAX))?;
    encode::no_encoding(&mut out);
    Ok(out)
}

/// Encodes a list from its own metadata and objects that are encoded already, without decoding them.
///
/// # Errors
/// The kind of the list is unknown or has no protobuf form, the metadata does not fit, or an item is malformed.
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>> {
    let schema = Schema::published();
    let id = type_of(schema, api_version, kind)?;
    let list = serde_json::json!({ "metadata": metadata });
    let mut out = Vec::with_capacity(4096);
    encode::message(schema, id, &list, &mut out, DEPTH_MAX)?;
    for item in items {
        encode::bytes(&mut out, 2, open(item)?.raw);
    }
    let mut framed = Vec::with_capacity(out.len() + 64);
    framed.extend_from_slice(MAGIC);
    encode::type_meta(&mut framed, api_version, kind);
    encode::bytes(&mut framed, 2, &out);
    encode::no_encoding(&mut framed);
    Ok(framed)
}

/// One frame of a watch (`;stream=watch`): the length in four bytes, then a bare `WatchEvent` around an encoded object.
pub fn watch_frame(event_type: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 16);
    encode::bytes(&mut extension, 1, object);
    let mut out = Vec::with_capacity(extension.len() + 32);
    out.extend_from_slice(&[0; 4]);
    encode::bytes(&mut out, 1, event_type.as_bytes());
    encode::bytes(&mut out, 2, &extension);
    let len = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// Whether objects of this kind have a protobuf form. Custom resources and Tables have none.
pub fn is_supported(api_version: &str, kind: &str) -> bool {
    type_of(Schema::published(), api_version, kind).is_ok()
}

fn type_of(schema: &'static Schema, api_version: &str, kind: &str) -> Result<TypeId> {
    let Some(id) = schema.object(api_version, kind) else {
        return Err(ProtobufError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        });
    };
    let found = schema.get(id);
    let json_only = found.shape == Shape::Struct
        && found.fields.iter().any(|field| !field.inline)
        && found.fields.iter().all(|field| field.number == 0);
    if json_only {
        return Err(ProtobufError::JsonOnly { name: found.name });
    }
    Ok(id)
}
