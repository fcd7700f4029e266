//! JSON values to protobuf. Fields are written in the order of their numbers, and what is not a pointer in Go is always
//! written, as upstream's generated code does.

use super::{ProtobufError, Result};
use crate::schema::{Field, Kind, Many, Schema, Shape, Type, TypeId};
use crate::time_text::{Precision, parse_duration, parse_time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

const VARINT: u64 = 0;
const FIXED: u64 = 1;
const BYTES: u64 = 2;

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u32, wire: u64) {
    varint(out, u64::from(number) << 3 | wire);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// A field of bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A field whose value `write` appends. The length is put before it afterwards.
pub(super) fn nested(
    out: &mut Vec<u8>,
    field: u32,
    write: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    tag(out, field, BYTES);
    let start = out.len();
    out.push(0);
    write(out)?;
    let len = out.len() - start - 1;
    if len < 0x80 {
        out[start] = len as u8;
    } else {
        let mut head = Vec::with_capacity(10);
        varint(&mut head, len as u64);
        out.splice(start..=start, head);
    }
    Ok(())
}

/// The first field of the envelope.
pub(super) fn type_meta(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    let mut meta = Vec::with_capacity(64);
    bytes(&mut meta, 1, api_version.as_bytes());
    bytes(&mut meta, 2, kind.as_bytes());
    bytes(out, 1, &meta);
}

/// The last two fields of the envelope, which are always empty.
pub(super) fn no_encoding(out: &mut Vec<u8>) {
    bytes(out, 3, b"");
    bytes(out, 4, b"");
}

/// Writes a message without its length. `depth` is how deep it may still nest.
pub(super) fn message(
    schema: &Schema,
    id: TypeId,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<()> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    let found = schema.get(id);
    let mismatch = |expected| ProtobufError::Mismatch { field: found.go_name, expected };
    match found.shape {
        Shape::Struct => match value {
            Value::Object(object) => fields(schema, found, Some(object), out, depth)?,
            Value::Null => fields(schema, found, None, out, depth)?,
            _ => return Err(mismatch("an object")),
        },
        Shape::Quantity => match value {
            Value::String(text) => bytes(out, 1, text.as_bytes()),
            Value::Number(number) => bytes(out, 1, number.to_string().as_bytes()),
            _ => bytes(out, 1, b"0"),
        },
        Shape::Time => time(value, Precision::Seconds, out).ok_or_else(|| mismatch("a time"))?,
        Shape::MicroTime => time(value, Precision::Micros, out).ok_or_else(|| mismatch("a time"))?,
        Shape::Duration => {
            let nanos = parse_duration(value.as_str().unwrap_or("0s")).map_err(|_| mismatch("a duration"))?;
            number(out, 1, nanos as u64);
        }
        Shape::IntOrString => {
            let (kind, int, text) = match value {
                Value::Number(int) => (0, int.as_i64().unwrap_or(0), ""),
                Value::String(text) => (1, 0, text.as_str()),
                _ => (0, 0, ""),
            };
            number(out, 1, kind);
            number(out, 2, int as u64);
            bytes(out, 3, text.as_bytes());
        }
        Shape::Raw => {
            if !value.is_null() {
                let json = serde_json::to_vec(value).map_err(|_| mismatch("JSON"))?;
                bytes(out, 1, &json);
            }
        }
        Shape::List => {
            for item in value.as_array().into_iter().flatten() {
                one(schema, &found.fields[0], 1, item, out, depth)?;
            }
        }
        Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
            schema_or(schema, found, value, out, depth)?;
        }
    }
    Ok(())
}

fn time(value: &Value, precision: Precision, out: &mut Vec<u8>) -> Option<()> {
    let text = match value {
        Value::Null => return Some(()),
        Value::String(text) => text,
        _ => return None,
    };
    let (seconds, nanos) = parse_time(text, precision).ok()?;
    let nanos = if precision == Precision::Micros { nanos / 1000 * 1000 } else { 0 };
    number(out, 1, seconds as u64);
    number(out, 2, nanos as u64);
    Some(())
}

fn schema_or(schema: &Schema, found: &Type, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let [first, second] = &*found.fields else { return Ok(()) };
    match (found.shape, value) {
        (_, Value::Null) if found.shape != Shape::SchemaOrBool => {}
        (Shape::SchemaOrBool, Value::Bool(_) | Value::Null) => {
            number(out, first.number, u64::from(value.as_bool().unwrap_or(false)));
        }
        (Shape::SchemaOrBool, _) => {
            number(out, first.number, 1);
            one(schema, second, second.number, value, out, depth)?;
        }
        (_, Value::Array(items)) => {
            for item in items {
                one(schema, second, second.number, item, out, depth)?;
            }
        }
        _ => one(schema, first, first.number, value, out, depth)?,
    }
    Ok(())
}

fn fields(
    schema: &Schema,
    found: &Type,
    object: Option<&Map<String, Value>>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<()> {
    for field in found.fields.iter().filter(|field| field.number != 0) {
        if field.inline {
            if let Kind::Type(inner) = field.kind {
                let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
                nested(out, field.number, |out| fields(schema, schema.get(inner), object, out, depth))?;
            }
            continue;
        }
        let value = object.and_then(|object| object.get(field.name)).filter(|value| !value.is_null());
        match (field.many, value) {
            (Many::One, Some(value)) => one(schema, field, field.number, value, out, depth)?,
            (Many::One, None) => zero(schema, field, out, depth)?,
            (Many::List, Some(Value::Array(items))) => {
                for item in items {
                    one(schema, field, field.number, item, out, depth)?;
                }
            }
            (Many::Map, Some(Value::Object(entries))) => {
                for (key, value) in entries {
                    nested(out, field.number, |out| {
                        bytes(out, 1, key.as_bytes());
                        match (field.kind, value) {
                            (Kind::Bytes, Value::Null) => Ok(()),
                            _ => one(schema, field, 2, value, out, depth),
                        }
                    })?;
                }
            }
            (Many::List | Many::Map | Many::MapOfLists, None) => {}
            (Many::List, Some(_)) => return Err(mismatch(field, "a list")),
            (Many::Map | Many::MapOfLists, Some(_)) => return Err(mismatch(field, "a map")),
        }
    }
    Ok(())
}

fn mismatch(field: &Field, expected: &'static str) -> ProtobufError {
    ProtobufError::Mismatch { field: field.name, expected }
}

/// What Go writes for a field that is absent in JSON.
fn zero(schema: &Schema, field: &Field, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if field.pointer {
        return Ok(());
    }
    match field.kind {
        Kind::String => bytes(out, field.number, b""),
        Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Bool => number(out, field.number, 0),
        Kind::Double => {
            tag(out, field.number, FIXED);
            out.extend_from_slice(&[0; 8]);
        }
        Kind::Type(inner) if schema.get(inner).shape != Shape::List => {
            nested(out, field.number, |out| message(schema, inner, &Value::Null, out, depth))?;
        }
        Kind::Type(_) | Kind::Bytes | Kind::Any => {}
    }
    Ok(())
}

fn one(
    schema: &Schema,
    field: &Field,
    at: u32,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<()> {
    let integer = || {
        let float = || value.as_f64().filter(|float| float.fract() == 0.0).map(|float| float as i64);
        match value {
            Value::Null => Some(0),
            _ => value.as_i64().or_else(|| value.as_u64().map(|value| value as i64)).or_else(float),
        }
    };
    match field.kind {
        Kind::String => match value {
            Value::String(text) => bytes(out, at, text.as_bytes()),
            Value::Null => bytes(out, at, b""),
            _ => return Err(mismatch(field, "a string")),
        },
        Kind::Bytes => {
            let text =
                value.as_str().or(value.is_null().then_some("")).ok_or_else(|| mismatch(field, "bytes"))?;
            let decoded = STANDARD.decode(text).map_err(|_| mismatch(field, "bytes"))?;
            bytes(out, at, &decoded);
        }
        Kind::Int32 | Kind::Int64 | Kind::Uint => {
            number(out, at, integer().ok_or_else(|| mismatch(field, "an integer"))? as u64);
        }
        Kind::Bool => match value {
            Value::Bool(value) => number(out, at, u64::from(*value)),
            Value::Null => number(out, at, 0),
            _ => return Err(mismatch(field, "a boolean")),
        },
        Kind::Double => {
            let value = value
                .as_f64()
                .or(value.is_null().then_some(0.0))
                .ok_or_else(|| mismatch(field, "a number"))?;
            tag(out, at, FIXED);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Kind::Type(inner) => nested(out, at, |out| message(schema, inner, value, out, depth))?,
        Kind::Any => return Err(mismatch(field, "protobuf")),
    }
    Ok(())
}
