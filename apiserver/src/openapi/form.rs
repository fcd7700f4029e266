//! What differs between OpenAPI 2 and 3, and what both have in common.

use serde_json::{Map, Value, json};

/// Which OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Swagger 2.0: one document for all.
    V2,
    /// OpenAPI 3.0: one document a group version.
    V3,
}

impl Form {
    /// A reference to a definition.
    pub(super) fn reference(self, name: &str) -> Value {
        match self {
            Self::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Self::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    /// A schema with more said about it. Beside a reference, OpenAPI 3 allows nothing.
    pub(super) fn with(self, schema: Value, more: Map<String, Value>) -> Value {
        if more.is_empty() {
            return schema;
        }
        let is_reference = schema.get("$ref").is_some();
        let mut all = match (self, schema) {
            (Self::V3, reference) if is_reference => {
                Map::from_iter([("allOf".to_owned(), json!([reference]))])
            }
            (_, Value::Object(own)) => own,
            _ => Map::new(),
        };
        all.extend(more);
        Value::Object(all)
    }
}

/// `Core`, `Apps`, `RbacAuthorization`: a group in the names of operations.
pub(super) fn group_word(group: &str) -> String {
    let own = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    own.split(['.', '-']).map(title).collect()
}

/// With its first letter in upper case.
pub(super) fn title(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The definition of a kind that the schema table does not know: `com.example.stable.v1.CronTab`.
pub(super) fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<_> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// The extension that tells which kind something is about.
pub(super) fn kind_of(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

pub(super) const EXTENSION_KIND: &str = "x-kubernetes-group-version-kind";
pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
