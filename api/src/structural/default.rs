//! Defaults of a schema. Upstream: apiextensions-apiserver `pkg/apiserver/schema/defaulting`.

use super::{Additional, Structural};
use serde_json::Value;

impl Structural {
    /// Fills in what is missing, or null where null is not allowed.
    pub fn apply_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, property) in self.properties.iter() {
                    let Some(default) = &property.default else { continue };
                    let missing = match map.get(name) {
                        None => true,
                        Some(Value::Null) => !property.nullable,
                        Some(_) => false,
                    };
                    if missing {
                        map.insert(name.to_owned(), default.clone());
                    }
                }
                for (name, value) in map.iter_mut() {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => property.apply_defaults(value),
                        (None, Additional::Schema(schema)) => schema.default_element(value),
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|value| items.default_element(value));
                }
            }
            _ => {}
        }
    }

    fn default_element(&self, value: &mut Value) {
        if value.is_null() && !self.nullable {
            *value = self.default.clone().unwrap_or(Value::Null);
        }
        self.apply_defaults(value);
    }

    /// Drops nulls of properties that may not be null and have no default, as Go's decoder does with built-in types.
    /// Upstream: `PruneNonNullableNullsWithoutDefaults`.
    pub fn drop_nulls_without_default(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.retain(|name, value| {
                    let schema = match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => Some(property),
                        (None, Additional::Schema(schema)) => Some(&**schema),
                        _ => None,
                    };
                    let Some(schema) = schema else { return true };
                    if value.is_null() {
                        return schema.nullable || schema.default.is_some();
                    }
                    schema.drop_nulls_without_default(value);
                    true
                });
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|value| items.drop_nulls_without_default(value));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, object: Value, expect: Value) {
        let mut found = object;
        Structural::parse(&schema).apply_defaults(&mut found);
        assert_eq!(found, expect);
    }

    #[test]
    fn what_is_missing_is_filled_in() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "b": {"type": "string", "default": "B", "nullable": true},
            "c": {"type": "object", "properties": {"d": {"type": "integer", "default": 4}}},
            "e": {"type": "object", "default": {}, "properties": {"f": {"type": "integer", "default": 5}}},
            "l": {"type": "array", "items": {"type": "object", "properties": {"g": {"type": "boolean", "default": true}}}},
            "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"h": {"type": "string", "default": "H"}}}},
        }});
        check(schema.clone(), json!({}), json!({"a": "A", "b": "B", "e": {"f": 5}}));
        check(
            schema,
            json!({"a": null, "b": null, "c": {}, "l": [{}, {"g": false}], "m": {"k": {}}}),
            json!({"a": "A", "b": null, "c": {"d": 4}, "e": {"f": 5}, "l": [{"g": true}, {"g": false}], "m": {"k": {"h": "H"}}}),
        );
    }
}
