//! PATCH. Upstream: `apiserver/pkg/endpoints/handlers/patch.go`.

use super::Scope;
use super::part::Part;
use super::update::Change;
use crate::Body;
use crate::codec::body;
use crate::codec::reply::Reply;
use crate::options::WriteOptions;
use api::Status;
use api::decode::{Target, canonical};
use api::schema::Schema;
use serde_json::Value;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// What patches may be.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_STRATEGIC: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Operations of one JSON patch. Upstream: `--max-json-patch-operations`' default.
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;

/// Changes an object, or a part of it, by a patch.
pub(crate) async fn patch(scope: &Scope, request_body: Body, part: Part) -> Result<Reply, Status> {
    let kind = match body::media_type(&scope.headers) {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" if scope.has_schema() => PatchKind::Strategic,
        "application/apply-patch+yaml" => PatchKind::Apply,
        _ if scope.has_schema() => return Err(body::unsupported(ACCEPTED_STRATEGIC)),
        _ => return Err(body::unsupported(ACCEPTED)),
    };
    let options = WriteOptions::parse(&scope.query, "PatchOptions", kind == PatchKind::Apply)?;
    let bytes = body::read(request_body, body::BODY_BYTES_MAX).await?;
    if kind == PatchKind::Apply {
        return super::apply::apply(scope, &bytes, part, &options).await;
    }
    let patch: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    scope.notes.lock().request_object = Some(bytes);
    if let (PatchKind::Json, Some(operations)) = (kind, patch.as_array())
        && operations.len() > JSON_PATCH_OPERATIONS_MAX
    {
        return Err(Status::failure(
            413,
            api::Reason::RequestEntityTooLarge,
            format!(
                "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            ),
        ));
    }
    let change = Change {
        name: &scope.target.name,
        part: part.clone(),
        options: &options,
        options_kind: "PatchOptions",
        may_create: false,
        has_managers: false,
    };
    let mut make = |old: Option<&Value>| {
        let old = old.ok_or_else(|| scope.not_found(&scope.target.name))?;
        let mut new = scope.patched(kind, old, &patch, &part)?;
        let expect = part.kind(scope);
        super::expect_kind(&mut new, &expect.0, &expect.1)?;
        let decoded = canonical(&new, Target::new(&expect.0, &expect.1)).map_err(|error| rejected(&error))?;
        match part.is_object() {
            true => scope.check_fields(decoded, options.field_validation),
            false => Ok(decoded.value),
        }
    };
    let (written, _) = change.run(scope, &mut make).await?;
    Ok(written.reply(200))
}

/// 422 for a patch that leads to what is no object of the kind. Upstream: `NewGenericServerResponse`.
pub(crate) fn rejected(why: &str) -> Status {
    let mut status = Status::failure(
        422,
        api::Reason::Invalid,
        "the server rejected our request due to an error in our request",
    );
    let cause = api::status::Cause {
        reason: "UnexpectedServerResponse".to_owned(),
        message: why.to_owned(),
        field: String::new(),
    };
    status.details = Some(Box::new(api::status::Details { causes: vec![cause], ..Default::default() }));
    status
}

impl Scope {
    /// Whether the row's kind has a schema of ours: only then a strategic merge is defined.
    pub(crate) fn has_schema(&self) -> bool {
        Schema::published().object(&self.entry.api_version, &self.entry.resource.kind).is_some()
    }

    /// The object with the patch applied.
    fn patched(&self, kind: PatchKind, old: &Value, patch: &Value, _part: &Part) -> Result<Value, Status> {
        let _ = (kind, old, patch);
        Err(Status::failure(501, api::Reason::Unknown, "patches are not served yet"))
    }
}
