//! CREATE. Upstream: `apiserver/pkg/endpoints/handlers/create.go`, `pkg/registry/generic/registry/store.go`.

use super::{Scope, Written};
use crate::Body;
use crate::codec::reply::Reply;
use crate::metadata;
use crate::options::WriteOptions;
use crate::storage::WriteError;
use api::{FieldErrors, ObjectName, Operation, Reason, Status};
use serde_json::Value;
use store::Expect;

/// How often a generated name is tried. Upstream: `createWithGenerateNameRetry`.
const GENERATED_NAMES_MAX: usize = 8;

/// Creates an object from a body.
pub(crate) async fn create(scope: &Scope, body: Body) -> Result<Reply, Status> {
    let options = WriteOptions::parse(&scope.query, "CreateOptions", false)?;
    let resource = &scope.entry.resource;
    let kind = (&*scope.entry.api_version, resource.kind.as_str());
    let object = scope.read_object(body, options.field_validation, kind).await?;
    let written = insert(scope, object, &options, "CreateOptions", false).await?;
    Ok(written.reply(201))
}

/// Puts the object into the request's namespace.
pub(crate) fn place(scope: &Scope, object: &mut Value) -> Result<(), Status> {
    let namespace = scope.namespace();
    let own = metadata::text(object, "namespace").to_owned();
    let metadata = metadata::metadata_mut(object);
    match (namespace, own.as_str()) {
        ("", "") => {}
        ("", _) => {
            metadata.remove("namespace");
        }
        (namespace, "") => {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        (namespace, own) if namespace == own => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Drops repeated owner references with upstream's warning.
pub(crate) fn drop_repeated_owners(scope: &Scope, object: &mut Value) {
    let repeated = metadata::drop_repeated_owners(object);
    if !repeated.is_empty() {
        scope.warn(format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        ));
    }
}

/// Creates an object: a POST, or a PUT or apply that finds nothing. `has_managers` where its managed fields are worked out
/// already.
pub(crate) async fn insert(
    scope: &Scope,
    mut object: Value,
    options: &WriteOptions,
    options_kind: &str,
    has_managers: bool,
) -> Result<Written, Status> {
    place(scope, &mut object)?;
    metadata::tidy(&mut object);
    let strategy = &scope.entry.resource.strategy;
    strategy.default(&mut object)?;
    drop_repeated_owners(scope, &mut object);
    if !has_managers {
        object = scope.track_managers(object, None, options);
    }

    let option_value = options.value(options_kind);
    let name = metadata::text(&object, "name").to_owned();
    let mut request = scope.admission(Operation::Create, &name, object, None, &option_value, options.dry_run);
    // Held until the write is visible.
    let _held = scope.server.exclusive(&request).await;
    scope.admit(&mut request).await?;
    let admitted = std::mem::take(&mut request.object);

    let generated =
        metadata::text(&admitted, "name").is_empty() && !metadata::text(&admitted, "generateName").is_empty();
    for attempt in 1.. {
        let mut object = admitted.clone();
        if generated {
            let name = metadata::generated_name(
                metadata::text(&admitted, "generateName"),
                uuid::Uuid::new_v4().as_u128() >> 64,
            );
            metadata::metadata_mut(&mut object).insert("name".to_owned(), name.into());
        }
        let outcome = insert_once(scope, object, options, &option_value).await;
        match outcome {
            Err(Refusal::Taken(_)) if generated && attempt < GENERATED_NAMES_MAX => {}
            Err(Refusal::Taken(name)) => return Err(taken(scope, &name, generated)),
            Err(Refusal::Status(status)) => return Err(status),
            Ok(written) => return Ok(written),
        }
    }
    unreachable!("the loop above returns")
}

enum Refusal {
    Taken(ObjectName),
    Status(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// One try with one name.
async fn insert_once(
    scope: &Scope,
    mut object: Value,
    options: &WriteOptions,
    option_value: &Value,
) -> Result<Written, Refusal> {
    let resource = &scope.entry.resource;
    // Rules that claim something would find it claimed by the very object that is there already.
    let own_name = metadata::text(&object, "name");
    if resource.strategy.exclusive() && !own_name.is_empty() && scope.current(own_name)?.is_some() {
        return Err(Refusal::Taken(scope.object_name(own_name)));
    }
    metadata::prepare_create(resource, &mut object, uuid::Uuid::new_v4().to_string(), scope.now);
    let mut errors = FieldErrors::default();
    metadata::validate(resource, &object, &mut errors);
    let outcome = resource.strategy.create(&mut object, &mut errors, &scope.context(options.dry_run))?;
    let name = metadata::text(&object, "name").to_owned();
    scope.refuse_invalid(&name, errors)?;
    scope.note(outcome.warnings, Default::default());

    let mut request = scope.admission(Operation::Create, &name, object, None, option_value, options.dry_run);
    scope.validate(&mut request).await?;
    let object = std::mem::take(&mut request.object);

    let key = scope.object_name(&name);
    if options.dry_run {
        return match scope.current(&name)? {
            Some(_) => Err(Refusal::Taken(key)),
            None => Ok(Written::Value(object)),
        };
    }
    let kept = scope.entry.kept(&object).await?;
    let may_lose = resource.strategy.may_lose(&object, None);
    match scope.write(&key, Expect::Absent, Some(kept), may_lose).await {
        Ok(object) => Ok(object),
        Err(WriteError::Conflict) => Err(Refusal::Taken(key)),
        Err(WriteError::Refused(status)) => Err(Refusal::Status(status)),
    }
}

/// 409 with upstream's words.
fn taken(scope: &Scope, name: &ObjectName, generated: bool) -> Status {
    let id = scope.entry.resource.id();
    let mut status = match generated {
        true => Status::failure(
            409,
            Reason::AlreadyExists,
            format!("{id} \"{}\" already exists, the server was not able to generate a unique name for the object", name.name),
        )
        .about(id, &name.name)
        .retry_after(1),
        false => Status::already_exists(id, &name.name),
    };
    let is_deleting = scope.current(&name.name).ok().flatten().is_some_and(|item| item.object.meta.deleting);
    if is_deleting {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}
