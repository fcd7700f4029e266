//! Dropping what a schema does not know. Upstream: apiextensions-apiserver `pkg/apiserver/schema/pruning`.

use super::{Additional, Structural};
use serde_json::Value;
use std::fmt::Write as _;

/// Fields that every object has, whatever its schema says.
pub(super) const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Structural {
    /// Drops unknown fields of a whole object, and says which in upstream's words, sorted: `unknown field "spec.x"`.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut walk = Walk { path: String::new(), unknown: Vec::new() };
        walk.prune(object, Some(self), true, false);
        walk.unknown.sort();
        walk.unknown.dedup();
        walk.unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect()
    }

    /// Drops unknown fields of a part of an object.
    pub fn prune_part(&self, value: &mut Value) {
        let mut walk = Walk { path: String::new(), unknown: Vec::new() };
        walk.prune(value, Some(self), self.embedded_resource, false);
    }
}

struct Walk {
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    fn at(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        inside(self);
        self.path.truncate(length);
    }

    fn index(&mut self, index: usize, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        let _ = write!(self.path, "[{index}]");
        inside(self);
        self.path.truncate(length);
    }

    fn record(&mut self, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.unknown.push(format!("{}{dot}{name}", self.path));
    }

    /// `is_object`: whether this is a whole object, whose metadata is not the schema's. `kept`: whether the list around it
    /// keeps what is unknown.
    fn prune(&mut self, value: &mut Value, schema: Option<&Structural>, is_object: bool, kept: bool) {
        let keeps = kept || schema.is_some_and(|schema| schema.preserve_unknown_fields);
        match value {
            Value::Object(map) => {
                let additional = schema.map_or(&Additional::Unset, |schema| &schema.additional);
                let mut gone = Vec::new();
                for (name, value) in map.iter_mut() {
                    if is_object && META.contains(&name.as_str()) {
                        continue;
                    }
                    let property = schema.and_then(|schema| schema.properties.get(name));
                    let inner = match (property, additional) {
                        (Some(property), _) => Some(property),
                        (None, Additional::Schema(values)) => Some(&**values),
                        (None, Additional::Allowed(_)) => None,
                        (None, Additional::Unset) if keeps => continue,
                        (None, Additional::Unset) => {
                            self.record(name);
                            gone.push(name.clone());
                            continue;
                        }
                    };
                    let is_object = inner.is_some_and(|inner| inner.embedded_resource);
                    self.at(name, |walk| walk.prune(value, inner, is_object, false));
                }
                for name in gone {
                    map.remove(&name);
                }
            }
            Value::Array(list) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                if keeps && items.is_none() {
                    return;
                }
                let is_object = items.is_some_and(|items| items.embedded_resource);
                for (index, value) in list.iter_mut().enumerate() {
                    self.index(index, |walk| walk.prune(value, items, is_object, keeps));
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

    fn check(schema: Value, object: Value, expect: Value, unknown: &[&str]) {
        let mut found = object;
        let paths = Structural::parse(&schema).prune(&mut found);
        assert_eq!(found, expect);
        let unknown: Vec<_> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        assert_eq!(paths, unknown);
    }

    #[test]
    fn what_is_not_in_the_schema_goes() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"c": {"type": "string"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"p": {"type": "object", "properties": {}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }},
        }});
        check(
            schema,
            json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "other": 1, "spec": {
                "a": "1", "z": 2, "list": [{"b": 1, "y": 2}], "map": {"k": {"c": "1", "d": 2}},
                "free": {"q": {"r": 1}, "p": {"s": 1}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"x": 1}, "y": 1},
            }}),
            json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "n"}, "spec": {
                "a": "1", "list": [{"b": 1}], "map": {"k": {"c": "1"}}, "free": {"q": {"r": 1}, "p": {}},
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
            }}),
            &[
                "other",
                "spec.free.p.s",
                "spec.list[0].y",
                "spec.map.k.d",
                "spec.pod.spec.x",
                "spec.pod.y",
                "spec.z",
            ],
        );
    }

    #[test]
    fn who_keeps_unknown_fields_keeps_them() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let object = json!({"kind": "X", "a": {"b": [{"c": 1}]}});
        check(schema, object.clone(), object, &[]);
    }
}
