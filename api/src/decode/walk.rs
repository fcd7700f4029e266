//! The walk over a body with the schema beside it. One pass: reads, prunes, canonicalises and collects errors.
//!
//! Go's decoder keeps the first wrong type it meets and goes on; so does this, to report syntax errors first.

use super::{DEPTH_MAX, Decoded, STRICT_ERRORS_MAX, syntax};
use crate::protobuf::{float, is_empty};
use crate::quantity::Quantity;
use crate::schema::{Field, Kind, Many, Schema, Shape, TypeId};
use crate::time_text::{Precision, format_duration, format_time, parse_duration, parse_time};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// What is expected at a place.
#[derive(Clone, Copy)]
pub(super) enum Want<'s> {
    /// Any JSON; duplicate keys are reported.
    Any,
    /// A custom resource: its metadata is typed, the rest is any JSON.
    Custom,
    /// Any JSON that Go keeps as bytes: nothing in it is reported.
    Raw,
    /// One value; the text is Go's name of the type.
    One(Kind, &'s str),
    /// A list.
    List(Kind, &'s str),
    /// A map, of lists if the flag says so.
    Map(Kind, &'s str, bool),
}

impl Want<'static> {
    pub(super) fn object(id: Option<TypeId>) -> Self {
        match id {
            Some(id) => Want::One(Kind::Type(id), Schema::published().get(id).go_name),
            None => Want::Custom,
        }
    }
}

/// Reads base64 as Go does: the unused bits of the last character do not matter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

pub(super) fn json(body: &[u8], want: Want<'_>) -> Result<Decoded, String> {
    let mut walk = Walk::new();
    let mut source = serde_json::Deserializer::from_slice(body);
    let read = Seed { walk: &mut walk, want }
        .deserialize(&mut source)
        .and_then(|value| source.end().map(|()| value));
    match read {
        Ok(value) => walk.finish(value),
        Err(error) => Err(syntax::error(body).unwrap_or_else(|| error.to_string())),
    }
}

pub(super) fn value(value: &Value, want: Want<'_>) -> Result<Decoded, String> {
    let mut walk = Walk::new();
    let read = Seed { walk: &mut walk, want }.deserialize(value).map_err(|error| error.to_string())?;
    walk.finish(read)
}

pub(super) fn part(value: &Value, id: TypeId, path: &str) -> Result<Decoded, String> {
    let mut walk = Walk::new();
    path.clone_into(&mut walk.path);
    let want = Want::One(Kind::Type(id), Schema::published().get(id).go_name);
    let read = Seed { walk: &mut walk, want }.deserialize(value).map_err(|error| error.to_string())?;
    walk.finish(read)
}

struct Walk<'s> {
    schema: &'s Schema,
    /// Where we are, as strict errors say it: `spec.containers[0].ports`.
    path: String,
    strict_errors: Vec<String>,
    /// Whether strict errors are dropped: inside of types with a decoder of their own.
    quiet: bool,
    /// The struct whose field is read, and the names of the fields on the way, as Go's errors say it.
    owner: &'s str,
    fields: Vec<&'s str>,
    /// The first wrong type.
    wrong_type: Option<String>,
    /// The first refusal of a decoder of its own, which Go reports before any wrong type.
    refusal: Option<String>,
    depth: usize,
}

impl<'s> Walk<'s> {
    fn new() -> Self {
        Self {
            schema: Schema::published(),
            path: String::new(),
            strict_errors: Vec::new(),
            quiet: false,
            owner: "",
            fields: Vec::new(),
            wrong_type: None,
            refusal: None,
            depth: 0,
        }
    }

    fn finish(self, value: Value) -> Result<Decoded, String> {
        match self.refusal.or(self.wrong_type) {
            Some(error) => Err(error),
            None => Ok(Decoded { value, strict_errors: self.strict_errors }),
        }
    }

    fn strict(&mut self, what: &str, name: &str) {
        if self.quiet || self.strict_errors.len() >= STRICT_ERRORS_MAX {
            return;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let text = format!("{what} field \"{}{dot}{name}\"", self.path);
        if !self.strict_errors.contains(&text) {
            self.strict_errors.push(text);
        }
    }

    fn mismatch(&mut self, found: impl fmt::Display, go_type: &str) -> Value {
        if self.wrong_type.is_none() {
            self.wrong_type = Some(match (self.owner, self.fields.as_slice()) {
                ("", []) => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
                (owner, fields) => format!(
                    "json: cannot unmarshal {found} into Go struct field {owner}.{} of type {go_type}",
                    fields.join(".")
                ),
            });
        }
        Value::Null
    }

    fn refuse(&mut self, error: impl fmt::Display) -> Value {
        if self.refusal.is_none() {
            self.refusal = Some(error.to_string());
        }
        Value::Null
    }

    /// Runs `inside` with a name or index appended to the path.
    fn at<T>(&mut self, step: impl fmt::Display, inside: impl FnOnce(&mut Self) -> T) -> T {
        use fmt::Write as _;
        let length = self.path.len();
        let _ = write!(self.path, "{step}");
        let result = inside(self);
        self.path.truncate(length);
        result
    }

    fn named<T>(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        match self.path.is_empty() {
            true => self.at(name, inside),
            false => self.at(format_args!(".{name}"), inside),
        }
    }
}

/// Go's name of an element, from the name of the list or map.
fn element<'s>(schema: &'s Schema, kind: Kind, go_type: &'s str) -> &'s str {
    let inner = match go_type.strip_prefix("[]") {
        Some(inner) => inner,
        None => match go_type.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            Some((_, inner)) => inner,
            None => match kind {
                Kind::Type(id) => schema.get(id).go_name,
                Kind::Bytes => "[]uint8",
                Kind::Int32 => "int32",
                Kind::Int64 => "int64",
                Kind::Uint => "uint64",
                Kind::Bool => "bool",
                Kind::Double => "float64",
                Kind::String | Kind::Any => "string",
            },
        },
    };
    inner.strip_prefix('*').unwrap_or(inner)
}

/// What Go's decoder makes of a null element.
fn zero(schema: &Schema, kind: Kind) -> Value {
    match kind {
        Kind::String => Value::String(String::new()),
        Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Double => Value::from(0),
        Kind::Bool => Value::Bool(false),
        Kind::Any | Kind::Bytes => Value::Null,
        Kind::Type(id) => match schema.get(id).shape {
            Shape::Struct => Value::Object(Map::new()),
            Shape::Quantity => Value::from("0"),
            Shape::IntOrString => Value::from(0),
            _ => Value::Null,
        },
    }
}

struct Seed<'w, 's> {
    walk: &'w mut Walk<'s>,
    want: Want<'s>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'s> Seed<'_, 's> {
    /// The shape of the expected type, if it is a type.
    fn shape(&self) -> Option<Shape> {
        match self.want {
            Want::One(Kind::Type(id), _) => Some(self.walk.schema.get(id).shape),
            _ => None,
        }
    }

    fn go_type(&self) -> &'s str {
        match self.want {
            Want::Any | Want::Raw | Want::Custom => "map[string]interface {}",
            Want::One(_, go_type) | Want::List(_, go_type) | Want::Map(_, go_type, _) => go_type,
        }
    }

    /// A value of a kind that nothing but its own decoder or an error can take.
    fn other(self, found: impl fmt::Display) -> Value {
        let go_type = self.go_type();
        match self.shape() {
            Some(Shape::Time | Shape::MicroTime | Shape::Duration) => {
                self.walk.refuse(format!("json: cannot unmarshal {found} into Go value of type string"))
            }
            Some(Shape::IntOrString) => {
                self.walk.refuse(format!("json: cannot unmarshal {found} into Go value of type int32"))
            }
            _ => self.walk.mismatch(found, go_type),
        }
    }

    fn number(self, text: impl fmt::Display, exact: Option<i128>, approximate: f64) -> Value {
        let untyped =
            || exact.and_then(|n| i64::try_from(n).ok()).map_or_else(|| float(approximate), Value::from);
        match self.want {
            Want::Any | Want::Raw | Want::One(Kind::Any, _) => untyped(),
            Want::One(Kind::Int32, go_type) => match exact.and_then(|n| i32::try_from(n).ok()) {
                Some(n) => Value::from(n),
                None => self.walk.mismatch(format_args!("number {text}"), go_type),
            },
            Want::One(Kind::Int64, go_type) => match exact.and_then(|n| i64::try_from(n).ok()) {
                Some(n) => Value::from(n),
                None => self.walk.mismatch(format_args!("number {text}"), go_type),
            },
            Want::One(Kind::Uint, go_type) => match exact.and_then(|n| u64::try_from(n).ok()) {
                Some(n) => Value::from(n),
                None => self.walk.mismatch(format_args!("number {text}"), go_type),
            },
            Want::One(Kind::Double, _) => float(approximate),
            Want::One(Kind::Type(_), _) => match self.shape() {
                Some(Shape::Quantity) => quantity(self.walk, &text.to_string()),
                Some(Shape::Raw) => untyped(),
                Some(Shape::IntOrString) => match exact.and_then(|n| i32::try_from(n).ok()) {
                    Some(n) => Value::from(n),
                    None => self
                        .walk
                        .refuse(format!("json: cannot unmarshal number {text} into Go value of type int32")),
                },
                _ => self.other("number"),
            },
            _ => self.other("number"),
        }
    }

    fn text(self, text: &str) -> Value {
        match self.want {
            Want::Any | Want::Raw | Want::One(Kind::String | Kind::Any, _) => Value::from(text),
            Want::One(Kind::Bytes, _) => bytes(self.walk, text),
            Want::One(Kind::Type(_), go_type) => match self.shape() {
                Some(Shape::Quantity) => quantity(self.walk, text.trim()),
                Some(Shape::Time) => time(self.walk, text, Precision::Seconds),
                Some(Shape::MicroTime) => time(self.walk, text, Precision::Micros),
                Some(Shape::Duration) => match parse_duration(text) {
                    Ok(nanos) => Value::String(format_duration(nanos)),
                    Err(error) => self.walk.refuse(error),
                },
                Some(Shape::IntOrString | Shape::Raw) => Value::from(text),
                _ => self.walk.mismatch("string", go_type),
            },
            _ => self.other("string"),
        }
    }
}

fn quantity(walk: &mut Walk<'_>, text: &str) -> Value {
    match Quantity::canonical(text) {
        Ok(text) => Value::String(text),
        Err(error) => walk.refuse(error),
    }
}

fn time(walk: &mut Walk<'_>, text: &str, precision: Precision) -> Value {
    match parse_time(text, precision) {
        Ok((seconds, nanos)) => format_time(seconds, nanos, precision).map_or(Value::Null, Value::String),
        Err(error) => walk.refuse(error),
    }
}

fn bytes(walk: &mut Walk<'_>, text: &str) -> Value {
    let has_breaks = text.contains(['\r', '\n']);
    let joined = if has_breaks { text.replace(['\r', '\n'], "") } else { String::new() };
    match BASE64.decode(if has_breaks { &joined } else { text }) {
        Ok(bytes) => Value::String(STANDARD.encode(bytes)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
            };
            if walk.wrong_type.is_none() {
                walk.wrong_type = Some(format!("illegal base64 data at input byte {at}"));
            }
            Value::Null
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(match (self.want, self.shape()) {
            (Want::Any | Want::Raw | Want::One(Kind::Bool | Kind::Any, _), _)
            | (_, Some(Shape::Raw | Shape::SchemaOrBool)) => Value::Bool(value),
            (_, Some(Shape::Quantity)) => quantity(self.walk, if value { "true" } else { "false" }),
            _ => self.other("bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value, Some(value.into()), value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value, Some(value.into()), value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(self.number(value, None, value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let shape = self.shape();
        let want = match (self.want, shape) {
            (Want::Any, _) | (Want::One(Kind::Any, _), _) => Want::Any,
            (Want::Raw, _) | (_, Some(Shape::Raw)) => Want::Raw,
            (Want::List(kind, go_type), _) => Want::One(kind, element(self.walk.schema, kind, go_type)),
            (Want::One(Kind::Type(id), _), Some(Shape::List)) => {
                let field = &self.walk.schema.get(id).fields[0];
                Want::One(field.kind, field.go_type)
            }
            (Want::One(Kind::Type(id), _), Some(Shape::SchemaOrArray | Shape::SchemaOrStrings)) => {
                let field = &self.walk.schema.get(id).fields[1];
                Want::One(field.kind, element(self.walk.schema, field.kind, field.go_type))
            }
            _ => {
                while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                return Ok(self.other("array"));
            }
        };
        let custom = matches!(shape, Some(Shape::SchemaOrArray | Shape::SchemaOrStrings));
        let Self { walk, .. } = self;
        walk.enter::<A::Error>()?;
        let was_quiet = walk.quiet;
        walk.quiet |= custom || matches!(want, Want::Raw);
        let mut found = Vec::new();
        loop {
            let index = found.len();
            let next =
                walk.at(format_args!("[{index}]"), |walk| items.next_element_seed(Seed { walk, want }))?;
            match (next, want) {
                (Some(Value::Null), Want::One(kind, _)) => found.push(zero(walk.schema, kind)),
                (Some(value), _) => found.push(value),
                (None, _) => break,
            }
        }
        walk.quiet = was_quiet;
        walk.depth -= 1;
        Ok(Value::Array(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let shape = self.shape();
        let was_quiet = self.walk.quiet;
        self.walk.enter::<A::Error>()?;
        let Self { walk, want } = self;
        let result = match (want, shape) {
            (Want::Custom, _) => walk.custom(entries)?,
            (Want::One(Kind::Type(id), _), Some(Shape::Struct)) => walk.structure(id, entries)?,
            (
                Want::One(Kind::Type(id), _),
                Some(Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings),
            ) => {
                walk.quiet = true;
                let fields = &walk.schema.get(id).fields;
                let inner = fields.iter().find(|field| field.many == Many::One && field.kind != Kind::Bool);
                match inner.map(|field| field.kind) {
                    Some(Kind::Type(inner)) => walk.structure(inner, entries)?,
                    _ => Value::Null,
                }
            }
            (Want::Any, _) | (Want::One(Kind::Any, _), _) => walk.entries(Want::Any, entries)?,
            (Want::Raw, _) | (_, Some(Shape::Raw)) => {
                walk.quiet = true;
                walk.entries(Want::Raw, entries)?
            }
            (Want::Map(kind, go_type, lists), _) => {
                let inner = element(walk.schema, kind, go_type);
                walk.entries(if lists { Want::List(kind, inner) } else { Want::One(kind, inner) }, entries)?
            }
            _ => {
                while entries.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
                Seed { walk, want }.other("object")
            }
        };
        walk.quiet = was_quiet;
        walk.depth -= 1;
        Ok(result)
    }
}

impl<'s> Walk<'s> {
    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => Err(E::custom("exceeded max depth")),
            false => Ok(()),
        }
    }

    /// An object with free keys.
    fn entries<'de, A: MapAccess<'de>>(&mut self, want: Want<'s>, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                self.strict("duplicate", &key);
            }
            let value = self.named(&key, |walk| entries.next_value_seed(Seed { walk, want }))?;
            let value = match (value, want) {
                (Value::Null, Want::One(kind, _)) => zero(self.schema, kind),
                (value, _) => value,
            };
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }

    /// A custom resource.
    fn custom<'de, A: MapAccess<'de>>(&mut self, mut entries: A) -> Result<Value, A::Error> {
        let meta = self.schema.named(OBJECT_META).map(|id| Want::One(Kind::Type(id), "v1.ObjectMeta"));
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                self.strict("duplicate", &key);
            }
            let want = match (&*key, meta) {
                ("metadata", Some(meta)) => meta,
                ("apiVersion" | "kind", _) => Want::One(Kind::String, "string"),
                _ => Want::Any,
            };
            let value = self.named(&key, |walk| entries.next_value_seed(Seed { walk, want }))?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }

    /// A struct.
    fn structure<'de, A: MapAccess<'de>>(&mut self, id: TypeId, mut entries: A) -> Result<Value, A::Error> {
        let schema = self.schema;
        let own = schema.get(id);
        let go_name = own.go_name.rsplit('.').next().unwrap_or_default();
        let (owner, depth) = (self.owner, self.fields.len());
        let mut object = Map::new();
        let mut seen = 0u128;
        while let Some(key) = entries.next_key_seed(Key { schema, id })? {
            let position = match key {
                Ok(position) => position,
                Err(unknown) => {
                    self.strict("unknown", &unknown);
                    entries.next_value::<serde::de::IgnoredAny>()?;
                    continue;
                }
            };
            let fields = &mut self.fields;
            let Some(field) = schema.at_position(id, position, |inlined| {
                fields.push(inlined.go_name.rsplit('.').next().unwrap_or_default());
            }) else {
                return Err(A::Error::custom("the schema table names a field that it does not have"));
            };
            if seen & 1 << position != 0 {
                self.strict("duplicate", field.name);
            }
            seen |= 1 << position;
            self.owner = go_name;
            self.fields.push(field.name);
            let want = match field.many {
                Many::One => Want::One(field.kind, field.go_type),
                Many::List => Want::List(field.kind, field.go_type),
                Many::Map => Want::Map(field.kind, field.go_type, false),
                Many::MapOfLists => Want::Map(field.kind, field.go_type, true),
            };
            let value = self.named(field.name, |walk| entries.next_value_seed(Seed { walk, want }))?;
            (self.owner, _) = (owner, self.fields.truncate(depth));
            if is_kept(field, &value) {
                object.insert(field.name.to_owned(), value);
            } else {
                object.remove(field.name);
            }
        }
        Ok(Value::Object(object))
    }
}

/// The type of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Whether Go writes a field with this value.
fn is_kept(field: &Field, value: &Value) -> bool {
    match field.many {
        Many::One if value.is_null() => false,
        Many::One => {
            let empty_struct = || matches!(value, Value::Object(object) if object.is_empty());
            !(field.omit_empty && !field.pointer && is_empty(field.kind, value)
                || field.omit_zero && empty_struct())
        }
        _ => match value {
            // An empty list of managed fields asks to forget them.
            Value::Array(items) => !(field.omit_empty && items.is_empty() && field.name != "managedFields"),
            Value::Object(entries) => !(field.omit_empty && entries.is_empty()),
            _ => false,
        },
    }
}

/// Reads a key: its position among the names of the type, or the unknown name.
struct Key<'s> {
    schema: &'s Schema,
    id: TypeId,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.schema.position(self.id, key).ok_or_else(|| key.to_owned()))
    }
}
