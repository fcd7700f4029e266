//! Bodies of requests.

use api::apply::{self, Set, Types, Writer};
use api::decode::{self, FieldValidation, Format, Target};
use api::patch::{self, PatchKind};
use serde_json::{Value, json};

/// Kinds with many forms of fields.
const KINDS: &[(&str, &str)] = &[
    ("v1", "Pod"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("example.com/v1", "Unknown"),
];

/// Splits off the byte that chooses a kind.
fn choose(bytes: &[u8]) -> Option<(Target<'static>, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (api_version, kind) = KINDS[usize::from(*first) % KINDS.len()];
    Some((Target::new(api_version, kind), rest))
}

/// What was decoded is canonical: decoding it again changes nothing, and complains about nothing new.
fn body(bytes: &[u8], format: Format) {
    let Some((target, bytes)) = choose(bytes) else { return };
    let Ok(decoded) = decode::object(bytes, format, target) else { return };
    let text = decoded.value.to_string();
    let again = decode::object(text.as_bytes(), Format::Json, target).expect("what was decoded can be");
    assert_eq!(again.value, decoded.value);
    let _ = decoded.check(FieldValidation::Strict);
    let _ = api::object::Object::parse(text.into());
}

/// JSON of objects.
pub fn json(bytes: &[u8]) {
    body(bytes, Format::Json);
    let _ = decode::untyped(bytes);
}

/// YAML of objects.
pub fn yaml(bytes: &[u8]) {
    body(bytes, Format::Yaml);
}

/// Protobuf of objects: what is decoded can be encoded, and is the same then.
pub fn protobuf(bytes: &[u8]) {
    let Some((target, raw)) = choose(bytes) else { return };
    let check = |found: Result<Value, api::protobuf::ProtobufError>| {
        let Ok(object) = found else { return };
        let Ok(encoded) = api::protobuf::encode(&object) else { return };
        assert_eq!(api::protobuf::decode(&encoded).expect("ours can be read"), object);
    };
    check(api::protobuf::decode(bytes));
    // The envelope made for it: else few inputs get as far as the message.
    let mut envelope = b"k8s\0".to_vec();
    let part = |number: u8, bytes: &[u8], out: &mut Vec<u8>| {
        out.push(number << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
    };
    let mut meta = Vec::new();
    part(1, target.api_version.as_bytes(), &mut meta);
    part(2, target.kind.as_bytes(), &mut meta);
    part(1, &meta, &mut envelope);
    part(2, raw, &mut envelope);
    check(api::protobuf::decode(&envelope));
}

fn live(target: Target<'_>) -> Value {
    json!({
        "apiVersion": target.api_version,
        "kind": target.kind,
        "metadata": {"name": "x", "labels": {"a": "1"}, "finalizers": ["a/b", "c/d"]},
        "spec": {
            "containers": [{"name": "one", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "two"}],
            "template": {"spec": {"containers": [{"name": "one"}]}},
            "ports": [{"port": 80, "protocol": "TCP"}],
            "tolerations": [{"key": "k"}],
        },
        "data": {"k": "v"},
    })
}

/// Patches of each kind.
pub fn patch(bytes: &[u8]) {
    let Some((target, bytes)) = choose(bytes) else { return };
    let live = live(target);
    for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
        if let Ok(patched) = patch::apply(kind, &live, bytes, target) {
            let _ = patched.check(FieldValidation::Strict);
        }
    }
}

/// Server-side apply: applying the same again changes nothing. Also `managedFields` as clients send them.
pub fn apply(bytes: &[u8]) {
    let Some((target, bytes)) = choose(bytes) else { return };
    let Ok(decoded) = decode::untyped(bytes) else { return };
    let _ = Set::decode(&decoded.value);
    let mut config = decoded.value;
    let Some(object) = config.as_object_mut() else { return };
    object.insert("apiVersion".to_owned(), target.api_version.into());
    object.insert("kind".to_owned(), target.kind.into());
    let none = Set::default();
    let writer = Writer {
        manager: "fuzz",
        api_version: target.api_version,
        kind: target.kind,
        subresource: "",
        now: jiff::Timestamp::UNIX_EPOCH,
        types: target.id.map_or(Types::Unknown, Types::Published),
        reset: &none,
    };
    let before = live(target);
    let Ok(first) = apply::apply(Some(&before), &config, true, writer) else { return };
    let second = apply::apply(Some(&first.object), &config, true, writer).expect("what was applied can be");
    assert!(!second.is_changed, "{} {}", first.object, second.object);
}
