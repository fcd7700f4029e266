//! What clients send, as upstream's decoder understands it: JSON or YAML to a value in canonical form, with what
//! `fieldValidation` wants to hear of. Upstream: `sigs.k8s.io/json`, apimachinery `pkg/runtime/serializer/json`, apiserver
//! `pkg/endpoints/handlers`.
//!
//! Canonical form is what Go would write after reading: unknown fields of built-in types are gone, names are matched with
//! their case, quantities and times have one spelling, nulls and empty `omitempty` fields are left out.

mod go_text;
mod syntax;
mod walk;
mod yaml;

pub use go_text::go_text;
pub(crate) use go_text::json_kind;

use crate::schema::{Schema, TypeId};
use crate::status::Status;
use serde_json::Value;

/// How deep JSON and YAML may nest: serde_json's own limit, which every later reading of the object has too.
pub const DEPTH_MAX: usize = 127;

/// How many values one body may hold after YAML aliases are expanded.
const VALUES_MAX: usize = 2_000_000;

/// How many unknown or duplicate fields are reported, as upstream.
const STRICT_ERRORS_MAX: usize = 100;

/// What a client wants to happen to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// A `Warning` header each.
    #[default]
    Warn,
    /// A refusal.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter. Empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// How a body is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// What a body should be.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `apps/v1`.
    pub api_version: &'a str,
    /// `Deployment`.
    pub kind: &'a str,
    /// Its published type; `None` for a custom resource, of which only the metadata is known here.
    pub id: Option<TypeId>,
}

impl<'a> Target<'a> {
    /// The target of a kind, with its published type if there is one.
    pub fn new(api_version: &'a str, kind: &'a str) -> Self {
        Self { api_version, kind, id: Schema::published().object(api_version, kind) }
    }

    fn version(&self) -> &'a str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }
}

/// A decoded body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The object in canonical form, with `apiVersion` and `kind`.
    pub value: Value,
    /// Unknown and duplicate fields in upstream's words, in the order of the body.
    pub strict_errors: Vec<String>,
}

impl Decoded {
    /// Acts on unknown and duplicate fields: the object and what to warn about.
    ///
    /// # Errors
    /// 400 under `Strict` if there are any.
    pub fn check(self, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        match validation {
            FieldValidation::Ignore => Ok((self.value, Vec::new())),
            FieldValidation::Warn => Ok((self.value, self.strict_errors)),
            FieldValidation::Strict if self.strict_errors.is_empty() => Ok((self.value, Vec::new())),
            FieldValidation::Strict => Err(Status::bad_request(strict_text(&self.strict_errors))),
        }
    }
}

/// Upstream's text for a list of strict errors.
pub fn strict_text(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// Decodes the body of a create or update (or of options, or of a subresource with a kind of its own).
///
/// `apiVersion` and `kind` may be missing; they are filled in. `null`, and YAML without a value, is an empty object.
///
/// # Errors
/// 400 with upstream's text: malformed, of another kind or version, or a field has the wrong type.
pub fn object(body: &[u8], format: Format, target: Target<'_>) -> Result<Decoded, Status> {
    let (mut decoded, found) = match format {
        Format::Json => {
            let found = kind_of_json(body, target)?;
            (json(body, target).map_err(|error| cannot_be_handled(&found, target, &error))?, found)
        }
        Format::Yaml => {
            let (value, duplicates) = yaml(body).map_err(|error| unrecognized(body, target, &error))?;
            if let Some(text) = head_mismatch(&value) {
                return Err(unrecognized(body, target, &head_text(&text)));
            }
            let found = kind_of_value(&value);
            let mut decoded =
                canonical(&value, target).map_err(|error| cannot_be_handled(&found, target, &error))?;
            if let Some(text) = duplicates {
                decoded.strict_errors.insert(0, text);
            }
            (decoded, found)
        }
    };
    if !found.kind.is_empty() && found.kind != target.kind {
        let error = match Schema::published().object(&found.api_version, &found.kind) {
            Some(_) => "unknown conversion".to_owned(),
            None => {
                format!("no kind \"{}\" is registered for version \"{}\"", found.kind, found.api_version)
            }
        };
        return Err(cannot_be_handled(&found, target, &error));
    }
    if !found.api_version.is_empty() && found.api_version != target.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({})",
            found.api_version, target.api_version
        )));
    }
    name_kind(&mut decoded.value, target);
    Ok(decoded)
}

/// Decodes JSON that has no kind of its own: a patch, with its duplicate fields.
///
/// # Errors
/// Upstream's text of what is malformed.
pub fn untyped(body: &[u8]) -> Result<Decoded, String> {
    walk::json(body, walk::Want::Any)
}

/// Decodes YAML (of which JSON is a part): the value and upstream's text about duplicate keys, if there are any.
///
/// # Errors
/// Upstream's text of what is malformed.
pub fn yaml(body: &[u8]) -> Result<(Value, Option<String>), String> {
    yaml::parse(body)
}

/// Brings a value (a patched object) into canonical form.
///
/// # Errors
/// Go's text about a field of the wrong type.
pub fn canonical(value: &Value, target: Target<'_>) -> Result<Decoded, String> {
    walk::value(value, walk::Want::object(target.id))
}

/// Brings a part of an object into canonical form: `path` (`metadata`) is put before the names of unknown fields.
///
/// # Errors
/// Go's text about a field of the wrong type.
pub fn canonical_part(value: &Value, id: TypeId, path: &str) -> Result<Decoded, String> {
    walk::part(value, id, path)
}

fn json(body: &[u8], target: Target<'_>) -> Result<Decoded, String> {
    walk::json(body, walk::Want::object(target.id))
}

struct Found {
    api_version: String,
    kind: String,
}

fn kind_of_json(body: &[u8], target: Target<'_>) -> Result<Found, Status> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow, default, rename = "apiVersion")]
        api_version: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow, default)]
        kind: Option<std::borrow::Cow<'a, str>>,
    }
    // Serde would also take a list for a struct.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    if is_object && let Ok(head) = serde_json::from_slice::<Head<'_>>(body) {
        return Ok(Found {
            api_version: head.api_version.unwrap_or_default().into_owned(),
            kind: head.kind.unwrap_or_default().into_owned(),
        });
    }
    let refuse = |text: String| unrecognized(body, target, &head_text(&text));
    if let Some(text) = syntax::error(body) {
        return Err(refuse(text));
    }
    // Well-formed, but the head has a wrong type or is there twice, in which case the last one counts.
    let value: Value = serde_json::from_slice(body).map_err(|error| refuse(error.to_string()))?;
    match head_mismatch(&value) {
        Some(text) => Err(refuse(text)),
        None => Ok(kind_of_value(&value)),
    }
}

fn head_text(error: &str) -> String {
    format!("couldn't get version/kind; json parse error: {error}")
}

/// Go's text about a body that cannot have a kind. `null` can: it leaves Go's struct as it is, empty.
fn head_mismatch(value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let what = go_text::json_kind(value);
    let Some(object) = value.as_object() else {
        return Some(format!(
            "json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
        ));
    };
    ["apiVersion", "kind"].into_iter().find_map(|name| match object.get(name) {
        None | Some(Value::String(_) | Value::Null) => None,
        Some(other) => {
            let what = go_text::json_kind(other);
            Some(format!("json: cannot unmarshal {what} into Go struct field .{name} of type string"))
        }
    })
}

fn kind_of_value(value: &Value) -> Found {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Found { api_version: text("apiVersion"), kind: text("kind") }
}

fn name_kind(value: &mut Value, target: Target<'_>) {
    if value.is_null() {
        *value = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(object) = value {
        object.insert("apiVersion".to_owned(), Value::from(target.api_version));
        object.insert("kind".to_owned(), Value::from(target.kind));
    }
}

fn cannot_be_handled(found: &Found, target: Target<'_>, error: &str) -> Status {
    let version = match found.api_version.as_str() {
        "" => target.version(),
        own => own.rsplit('/').next().unwrap_or_default(),
    };
    let kind = if found.kind.is_empty() { target.kind } else { &found.kind };
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {error}",
        target.kind
    ))
}

/// Upstream's text for a body of which not even the kind can be told, with its beginning.
fn unrecognized(body: &[u8], target: Target<'_>, error: &str) -> Status {
    /// How much of the body upstream shows.
    const SHOWN_BYTES_MAX: usize = 30;
    let shown = &body[..body.len().min(SHOWN_BYTES_MAX)];
    let printable = std::str::from_utf8(body).is_ok();
    let summary = match (body.is_empty(), printable) {
        (true, _) => "empty request body".to_owned(),
        (_, true) if body.len() <= SHOWN_BYTES_MAX => format!("{:?}", String::from_utf8_lossy(shown)),
        (_, true) => format!("{:?} ...", String::from_utf8_lossy(shown)),
        (_, false) => {
            let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
            let more = if body.len() > SHOWN_BYTES_MAX { " ..." } else { "" };
            format!("0x{hex}{more}")
        }
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({summary})",
        target.kind
    ))
}

#[cfg(test)]
mod tests;
