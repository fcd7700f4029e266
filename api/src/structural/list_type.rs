//! Sets and maps in lists hold nothing twice. Upstream: apiextensions-apiserver `pkg/apiserver/schema/listtype`.

use super::{Additional, Structural};
use crate::errors::FieldErrors;
use serde_json::{Map, Value};
use std::collections::HashMap;

impl Structural {
    /// Reports elements of sets and maps that are there already.
    pub fn check_lists(&self, value: &Value, errors: &mut FieldErrors) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => errors.at(name, |errors| property.check_lists(value, errors)),
                        (None, Additional::Schema(schema)) => {
                            errors.key(name, |errors| schema.check_lists(value, errors));
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                match self.list_type.as_deref() {
                    Some("set") => {
                        for index in repeated(list.iter().cloned()) {
                            errors.duplicate(&format!("[{index}]"), list[index].clone());
                        }
                    }
                    Some("map") => self.check_map(list, errors),
                    _ => {}
                }
                if let Some(items) = &self.items {
                    for (index, value) in list.iter().enumerate() {
                        errors.index(index, |errors| items.check_lists(value, errors));
                    }
                }
            }
            _ => {}
        }
    }

    fn check_map(&self, list: &[Value], errors: &mut FieldErrors) {
        if let Some(index) = list.iter().position(|value| !value.is_object() && !value.is_null()) {
            let why = "must be an object for an array of list-type map";
            return errors.invalid(&format!("[{index}]"), list[index].clone(), why);
        }
        let key = |value: &Value| {
            let own =
                self.list_map_keys.iter().filter_map(|key| Some((key.clone(), value.get(key)?.clone())));
            Value::Object(own.collect::<Map<_, _>>())
        };
        let keys: Vec<Value> = list.iter().map(key).collect();
        for index in repeated(keys.iter().cloned()) {
            errors.duplicate(&format!("[{index}]"), keys[index].clone());
        }
    }
}

/// Indexes of values that are there for the second time; later repetitions are not told.
fn repeated(values: impl Iterator<Item = Value>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_there_twice_is_told_once() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"],
                "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}},
        }}));
        let mut errors = FieldErrors::default();
        let object = json!({"s": ["x", "y", "x", "x"], "m": [{"a": "1"}, {"a": "2"}, {"a": "1", "b": "c"}]});
        schema.check_lists(&object, &mut errors);
        let texts: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["m[2]: Duplicate value: {\"a\":\"1\"}", "s[2]: Duplicate value: \"x\""]);
    }
}
