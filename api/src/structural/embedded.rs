//! Whole objects inside of custom objects, and their metadata. Upstream: apiextensions-apiserver
//! `pkg/apiserver/schema/objectmeta`.

use super::{Additional, Structural};
use crate::decode::canonical_part;
use crate::errors::FieldErrors;
use crate::names;
use crate::schema::{Schema, TypeId};
use serde_json::Value;

/// The type of metadata.
fn meta_type() -> Option<TypeId> {
    Schema::published().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

impl Structural {
    /// Brings the metadata of embedded objects into the form that Go would write, and says which of its fields are unknown.
    /// What cannot be read stays, and fails [`Structural::check_embedded`].
    pub fn tidy_embedded(&self, value: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.tidy(value, "", &mut unknown);
        unknown
    }

    fn tidy(&self, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map.iter_mut() {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    if self.embedded_resource && name == "metadata" {
                        let decoded = meta_type().and_then(|id| canonical_part(value, id, &path).ok());
                        if let Some(decoded) = decoded {
                            *value = decoded.value;
                            unknown.extend(decoded.strict_errors);
                        }
                        continue;
                    }
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => property.tidy(value, &path, unknown),
                        (None, Additional::Schema(schema)) => schema.tidy(value, &path, unknown),
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, value) in list.iter_mut().enumerate() {
                    items.tidy(value, &format!("{path}[{index}]"), unknown);
                }
            }
            _ => {}
        }
    }

    /// Whether there are embedded objects anywhere.
    pub fn has_embedded(&self) -> bool {
        self.embedded_resource
            || self.properties.values().any(Self::has_embedded)
            || self.items.as_ref().is_some_and(|items| items.has_embedded())
            || matches!(&self.additional, Additional::Schema(schema) if schema.has_embedded())
    }

    /// Checks kind, version and metadata of embedded objects.
    pub fn check_embedded(&self, value: &Value, errors: &mut FieldErrors) {
        match value {
            Value::Object(map) => {
                if self.embedded_resource {
                    check_object(value, errors);
                }
                for (name, value) in map {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => {
                            errors.at(name, |errors| property.check_embedded(value, errors))
                        }
                        (None, Additional::Schema(schema)) => {
                            errors.key(name, |errors| schema.check_embedded(value, errors));
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, value) in list.iter().enumerate() {
                    errors.index(index, |errors| items.check_embedded(value, errors));
                }
            }
            _ => {}
        }
    }
}

fn check_object(object: &Value, errors: &mut FieldErrors) {
    for field in ["apiVersion", "kind"] {
        match object.get(field) {
            None => errors.required(field, ""),
            Some(Value::String(text)) if text.is_empty() => errors.invalid(field, "", "must not be empty"),
            Some(Value::String(text)) if field == "apiVersion" && text.matches('/').count() > 1 => {
                errors.invalid(field, text.as_str(), format!("unexpected GroupVersion string: {text}"));
            }
            Some(Value::String(text)) if field == "kind" => {
                let faults = names::dns_1035_label(&text.to_lowercase());
                if !faults.is_empty() {
                    let why =
                        format!("may have mixed case, but should otherwise match: {}", faults.join(","));
                    errors.invalid(field, text.as_str(), why);
                }
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.invalid(field, other.clone(), "must be a string"),
        }
    }
    let Some(metadata) = object.get("metadata") else { return };
    if let Some(error) = meta_type().and_then(|id| canonical_part(metadata, id, "metadata").err()) {
        return errors.invalid("metadata", metadata.clone(), error);
    }
    errors.at("metadata", |errors| {
        let texts = |field: &str| {
            let map = metadata[field].as_object();
            map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")))
        };
        for field in ["generateName", "name"] {
            let name = metadata[field].as_str().unwrap_or("");
            names::report(errors, field, name, names::path_segment(name));
        }
        if let Some(namespace) = metadata["namespace"].as_str().filter(|own| !own.is_empty()) {
            names::report(errors, "namespace", namespace, names::dns_label(namespace));
        }
        for (key, value) in texts("labels") {
            names::report(errors, "labels", key, names::qualified(key));
            names::report(errors, "labels", value, names::label_value(value));
        }
        for (key, _) in texts("annotations") {
            names::report(errors, "annotations", key, names::qualified(&key.to_lowercase()));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedded_objects_are_objects() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }}));
        assert!(schema.has_embedded());
        let mut object =
            json!({"pod": {"kind": "P_", "metadata": {"name": "a/b", "x": 1, "labels": {"-": "v"}}}});
        assert_eq!(schema.tidy_embedded(&mut object), ["unknown field \"pod.metadata.x\""]);
        let mut errors = FieldErrors::default();
        schema.check_embedded(&object, &mut errors);
        let fields: Vec<_> = errors.into_vec().into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["pod.apiVersion", "pod.kind", "pod.metadata.name", "pod.metadata.labels"]);
    }
}
