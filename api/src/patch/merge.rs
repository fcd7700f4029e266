//! JSON merge patch (RFC 7386), with the habits of upstream's library: nulls that have nothing to delete disappear,
//! also within the elements of a list that takes the place of something else than an object.

use super::PatchError;
use serde_json::{Map, Value};

/// Merges a patch into an object.
///
/// # Errors
/// The patch is no object (or list, which then is the result).
pub fn apply(live: Value, patch: Value) -> Result<Value, PatchError> {
    let invalid = || PatchError::Malformed("Invalid JSON Patch".to_owned());
    match (live, patch) {
        (Value::Object(mut live), Value::Object(patch)) => {
            merge(&mut live, patch);
            Ok(Value::Object(live))
        }
        (_, mut other @ (Value::Object(_) | Value::Array(_))) => {
            prune(&mut other);
            Ok(other)
        }
        _ => Err(invalid()),
    }
}

fn merge(live: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, mut value) in patch {
        match (live.get_mut(&name), &mut value) {
            (_, Value::Null) => {
                live.remove(&name);
            }
            (Some(Value::Object(own)), Value::Object(inner)) => merge(own, std::mem::take(inner)),
            (Some(own @ Value::Object(_)), _) => *own = value,
            (_, _) => {
                prune(&mut value);
                live.insert(name, value);
            }
        }
    }
}

/// Removes nulls from objects.
fn prune(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
