//! Field errors of validation, in upstream's words. Upstream: apimachinery `pkg/util/validation/field`.

use serde_json::Value;
use std::fmt;

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldErrorKind {
    /// A value must be given.
    Required,
    /// The value is not allowed.
    Invalid,
    /// Like `Invalid`, where upstream shows no value (`field.OmitValueType`).
    Omitted,
    /// The value is none of the listed ones.
    NotSupported(Vec<String>),
    /// The field may not be set (or changed) here.
    Forbidden,
    /// Another element has the same value.
    Duplicate,
    /// What it names does not exist.
    NotFound,
    /// Longer than this many bytes.
    TooLong(usize),
    /// More than this many elements.
    TooMany(usize),
    /// The JSON type is wrong.
    TypeInvalid,
    /// Something else went wrong.
    Internal,
}

impl FieldErrorKind {
    /// Upstream's `ErrorType`, which is the `reason` of the cause.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid | Self::Omitted => "FieldValueInvalid",
            Self::NotSupported(_) => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::TooLong(_) => "FieldValueTooLong",
            Self::TooMany(_) => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }
}

/// One error of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of error.
    pub kind: FieldErrorKind,
    /// Path such as `spec.containers[0].name`.
    pub field: String,
    /// The offending value; `Null` where upstream shows none.
    pub value: Value,
    /// Upstream's detail text.
    pub detail: String,
}

impl FieldError {
    /// The text without the field's name.
    pub fn body(&self) -> String {
        let title = match &self.kind {
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Invalid | FieldErrorKind::Omitted | FieldErrorKind::TypeInvalid => {
                "Invalid value"
            }
            FieldErrorKind::NotSupported(_) => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::TooLong(_) => "Too long",
            FieldErrorKind::TooMany(_) => "Too many",
            FieldErrorKind::Internal => "Internal error",
        };
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::Omitted
                | FieldErrorKind::TooLong(_)
                | FieldErrorKind::Internal
        );
        let mut text = title.to_owned();
        if shows_value {
            text.push_str(&format!(": {}", self.value));
        }
        let detail = match &self.kind {
            FieldErrorKind::NotSupported(allowed) if self.detail.is_empty() => {
                let quoted: Vec<_> = allowed.iter().map(|value| format!("\"{value}\"")).collect();
                format!("supported values: {}", quoted.join(", "))
            }
            FieldErrorKind::TooLong(max) if self.detail.is_empty() => {
                format!("may not be more than {max} bytes")
            }
            FieldErrorKind::TooMany(max) if self.detail.is_empty() => {
                format!("must have at most {max} item{}", if *max == 1 { "" } else { "s" })
            }
            _ => self.detail.clone(),
        };
        if !detail.is_empty() {
            text.push_str(&format!(": {detail}"));
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Collects field errors while rules walk down an object.
///
/// `at` and `index` are relative: `errors.at("spec", |errors| errors.required("replicas", ""))` reports
/// `spec.replicas`. A path given to a reporting method may itself have several parts (`"a.b[2].c"`).
#[derive(Debug, Default)]
pub struct FieldErrors {
    prefix: String,
    found: Vec<FieldError>,
}

impl FieldErrors {
    /// Runs `rules` with `name` appended to the path.
    pub fn at<R>(&mut self, name: &str, rules: impl FnOnce(&mut Self) -> R) -> R {
        let length = self.prefix.len();
        if !self.prefix.is_empty() && !name.starts_with('[') {
            self.prefix.push('.');
        }
        self.prefix.push_str(name);
        let result = rules(self);
        self.prefix.truncate(length);
        result
    }

    /// Runs `rules` with `[index]` appended to the path.
    pub fn index<R>(&mut self, index: usize, rules: impl FnOnce(&mut Self) -> R) -> R {
        self.at(&format!("[{index}]"), rules)
    }

    /// Runs `rules` with `[key]` appended to the path, as upstream shows map keys.
    pub fn key<R>(&mut self, key: &str, rules: impl FnOnce(&mut Self) -> R) -> R {
        self.at(&format!("[{key}]"), rules)
    }

    /// The path that `name` stands for here. An empty name is the current path itself.
    pub fn path(&self, name: &str) -> String {
        match (self.prefix.as_str(), name) {
            (prefix, "") => prefix.to_owned(),
            ("", name) => name.to_owned(),
            (prefix, name) if name.starts_with('[') => format!("{prefix}{name}"),
            (prefix, name) => format!("{prefix}.{name}"),
        }
    }

    /// Reports an error of any kind.
    pub fn push(
        &mut self,
        kind: FieldErrorKind,
        name: &str,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        let error = FieldError { kind, field: self.path(name), value: value.into(), detail: detail.into() };
        self.found.push(error);
    }

    /// Reports an error that somebody else found; its path is whole.
    pub fn add(&mut self, error: FieldError) {
        self.found.push(error);
    }

    /// `Required value`.
    pub fn required(&mut self, name: &str, detail: impl Into<String>) {
        self.push(FieldErrorKind::Required, name, Value::Null, detail);
    }

    /// `Invalid value: …: detail`.
    pub fn invalid(&mut self, name: &str, value: impl Into<Value>, detail: impl Into<String>) {
        self.push(FieldErrorKind::Invalid, name, value, detail);
    }

    /// `Unsupported value`, listing what is allowed.
    pub fn not_supported(&mut self, name: &str, value: impl Into<Value>, allowed: &[&str]) {
        let allowed = allowed.iter().map(|value| (*value).to_owned()).collect();
        self.push(FieldErrorKind::NotSupported(allowed), name, value, "");
    }

    /// `Forbidden: detail`.
    pub fn forbidden(&mut self, name: &str, detail: impl Into<String>) {
        self.push(FieldErrorKind::Forbidden, name, Value::Null, detail);
    }

    /// `Duplicate value: …`.
    pub fn duplicate(&mut self, name: &str, value: impl Into<Value>) {
        self.push(FieldErrorKind::Duplicate, name, value, "");
    }

    /// `Not found: …`.
    pub fn not_found(&mut self, name: &str, value: impl Into<Value>) {
        self.push(FieldErrorKind::NotFound, name, value, "");
    }

    /// `Too long`.
    pub fn too_long(&mut self, name: &str, bytes_max: usize) {
        self.push(FieldErrorKind::TooLong(bytes_max), name, Value::Null, "");
    }

    /// `Too many: count`.
    pub fn too_many(&mut self, name: &str, count: usize, count_max: usize) {
        self.push(FieldErrorKind::TooMany(count_max), name, count, "");
    }

    /// `Invalid value: …: field is immutable` unless `new == old`.
    pub fn immutable<T: PartialEq + serde::Serialize>(&mut self, name: &str, new: &T, old: &T) {
        if new != old {
            let value = serde_json::to_value(new).unwrap_or(Value::Null);
            self.invalid(name, value, "field is immutable");
        }
    }

    /// Whether nothing was found so far.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All errors in the order in which they were found.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_names_indexes_and_keys_as_upstream_does() {
        let mut errors = FieldErrors::default();
        errors.at("spec", |errors| {
            errors.at("containers", |errors| errors.index(1, |errors| errors.required("name", "")));
            errors.invalid("replicas", -1, "must be greater than or equal to 0");
        });
        let texts: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "spec.containers[1].name: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
    }
}
