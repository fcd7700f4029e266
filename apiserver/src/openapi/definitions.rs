//! Definitions of the types in the schema table.

use super::descriptions::{Descriptions, list_of, of_list};
use super::form::{EXTENSION_KIND, Form, META, kind_of};
use api::schema::{Field, Kind, ListType, Many, Schema, Shape, TypeId};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Makes definitions of one form.
pub(super) struct Definitions<'a> {
    form: Form,
    schema: &'static Schema,
    descriptions: &'a Descriptions,
    /// Which kinds a type is, ordered.
    kinds: HashMap<TypeId, BTreeSet<(&'static str, &'static str, &'static str)>>,
}

/// What is a definition of its own whatever it is inside: `PodSpec`, but not a named list of strings.
fn has_definition(shape: Shape) -> bool {
    !matches!(shape, Shape::List)
}

impl<'a> Definitions<'a> {
    pub(super) fn new(form: Form, descriptions: &'a Descriptions) -> Self {
        let schema = Schema::published();
        let mut kinds: HashMap<_, BTreeSet<_>> = HashMap::new();
        for (group, version, kind, id) in schema.kinds() {
            kinds.entry(id).or_default().insert((group, version, kind));
        }
        Self { form, schema, descriptions, kinds }
    }

    /// The definitions of `roots` and of every type they refer to, by name, given one by one.
    pub(super) fn each(&self, roots: BTreeSet<TypeId>, mut take: impl FnMut(&str, Value)) {
        let mut names: BTreeMap<&str, TypeId> = BTreeMap::new();
        let mut open: Vec<_> = roots.into_iter().collect();
        while let Some(id) = open.pop() {
            let own = self.schema.get(id);
            let is_new = !has_definition(own.shape) || names.insert(own.name, id).is_none();
            if is_new {
                let fields = self.schema.fields(id);
                open.extend(fields.filter_map(|field| match field.kind {
                    Kind::Type(next) => Some(next),
                    _ => None,
                }));
            }
        }
        for (name, id) in names {
            take(name, self.definition(id));
        }
        let patch =
            json!({"type": "object", "description": "A change of an object, in one of the patch formats."});
        take(&format!("{META}.Patch"), patch);
    }

    fn definition(&self, id: TypeId) -> Value {
        let own = self.schema.get(id);
        let mut definition = self.shape(own.shape);
        let list = list_of(self.schema, own.name);
        let text = match &list {
            Some(kind) => Some(format!("{kind}List is a list of {kind} objects.")),
            None => self.descriptions.of_type(own.name),
        };
        if let Some(text) = text {
            definition.insert("description".to_owned(), text.into());
        }
        if own.shape == Shape::Struct {
            self.properties(id, list.as_deref(), &mut definition);
        }
        if own.atomic {
            definition.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        if let Some(kinds) = self.kinds.get(&id) {
            let kinds = kinds.iter().map(|(group, version, kind)| kind_of(group, version, kind));
            definition.insert(EXTENSION_KIND.to_owned(), kinds.collect());
        }
        Value::Object(definition)
    }

    fn properties(&self, id: TypeId, list: Option<&str>, definition: &mut Map<String, Value>) {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for field in self.schema.fields(id) {
            let text = match list {
                Some(kind) => of_list(field.name, kind),
                None => self.describe(id, field),
            };
            properties.insert(field.name.to_owned(), self.property(field, text));
            if field.required {
                required.push(Value::from(field.name));
            }
        }
        if !properties.is_empty() {
            definition.insert("properties".to_owned(), properties.into());
        }
        if !required.is_empty() {
            definition.insert("required".to_owned(), required.into());
        }
    }

    /// What a field is for. One that came in by an inlined type is described there.
    fn describe(&self, id: TypeId, field: &Field) -> Option<String> {
        let own = self.descriptions.of_field(self.schema.get(id).name, field.name);
        own.or_else(|| {
            let mut inner = None;
            self.schema.field_through(id, field.name, |through| {
                inner = self.descriptions.of_field(through.name, field.name).or(inner.take());
            });
            inner
        })
    }

    fn property(&self, field: &Field, text: Option<String>) -> Value {
        let one = self.one(field.kind);
        let list = |items: Value| json!({"type": "array", "items": items});
        let schema = match field.many {
            Many::One => one,
            Many::List => list(one),
            Many::Map => json!({"type": "object", "additionalProperties": one}),
            Many::MapOfLists => json!({"type": "object", "additionalProperties": list(one)}),
        };
        let mut more = Map::new();
        let mut say = |key: &str, value: Value| more.insert(key.to_owned(), value);
        if let Some(text) = text {
            say("description", text.into());
        }
        if let Some(default) = &field.default {
            say("default", default.clone());
        }
        if field.many == Many::List {
            match field.list_type {
                ListType::Atomic => say("x-kubernetes-list-type", "atomic".into()),
                ListType::Set => say("x-kubernetes-list-type", "set".into()),
                ListType::Map => {
                    say("x-kubernetes-list-map-keys", field.list_keys.iter().copied().collect());
                    say("x-kubernetes-list-type", "map".into())
                }
            };
        }
        if let Some(atomic) = field.atomic_here {
            say("x-kubernetes-map-type", if atomic { "atomic" } else { "granular" }.into());
        }
        if !field.patch_strategy.is_empty() {
            say("x-kubernetes-patch-strategy", field.patch_strategy.into());
        }
        if !field.patch_merge_key.is_empty() {
            say("x-kubernetes-patch-merge-key", field.patch_merge_key.into());
        }
        self.form.with(schema, more)
    }

    fn one(&self, kind: Kind) -> Value {
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 | Kind::Uint => json!({"type": "integer", "format": "int64"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Any => json!({}),
            Kind::Type(id) if has_definition(self.schema.get(id).shape) => {
                self.form.reference(self.schema.get(id).name)
            }
            Kind::Type(id) => {
                let items =
                    self.schema.get(id).fields.first().map_or(json!({}), |field| self.one(field.kind));
                json!({"type": "array", "items": items})
            }
        }
    }

    fn shape(&self, shape: Shape) -> Map<String, Value> {
        let value = match (shape, self.form) {
            (Shape::Struct | Shape::Raw, _) => json!({"type": "object"}),
            (Shape::List, _) => json!({"type": "array"}),
            (Shape::Time | Shape::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
            (Shape::Quantity, Form::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            (Shape::Quantity | Shape::Duration, _) => json!({"type": "string"}),
            (Shape::IntOrString, Form::V2) => json!({"type": "string", "format": "int-or-string"}),
            (Shape::IntOrString, Form::V3) => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, _) => json!({}),
        };
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(form: Form, kind: (&str, &str, &str)) -> BTreeMap<String, Value> {
        let mut descriptions = Descriptions::new();
        let schema = Schema::published();
        let root = schema.kind(kind.0, kind.1, kind.2).unwrap();
        descriptions.add(schema.get(root).name);
        let mut found = BTreeMap::new();
        Definitions::new(form, &descriptions).each(BTreeSet::from([root]), |name, value| {
            found.insert(name.to_owned(), value);
        });
        found
    }

    #[test]
    fn a_pod_is_defined_with_all_it_refers_to() {
        let made = made(Form::V2, ("", "v1", "Pod"));
        let pod = &made["io.k8s.api.core.v1.Pod"];
        assert_eq!(pod[EXTENSION_KIND], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
        assert_eq!(pod["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
        let containers = &made["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(made["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
        assert_eq!(made["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
        let text = serde_json::to_string(&made).unwrap();
        for part in text.split("#/definitions/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(made.contains_key(name), "{name} is not defined");
        }
    }

    #[test]
    fn the_third_form_wraps_references() {
        let made = made(Form::V3, ("apps", "v1", "Deployment"));
        let spec = &made["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
        let reference = "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec";
        assert_eq!(spec["allOf"], json!([{"$ref": reference}]));
        assert!(spec["description"].is_string());
        let requests = &made["io.k8s.api.core.v1.ResourceRequirements"]["properties"]["requests"];
        assert_eq!(
            requests["additionalProperties"]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"
        );
    }
}
