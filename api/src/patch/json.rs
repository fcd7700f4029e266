//! JSON patch (RFC 6902), with the habits of upstream's library: indexes may count from the end, `test` for null holds
//! where nothing is.

use super::{PatchError, depth};
use crate::decode::DEPTH_MAX;
use serde_json::Value;

/// How many operations one patch may have, as upstream (`maxJSONPatchOperations`).
pub const OPERATIONS_MAX: usize = 10_000;

/// How much all `copy` operations of one patch may copy, as upstream (`JSONPatchMaxCopyBytes`).
const COPY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies the operations in order.
///
/// # Errors
/// The patch is no list of operations, has too many, or one of them does not apply.
pub fn apply(mut document: Value, patch: Value) -> Result<Value, PatchError> {
    let kind = crate::decode::json_kind(&patch);
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {kind} into Go value of type []handlers.jsonPatchOp"
        )));
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations { count: operations.len() });
    }
    let mut copied_bytes = 0;
    for operation in operations {
        one(&mut document, operation, &mut copied_bytes)?;
    }
    Ok(document)
}

/// What strict validation says about members of operations that do not exist.
pub(super) fn unknown_members(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let unknown = |(index, operation): (usize, &Value)| {
        let members = operation.as_object().into_iter().flat_map(|operation| operation.keys());
        let unknown: Vec<_> = members
            .filter(|name| !["op", "path", "from", "value"].contains(&name.as_str()))
            .map(|name| format!("unknown field \"[{index}].{name}\""))
            .collect();
        unknown
    };
    operations.iter().enumerate().flat_map(unknown).collect()
}

fn one(document: &mut Value, mut operation: Value, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let value = operation.get_mut("value").map(Value::take);
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let (op, from) = (text("op").unwrap_or_default(), text("from"));
    let path = || text("path").ok_or_else(|| fails(format!("{op} operation has no path")));
    let from = || from.ok_or_else(|| fails(format!("{op} operation has no from")));
    match op {
        "add" => add(document, path()?, value.unwrap_or(Value::Null)),
        "remove" => remove(document, path()?).map(drop),
        "replace" => {
            let place = find(document, path()?)?;
            *place = value.unwrap_or(Value::Null);
            bounded(document, path()?)
        }
        "move" => {
            let value = remove(document, from()?)?;
            add(document, path()?, value)
        }
        "copy" => {
            let value = find(document, from()?)?.clone();
            *copied_bytes += bytes(&value);
            if *copied_bytes > COPY_BYTES_MAX {
                return Err(PatchError::TooLarge);
            }
            add(document, path()?, value)
        }
        "test" => {
            let wanted = value.unwrap_or(Value::Null);
            match find(document, path()?) {
                Ok(found) if *found == wanted => Ok(()),
                Err(_) if wanted.is_null() => Ok(()),
                _ => Err(fails(format!("testing value {} failed", path()?))),
            }
        }
        other => Err(fails(format!("Unexpected kind: {other}"))),
    }
}

fn fails(reason: String) -> PatchError {
    PatchError::DoesNotApply { reason }
}

/// The last step of a path, and what it is taken from.
fn parent<'d>(document: &'d mut Value, path: &str) -> Result<(&'d mut Value, String), PatchError> {
    let missing = || fails(format!("doc is missing path: {path:?}: missing value"));
    let mut steps: Vec<_> =
        path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let last = steps.pop().filter(|_| path.starts_with('/')).ok_or_else(missing)?;
    let mut place = document;
    for step in steps {
        place = child(place, &step).ok_or_else(missing)?;
    }
    Ok((place, last))
}

fn child<'d>(place: &'d mut Value, step: &str) -> Option<&'d mut Value> {
    match place {
        Value::Object(entries) => entries.get_mut(step),
        Value::Array(items) => {
            let at = index(step, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    }
}

/// An index, counted from the end if negative. `None` if it is none or out of reach.
fn index(step: &str, len: usize) -> Option<usize> {
    let number: i64 = step.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    let index = if number < 0 { number + len } else { number };
    (0..len).contains(&index).then_some(index as usize)
}

fn find<'d>(document: &'d mut Value, path: &str) -> Result<&'d mut Value, PatchError> {
    let (place, last) = parent(document, path)?;
    child(place, &last).ok_or_else(|| fails(format!("doc is missing key: {path}: missing value")))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    let (place, last) = parent(document, path)?;
    match place {
        Value::Object(entries) => {
            entries.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&last, items.len() + 1).ok_or_else(|| {
                fails(format!("Unable to access invalid index: {last}: invalid index referenced"))
            })?;
            items.insert(at, value);
        }
        _ => return Err(fails(format!("doc is missing path: {path:?}: missing value"))),
    }
    bounded(document, path)
}

fn remove(document: &mut Value, path: &str) -> Result<Value, PatchError> {
    let (place, last) = parent(document, path)?;
    let missing = || fails(format!("Unable to remove nonexistent key: {path}: missing value"));
    match place {
        Value::Object(entries) => entries.remove(&last).ok_or_else(missing),
        Value::Array(items) => {
            let at = index(&last, items.len()).ok_or_else(missing)?;
            Ok(items.remove(at))
        }
        _ => Err(missing()),
    }
}

/// Keeps the document walkable: what was just put at `path` must not make it deeper than anything we read.
fn bounded(document: &mut Value, path: &str) -> Result<(), PatchError> {
    let steps = path.matches('/').count();
    let below = find(document, path).map_or(0, |value| depth(value));
    if steps + below > DEPTH_MAX { Err(PatchError::TooLarge) } else { Ok(()) }
}

/// About how many bytes a value takes as JSON.
fn bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| bytes(item) + 1).sum::<usize>(),
        Value::Object(entries) => {
            2 + entries.iter().map(|(name, value)| name.len() + bytes(value) + 4).sum::<usize>()
        }
    }
}
