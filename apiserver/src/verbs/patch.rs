//! PATCH. Upstream: `apiserver/pkg/endpoints/handlers/patch.go`.

use super::Scope;
use super::part::Part;
use super::update::Change;
use crate::Body;
use crate::codec::body;
use crate::codec::reply::Reply;
use crate::options::WriteOptions;
use api::Status;
use api::decode::Target;
use api::patch::PatchKind;
use api::schema::Schema;
use serde_json::Value;

/// What patches may be.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// The same for kinds with a published type, for which a strategic merge is defined.
const ACCEPTED_STRATEGIC: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Changes an object, or a part of it, by a patch.
pub(crate) async fn patch(scope: &Scope, request_body: Body, part: Part) -> Result<Reply, Status> {
    let (api_version, kind) = part.kind(scope);
    let is_published = Schema::published().object(&api_version, &kind).is_some();
    let patch_kind = match body::media_type(&scope.headers) {
        "application/json-patch+json" => Some(PatchKind::Json),
        "application/merge-patch+json" => Some(PatchKind::Merge),
        "application/strategic-merge-patch+json" if is_published => Some(PatchKind::Strategic),
        "application/apply-patch+yaml" => None,
        _ => return Err(body::unsupported(if is_published { ACCEPTED_STRATEGIC } else { ACCEPTED })),
    };
    let options = WriteOptions::parse(&scope.query, "PatchOptions", patch_kind.is_none())?;
    let bytes = body::read(request_body, body::BODY_BYTES_MAX).await?;
    scope.notes.lock().request_object = Some(bytes.clone());
    let Some(patch_kind) = patch_kind else {
        return super::apply::apply(scope, &bytes, part, &options).await;
    };
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
        let mut patched = api::patch::apply(patch_kind, old, &bytes, Target::new(&api_version, &kind))?;
        super::expect_kind(&mut patched.decoded.value, &api_version, &kind)?;
        if part.is_object() {
            let unknown = scope.entry.resource.strategy.prune(&mut patched.decoded.value);
            patched.decoded.strict_errors.extend(unknown);
        }
        let (value, warnings) = patched.check(options.field_validation)?;
        warnings.into_iter().for_each(|warning| scope.warn(warning));
        Ok(value)
    };
    let (written, _) = change.run(scope, &mut make).await?;
    Ok(written.reply(200))
}
