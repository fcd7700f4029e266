//! Definitions of kinds whose schema users gave. Upstream: `apiextensions-apiserver/pkg/controller/openapi/{builder,v2}`.

use super::descriptions::Descriptions;
use super::form::{EXTENSION_KIND, Form, META, custom_name, kind_of};
use api::Resource;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const UNKNOWN: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The formats that both OpenAPI and structural schemas know; others are left out. Upstream:
/// `apiserver/validation/formats.go`.
const FORMATS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "date-time",
    "int32",
    "int64",
    "float",
    "double",
    "int-or-string",
    "k8s-short-name",
    "k8s-long-name",
];

/// What a field that every kind has is for, in the words of a published kind.
fn common(field: &str) -> &'static str {
    const KIND: &str = "io.k8s.api.core.v1.ConfigMap";
    static TEXTS: LazyLock<[String; 3]> = LazyLock::new(|| {
        let mut descriptions = Descriptions::new();
        descriptions.add(KIND);
        ["apiVersion", "kind", "metadata"].map(|field| descriptions.of_field(KIND, field).unwrap_or_default())
    });
    match field {
        "apiVersion" => &TEXTS[0],
        "kind" => &TEXTS[1],
        _ => &TEXTS[2],
    }
}

/// The definitions of a row's kind and of its list.
pub(super) fn definitions(form: Form, resource: &Resource, schema: Option<&Value>) -> Vec<(String, Value)> {
    let Resource { group, version, kind, list_kind, .. } = resource;
    let name = custom_name(group, version, kind);
    let list = json!({
        "description": format!("{list_kind} is a list of {kind}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": common("apiVersion")},
            "items": {"type": "array", "description": format!("The objects of kind {kind}."), "items": form.reference(&name)},
            "kind": {"type": "string", "description": common("kind")},
            "metadata": described(form, &format!("{META}.ListMeta"), "Standard list metadata."),
        },
        EXTENSION_KIND: [kind_of(group, version, list_kind)],
    });
    let mut own = object(form, schema);
    own[EXTENSION_KIND] = json!([kind_of(group, version, kind)]);
    vec![(name, own), (custom_name(group, version, list_kind), list)]
}

fn described(form: Form, name: &str, text: &str) -> Value {
    form.with(form.reference(name), Map::from_iter([("description".to_owned(), text.into())]))
}

fn object(form: Form, schema: Option<&Value>) -> Value {
    let Some(schema) = schema else { return json!({"type": "object"}) };
    if form == Form::V2 && schema[UNKNOWN] == true {
        // With any property in it, kubectl would refuse all others.
        return json!({"type": "object"});
    }
    let mut own = schema.clone();
    if form == Form::V2 {
        simplify(&mut own);
    }
    supported(&mut own);
    embed(form, &mut own);
    add_meta(form, &mut own);
    own
}

/// `apiVersion`, `kind` and `metadata`, which every object has.
fn add_meta(form: Form, schema: &mut Value) {
    for name in ["apiVersion", "kind"] {
        schema["properties"][name] = json!({"type": "string", "description": common(name)});
    }
    schema["properties"]["metadata"] = described(form, &format!("{META}.ObjectMeta"), common("metadata"));
}

/// Runs over a schema and every schema in it, outermost first.
fn each(schema: &mut Value, change: &mut impl FnMut(&mut Value)) {
    change(schema);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|own| each(own, change));
    }
    for name in ["items", "additionalProperties"] {
        if let Some(own) = schema.get_mut(name).filter(|own| own.is_object()) {
            each(own, change);
        }
    }
}

/// Takes out what the second form cannot say, and what kubectl does not cope with.
fn simplify(schema: &mut Value) {
    each(schema, &mut |own| {
        let null_properties: Vec<String> = {
            let properties = own["properties"].as_object().into_iter().flatten();
            properties.filter(|(_, own)| own["nullable"] == true).map(|(name, _)| name.clone()).collect()
        };
        let values_null = own["additionalProperties"]["nullable"] == true;
        let Some(map) = own.as_object_mut() else { return };
        for junctor in ["allOf", "oneOf", "anyOf", "not"] {
            map.remove(junctor);
        }
        let unknown = map.get(UNKNOWN) == Some(&Value::Bool(true));
        let nullable = map.remove("nullable") == Some(Value::Bool(true));
        if nullable || unknown {
            map.remove("items");
            map.remove("properties");
        }
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if nullable || (kind == "array" && !map.contains_key("items")) || (kind == "object" && unknown) {
            map.remove("type");
        }
        if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|name| !values_null && null_properties.iter().all(|own| name != own));
            if required.is_empty() {
                map.remove("required");
            }
        }
    });
}

/// Takes out formats that nobody knows and empty lists, and says what an integer-or-string is.
fn supported(schema: &mut Value) {
    each(schema, &mut |own| {
        let Some(map) = own.as_object_mut() else { return };
        if map.get("format").is_some_and(|format| !FORMATS.iter().any(|known| format == known)) {
            map.remove("format");
        }
        if map.get(INT_OR_STRING) == Some(&Value::Bool(true)) {
            map.remove("type");
        }
        map.retain(|_, value| !matches!(value, Value::Null));
    });
}

/// Gives embedded objects the fields that every object has.
fn embed(form: Form, schema: &mut Value) {
    each(schema, &mut |own| {
        if own[EMBEDDED] != true || (form == Form::V2 && own[UNKNOWN] == true) {
            return;
        }
        add_meta(form, own);
        let required = own["required"].as_array().cloned().unwrap_or_default();
        let missing =
            ["kind", "apiVersion"].into_iter().filter(|name| !required.iter().any(|own| own == name));
        let all: Vec<_> = required.iter().cloned().chain(missing.map(Value::from)).collect();
        own["required"] = all.into();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, schema: Value, mut expect: Value) {
        let mut found = object(form, Some(&schema));
        for value in [&mut found, &mut expect] {
            if let Some(properties) = value["properties"].as_object_mut() {
                for name in ["apiVersion", "kind", "metadata"] {
                    properties.remove(name);
                }
            }
        }
        assert_eq!(found, expect);
    }

    #[test]
    fn the_second_form_is_simpler() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "nullable": true, "enum": ["x"]},
            "b": {"type": "array", "items": {"type": "object", "oneOf": [{"required": ["c"]}], "properties": {"c": {"type": "string", "format": "x"}}}},
            "d": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"e": {"type": "string"}}},
            "f": {"x-kubernetes-int-or-string": true}}});
        check(
            Form::V2,
            schema.clone(),
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {"enum": ["x"]},
                "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"type": "string"}}}},
                "d": {"x-kubernetes-preserve-unknown-fields": true},
                "f": {"x-kubernetes-int-or-string": true}}}),
        );
        let third = object(Form::V3, Some(&schema));
        assert_eq!(third["properties"]["a"]["nullable"], true);
        assert!(third["properties"]["b"]["items"]["oneOf"].is_array());
    }

    #[test]
    fn common_fields_are_described() {
        assert!(common("apiVersion").starts_with("APIVersion defines"), "{}", common("apiVersion"));
        assert!(common("kind").starts_with("Kind is"), "{}", common("kind"));
        assert!(common("metadata").starts_with("Standard object"), "{}", common("metadata"));
    }

    #[test]
    fn who_keeps_everything_says_nothing() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}});
        assert_eq!(object(Form::V2, Some(&schema)), json!({"type": "object"}));
        assert!(object(Form::V3, Some(&schema))["properties"]["a"].is_object());
        assert_eq!(object(Form::V2, None), json!({"type": "object"}));
    }

    #[test]
    fn embedded_objects_have_names() {
        let schema = json!({"type": "object", "properties": {"t": {"type": "object", "x-kubernetes-embedded-resource": true}}});
        let made = object(Form::V3, Some(&schema));
        assert_eq!(made["properties"]["t"]["required"], json!(["kind", "apiVersion"]));
        assert!(made["properties"]["t"]["properties"]["metadata"].is_object());
    }
}
