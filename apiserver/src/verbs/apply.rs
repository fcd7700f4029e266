//! Server-side apply. Upstream: `apiserver/pkg/endpoints/handlers/patch.go` (`applyPatcher`).

use super::Scope;
use super::part::Part;
use super::update::Change;
use crate::codec::reply::Reply;
use crate::metadata;
use crate::options::WriteOptions;
use api::Status;
use api::decode::{Decoded, FieldValidation, Target, canonical};
use serde_json::Value;

/// Applies a configuration: creates the object where there is none.
pub(crate) async fn apply(
    scope: &Scope,
    bytes: &[u8],
    part: Part,
    options: &WriteOptions,
) -> Result<Reply, Status> {
    let (patch, repeated) = api::decode::yaml(bytes)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    match (repeated, options.field_validation) {
        (Some(text), FieldValidation::Strict) => {
            return Err(Status::bad_request(format!("error strict decoding patch: {text}")));
        }
        (Some(text), FieldValidation::Warn) => scope.warn(text),
        _ => {}
    }
    let change = Change {
        name: &scope.target.name,
        part: part.clone(),
        options,
        options_kind: "PatchOptions",
        may_create: part.is_whole(),
        has_managers: part.is_object(),
    };
    let mut make = |live: Option<&Value>| match part.is_object() {
        true => applied(scope, live, &patch, options),
        false => scaled(live, &patch),
    };
    let (written, created) = change.run(scope, &mut make).await?;
    Ok(written.reply(if created { 201 } else { 200 }))
}

/// The object with the configuration applied.
fn applied(
    scope: &Scope,
    live: Option<&Value>,
    patch: &Value,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let reset = scope.fields_left_alone(patch, live);
    let writer = scope.writer(&options.field_manager, &reset);
    let object = api::apply::apply(live, patch, options.force, writer)?.object;
    let resource = &scope.entry.resource;
    let name = scope.target.name.as_str();
    let own_name = metadata::text(&object, "name");
    if own_name != name {
        return Err(Status::bad_request(match own_name {
            "" => "name must be provided".to_owned(),
            own => format!("the name of the object ({own}) does not match the name on the URL ({name})"),
        }));
    }
    let uid = metadata::text(&object, "uid");
    if live.is_none() && !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Status::conflict(resource.id(), name, &why));
    }
    let target = Target::new(&scope.entry.api_version, &resource.kind);
    let decoded: Decoded = canonical(&object, target).map_err(Status::bad_request)?;
    scope.check_fields(decoded, options.field_validation)
}

/// A scale with the wanted count of the configuration.
fn scaled(live: Option<&Value>, patch: &Value) -> Result<Value, Status> {
    let mut scale = live.cloned().ok_or_else(Status::no_such_path)?;
    if let Some(replicas) = patch.pointer("/spec/replicas") {
        scale["spec"]["replicas"] = replicas.clone();
    }
    Ok(scale)
}
