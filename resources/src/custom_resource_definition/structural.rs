//! Whether a schema is structural: every value that it says something about has a type. Upstream: apiextensions-apiserver
//! `pkg/apiserver/schema/{validation,complete}.go`.

use super::schema::{flag, text};
use api::FieldErrors;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Item,
    Field,
}

/// Schemas that say something about values and not about their structure.
const ALTERNATIVES: [&str; 3] = ["anyOf", "allOf", "oneOf"];

/// The alternatives by which an int-or-string may say what it is.
fn is_int_or_string(alternatives: &Value) -> bool {
    *alternatives == json!([{"type": "integer"}, {"type": "string"}])
}

/// Reports what is not structural.
pub(super) fn check(schema: &Value, level: Level, errors: &mut FieldErrors) {
    let kind = text(schema, "type");
    if kind == "array" && schema.get("items").is_none() {
        errors.required("items", "must be specified");
    }
    if let Some(items) = schema.get("items").filter(|own| own.is_object()) {
        errors.at("items", |errors| check(items, Level::Item, errors));
    }
    for (name, property) in properties(schema) {
        errors.at(&format!("properties[{name}]"), |errors| check(property, Level::Field, errors));
    }
    if let Some(additional) = schema.get("additionalProperties") {
        if level == Level::Root {
            errors.forbidden("additionalProperties", "must not be used at the root");
        }
        if additional.is_object() {
            errors.at("additionalProperties", |errors| check(additional, Level::Field, errors));
        }
    }
    check_extensions(schema, errors);
    check_values(schema, errors);
    check_kind(schema, level, errors);
    check_meta(schema, level, errors);
    if level == Level::Root {
        complete(schema, Some(schema), &errors.path(""), errors);
    }
}

pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn alternatives<'s>(schema: &'s Value, name: &str) -> impl Iterator<Item = (usize, &'s Value)> + use<'s> {
    schema.get(name).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn check_extensions(schema: &Value, errors: &mut FieldErrors) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, name) {
            errors.invalid(name, true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn check_kind(schema: &Value, level: Level, errors: &mut FieldErrors) {
    let kind = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let keeps = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => errors.required("type", why),
            kind => errors.invalid("type", kind, why),
        }
    } else if kind.is_empty() && !keeps && !flag(schema, "x-kubernetes-int-or-string") {
        errors.required(
            "type",
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && schema.get("additionalProperties").is_some() {
        errors.forbidden("additionalProperties", "must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid("type", kind, "must be object at the root");
    }
    if embedded && !keeps && properties(schema).next().is_none() {
        errors.required(
            "properties",
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
}

/// `apiVersion`, `kind` and `metadata` of whole objects.
fn check_meta(schema: &Value, level: Level, errors: &mut FieldErrors) {
    let is_object = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    if !is_object {
        return;
    }
    for name in ["kind", "apiVersion"] {
        if let Some(property) = schema["properties"].get(name)
            && text(property, "type") != "string"
        {
            let field = format!("properties[{name}].type");
            errors.invalid(&field, text(property, "type"), "must be string");
        }
    }
    let Some(metadata) = schema["properties"].get("metadata") else { return };
    if text(metadata, "type") != "object" {
        errors.invalid("properties[metadata].type", text(metadata, "type"), "must be object");
    }
    let names_only =
        |map: &Value| properties(map).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let plain = metadata
        .as_object()
        .is_some_and(|map| map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default")));
    if level == Level::Root && !(plain && names_only(metadata)) {
        errors.forbidden(
            "properties[metadata]",
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        );
    }
}

/// What a schema with structure says about values besides.
fn check_values(schema: &Value, errors: &mut FieldErrors) {
    let says_int_or_string = flag(schema, "x-kubernetes-int-or-string");
    for name in ALTERNATIVES {
        if name == "anyOf" && says_int_or_string && is_int_or_string(&schema["anyOf"]) {
            continue;
        }
        for (index, inner) in alternatives(schema, name) {
            let is_first = name == "allOf" && index == 0 && says_int_or_string;
            errors.at(&format!("{name}[{index}]"), |errors| check_nested(inner, is_first, errors));
        }
    }
    if let Some(not) = schema.get("not") {
        errors.at("not", |errors| check_nested(not, false, errors));
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid("pattern", pattern, why);
    }
}

/// A schema inside of alternatives: it may not say anything about structure.
fn check_nested(schema: &Value, may_be_int_or_string: bool, errors: &mut FieldErrors) {
    let skips = may_be_int_or_string && is_int_or_string(&schema["anyOf"]);
    for name in ALTERNATIVES {
        if name == "anyOf" && skips {
            continue;
        }
        for (index, inner) in alternatives(schema, name) {
            errors.at(&format!("{name}[{index}]"), |errors| check_nested(inner, false, errors));
        }
    }
    for name in ["not", "items"] {
        if let Some(inner) = schema.get(name).filter(|own| own.is_object()) {
            errors.at(name, |errors| check_nested(inner, false, errors));
        }
    }
    for (name, property) in properties(schema) {
        errors.at(&format!("properties[{name}]"), |errors| check_nested(property, false, errors));
    }
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (name, why) in FORBIDDEN {
        if schema.get(name).is_some_and(|own| *own != false && !own.is_null() && *own != "") {
            errors.forbidden(name, why);
        }
    }
    if schema["properties"].get("metadata").is_some() {
        errors.forbidden("properties[metadata]", "must not be specified in a nested context");
    }
}

/// What alternatives say something about must have a structure outside of them.
fn complete(values: &Value, structure: Option<&Value>, path: &str, errors: &mut FieldErrors) {
    for name in ALTERNATIVES {
        for (index, inner) in alternatives(values, name) {
            complete_nested(inner, structure, path, &format!("{path}.{name}[{index}]"), errors);
        }
    }
    if let Some(not) = values.get("not") {
        complete_nested(not, structure, path, &format!("{path}.not"), errors);
    }
}

fn complete_nested(
    values: &Value,
    structure: Option<&Value>,
    own_path: &str,
    values_path: &str,
    errors: &mut FieldErrors,
) {
    let Some(structure) = structure else {
        let why = format!("because it is defined in {values_path}");
        let absolute = own_path.strip_prefix(&errors.path("")).unwrap_or(own_path).trim_start_matches('.');
        errors.required(absolute, why);
        return;
    };
    for name in ALTERNATIVES {
        for (index, inner) in alternatives(values, name) {
            let path = format!("{values_path}.{name}[{index}]");
            complete_nested(inner, Some(structure), own_path, &path, errors);
        }
    }
    if let Some(not) = values.get("not") {
        complete_nested(not, Some(structure), own_path, &format!("{values_path}.not"), errors);
    }
    if let Some(items) = values.get("items").filter(|own| own.is_object()) {
        let (own, other) = (format!("{own_path}.items"), format!("{values_path}.items"));
        complete_nested(items, structure.get("items"), &own, &other, errors);
    }
    for (name, property) in properties(values) {
        let step = format!("properties[{name}]");
        let (own, other) = (format!("{own_path}.{step}"), format!("{values_path}.{step}"));
        complete_nested(property, structure["properties"].get(name), &own, &other, errors);
    }
}
