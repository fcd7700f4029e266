//! UPDATE, and the one way in which every change of an object goes (patch, apply, status, scale and other parts).
//! Upstream: `apiserver/pkg/endpoints/handlers/update.go`, `pkg/registry/generic/registry/store.go`.
//!
//! Flow: read the version that the cache shows → make the new one from it → admit → rules → validate → write if the store
//! still has that version; else from the start.

use super::create::{drop_repeated_owners, insert, place};
use super::part::Part;
use super::{Scope, Written};
use crate::Body;
use crate::codec::reply::Reply;
use crate::metadata;
use crate::options::WriteOptions;
use crate::storage::WriteError;
use crate::watch_cache::Item;
use api::{FieldErrors, Operation, Status};
use serde_json::Value;
use store::Expect;

/// How often a change is made anew when somebody else writes in between. Upstream retries patches five times and other
/// writes until the request's time is over; a hot object needs more than five.
const ATTEMPTS_MAX: usize = 30;

/// What a change starts from and leads to.
pub(crate) struct Change<'a> {
    /// Name of the object.
    pub(crate) name: &'a str,
    /// Which part of it is written.
    pub(crate) part: Part,
    /// Options of the request.
    pub(crate) options: &'a WriteOptions,
    /// Their kind.
    pub(crate) options_kind: &'a str,
    /// Whether an object that does not exist is made, whatever the rules say (apply).
    pub(crate) may_create: bool,
    /// Whether managed fields were already worked out (apply).
    pub(crate) has_managers: bool,
}

/// Makes the new version of the part from the present one (`None` where nothing exists).
pub(crate) type Make<'a> = &'a mut (dyn FnMut(Option<&Value>) -> Result<Value, Status> + Send);

/// Replaces an object or a part of it by a body.
pub(crate) async fn update(scope: &Scope, body: Body, part: Part) -> Result<Reply, Status> {
    let options = WriteOptions::parse(&scope.query, "UpdateOptions", false)?;
    let kind = part.kind(scope);
    let object = scope.read_object(body, options.field_validation, (&kind.0, &kind.1)).await?;
    check_name(scope, &object)?;
    let change = Change {
        name: &scope.target.name,
        part,
        options: &options,
        options_kind: "UpdateOptions",
        may_create: false,
        has_managers: false,
    };
    let (written, created) = change.run(scope, &mut |_| Ok(object.clone())).await?;
    Ok(written.reply(if created { 201 } else { 200 }))
}

/// The body must be about what the URL names.
fn check_name(scope: &Scope, object: &Value) -> Result<(), Status> {
    let (name, url_name) = (metadata::text(object, "name"), scope.target.name.as_str());
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object (based on URL) was undeterminable: name must be provided: {url_name}"
        )));
    }
    if name != url_name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url_name})"
        )));
    }
    let (namespace, url_namespace) = (metadata::text(object, "namespace"), scope.namespace());
    if !url_namespace.is_empty() && !namespace.is_empty() && namespace != url_namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({url_namespace})"
        )));
    }
    Ok(())
}

impl Change<'_> {
    /// Runs the change. The flag says whether an object was created.
    pub(crate) async fn run(&self, scope: &Scope, make: Make<'_>) -> Result<(Written, bool), Status> {
        let resource = &scope.entry.resource;
        for _ in 0..ATTEMPTS_MAX {
            let Some(item) = scope.current(self.name)? else {
                let may_create = self.part.is_whole() && resource.strategy.allow_create_on_update();
                if !may_create && !self.may_create {
                    return Err(scope.not_found(self.name));
                }
                let object = make(None)?;
                let written =
                    insert(scope, object, self.options, self.options_kind, self.has_managers).await?;
                return Ok((written, true));
            };
            match self.attempt(scope, &item, make).await? {
                Attempt::Done(written) => return Ok((written, false)),
                Attempt::Outrun { by_version: true } => {
                    return Err(Status::modified(resource.id(), self.name));
                }
                Attempt::Outrun { by_version: false } => {}
            }
        }
        Err(Status::modified(resource.id(), self.name))
    }

    async fn attempt(&self, scope: &Scope, item: &Item, make: Make<'_>) -> Result<Attempt, Status> {
        let resource = &scope.entry.resource;
        let old = super::value_of(&*scope.entry.present(item).await?)?;
        let old_view = self.part.view(&old);
        let mut view = make(Some(&old_view))?;
        place(scope, &mut view)?;
        let by_version = self.check_version(scope, &mut view, &old)?;

        let option_value = self.options.value(self.options_kind);
        let view = match self.part.is_object() {
            true => self.complete(scope, view, &old)?,
            false => view,
        };
        let mut request = scope.admission(
            Operation::Update,
            self.name,
            view,
            Some(&old_view),
            &option_value,
            self.options.dry_run,
        );
        let kind = self.part.kind_of_body(resource);
        request.kind = (&kind.0, &kind.1, &kind.2);
        let _held = scope.server.exclusive(&request).await;
        // An action of the server itself went through admission with its own body.
        let is_raw = matches!(self.part, Part::Raw);
        if !is_raw {
            scope.admit(&mut request).await?;
        }
        let view = std::mem::take(&mut request.object);
        let mut new = self.part.merge(scope, &old, view, self.options)?;

        self.prepare(scope, &mut new, &old)?;
        let shown = match self.part.is_object() {
            true => std::mem::take(&mut new),
            false => self.part.view(&new),
        };
        request.object = shown;
        if !is_raw {
            scope.validate(&mut request).await?;
        }
        if self.part.is_object() {
            new = std::mem::take(&mut request.object);
        }
        self.keep(scope, item, new, &old, by_version).await
    }

    /// Checks `uid` and `resourceVersion` of the new version. Whether the client named a version.
    fn check_version(&self, scope: &Scope, view: &mut Value, old: &Value) -> Result<bool, Status> {
        let resource = &scope.entry.resource;
        let (uid, old_uid) = (metadata::text(view, "uid"), metadata::text(old, "uid"));
        if !uid.is_empty() && uid != old_uid {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
            return Err(Status::conflict(resource.id(), self.name, &why));
        }
        let version = metadata::text(view, "resourceVersion").to_owned();
        let old_version = metadata::text(old, "resourceVersion");
        if version.is_empty() || version == "0" {
            if self.part.is_object() && !resource.strategy.allow_unconditional_update() {
                let mut errors = FieldErrors::default();
                errors.invalid("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(Status::invalid(&resource.group, &resource.plural, self.name, errors));
            }
            metadata::metadata_mut(view).insert("resourceVersion".to_owned(), old_version.into());
            return Ok(false);
        }
        match version == old_version {
            true => Ok(self.options_kind == "UpdateOptions"),
            false => Err(Status::modified(resource.id(), self.name)),
        }
    }

    /// Defaults and managed fields, before admission sees the object.
    fn complete(&self, scope: &Scope, mut object: Value, old: &Value) -> Result<Value, Status> {
        metadata::tidy(&mut object);
        scope.entry.resource.strategy.default(&mut object)?;
        drop_repeated_owners(scope, &mut object);
        match self.has_managers {
            true => Ok(object),
            false => Ok(scope.track_managers(object, Some(old), self.options)),
        }
    }

    /// What cannot change is carried over, then the rules run.
    fn prepare(&self, scope: &Scope, new: &mut Value, old: &Value) -> Result<(), Status> {
        let resource = &scope.entry.resource;
        metadata::prepare_update(new, old, scope.now);
        if resource.has_status
            && matches!(self.part, Part::Whole | Part::Scale { .. })
            && let Some(map) = new.as_object_mut()
        {
            match old.get("status") {
                Some(status) => map.insert("status".to_owned(), status.clone()),
                None => map.remove("status"),
            };
        }
        let mut errors = FieldErrors::default();
        let context = scope.context(self.options.dry_run);
        let outcome = match &self.part {
            Part::Status => resource.strategy.update_status(new, old, &mut errors, &context)?,
            Part::Raw => Default::default(),
            Part::Own(strategy) => strategy.update(new, old, &mut errors, &context)?,
            Part::Whole | Part::Scale { .. } => resource.strategy.update(new, old, &mut errors, &context)?,
        };
        // An action (binding) is not a wish of the user: it counts no generation, as upstream's writes beside the strategy.
        if !matches!(self.part, Part::Status | Part::Raw) {
            metadata::count_generation(resource, new, old);
        }
        metadata::validate_update(new, old, &mut errors);
        scope.refuse_invalid(self.name, errors)?;
        api::apply::keep_times(new, old);
        scope.note(outcome.warnings, Default::default());
        Ok(())
    }

    /// Writes the new version, or removes the object where this was its last finalizer.
    async fn keep(
        &self,
        scope: &Scope,
        item: &Item,
        mut new: Value,
        old: &Value,
        by_version: bool,
    ) -> Result<Attempt, Status> {
        let strategy = &scope.entry.resource.strategy;
        let key = scope.object_name(self.name);
        let at = Expect::At(item.object.meta.resource_version);
        let is_over = !old["metadata"]["deletionTimestamp"].is_null()
            && old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
            && metadata::finalizers(&new).is_empty()
            && !strategy.keeps_deleted(&mut new);
        if self.options.dry_run {
            return Ok(Attempt::Done(self.part.written(Written::Value(new))?));
        }
        if is_over {
            return match scope.write(&key, at, None, false).await {
                Ok(_) => Ok(Attempt::Done(self.part.written(Written::Value(new))?)),
                Err(WriteError::Conflict) => Ok(Attempt::Outrun { by_version }),
                Err(WriteError::Refused(status)) => Err(status),
            };
        }
        if new == *old {
            let object = scope.entry.present(item).await?;
            return Ok(Attempt::Done(self.part.written(Written::Object(object))?));
        }
        let kept = scope.entry.kept(&new).await?;
        match scope.write(&key, at, Some(kept), strategy.may_lose(&new, Some(old))).await {
            Ok(written) => Ok(Attempt::Done(self.part.written(written)?)),
            Err(WriteError::Conflict) => Ok(Attempt::Outrun { by_version }),
            Err(WriteError::Refused(status)) => Err(status),
        }
    }
}

enum Attempt {
    Done(Written),
    /// Somebody else wrote in between; `by_version` where the client named the version it wanted to replace.
    Outrun {
        by_version: bool,
    },
}
