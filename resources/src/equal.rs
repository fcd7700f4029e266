//! Whether two objects mean the same. Upstream: `apiequality.Semantic.DeepEqual`, `metav1.ResetObjectMetaForStatus`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// Whether two values mean the same: what is missing equals what is empty, zero or false, since clients of typed
/// languages leave such fields out.
pub(crate) fn same<T: Serialize>(one: &T, other: &T) -> bool {
    let bare = |value: &T| {
        let mut value = serde_json::to_value(value).unwrap_or(Value::Null);
        strip(&mut value);
        value
    };
    bare(one) == bare(other)
}

/// Removes what is empty, from the inside out. Elements of lists stay, they may be meant.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, value| !is_empty(value));
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Takes the metadata back that a write of a part of the object may not change.
pub(crate) fn keep_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    let (version, fields) = (new.resource_version.take(), new.managed_fields.take());
    *new = old.clone();
    (new.resource_version, new.managed_fields) = (version, fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_and_empty_are_the_same() {
        assert!(same(&json!({"a": [], "b": {"c": false}, "d": 1}), &json!({"d": 1, "e": ""})));
        assert!(!same(&json!({"a": [{}]}), &json!({"a": []})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
    }
}
