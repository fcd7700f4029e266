//! Patches: what PATCH makes of the live object. Server-side apply is [`crate::apply`].
//! Upstream: apiserver `pkg/endpoints/handlers/patch.go`.

pub mod json;
pub mod merge;
pub mod strategic;

use crate::decode::{self, Decoded, FieldValidation, Target, go_text, strict_text};
use crate::errors::FieldErrors;
use crate::schema::Schema;
use crate::status::{Details, Reason, Status};
use serde_json::Value;

/// Which patch a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`. Custom resources have none.
    Strategic,
}

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is no patch of its kind.
    #[error("{0}")]
    Malformed(String),
    /// More operations than [`json::OPERATIONS_MAX`].
    #[error("The allowed maximum operations in a JSON patch is {}, got {count}", json::OPERATIONS_MAX)]
    TooManyOperations {
        /// How many there are.
        count: usize,
    },
    /// It is well-formed, but not for this object. Upstream keeps the reason to itself.
    #[error("the server rejected our request due to an error in our request")]
    DoesNotApply {
        /// The reason, for the log.
        reason: String,
    },
    /// The result would be too deep or too large.
    #[error("the patched object is too deep or too large")]
    TooLarge,
    /// What upstream answers with a bare 500.
    #[error("{0}")]
    Unexpected(String),
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::Malformed(_) => Self::bad_request(message),
            PatchError::TooManyOperations { .. } => {
                Self::failure(413, Reason::RequestEntityTooLarge, message)
            }
            PatchError::DoesNotApply { .. } | PatchError::TooLarge => {
                let mut status = Self::failure(422, Reason::Invalid, message);
                status.details = Some(Box::new(Details::default()));
                status
            }
            PatchError::Unexpected(_) => Self::failure(500, Reason::Unknown, message),
        }
    }
}

/// A patched object, before unknown and duplicate fields are judged.
#[derive(Clone, Debug)]
pub struct Patched {
    /// The new object in canonical form and the strict errors of the patch and of the object.
    pub decoded: Decoded,
    /// What a refusal shows of the patch.
    shown: String,
}

impl Patched {
    /// Acts on unknown and duplicate fields: the object and what to warn about.
    ///
    /// # Errors
    /// 422 under `Strict` if there are any.
    pub fn check(self, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        match validation {
            FieldValidation::Strict if !self.decoded.strict_errors.is_empty() => {
                Err(invalid(self.shown, strict_text(&self.decoded.strict_errors)))
            }
            _ => self.decoded.check(validation),
        }
    }
}

fn invalid(shown: String, detail: String) -> Status {
    let mut errors = FieldErrors::default();
    errors.invalid("patch", shown, detail);
    Status::invalid("", "", "", errors)
}

/// Patches an object and brings the result into canonical form.
///
/// # Errors
/// What upstream answers: 400 for a malformed patch, 413 for too many operations, 422 for one that does not apply or
/// whose result has a field of the wrong type.
pub fn apply(kind: PatchKind, live: &Value, body: &[u8], target: Target<'_>) -> Result<Patched, Status> {
    let patch = decode::untyped(body).map_err(|error| match kind {
        PatchKind::Strategic => Status::bad_request(error),
        PatchKind::Json | PatchKind::Merge => Status::bad_request(format!("error decoding patch: {error}")),
    })?;
    let mut strict_errors = patch.strict_errors;
    let live = live.clone();
    let (patched, shown) = match kind {
        PatchKind::Json => {
            strict_errors.extend(json::unknown_members(&patch.value));
            for error in &mut strict_errors {
                error.insert_str(0, "json patch ");
            }
            let patched = json::apply(live, patch.value)?;
            let shown = patched.to_string();
            (patched, shown)
        }
        PatchKind::Merge => {
            let patched = merge::apply(live, patch.value)?;
            let shown = patched.to_string();
            (patched, shown)
        }
        PatchKind::Strategic => {
            let Some(id) = target.id else {
                return Err(Status::failure(
                    415,
                    Reason::UnsupportedMediaType,
                    "strategic merge patch is not supported for custom resources",
                ));
            };
            let shown = go_text(&patch.value);
            (strategic::apply(Schema::published(), id, live, patch.value)?, shown)
        }
    };
    if depth(&patched) > decode::DEPTH_MAX {
        return Err(PatchError::TooLarge.into());
    }
    let mut decoded = decode::canonical(&patched, target).map_err(|error| invalid(shown.clone(), error))?;
    strict_errors.append(&mut decoded.strict_errors);
    Ok(Patched { decoded: Decoded { value: decoded.value, strict_errors }, shown })
}

/// How deep a value nests: 0 for a scalar.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
