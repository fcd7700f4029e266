//! Schemas of types, from the schema table.

use super::descriptions::Descriptions;
use api::schema::{Field, Kind, ListType, Many, Schema, Shape, TypeId};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which form of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Swagger 2.0.
    Two,
    /// OpenAPI 3.0.
    Three,
}

impl Version {
    fn prefix(self) -> &'static str {
        match self {
            Self::Two => "#/definitions/",
            Self::Three => "#/components/schemas/",
        }
    }
}

/// Collects the schemas that were referred to, and those that they refer to.
pub(super) struct Definitions {
    version: Version,
    schema: &'static Schema,
    descriptions: Descriptions,
    done: BTreeMap<&'static str, Value>,
    open: Vec<TypeId>,
    kinds: BTreeMap<TypeId, Vec<(&'static str, &'static str, &'static str)>>,
}

impl Definitions {
    pub(super) fn new(version: Version) -> Self {
        let schema = Schema::published();
        let mut kinds: BTreeMap<TypeId, Vec<_>> = BTreeMap::new();
        for (group, version, kind, id) in schema.kinds() {
            kinds.entry(id).or_default().push((group, version, kind));
        }
        kinds.values_mut().for_each(|own| own.sort_unstable());
        Self {
            version,
            schema,
            descriptions: Descriptions::collect(),
            done: BTreeMap::new(),
            open: Vec::new(),
            kinds,
        }
    }

    /// A reference to the type of a kind, or any object where the table does not know it.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Value {
        match self.schema.kind(group, version, kind) {
            Some(id) => self.reference(id),
            None => json!({"type": "object"}),
        }
    }

    fn reference(&mut self, id: TypeId) -> Value {
        let name = self.schema.get(id).name;
        if !self.done.contains_key(name) {
            self.done.insert(name, Value::Null);
            self.open.push(id);
        }
        json!({"$ref": format!("{}{name}", self.version.prefix())})
    }

    /// All schemas by name.
    pub(super) fn finish(mut self) -> Value {
        while let Some(id) = self.open.pop() {
            let (name, value) = (self.schema.get(id).name, self.definition(id));
            self.done.insert(name, value);
        }
        Value::Object(self.done.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn definition(&mut self, id: TypeId) -> Value {
        let own = self.schema.get(id);
        let mut value = self.shape(id, own.shape);
        if let Some(text) = self.descriptions.of_type(own.name) {
            value["description"] = text.into();
        }
        if own.atomic {
            value["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(kinds) = self.kinds.get(&id) {
            let kinds: Vec<_> = kinds
                .iter()
                .map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}))
                .collect();
            value["x-kubernetes-group-version-kind"] = kinds.into();
        }
        value
    }

    fn shape(&mut self, id: TypeId, shape: Shape) -> Value {
        match (shape, self.version) {
            (Shape::Struct, _) => self.object(id),
            (Shape::List, _) => {
                let element = self.schema.get(id).fields.first().map_or(Kind::String, |field| field.kind);
                json!({"type": "array", "items": self.value(element)})
            }
            (Shape::Quantity, Version::Three) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            (Shape::Quantity, Version::Two) | (Shape::Duration, _) => json!({"type": "string"}),
            (Shape::Time | Shape::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
            (Shape::IntOrString, Version::Three) => {
                json!({"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"})
            }
            (Shape::IntOrString, Version::Two) => json!({"type": "string", "format": "int-or-string"}),
            // Any JSON: nothing is said of it.
            (Shape::Raw, _) if self.schema.get(id).name.ends_with("apiextensions.v1.JSON") => json!({}),
            (Shape::Raw, _) => json!({"type": "object"}),
            (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, _) => json!({}),
        }
    }

    fn object(&mut self, id: TypeId) -> Value {
        let type_name = self.schema.get(id).name;
        let (mut properties, mut required) = (Map::new(), Vec::new());
        if self.kinds.contains_key(&id) {
            for name in ["apiVersion", "kind"] {
                let mut own = json!({"type": "string"});
                if let Some(text) = self.descriptions.of_field(type_name, name) {
                    own["description"] = text.into();
                }
                properties.insert(name.to_owned(), own);
            }
        }
        let fields: Vec<&'static Field> = self.schema.fields(id).collect();
        for field in fields {
            let value = self.field(type_name, field);
            if field.required {
                required.push(field.name);
            }
            properties.insert(field.name.to_owned(), value);
        }
        let mut value = json!({"type": "object"});
        if !properties.is_empty() {
            value["properties"] = properties.into();
        }
        if !required.is_empty() {
            value["required"] = json!(required);
        }
        value
    }

    fn field(&mut self, type_name: &str, field: &Field) -> Value {
        let one = self.value(field.kind);
        let mut value = match field.many {
            Many::One => self.wrapped(one),
            Many::List => json!({"type": "array", "items": self.wrapped(one)}),
            Many::Map => json!({"type": "object", "additionalProperties": self.wrapped(one)}),
            Many::MapOfLists => {
                let items = self.wrapped(one);
                json!({"type": "object", "additionalProperties": {"type": "array", "items": items}})
            }
        };
        if let Some(default) = &field.default {
            value["default"] = default.clone();
        }
        if let Some(text) = self.descriptions.of_field(type_name, field.name) {
            value["description"] = text.into();
        }
        let mut extension = |name: &str, text: &str| {
            if !text.is_empty() {
                value[format!("x-kubernetes-{name}")] = text.into();
            }
        };
        extension("patch-strategy", field.patch_strategy);
        extension("patch-merge-key", field.patch_merge_key);
        if field.many == Many::List {
            extension(
                "list-type",
                match field.list_type {
                    ListType::Atomic => "atomic",
                    ListType::Set => "set",
                    ListType::Map => "map",
                },
            );
        } else if field.atomic {
            extension("map-type", "atomic");
        }
        if !field.list_keys.is_empty() {
            value["x-kubernetes-list-map-keys"] = json!(field.list_keys);
        }
        value
    }

    fn value(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 | Kind::Uint => json!({"type": "integer", "format": "int64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Any => json!({}),
            Kind::Type(id) => self.reference(id),
        }
    }

    /// In the third version a reference stands alone: what is said besides it goes around it.
    fn wrapped(&self, value: Value) -> Value {
        match self.version {
            Version::Three if value.get("$ref").is_some() => json!({"allOf": [value], "default": {}}),
            _ => value,
        }
    }
}
