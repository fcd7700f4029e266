//! `Status`: the one error type that clients see. Upstream: apimachinery `pkg/api/errors` and `meta/v1`.

use crate::errors::FieldErrors;
use serde::{Deserialize, Serialize};

/// Why a request was refused, in the words that clients switch on. Upstream: `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Reason {
    #[default]
    #[serde(rename = "")]
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// One cause of a refusal, usually one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// Upstream's `CauseType`, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, such as `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a refusal is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The plural resource name for most errors, the kind for `Invalid` (as upstream).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every single cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before another try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// The answer to a request that did not return an object. It is also the error type of every crate at the border to clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// `Status`.
    #[serde(default = "status_kind")]
    pub kind: String,
    /// `v1`.
    #[serde(rename = "apiVersion", default = "status_version")]
    pub api_version: String,
    /// Empty list metadata, as upstream always sends it.
    #[serde(default)]
    pub metadata: EmptyMeta,
    /// `Success` or `Failure`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// For people; the log and kubectl print it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub reason: Reason,
    /// About what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
}

/// The list metadata of a `Status`: always `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EmptyMeta {}

fn status_kind() -> String {
    "Status".to_owned()
}
fn status_version() -> String {
    "v1".to_owned()
}
fn is_unknown(reason: &Reason) -> bool {
    *reason == Reason::Unknown
}

/// What a `Status` names: group and plural (`deployments.apps`), built by `Resource::id()`.
#[derive(Clone, Copy, Debug)]
pub struct ResourceId<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural resource name.
    pub plural: &'a str,
}

impl std::fmt::Display for ResourceId<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group {
            "" => f.write_str(self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

impl Status {
    /// A failure with this code, reason and message, and nothing else.
    pub fn failure(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind: status_kind(),
            api_version: status_version(),
            metadata: EmptyMeta {},
            status: "Failure".to_owned(),
            message: message.into(),
            reason,
            details: None,
            code,
        }
    }

    /// Success, as DELETE answers it where no object is returned.
    pub fn success(id: ResourceId<'_>, name: &str, uid: &str) -> Self {
        let mut status = Self::failure(200, Reason::Unknown, "").about(id, name);
        status.status = "Success".to_owned();
        if let Some(details) = &mut status.details {
            details.uid = uid.to_owned();
        }
        status
    }

    /// Adds which object it is about.
    pub fn about(mut self, id: ResourceId<'_>, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        (details.name, details.group, details.kind) =
            (name.to_owned(), id.group.to_owned(), id.plural.to_owned());
        self
    }

    /// Adds after how many seconds to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    /// 404 for an object.
    pub fn not_found(id: ResourceId<'_>, name: &str) -> Self {
        Self::failure(404, Reason::NotFound, format!("{id} \"{name}\" not found")).about(id, name)
    }

    /// 404 for a path that serves nothing.
    pub fn no_such_path() -> Self {
        let mut status =
            Self::failure(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists(id: ResourceId<'_>, name: &str) -> Self {
        Self::failure(409, Reason::AlreadyExists, format!("{id} \"{name}\" already exists")).about(id, name)
    }

    /// 409: somebody else wrote in between, or a precondition does not hold.
    pub fn conflict(id: ResourceId<'_>, name: &str, why: &str) -> Self {
        Self::failure(
            409,
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {id} \"{name}\": {why}"),
        )
        .about(id, name)
    }

    /// 409 with upstream's words for a stale `resourceVersion`.
    pub fn modified(id: ResourceId<'_>, name: &str) -> Self {
        Self::conflict(
            id,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422 with every field error as a cause. `kind` is the kind, as upstream puts it there.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: FieldErrors) -> Self {
        let errors = errors.into_vec();
        let text = match errors.as_slice() {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut status =
            Self::failure(422, Reason::Invalid, format!("{qualified} \"{name}\" is invalid: {text}"));
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes: errors.iter().map(FieldErrorCause::cause).collect(),
            ..Details::default()
        }));
        status
    }

    /// 403 of authorisation or admission: `why` is upstream's explanation.
    pub fn forbidden(id: ResourceId<'_>, name: &str, why: &str) -> Self {
        let message = match (id.plural, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{id} is forbidden: {why}"),
            _ => format!("{id} \"{name}\" is forbidden: {why}"),
        };
        Self::failure(403, Reason::Forbidden, message).about(id, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Reason::BadRequest, message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::failure(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed(id: ResourceId<'_>, action: &str) -> Self {
        Self::failure(
            405,
            Reason::MethodNotAllowed,
            format!("{action} is not supported on resources of kind \"{id}\""),
        )
        .about(id, "")
    }

    /// 410: the resource version or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::failure(410, Reason::Expired, message)
    }

    /// 500. The message may be read by clients: no secrets, no paths.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::failure(500, Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::failure(503, Reason::ServiceUnavailable, message)
    }

    /// 504.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::failure(504, Reason::Timeout, message)
    }

    /// 429 with a time to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::failure(429, Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    /// Whether this is a 404 of an object.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether the name was taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// Whether an optimistic write lost.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }
}

/// How a field error becomes a cause.
trait FieldErrorCause {
    fn cause(&self) -> Cause;
}

impl FieldErrorCause for crate::errors::FieldError {
    fn cause(&self) -> Cause {
        Cause { reason: self.kind.reason().to_owned(), message: self.body(), field: self.field.clone() }
    }
}
