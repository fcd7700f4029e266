//! Pod templates: equality and the hash that names what is made of them.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;
use serde_json::Value;

/// The label that tells apart the replica sets of a deployment.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// The canonical form of a value: keys in order, nothing that is unset (null, an empty list).
pub(crate) fn canonical(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The canonical form of a template without the hash label.
pub(crate) fn canonical_template(template: &PodTemplateSpec) -> Value {
    let mut value = canonical(template);
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    // Empty metadata says nothing.
    for pointer in ["labels", "annotations"] {
        let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata
            && metadata.get(pointer).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
        {
            metadata.remove(pointer);
        }
    }
    if value.get("metadata").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
        && let Some(map) = value.as_object_mut()
    {
        map.remove("metadata");
    }
    value
}

/// Whether two templates make the same pods, hash label aside.
pub(crate) fn is_same(one: &PodTemplateSpec, two: &PodTemplateSpec) -> bool {
    canonical_template(one) == canonical_template(two)
}

/// The hash of a template. Equal for equal templates in every version of Clipper: it hashes the canonical JSON, not memory.
pub(crate) fn hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    hash_value(&canonical_template(template), collision_count)
}

/// The hash of a canonical value.
pub(crate) fn hash_value(value: &Value, collision_count: Option<i32>) -> String {
    let mut hasher = Fnv::new();
    hasher.write(value.to_string().as_bytes());
    if let Some(count) = collision_count {
        hasher.write(&count.to_le_bytes());
    }
    encode(&hasher.0.to_string())
}

/// FNV-1a with 32 bits, as upstream's hash.
pub(crate) struct Fnv(pub(crate) u32);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(0x811c_9dc5)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// Letters that make no words. Upstream: apimachinery `pkg/util/rand`.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Turns digits into letters that are safe in names.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(json: Value) -> PodTemplateSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_hash_stays_what_it_is_and_ignores_what_says_nothing() {
        let plain = template(json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]}}));
        let labelled = template(json!({"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i", "args": []}], "volumes": [{"name": "v", "emptyDir": {}}]}}));
        let other = template(json!({"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v"}]}}));
        assert!(is_same(&plain, &labelled));
        assert!(!is_same(&plain, &other));
        assert_eq!(hash(&plain, None), hash(&labelled, None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        // What is hashed is in the names of objects that are kept: it must never change.
        assert_eq!(
            canonical_template(&labelled).to_string(),
            concat!(
                r#"{"metadata":{"labels":{"a":"b"}},"spec":"#,
                r#"{"containers":[{"image":"i","name":"c"}],"volumes":[{"emptyDir":{},"name":"v"}]}}"#
            )
        );
    }

    fn fnv(bytes: &[u8]) -> u32 {
        let mut hasher = Fnv::new();
        hasher.write(bytes);
        hasher.0
    }

    #[test]
    fn the_hash_function_is_fnv_1a() {
        assert_eq!(fnv(b""), 0x811c_9dc5);
        assert_eq!(fnv(b"a"), 0xe40c_292c);
        assert_eq!(fnv(b"foobar"), 0xbf9c_f968);
        assert_eq!(encode("0123456789"), "456789bcdf");
    }
}
