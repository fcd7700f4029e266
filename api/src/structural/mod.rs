//! Structural schemas: what the schema of a custom resource means once it is known to be well-formed.
//! Upstream: apiextensions-apiserver `pkg/apiserver/schema`.
//!
//! [`Structural::parse`] reads an `openAPIV3Schema` as the API server keeps it (already decoded, so its types are right).

mod default;
mod embedded;
mod formats;
mod list_type;
mod properties;
mod prune;
mod validate;

pub use formats::is_known as is_known_format;
pub use properties::Properties;
pub use validate::Validator;

use serde_json::Value;

/// One node of a structural schema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structural {
    /// `type`; empty for int-or-string and for nodes without one.
    pub kind: String,
    /// `properties`.
    pub properties: Properties<Structural>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Structural>>,
    /// `default`.
    pub default: Option<Value>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`.
    pub list_type: Option<String>,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type`.
    pub map_type: Option<String>,
    /// `format`.
    pub format: String,
}

/// What else an object may have besides its properties.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Additional {
    /// Nothing is said.
    #[default]
    Unset,
    /// Anything, or nothing.
    Allowed(bool),
    /// Values of this schema.
    Schema(Box<Structural>),
}

impl Structural {
    /// Reads a schema. What it does not know is left to those who validate.
    pub fn parse(schema: &Value) -> Self {
        let text = |name: &str| schema.get(name).and_then(Value::as_str);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let properties = schema.get("properties").and_then(Value::as_object);
        Self {
            kind: text("type").unwrap_or_default().to_owned(),
            properties: properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.as_str().into(), Self::parse(property)))
                .collect(),
            additional: match schema.get("additionalProperties") {
                None | Some(Value::Null) => Additional::Unset,
                Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
                Some(inner) => Additional::Schema(Box::new(Self::parse(inner))),
            },
            items: schema
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(Self::parse(items))),
            default: schema.get("default").cloned(),
            nullable: flag("nullable"),
            preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: text("x-kubernetes-list-type").map(str::to_owned),
            list_map_keys: schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|key| key.as_str().map(str::to_owned))
                .collect(),
            map_type: text("x-kubernetes-map-type").map(str::to_owned),
            format: text("format").unwrap_or_default().to_owned(),
        }
    }
}
