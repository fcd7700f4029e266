//! The second form in protobuf: gnostic's `openapi.v2.Document`, which clients ask for because it reads faster.
//!
//! Messages of the same type that follow each other are merged by whoever reads them: a document is the concatenation of
//! those of its parts.

use serde_json::{Map, Value};

/// Writes fields of one message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u32, inner: Message) {
        self.bytes(number, &inner.0);
    }

    fn text(&mut self, number: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, value: Option<&Value>) {
        if value == Some(&Value::Bool(true)) {
            self.varint(u64::from(number << 3));
            self.0.push(1);
        }
    }

    fn integer(&mut self, number: u32, value: Option<&Value>) {
        if let Some(integer) = value.and_then(Value::as_i64) {
            self.varint(u64::from(number << 3));
            self.varint(integer as u64);
        }
    }

    fn double(&mut self, number: u32, value: Option<&Value>) {
        if let Some(double) = value.and_then(Value::as_f64) {
            self.varint(u64::from(number << 3 | 1));
            self.0.extend_from_slice(&double.to_le_bytes());
        }
    }

    /// Any value, as YAML; JSON is.
    fn any(&mut self, number: u32, value: Option<&Value>) {
        if let Some(value) = value {
            self.message(number, any(value));
        }
    }

    /// Everything whose name starts with `x-`.
    fn extensions(&mut self, number: u32, all: &Map<String, Value>) {
        for (name, value) in all.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.message(number, named(name, any(value)));
        }
    }
}

fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, format!("{value}\n").as_bytes());
    message
}

fn named(name: &str, value: Message) -> Message {
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    message.message(2, value);
    message
}

fn wrapped(number: u32, inner: Message) -> Message {
    let mut message = Message::default();
    message.message(number, inner);
    message
}

fn map(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A document that has one path.
pub(super) fn path(name: &str, item: &Value) -> Vec<u8> {
    let all = map(Some(item));
    let mut message = Message::default();
    let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
    for (method, number) in methods.iter().zip(2..) {
        if let Some(operation) = all.get(*method) {
            message.message(number, self::operation(operation));
        }
    }
    for parameter in all.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        message.message(9, parameter_or_reference(parameter));
    }
    message.extensions(10, &all);
    wrapped(8, wrapped(2, named(name, message))).0
}

/// A document that has one definition.
pub(super) fn definition(name: &str, schema: &Value) -> Vec<u8> {
    wrapped(9, wrapped(1, named(name, self::schema(schema)))).0
}

/// A document that has everything else: its head, the shared parameters, and who may ask.
pub(super) fn head(title: &str, version: &str, parameters: &Map<String, Value>) -> Vec<u8> {
    let mut document = Message::default();
    document.bytes(1, b"2.0");
    let mut info = Message::default();
    info.bytes(1, title.as_bytes());
    info.bytes(2, version.as_bytes());
    document.message(2, info);
    for (name, value) in parameters {
        document.message(10, wrapped(1, named(name, parameter(value))));
    }
    document.0
}

fn operation(value: &Value) -> Message {
    let all = map(Some(value));
    let mut message = Message::default();
    message.texts(1, all.get("tags"));
    message.text(3, all.get("description"));
    message.text(5, all.get("operationId"));
    message.texts(6, all.get("produces"));
    message.texts(7, all.get("consumes"));
    for parameter in all.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        message.message(8, parameter_or_reference(parameter));
    }
    let mut responses = Message::default();
    for (code, value) in map(all.get("responses")) {
        let mut response = Message::default();
        response.text(1, value.get("description"));
        if let Some(own) = value.get("schema") {
            response.message(2, wrapped(1, schema(own)));
        }
        responses.message(1, named(&code, wrapped(1, response)));
    }
    message.message(9, responses);
    message.texts(10, all.get("schemes"));
    message.extensions(13, &all);
    message
}

fn parameter_or_reference(value: &Value) -> Message {
    match value.get("$ref") {
        reference @ Some(_) => {
            let mut message = Message::default();
            message.text(1, reference);
            wrapped(2, message)
        }
        None => wrapped(1, parameter(value)),
    }
}

fn parameter(value: &Value) -> Message {
    let all = map(Some(value));
    let mut own = Message::default();
    if all.get("in").is_some_and(|place| place == "body") {
        own.text(1, all.get("description"));
        own.text(2, all.get("name"));
        own.text(3, all.get("in"));
        own.flag(4, all.get("required"));
        if let Some(value) = all.get("schema") {
            own.message(5, schema(value));
        }
        return wrapped(1, own);
    }
    let is_path = all.get("in").is_some_and(|place| place == "path");
    own.flag(1, all.get("required"));
    own.text(2, all.get("in"));
    own.text(3, all.get("description"));
    own.text(4, all.get("name"));
    // The message of a path parameter has no `allowEmptyValue`, so what follows has other numbers.
    own.text(if is_path { 5 } else { 6 }, all.get("type"));
    own.flag(if is_path { 19 } else { 20 }, all.get("uniqueItems"));
    wrapped(2, wrapped(if is_path { 4 } else { 3 }, own))
}

fn schema(value: &Value) -> Message {
    let all = map(Some(value));
    let mut message = Message::default();
    for (number, name) in [(1, "$ref"), (2, "format"), (3, "title"), (4, "description")] {
        message.text(number, all.get(name));
    }
    message.any(5, all.get("default"));
    for (number, name) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        message.double(number, all.get(name));
    }
    message.flag(8, all.get("exclusiveMaximum"));
    message.flag(10, all.get("exclusiveMinimum"));
    for (number, name) in [(11, "maxLength"), (12, "minLength"), (14, "maxItems"), (15, "minItems")] {
        message.integer(number, all.get(name));
    }
    message.text(13, all.get("pattern"));
    message.flag(16, all.get("uniqueItems"));
    message.integer(17, all.get("maxProperties"));
    message.integer(18, all.get("minProperties"));
    message.texts(19, all.get("required"));
    for value in all.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message.message(20, any(value));
    }
    match all.get("additionalProperties") {
        Some(Value::Bool(flag)) => {
            // A oneof is written even when it is false.
            let mut own = Message::default();
            own.varint(2 << 3);
            own.0.push(u8::from(*flag));
            message.message(21, own);
        }
        Some(own) => message.message(21, wrapped(1, schema(own))),
        None => {}
    }
    if let Some(kind) = all.get("type").and_then(Value::as_str) {
        let mut own = Message::default();
        own.bytes(1, kind.as_bytes());
        message.message(22, own);
    }
    if let Some(items) = all.get("items") {
        message.message(23, wrapped(1, schema(items)));
    }
    for own in all.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        message.message(24, schema(own));
    }
    if let Some(properties) = all.get("properties").and_then(Value::as_object) {
        let mut own = Message::default();
        for (name, value) in properties {
            own.message(1, named(name, schema(value)));
        }
        message.message(25, own);
    }
    message.any(30, all.get("example"));
    message.extensions(31, &all);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_is_as_gnostic_writes_it() {
        let bytes = definition("A", &json!({"type": "object", "x-a": true}));
        let mut expect = vec![0x4a, 0x23, 0x0a, 0x21, 0x0a, 1, b'A', 0x12, 0x1c];
        expect.extend([0xb2, 1, 8, 0x0a, 6]);
        expect.extend(b"object");
        expect.extend([0xfa, 1, 0x0e, 0x0a, 3]);
        expect.extend(b"x-a");
        expect.extend([0x12, 7, 0x12, 5]);
        expect.extend(b"true\n");
        assert_eq!(bytes, expect);
    }

    #[test]
    fn numbers_of_path_parameters_are_their_own() {
        let field = |value: Value| parameter(&value).0;
        let path = field(json!({"in": "path", "name": "n", "type": "string"}));
        let query = field(json!({"in": "query", "name": "n", "type": "string"}));
        assert_eq!((path[2], query[2]), (4 << 3 | 2, 3 << 3 | 2));
        assert!(path.windows(2).any(|part| part == [5 << 3 | 2, 6]));
        assert!(query.windows(2).any(|part| part == [6 << 3 | 2, 6]));
    }
}
