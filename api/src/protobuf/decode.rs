//! Protobuf to JSON values.

use super::{ProtobufError, Result, VALUES_MAX};
use crate::schema::{Field, Kind, Many, Schema, Shape, TypeId};
use crate::time_text::{Precision, format_duration, format_time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

/// A value on the wire.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
    /// A group, which nothing published uses: skipped.
    Skipped,
}

impl Wire<'_> {
    fn number(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed(_) => 1,
            Self::Bytes(_) => 2,
            Self::Skipped => 3,
        }
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(ProtobufError::Truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ProtobufError::Overflow)
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8]> {
    let len = usize::try_from(len).map_err(|_| ProtobufError::Truncated)?;
    let (head, tail) = rest.split_at_checked(len).ok_or(ProtobufError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Reads the next field: its number and value.
pub(super) fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Wire<'a>)> {
    let tag = varint(rest)?;
    let (number, wire) = (tag >> 3, (tag & 7) as u8);
    if number == 0 || number > 0x1fff_ffff {
        return Err(ProtobufError::IllegalWireType { wire });
    }
    let value = match wire {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Fixed(little_endian(take(rest, 8)?)),
        2 => {
            let len = varint(rest)?;
            Wire::Bytes(take(rest, len)?)
        }
        3 => {
            skip_group(rest)?;
            Wire::Skipped
        }
        5 => Wire::Fixed(little_endian(take(rest, 4)?)),
        wire => return Err(ProtobufError::IllegalWireType { wire }),
    };
    Ok((number, value))
}

fn skip_group(rest: &mut &[u8]) -> Result<()> {
    let mut open = 1usize;
    while open > 0 {
        match (varint(rest)? & 7) as u8 {
            0 => drop(varint(rest)?),
            1 => drop(take(rest, 8)?),
            2 => {
                let len = varint(rest)?;
                take(rest, len)?;
            }
            3 => open += 1,
            4 => open -= 1,
            5 => drop(take(rest, 4)?),
            wire => return Err(ProtobufError::IllegalWireType { wire }),
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A float as Go's JSON shows it: whole ones without a fraction.
pub(crate) fn float(value: f64) -> Value {
    /// Below this every whole float is exactly an integer.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < WHOLE_MAX {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Whether Go's `omitempty` leaves a value out (of a field that is not a pointer). A struct is never empty for Go, also
/// where its JSON is a number; an empty map is, and is left out by whoever knows that it is one.
pub(crate) fn is_empty(kind: Kind, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
        _ if matches!(kind, Kind::Type(_)) => false,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
    }
}

pub(super) struct Decoder<'s> {
    schema: &'s Schema,
    values: usize,
}

impl<'s> Decoder<'s> {
    pub(super) fn new(schema: &'s Schema) -> Self {
        Self { schema, values: 0 }
    }

    /// Decodes a message of this type. `depth` is how deep it may still nest.
    pub(super) fn message(&mut self, id: TypeId, bytes: &[u8], depth: usize) -> Result<Value> {
        let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
        let schema = self.schema;
        let found = schema.get(id);
        match found.shape {
            Shape::Struct => {
                let mut object = Map::new();
                self.fields(id, bytes, &mut object, depth)?;
                Ok(Value::Object(object))
            }
            Shape::Quantity => Ok(Value::String(string_of(bytes, 1)?.unwrap_or_else(|| "0".to_owned()))),
            Shape::Time => time(bytes, Precision::Seconds),
            Shape::MicroTime => time(bytes, Precision::Micros),
            Shape::Duration => Ok(Value::String(format_duration(varint_of(bytes, 1)?.unwrap_or(0) as i64))),
            Shape::IntOrString => match varint_of(bytes, 1)?.unwrap_or(0) {
                0 => Ok(Value::from(varint_of(bytes, 2)?.unwrap_or(0) as i32)),
                _ => Ok(Value::String(string_of(bytes, 3)?.unwrap_or_default())),
            },
            Shape::Raw => self.raw(bytes, depth),
            Shape::List => self.items(&found.fields[0], bytes, depth).map(Value::Array),
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
                self.schema_or(found.shape, &found.fields, bytes, depth)
            }
        }
    }

    fn fields(
        &mut self,
        id: TypeId,
        bytes: &[u8],
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<()> {
        let schema = self.schema;
        let fields = &schema.get(id).fields;
        let mut rest = bytes;
        // Fields arrive in order: search from the last one.
        let mut cursor = 0;
        while !rest.is_empty() {
            let (number, wire) = self::field(&mut rest)?;
            let matches = |known: &Field| u64::from(known.number) == number;
            let Some(index) = fields[cursor..]
                .iter()
                .position(matches)
                .map(|index| index + cursor)
                .or_else(|| fields.iter().position(matches))
            else {
                continue;
            };
            cursor = index;
            self.field(&fields[index], wire, object, depth)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<()> {
        if field.inline {
            return match (field.kind, wire) {
                (Kind::Type(inner), Wire::Bytes(bytes)) => {
                    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
                    self.fields(inner, bytes, object, depth)
                }
                _ => Err(wrong(field, wire)),
            };
        }
        match field.many {
            Many::Map | Many::MapOfLists => {
                let Wire::Bytes(entry) = wire else { return Err(wrong(field, wire)) };
                let (key, value) = self.entry(field, entry, depth)?;
                if let Value::Object(entries) = slot(object, field.name, || Value::Object(Map::new())) {
                    entries.insert(key, value);
                }
            }
            Many::List => {
                let value = self.scalar(field, wire, depth)?;
                if let Value::Array(items) = slot(object, field.name, || Value::Array(Vec::new())) {
                    items.push(value);
                }
            }
            Many::One => {
                let value = self.scalar(field, wire, depth)?;
                let empty_struct = || matches!(&value, Value::Object(members) if members.is_empty());
                let dropped = value.is_null()
                    || !field.pointer && field.omit_empty && is_empty(field.kind, &value)
                    || field.omit_zero && empty_struct();
                if !dropped {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, field: &Field, mut entry: &[u8], depth: usize) -> Result<(String, Value)> {
        let (mut key, mut value) = (String::new(), None);
        while !entry.is_empty() {
            match self::field(&mut entry)? {
                (1, Wire::Bytes(bytes)) => key = text(bytes),
                (2, wire) => value = Some(self.scalar(field, wire, depth)?),
                _ => {}
            }
        }
        let value = match (value, field.kind) {
            (Some(value), _) => value,
            (None, Kind::String | Kind::Bytes) => Value::String(String::new()),
            (None, Kind::Bool) => Value::Bool(false),
            (None, Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Double) => Value::from(0),
            (None, Kind::Any) => Value::Null,
            (None, Kind::Type(inner)) => self.message(inner, &[], depth)?,
        };
        Ok((key, value))
    }

    fn scalar(&mut self, field: &Field, wire: Wire<'_>, depth: usize) -> Result<Value> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(ProtobufError::TooMany);
        }
        Ok(match (field.kind, wire) {
            (Kind::String, Wire::Bytes(bytes)) => Value::String(text(bytes)),
            (Kind::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
            (Kind::Int32, Wire::Varint(value)) => Value::from(value as i32),
            (Kind::Int64, Wire::Varint(value)) => Value::from(value as i64),
            (Kind::Uint, Wire::Varint(value)) => Value::from(value),
            (Kind::Bool, Wire::Varint(value)) => Value::Bool(value != 0),
            (Kind::Double, Wire::Fixed(bits)) => float(f64::from_bits(bits)),
            (Kind::Type(inner), Wire::Bytes(bytes)) => {
                if self.schema.get(inner).shape == Shape::Raw {
                    return self.raw(bytes, depth).map_err(|error| match error {
                        ProtobufError::EmbeddedJson { .. } => {
                            ProtobufError::EmbeddedJson { field: field.name }
                        }
                        other => other,
                    });
                }
                self.message(inner, bytes, depth)?
            }
            _ => return Err(wrong(field, wire)),
        })
    }

    fn items(&mut self, field: &Field, mut rest: &[u8], depth: usize) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        while !rest.is_empty() {
            if let (1, wire) = self::field(&mut rest)? {
                items.push(self.scalar(field, wire, depth)?);
            }
        }
        Ok(items)
    }

    /// `RawExtension` and its like: JSON, or an object of our own in protobuf.
    fn raw(&mut self, bytes: &[u8], depth: usize) -> Result<Value> {
        let raw = bytes_of(bytes, 1)?.unwrap_or_default();
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if raw.starts_with(super::MAGIC) {
            let envelope = super::open(raw)?;
            let (api_version, kind) = (envelope.api_version.into_owned(), envelope.kind.into_owned());
            let Some(id) = self.schema.object(&api_version, &kind) else {
                return Err(ProtobufError::UnknownKind { api_version, kind });
            };
            let mut value = self.message(id, envelope.raw, depth)?;
            value["apiVersion"] = Value::String(api_version);
            value["kind"] = Value::String(kind);
            return Ok(value);
        }
        serde_json::from_slice(raw).map_err(|_| ProtobufError::EmbeddedJson { field: "raw" })
    }

    fn schema_or(&mut self, shape: Shape, fields: &[Field], mut rest: &[u8], depth: usize) -> Result<Value> {
        let (mut schema, mut items, mut allows) = (None, Vec::new(), false);
        while !rest.is_empty() {
            let (number, wire) = self::field(&mut rest)?;
            let Some(field) = fields.iter().find(|field| u64::from(field.number) == number) else { continue };
            match (field.many, field.kind) {
                (Many::List, _) => items.push(self.scalar(field, wire, depth)?),
                (_, Kind::Bool) => allows = matches!(wire, Wire::Varint(value) if value != 0),
                _ => schema = Some(self.scalar(field, wire, depth)?),
            }
        }
        Ok(match (schema, shape) {
            (_, Shape::SchemaOrArray | Shape::SchemaOrStrings) if !items.is_empty() => Value::Array(items),
            (Some(schema), _) => schema,
            (None, Shape::SchemaOrBool) => Value::Bool(allows),
            (None, _) => Value::Null,
        })
    }
}

fn wrong(field: &Field, wire: Wire<'_>) -> ProtobufError {
    ProtobufError::WireType {
        wire: wire.number(),
        field: if field.name.is_empty() { "inline" } else { field.name },
    }
}

fn slot<'m>(object: &'m mut Map<String, Value>, name: &str, empty: impl FnOnce() -> Value) -> &'m mut Value {
    if !object.contains_key(name) {
        object.insert(name.to_owned(), empty());
    }
    &mut object[name]
}

fn bytes_of(mut rest: &[u8], number: u64) -> Result<Option<&[u8]>> {
    let mut found = None;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (own, Wire::Bytes(bytes)) if own == number => found = Some(bytes),
            _ => {}
        }
    }
    Ok(found)
}

fn string_of(rest: &[u8], number: u64) -> Result<Option<String>> {
    Ok(bytes_of(rest, number)?.map(text))
}

fn varint_of(mut rest: &[u8], number: u64) -> Result<Option<u64>> {
    let mut found = None;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (own, Wire::Varint(value)) if own == number => found = Some(value),
            _ => {}
        }
    }
    Ok(found)
}

fn time(bytes: &[u8], precision: Precision) -> Result<Value> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = varint_of(bytes, 1)?.unwrap_or(0) as i64;
    let nanos = varint_of(bytes, 2)?.unwrap_or(0) as i32;
    Ok(format_time(seconds, nanos, precision).map_or(Value::Null, Value::String))
}
