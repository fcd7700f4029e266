//! What a schema of custom objects may say. Upstream: apiextensions-apiserver
//! `pkg/apis/apiextensions/validation` (`ValidateCustomResourceDefinitionOpenAPISchema`),
//! `pkg/apiserver/schema/defaulting/validation.go`.

use super::structural::{self, Level, properties};
use api::structural::{Structural, Validator};
use api::{FieldError, FieldErrors};
use serde_json::Value;

/// The text of a field; empty where there is none.
pub(super) fn text<'s>(schema: &'s Value, name: &str) -> &'s str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a field is true.
pub(super) fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Fields that the root may have where the status is checked by itself.
const ROOT: [&str; 22] = [
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
/// The same as upstream lists them.
const ROOT_TEXT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";

/// Where in a schema we are.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    is_root: bool,
    /// Inside of `metadata`, `kind` or `apiVersion` of a whole object.
    inside_meta: bool,
    /// Why there may be no default here.
    no_default: Option<&'a str>,
}

/// Reports what is wrong with the schema of a version, at `openAPIV3Schema`.
pub(super) fn check(schema: &Value, has_status: bool, errors: &mut FieldErrors) {
    let mut own = FieldErrors::default();
    let base = errors.path("");
    own.at(&base, |errors| {
        if has_status {
            check_root(schema, errors);
        }
        if flag(schema, "nullable") {
            errors.forbidden("openAPIV3Schema.nullable", "nullable cannot be true at the root");
        }
        let mut faults = collect(&errors.path("openAPIV3Schema"), |errors| {
            structural::check(schema, Level::Root, errors);
        });
        if faults.is_empty() {
            faults = collect(&errors.path("openAPIV3Schema"), |errors| {
                check_defaults(schema, true, false, errors);
            });
        }
        faults.sort_by_key(ToString::to_string);
        faults.into_iter().for_each(|fault| errors.add(fault));
        errors.at("openAPIV3Schema", |errors| {
            check_node(schema, Place { is_root: true, ..Place::default() }, errors);
        });
    });
    let found = own.into_vec();
    if found.is_empty()
        && let Err(error) = Validator::compile(schema)
    {
        errors.invalid("", "", format!("error building validator: {error}"));
    }
    found.into_iter().for_each(|fault| errors.add(fault));
}

/// What rules find at a path.
fn collect(path: &str, rules: impl FnOnce(&mut FieldErrors)) -> Vec<FieldError> {
    let mut errors = FieldErrors::default();
    errors.at(path, rules);
    errors.into_vec()
}

fn check_root(schema: &Value, errors: &mut FieldErrors) {
    if text(schema, "type") != "object" && schema.get("type").is_some() {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.invalid("openAPIV3Schema.type", text(schema, "type"), why);
    }
    let keys = schema.as_object().into_iter().flatten();
    let other = keys.filter(|(_, value)| !value.is_null()).find(|(key, _)| !ROOT.contains(&key.as_str()));
    if other.is_some() {
        let why = format!(
            "only {ROOT_TEXT} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        errors.invalid("openAPIV3Schema", schema.clone(), why);
    }
}

fn check_node(schema: &Value, place: Place<'_>, errors: &mut FieldErrors) {
    check_words(schema, place, errors);
    let inner = Place { is_root: false, ..place };
    if let Some(additional) = schema.get("additionalProperties") {
        if properties(schema).next().is_some() && *additional != true {
            errors.forbidden(
                "additionalProperties",
                "additionalProperties and properties are mutual exclusive",
            );
        }
        let why = "inside additionalProperties applying to object metadata";
        let below = if place.inside_meta { Place { no_default: Some(why), ..inner } } else { inner };
        if additional.is_object() {
            errors.at("additionalProperties", |errors| check_node(additional, below, errors));
        }
    }
    for (name, property) in properties(schema) {
        let is_object = place.is_root || flag(schema, "x-kubernetes-embedded-resource");
        let is_meta = is_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let why = format!("in top-level {name}");
        let below = Place {
            is_root: false,
            inside_meta: place.inside_meta || is_meta,
            no_default: if is_meta && place.is_root { Some(&why) } else { place.no_default },
        };
        errors.at(&format!("properties[{name}]"), |errors| check_node(property, below, errors));
    }
    if let Some(not) = schema.get("not") {
        errors.at("not", |errors| check_node(not, inner, errors));
    }
    for name in ["allOf", "oneOf", "anyOf"] {
        let list = schema.get(name).and_then(Value::as_array).into_iter().flatten();
        for (index, own) in list.enumerate() {
            errors.at(&format!("{name}[{index}]"), |errors| check_node(own, inner, errors));
        }
    }
    if let Some(items) = schema.get("items").filter(|own| own.is_object()) {
        errors.at("items", |errors| check_node(items, inner, errors));
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        errors.invalid("x-kubernetes-preserve-unknown-fields", false, "must be true or undefined");
    }
    check_map_type(schema, errors);
    check_list_type(schema, errors);
    check_list_keys(schema, errors);
    check_rules(schema, errors);
}

/// Rules in CEL cannot be run by this server yet: a kind that needs them would be served without its checks.
fn check_rules(schema: &Value, errors: &mut FieldErrors) {
    if schema.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty())
    {
        let why = "rules in CEL are not supported by this server yet; remove them to serve the resource without these checks";
        errors.forbidden("x-kubernetes-validations", why);
    }
}

/// Words that are not supported, or not here.
fn check_words(schema: &Value, place: Place<'_>, errors: &mut FieldErrors) {
    let kind = text(schema, "type");
    if kind == "null" {
        errors.forbidden("type", "type cannot be set to null, use nullable as an alternative");
    } else if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported("type", kind, &TYPES);
    }
    if schema.get("default").is_some()
        && let Some(why) = place.no_default
    {
        errors.forbidden("default", format!("must not be set {why}"));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if schema.get(name).is_some_and(|own| !own.is_null()) {
            errors.forbidden(name, format!("{name} is not supported"));
        }
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.forbidden("items", "items must be a schema object and not an array");
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        errors.forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden("uniqueItems", why);
    }
}

fn expect_type(schema: &Value, expect: &str, why: &str, errors: &mut FieldErrors) {
    match text(schema, "type") {
        "" => errors.required("type", why),
        kind if kind != expect => errors.invalid("type", kind, why),
        _ => {}
    }
}

fn check_map_type(schema: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "x-kubernetes-map-type";
    let Some(kind) = schema.get(FIELD).and_then(Value::as_str) else { return };
    expect_type(schema, "object", "must be object if x-kubernetes-map-type is specified", errors);
    if !matches!(kind, "atomic" | "granular") {
        errors.not_supported(FIELD, kind, &["atomic", "granular"]);
    }
}

fn check_list_type(schema: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "x-kubernetes-list-type";
    let Some(kind) = schema.get(FIELD).and_then(Value::as_str) else { return };
    expect_type(schema, "array", "must be array if x-kubernetes-list-type is specified", errors);
    if !matches!(kind, "atomic" | "set" | "map") {
        errors.not_supported(FIELD, kind, &["atomic", "set", "map"]);
    }
    let items = &schema["items"];
    if kind == "set" && text(schema, "type") == "array" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let own = |name: &str| items.get(name).cloned().unwrap_or(Value::Null);
        match text(items, "type") {
            "array" if !matches!(text(items, FIELD), "" | "atomic") => {
                errors.invalid("items.x-kubernetes-list-type", own(FIELD), why);
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                errors.invalid("items.x-kubernetes-map-type", own(FIELD), why);
            }
            _ => {}
        }
    }
    if matches!(kind, "set" | "map") && flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.forbidden("items.nullable", why);
    }
}

fn check_list_keys(schema: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "x-kubernetes-list-map-keys";
    let keys: Vec<&str> =
        schema.get(FIELD).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let kind = text(schema, "x-kubernetes-list-type");
    if !keys.is_empty() && kind != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            "" => errors.required("x-kubernetes-list-type", why),
            kind => errors.invalid("x-kubernetes-list-type", kind, why),
        }
    }
    if kind != "map" {
        return;
    }
    if keys.is_empty() {
        errors.required(FIELD, "must not be empty if x-kubernetes-list-type is map");
    }
    let Some(items) = schema.get("items") else {
        return errors.required("items", "must have a schema if x-kubernetes-list-type is map");
    };
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid("items.type", text(items, "type"), why);
    }
    let required: Vec<&str> =
        items["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            errors.invalid(FIELD, schema[FIELD].clone(), "must not contain duplicate entries");
        }
        let Some(property) = items["properties"].get(key) else {
            errors.invalid(FIELD, schema[FIELD].clone(), "entries must all be names of item properties");
            continue;
        };
        errors.at(&format!("items.properties[{key}]"), |errors| {
            if matches!(text(property, "type"), "array" | "object") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.invalid("type", text(items, "type"), why);
            }
            if !required.contains(key) && property.get("default").is_none() {
                errors.required("default", "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property");
            }
            if flag(property, "nullable") {
                errors.forbidden("nullable", "this property is in x-kubernetes-list-map-keys, so it cannot be nullable");
            }
        });
    }
}

/// Defaults must be what the schema allows.
fn check_defaults(schema: &Value, is_root: bool, inside_meta: bool, errors: &mut FieldErrors) {
    let is_object = is_root || flag(schema, "x-kubernetes-embedded-resource");
    let inside_meta = inside_meta && !is_object;
    if let Some(default) = schema.get("default") {
        let own = Structural::parse(schema);
        if !inside_meta {
            let mut pruned = default.clone();
            own.prune_part(&mut pruned);
            if pruned != *default {
                errors.invalid("default", default.clone(), "must not have unknown fields");
            }
        }
        errors.at("default", |errors| own.check_embedded(default, errors));
        if let Ok(validator) = Validator::compile(schema) {
            for fault in validator.check(default, None, "") {
                let field = match fault.field.as_str() {
                    "<nil>" | "" => "default".to_owned(),
                    field => format!("default.{field}"),
                };
                errors.push(fault.kind, &field, fault.value, fault.detail);
            }
        }
    }
    if let Some(items) = schema.get("items").filter(|own| own.is_object()) {
        errors.at("items", |errors| check_defaults(items, false, inside_meta, errors));
    }
    for (name, property) in properties(schema) {
        let is_meta = is_object && matches!(name.as_str(), "metadata" | "kind" | "apiVersion");
        let step = format!("properties[{name}]");
        errors.at(&step, |errors| check_defaults(property, false, inside_meta || is_meta, errors));
    }
}

/// Runs over a schema and every schema in it.
pub(super) fn each(schema: &Value, visit: &mut impl FnMut(&Value)) {
    visit(schema);
    for (_, property) in properties(schema) {
        each(property, visit);
    }
    for name in ["items", "additionalProperties", "not"] {
        if let Some(own) = schema.get(name).filter(|own| own.is_object()) {
            each(own, visit);
        }
    }
    for name in ["allOf", "oneOf", "anyOf"] {
        schema.get(name).and_then(Value::as_array).into_iter().flatten().for_each(|own| each(own, visit));
    }
}

/// The schema at a dotted path of fields (`.spec.color`).
///
/// # Errors
/// Upstream's text about the first field that is not there.
pub(super) fn at_path<'s>(schema: &'s Value, path: &str) -> Result<&'s Value, String> {
    let mut place = schema;
    let Some(rest) = path.strip_prefix('.').filter(|rest| !rest.is_empty()) else {
        return Err(format!("expected [ or . but got: {path}"));
    };
    if rest.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    for name in rest.split('.') {
        let missing = || format!("does not refer to a valid field: no field {name:?} found");
        let additional = place.get("additionalProperties").filter(|own| own.is_object());
        place = place["properties"].get(name).or(additional).ok_or_else(missing)?;
    }
    Ok(place)
}
