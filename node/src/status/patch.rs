//! From one status to the next as a strategic merge patch: only what changed, so that what others write stays.

use serde_json::{Map, Value, json};

/// Lists that merge by a key; all others are replaced.
const MERGE_KEYS: [(&str, &str); 2] = [("conditions", "type"), ("podIPs", "ip")];

/// The patch that turns `old` into `new`, for the object with this uid; `None` where nothing differs.
pub(crate) fn status_patch(uid: &str, old: &Value, new: &Value) -> Option<Value> {
    let empty = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
    let mut status = Map::new();
    for (field, value) in new {
        let before = old.get(field);
        if before == Some(value) {
            continue;
        }
        let merged = MERGE_KEYS.iter().find(|(list, _)| list == field);
        let change = match (merged, before.and_then(Value::as_array), value.as_array()) {
            (Some((_, key)), before, Some(after)) => {
                merge_list(key, before.map(Vec::as_slice).unwrap_or_default(), after)
            }
            _ => value.clone(),
        };
        status.insert(field.clone(), change);
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        status.insert(field.clone(), Value::Null);
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn merge_list(key: &str, before: &[Value], after: &[Value]) -> Value {
    let find = |list: &'_ [Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut changes = Vec::new();
    for item in after {
        match find(before, item) {
            Some(old) if old == *item => {}
            Some(old) => {
                let mut change = item.as_object().cloned().unwrap_or_default();
                for field in old.as_object().into_iter().flat_map(Map::keys) {
                    // What is gone must be said to be gone: the rest of the item merges.
                    change.entry(field.clone()).or_insert(Value::Null);
                }
                changes.push(Value::Object(change));
            }
            None => changes.push(item.clone()),
        }
    }
    for item in before.iter().filter(|item| find(after, item).is_none()) {
        changes.push(json!({"$patch": "delete", (key): item[key]}));
    }
    Value::Array(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: Value, new: Value, expect: Option<Value>) {
        let found = status_patch("u", &old, &new).map(|patch| patch["status"].clone());
        assert_eq!(found, expect, "{old} {new}");
    }

    #[test]
    fn only_changes_are_sent() {
        check(json!({"phase": "Running"}), json!({"phase": "Running"}), None);
        check(json!({"phase": "Pending"}), json!({"phase": "Running"}), Some(json!({"phase": "Running"})));
        check(json!({"reason": "x"}), json!({}), Some(json!({"reason": null})));
        check(
            json!({"conditions": [{"type": "A", "status": "True", "reason": "r"}, {"type": "B", "status": "True"}, {"type": "C"}]}),
            json!({"conditions": [{"type": "A", "status": "False"}, {"type": "B", "status": "True"}, {"type": "D"}]}),
            Some(json!({"conditions": [{"type": "A", "status": "False", "reason": null}, {"type": "D"},
                {"$patch": "delete", "type": "C"}]})),
        );
        check(
            json!({"containerStatuses": [{"name": "a"}]}),
            json!({"containerStatuses": [{"name": "a", "ready": true}]}),
            Some(json!({"containerStatuses": [{"name": "a", "ready": true}]})),
        );
    }
}
