//! Values against a schema, in upstream's words. Upstream: kube-openapi `pkg/validation/validate`, apiextensions-apiserver
//! `pkg/apiserver/validation`.

use super::Properties;
use super::formats::Format;
use crate::errors::{FieldError, FieldErrorKind};
use regex::Regex;
use serde_json::{Number, Value};

/// A schema made ready to check many values.
#[derive(Debug, Default)]
pub struct Validator {
    types: Vec<String>,
    nullable: bool,
    format: Option<Format>,
    format_name: String,
    items: Option<Box<Validator>>,
    required: Vec<String>,
    properties: Properties<Validator>,
    additional: Option<Box<Validator>>,
    /// Keys by which elements of a new list find those of the old one.
    list_keys: Option<Vec<String>>,
    /// What few nodes have; most have none.
    rare: Option<Box<Rare>>,
}

/// What few nodes of a schema have.
#[derive(Debug)]
struct Rare {
    minimum: Option<(Number, bool)>,
    maximum: Option<(Number, bool)>,
    multiple_of: Option<Number>,
    length_min: Option<u64>,
    length_max: Option<u64>,
    pattern: Option<(String, Regex)>,
    items_min: Option<u64>,
    items_max: Option<u64>,
    properties_min: Option<u64>,
    properties_max: Option<u64>,
    choices: Option<Vec<Value>>,
    all_of: Vec<Validator>,
    any_of: Vec<Validator>,
    one_of: Vec<Validator>,
    not: Option<Box<Validator>>,
}

/// What a node has that has nothing rare.
static NOTHING_RARE: Rare = Rare {
    minimum: None,
    maximum: None,
    multiple_of: None,
    length_min: None,
    length_max: None,
    pattern: None,
    items_min: None,
    items_max: None,
    properties_min: None,
    properties_max: None,
    choices: None,
    all_of: Vec::new(),
    any_of: Vec::new(),
    one_of: Vec::new(),
    not: None,
};

/// The keywords of [`Rare`].
const RARE: [&str; 15] = [
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "enum",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

/// What came of a check.
#[derive(Default)]
struct Outcome {
    errors: Vec<FieldError>,
    /// How many checks were made: the alternative that got furthest is the one that is explained.
    matches: usize,
}

impl Outcome {
    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.matches += other.matches;
    }

    fn push(&mut self, kind: FieldErrorKind, path: &str, value: Value, detail: String) {
        let field = path.trim_start_matches('.').to_owned();
        self.errors.push(FieldError { kind, field, value, detail });
    }

    /// An error about alternatives, which upstream tells without a field.
    fn composite(&mut self, detail: String) {
        let field = "<nil>".to_owned();
        self.errors.push(FieldError { kind: FieldErrorKind::Invalid, field, value: "".into(), detail });
    }
}

impl Validator {
    /// Reads an `openAPIV3Schema`.
    ///
    /// # Errors
    /// A pattern is no regular expression.
    pub fn compile(schema: &Value) -> Result<Self, regex::Error> {
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default();
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let number = |name: &str| match schema.get(name) {
            Some(Value::Number(number)) => Some(number.clone()),
            _ => None,
        };
        let inner = |name: &str| -> Result<Option<Box<Self>>, regex::Error> {
            let schema = schema.get(name).filter(|own| own.is_object());
            schema.map(|schema| Self::compile(schema).map(Box::new)).transpose()
        };
        let several = |name: &str| -> Result<Vec<Self>, regex::Error> {
            schema.get(name).and_then(Value::as_array).into_iter().flatten().map(Self::compile).collect()
        };
        let strings = |name: &str| -> Vec<String> {
            let list = schema.get(name).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|own| own.as_str().map(str::to_owned)).collect()
        };
        let types = match text("type") {
            _ if flag("x-kubernetes-int-or-string") => vec!["integer".to_owned(), "string".to_owned()],
            "" => Vec::new(),
            own => vec![own.to_owned()],
        };
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let pattern = match text("pattern") {
            "" => None,
            own => Some((own.to_owned(), Regex::new(own)?)),
        };
        let has_rare = RARE.iter().any(|keyword| schema.get(keyword).is_some());
        let rare = Rare {
            minimum: number("minimum").map(|own| (own, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|own| (own, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length_min: count("minLength"),
            length_max: count("maxLength"),
            pattern,
            items_min: count("minItems"),
            items_max: count("maxItems"),
            properties_min: count("minProperties"),
            properties_max: count("maxProperties"),
            choices: schema.get("enum").and_then(Value::as_array).cloned(),
            all_of: several("allOf")?,
            any_of: several("anyOf")?,
            one_of: several("oneOf")?,
            not: inner("not")?,
        };
        Ok(Self {
            format: Format::of(text("format"), &types),
            format_name: text("format").to_owned(),
            types,
            nullable: flag("nullable"),
            items: inner("items")?,
            required: strings("required"),
            properties: properties
                .map(|(name, own)| Ok((name.as_str().into(), Self::compile(own)?)))
                .collect::<Result<_, regex::Error>>()?,
            additional: inner("additionalProperties")?,
            list_keys: (text("x-kubernetes-list-type") == "map")
                .then(|| strings("x-kubernetes-list-map-keys")),
            rare: has_rare.then(|| Box::new(rare)),
        })
    }

    fn rare(&self) -> &Rare {
        self.rare.as_deref().unwrap_or(&NOTHING_RARE)
    }

    /// What is wrong with a value at a path. What was wrong before and did not change is not told where `old` is given.
    /// Upstream: KEP-4008 (ratcheting).
    pub fn check(&self, value: &Value, old: Option<&Value>, path: &str) -> Vec<FieldError> {
        self.run(value, old, path).errors
    }

    /// The schema of a property, for parts that are written by themselves.
    pub fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name)
    }

    fn run(&self, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut outcome = self.run_all(value, old, path);
        if !outcome.is_valid() && old == Some(value) {
            outcome.errors.clear();
        }
        outcome
    }

    fn run_all(&self, value: &Value, old: Option<&Value>, path: &str) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.matches += 1;
        self.check_type(value, path, &mut outcome);
        if value.is_null() {
            self.check_choices(value, path, &mut outcome);
            return outcome;
        }
        self.check_alternatives(value, path, &mut outcome);
        match value {
            Value::String(text) => self.check_text(text, path, &mut outcome),
            Value::Number(number) => self.check_number(number, path, &mut outcome),
            Value::Array(list) => self.check_list(list, old, path, &mut outcome),
            _ => {}
        }
        self.check_choices(value, path, &mut outcome);
        if let Value::Object(map) = value {
            self.check_object(map, old, path, &mut outcome);
        }
        outcome.matches += 1;
        outcome
    }

    fn check_type(&self, value: &Value, path: &str, outcome: &mut Outcome) {
        if self.types.is_empty() {
            return;
        }
        let found = match value {
            Value::Null if self.nullable => return,
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
        };
        let has = |name: &str| self.types.iter().any(|own| own == name);
        let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let fits = has(found)
            || (found == "integer" && has("number"))
            || (found == "number" && has("integer") && is_whole);
        // A text that has a format is checked by it alone.
        let is_formatted = self.format.is_some()
            && matches!(value, Value::String(_) | Value::Array(_))
            && !has("integer")
            && !has("number");
        if !fits && !is_formatted {
            let types = self.types.join(",");
            let detail = format!("{path} in body must be of type {types}: \"{found}\"");
            outcome.push(FieldErrorKind::TypeInvalid, path, found.into(), detail);
        }
    }

    fn check_choices(&self, value: &Value, path: &str, outcome: &mut Outcome) {
        let Some(choices) = &self.rare().choices else { return };
        let same = |own: &Value| {
            own == value || (own.is_number() && value.is_number() && own.as_f64() == value.as_f64())
        };
        if !choices.iter().any(same) {
            let text = |own: &Value| own.as_str().map_or_else(|| own.to_string(), str::to_owned);
            let allowed = choices.iter().map(text).collect();
            outcome.push(FieldErrorKind::NotSupported(allowed), path, value.clone(), String::new());
        }
    }

    fn check_text(&self, text: &str, path: &str, outcome: &mut Outcome) {
        let length = text.chars().count() as u64;
        if let Some(max) = self.rare().length_max.filter(|max| length > *max) {
            outcome.push(FieldErrorKind::TooLong(max as usize), path, Value::Null, String::new());
        }
        if let Some(min) = self.rare().length_min.filter(|min| length < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            outcome.push(FieldErrorKind::Invalid, path, text.into(), detail);
        }
        if let Some((pattern, regex)) = &self.rare().pattern
            && !regex.is_match(text)
        {
            let detail = format!("{path} in body should match '{pattern}'");
            outcome.push(FieldErrorKind::Invalid, path, text.into(), detail);
        }
        if let Some(format) = self.format
            && !format.fits(text)
        {
            let detail = format!("{path} in body must be of type {}: {text:?}", self.format_name);
            outcome.push(FieldErrorKind::TypeInvalid, path, text.into(), detail);
        }
        outcome.matches += 1;
    }

    fn check_number(&self, number: &Number, path: &str, outcome: &mut Outcome) {
        let mut invalid = |detail: String| {
            let detail = format!("{path} in body should be {detail}");
            outcome.push(FieldErrorKind::Invalid, path, Value::Number(number.clone()), detail);
        };
        if let Some(factor) = &self.rare().multiple_of
            && !is_multiple(number, factor)
        {
            invalid(format!("a multiple of {}", shown(factor)));
        }
        if let Some((min, exclusive)) = &self.rare().minimum {
            match (compare(number, min), exclusive) {
                (std::cmp::Ordering::Less, false) => {
                    invalid(format!("greater than or equal to {}", shown(min)));
                }
                (std::cmp::Ordering::Less | std::cmp::Ordering::Equal, true) => {
                    invalid(format!("greater than {}", shown(min)));
                }
                _ => {}
            }
        }
        if let Some((max, exclusive)) = &self.rare().maximum {
            match (compare(number, max), exclusive) {
                (std::cmp::Ordering::Greater, false) => {
                    invalid(format!("less than or equal to {}", shown(max)));
                }
                (std::cmp::Ordering::Greater | std::cmp::Ordering::Equal, true) => {
                    invalid(format!("less than {}", shown(max)));
                }
                _ => {}
            }
        }
        let is_too_large = self.types == ["integer"]
            && self.format_name == "int32"
            && number.as_i64().is_none_or(|own| i32::try_from(own).is_err());
        if is_too_large {
            let detail = format!("Checked value must be of type integer with format int32 in {path}");
            outcome.composite(detail);
        }
        outcome.matches += 1;
    }

    fn check_list(&self, list: &[Value], old: Option<&Value>, path: &str, outcome: &mut Outcome) {
        if let Some(items) = &self.items {
            for (index, value) in list.iter().enumerate() {
                let before = self.old_element(value, old);
                outcome.merge(items.run(value, before, &format!("{path}[{index}]")));
            }
        }
        let length = list.len() as u64;
        if let Some(min) = self.rare().items_min.filter(|min| length < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            outcome.push(FieldErrorKind::Invalid, path, length.into(), detail);
        }
        if let Some(max) = self.rare().items_max.filter(|max| length > *max) {
            outcome.push(FieldErrorKind::TooMany(max as usize), path, length.into(), String::new());
        }
        outcome.matches += 1;
    }

    /// The element of the old list that has the same keys.
    fn old_element<'o>(&self, value: &Value, old: Option<&'o Value>) -> Option<&'o Value> {
        let keys = self.list_keys.as_ref()?;
        let same = |other: &&Value| keys.iter().all(|key| other.get(key) == value.get(key));
        old?.as_array()?.iter().find(same)
    }

    fn check_object(
        &self,
        map: &serde_json::Map<String, Value>,
        old: Option<&Value>,
        path: &str,
        outcome: &mut Outcome,
    ) {
        let count = map.len() as u64;
        if let Some(min) = self.rare().properties_min.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            outcome.push(FieldErrorKind::Invalid, path, count.into(), detail);
        }
        if let Some(max) = self.rare().properties_max.filter(|max| count > *max) {
            outcome.push(FieldErrorKind::TooMany(max as usize), path, count.into(), String::new());
        }
        for (name, value) in map {
            let below = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            let is_head = path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind");
            let before = old.filter(|_| !is_head).and_then(|old| old.get(name));
            match (self.properties.get(name), &self.additional) {
                (Some(property), _) => outcome.merge(property.run(value, before, &below)),
                (None, Some(schema)) => outcome.merge(schema.run(value, before, &below)),
                (None, None) => {}
            }
        }
        for name in self.required.iter().filter(|name| !map.contains_key(*name)) {
            outcome.push(FieldErrorKind::Required, &format!("{path}.{name}"), Value::Null, String::new());
        }
    }

    fn check_alternatives(&self, value: &Value, path: &str, outcome: &mut Outcome) {
        if !self.rare().any_of.is_empty() {
            let results: Vec<Outcome> =
                self.rare().any_of.iter().map(|own| own.run(value, None, path)).collect();
            if !results.iter().any(Outcome::is_valid) {
                outcome.composite(format!("{path:?} must validate at least one schema (anyOf)"));
                outcome.merge(furthest(results));
            }
        }
        if !self.rare().one_of.is_empty() {
            let results: Vec<Outcome> =
                self.rare().one_of.iter().map(|own| own.run(value, None, path)).collect();
            let valid = results.iter().filter(|own| own.is_valid()).count();
            let why = match valid {
                0 => "Found none valid".to_owned(),
                valid => format!("Found {valid} valid alternatives"),
            };
            if valid != 1 {
                outcome.composite(format!("{path:?} must validate one and only one schema (oneOf). {why}"));
            }
            if valid == 0 {
                outcome.merge(furthest(results));
            }
        }
        if !self.rare().all_of.is_empty() {
            let results: Vec<Outcome> =
                self.rare().all_of.iter().map(|own| own.run(value, None, path)).collect();
            let valid = results.iter().filter(|own| own.is_valid()).count();
            let total = results.len();
            results.into_iter().for_each(|own| outcome.merge(own));
            if valid != total {
                let why = if valid == 0 { ". None validated" } else { "" };
                outcome.composite(format!("{path:?} must validate all the schemas (allOf){why}"));
            }
        }
        if let Some(not) = &self.rare().not
            && not.run(value, None, path).is_valid()
        {
            outcome.composite(format!("{path:?} must not validate the schema (not)"));
        }
        outcome.matches += 1;
    }
}

/// The alternative in which most was right; the first of several.
fn furthest(results: Vec<Outcome>) -> Outcome {
    let best = |best: Outcome, own: Outcome| if own.matches > best.matches { own } else { best };
    results.into_iter().reduce(best).unwrap_or_default()
}

fn compare(one: &Number, other: &Number) -> std::cmp::Ordering {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let float = |own: &Number| own.as_f64().unwrap_or(f64::NAN);
            float(one).partial_cmp(&float(other)).unwrap_or(std::cmp::Ordering::Equal)
        }
    }
}

fn is_multiple(number: &Number, factor: &Number) -> bool {
    match (number.as_i64(), factor.as_i64()) {
        (_, Some(0)) => true,
        (Some(number), Some(factor)) => number % factor == 0,
        _ => {
            let quotient = number.as_f64().unwrap_or(0.0) / factor.as_f64().unwrap_or(1.0);
            (quotient - quotient.round()).abs() < 1e-9
        }
    }
}

/// A bound as Go prints a float: whole numbers without a fraction.
fn shown(number: &Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let validator = Validator::compile(schema).expect("a schema");
        validator.check(value, old, "").iter().map(ToString::to_string).collect()
    }

    fn check(schema: Value, value: Value, expect: &[&str]) {
        assert_eq!(found(&schema, &value, None), expect, "{value}");
    }

    #[test]
    fn faults_read_as_upstream() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "required": ["a"], "properties": {
                "a": {"type": "integer", "minimum": 1, "maximum": 10},
                "b": {"type": "string", "pattern": "^x+$", "minLength": 2, "maxLength": 3},
                "c": {"type": "string", "enum": ["p", "q"]},
                "d": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
                "e": {"x-kubernetes-int-or-string": true},
                "f": {"type": "string", "format": "date"},
                "g": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "h": {"type": "string", "nullable": true},
        }}}});
        check(schema.clone(), json!({}), &["spec: Required value"]);
        check(schema.clone(), json!({"spec": {}}), &["spec.a: Required value"]);
        check(
            schema.clone(),
            json!({"spec": {"a": "x"}}),
            &["spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\""],
        );
        check(
            schema.clone(),
            json!({"spec": {"a": 11, "b": "y", "c": "r", "d": ["a", 1]}}),
            &[
                "spec.a: Invalid value: 11: spec.a in body should be less than or equal to 10",
                "spec.b: Invalid value: \"y\": spec.b in body should be at least 2 chars long",
                "spec.b: Invalid value: \"y\": spec.b in body should match '^x+$'",
                "spec.c: Unsupported value: \"r\": supported values: \"p\", \"q\"",
                "spec.d[1]: Invalid value: \"integer\": spec.d[1] in body must be of type string: \"integer\"",
                "spec.d: Too many: 2: must have at most 1 item",
            ],
        );
        check(
            schema.clone(),
            json!({"spec": {"a": 1.0, "e": true, "f": "x", "g": {"k": 1}, "h": null, "b": null}}),
            &[
                "spec.b: Invalid value: \"null\": spec.b in body must be of type string: \"null\"",
                "spec.e: Invalid value: \"boolean\": spec.e in body must be of type integer,string: \"boolean\"",
                "spec.f: Invalid value: \"x\": spec.f in body must be of type date: \"x\"",
                "spec.g.k: Invalid value: \"integer\": spec.g.k in body must be of type boolean: \"integer\"",
            ],
        );
    }

    #[test]
    fn alternatives_are_explained() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}});
        check(schema.clone(), json!({"a": 1}), &[]);
        check(
            schema.clone(),
            json!({"a": 1, "b": 1}),
            &[
                "<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        );
        check(
            schema,
            json!({"a": 1, "c": 1}),
            &["<nil>: Invalid value: \"\": \"\" must not validate the schema (not)"],
        );
    }

    #[test]
    fn what_was_wrong_before_may_stay() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}}}});
        let old = json!({"a": "x", "b": 1, "l": [{"k": "1", "v": "x"}, {"k": "2"}]});
        assert_eq!(
            found(&schema, &json!({"a": "x", "b": 2, "l": [{"k": "2"}, {"k": "1", "v": "x"}]}), Some(&old)),
            Vec::<String>::new()
        );
        assert_eq!(found(&schema, &json!({"a": "y"}), Some(&old)).len(), 1);
    }
}
