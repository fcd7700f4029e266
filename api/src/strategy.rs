//! The rules of a kind: typed (`Strategy`) for those who write them, erased (`DynStrategy`) for the pipeline.

use crate::errors::FieldErrors;
use crate::lookup::Lookup;
use crate::status::Status;
use crate::user::UserInfo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// What a rule may know of the request besides the objects.
pub struct Context<'a> {
    /// Now. Rules have no clock of their own.
    pub now: jiff::Timestamp,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The other objects of the cluster.
    pub lookup: &'a dyn Lookup,
    /// Whether nothing will be kept.
    pub dry_run: bool,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
}

/// What a rule asked for besides changing the object.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
}

/// The rules of one kind. Every method has a default that allows everything and changes nothing.
///
/// Flow of a write (upstream: `apiserver/pkg/registry/rest`): decode → `default` → mutating admission →
/// `prepare_create` or `prepare_update` → `validate` or both validations → validating admission → store.
///
/// The pipeline itself already does what every kind has in common: names, generateName, uid, timestamps, generation, keeping
/// `status` apart, immutable metadata, finalizers, resourceVersion, metadata validation (labels, annotations, owners).
pub trait Strategy: Send + Sync + 'static {
    /// The typed object.
    type Kind: Serialize + DeserializeOwned;

    /// Fills in what upstream's defaulting fills in (`pkg/apis/GROUP/VERSION/defaults.go`). Must be idempotent.
    fn default(&self, _object: &mut Self::Kind) {}
    /// Resets or computes fields before a new object is validated.
    fn prepare_create(&self, _object: &mut Self::Kind, _cx: &Context<'_>) -> Result<(), Status> {
        Ok(())
    }
    /// Resets or computes fields before a change is validated.
    fn prepare_update(
        &self,
        _new: &mut Self::Kind,
        _old: &Self::Kind,
        _cx: &Context<'_>,
    ) -> Result<(), Status> {
        Ok(())
    }
    /// What is wrong with an object's name, in upstream's words; a name made from `generateName` is checked as a whole.
    fn name_faults(&self, name: &str) -> Vec<String> {
        crate::names::dns_subdomain(name)
    }
    /// Resets or computes fields before a change of the status is validated.
    fn prepare_status_update(&self, _new: &mut Self::Kind, _old: &Self::Kind, _cx: &Context<'_>) {}
    /// What must be true of a new object, besides `validate`.
    fn validate_create(&self, _object: &Self::Kind, _errors: &mut FieldErrors) {}
    /// What must be true of any object of this kind.
    fn validate(&self, _object: &Self::Kind, _errors: &mut FieldErrors) {}
    /// What must be true of a change, besides `validate` of the new object.
    fn validate_update(&self, _new: &Self::Kind, _old: &Self::Kind, _errors: &mut FieldErrors) {}
    /// What must be true of a change of the status, besides nothing else.
    fn validate_status_update(&self, _new: &Self::Kind, _old: &Self::Kind, _errors: &mut FieldErrors) {}
    /// Upstream's `WarningsOnCreate` and `WarningsOnUpdate`.
    fn warnings(&self, _object: &Self::Kind) -> Vec<String> {
        Vec::new()
    }
    /// Which writes of the object itself (not of a subresource) are allowed to create it by PUT or apply.
    fn allow_create_on_update(&self) -> bool {
        false
    }
    /// Whether an update may leave `resourceVersion` out.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    /// How long a delete waits by default, in seconds; `None` for kinds that are deleted at once. `asked` is what the client asked for.
    fn grace_seconds(&self, _object: &Self::Kind, _asked: Option<i64>) -> Option<i64> {
        None
    }
    /// Whether creates and updates of this kind happen one after another, each seeing the one before in `cx.lookup`:
    /// for kinds whose rules claim something (an address, a port) by looking at the other objects.
    fn exclusive(&self) -> bool {
        false
    }
    /// Whether a crash may lose this write (`old` is `None` for a create): for what is rewritten every few seconds or is only
    /// told to people, so that it does not wear the disk. It is kept a few seconds later, in order. See docs/adr/0002.
    fn may_lose(&self, _new: &Value, _old: Option<&Value>) -> bool {
        false
    }
    /// After how many seconds without a write an object is removed by itself; `None` for never.
    fn ttl_seconds(&self) -> Option<u32> {
        None
    }
    /// Whether a new object may bring its `status` along (nodes). Otherwise the pipeline drops it before `prepare_create`.
    fn keeps_status(&self) -> bool {
        false
    }
    /// Whether something besides `metadata.finalizers` keeps an object that is to be deleted (`spec.finalizers` of a
    /// namespace). It may change the object to say so (`status.phase`).
    fn keeps_deleted(&self, _object: &mut Value) -> bool {
        false
    }
    /// Whether a delete without a propagation policy leaves the dependents alone. Upstream: `DefaultGarbageCollectionPolicy`.
    fn orphans_by_default(&self) -> bool {
        false
    }
    /// Whether a delete answers with the object and not with a `Status`. Upstream: `ReturnDeletedObject`.
    fn returns_deleted(&self) -> bool {
        false
    }
}

/// The erased form. The pipeline knows only this; a CRD implements it from its schema.
pub trait DynStrategy: Send + Sync {
    /// See [`Strategy::default`].
    fn default(&self, object: &mut Value) -> Result<(), Status>;
    /// See [`Strategy::name_faults`].
    fn name_faults(&self, name: &str) -> Vec<String> {
        crate::names::dns_subdomain(name)
    }
    /// `prepare_create`, then `validate` and `validate_create`.
    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status>;
    /// `prepare_update`, then `validate` and `validate_update`.
    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status>;
    /// `prepare_status_update`, then `validate_status_update`.
    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status>;
    /// See [`Strategy::allow_create_on_update`].
    fn allow_create_on_update(&self) -> bool {
        false
    }
    /// See [`Strategy::allow_unconditional_update`].
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    /// See [`Strategy::grace_seconds`].
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Result<Option<i64>, Status>;
    /// See [`Strategy::exclusive`].
    fn exclusive(&self) -> bool {
        false
    }
    /// See [`Strategy::may_lose`].
    fn may_lose(&self, _new: &Value, _old: Option<&Value>) -> bool {
        false
    }
    /// See [`Strategy::ttl_seconds`].
    fn ttl_seconds(&self) -> Option<u32> {
        None
    }
    /// See [`Strategy::keeps_status`].
    fn keeps_status(&self) -> bool {
        false
    }
    /// See [`Strategy::keeps_deleted`].
    fn keeps_deleted(&self, _object: &mut Value) -> bool {
        false
    }
    /// See [`Strategy::orphans_by_default`].
    fn orphans_by_default(&self) -> bool {
        false
    }
    /// See [`Strategy::returns_deleted`].
    fn returns_deleted(&self) -> bool {
        false
    }
    /// Drops fields that the kind's own schema does not know, and says which in upstream's words (`unknown field "spec.x"`).
    /// Only kinds without a published type need it: bodies of the others come here without unknown fields.
    fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }
    /// The schemas of the served versions, where the kind has no published type.
    fn schemas(&self) -> &[(String, Arc<crate::structural::Structural>)] {
        &[]
    }
    /// Whether `from_stored` and `to_stored` do anything.
    fn converts(&self) -> bool {
        false
    }
    /// Turns an object as it is kept into this version.
    #[allow(clippy::wrong_self_convention)] // the pair reads as a direction of conversion, not as a constructor
    fn from_stored(&self, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// Turns an object of this version into the one that is kept.
    fn to_stored(&self, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// The `openAPIV3Schema` that users gave a kind that is not in the published schema table, for OpenAPI documents.
    fn published_schema(&self) -> Option<Value> {
        None
    }
}

/// Rules of a kind that has none beyond its schema.
pub struct Thin;

impl DynStrategy for Thin {
    fn default(&self, _object: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    fn create(&self, _: &mut Value, _: &mut FieldErrors, _: &Context<'_>) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }
    fn update(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }
    fn update_status(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }
    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(None)
    }
}

/// The one adapter from typed to erased. (A newtype, so that `DynStrategy` may also be implemented by hand.)
pub struct Typed<S>(pub S);

fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, Status> {
    T::deserialize(object).map_err(|error| {
        let (version, kind) =
            (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
        let short = version.rsplit('/').next().unwrap_or("");
        Status::bad_request(format!("{kind} in version \"{short}\" cannot be handled as a {kind}: {error}"))
    })
}

/// Writes a typed object back. `apiVersion` and `kind` stay what they were.
fn erase<T: Serialize>(from: &T, into: &mut Value) -> Result<(), Status> {
    let mut value = serde_json::to_value(from).map_err(Status::internal)?;
    if let (Some(new), Some(old)) = (value.as_object_mut(), into.as_object_mut()) {
        for name in ["apiVersion", "kind"] {
            if let Some(text) = old.remove(name) {
                new.insert(name.to_owned(), text);
            }
        }
    }
    *into = value;
    Ok(())
}

impl<S: Strategy> DynStrategy for Typed<S> {
    fn name_faults(&self, name: &str) -> Vec<String> {
        self.0.name_faults(name)
    }

    fn default(&self, object: &mut Value) -> Result<(), Status> {
        let mut kind: S::Kind = typed(object)?;
        self.0.default(&mut kind);
        erase(&kind, object)
    }

    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        let mut kind: S::Kind = typed(object)?;
        self.0.prepare_create(&mut kind, cx)?;
        // As if it was read back: what was prepared may want defaults of its own.
        self.0.default(&mut kind);
        self.0.validate(&kind, errors);
        self.0.validate_create(&kind, errors);
        let outcome = Outcome { warnings: self.0.warnings(&kind) };
        erase(&kind, object)?;
        Ok(outcome)
    }

    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        let (mut kind, before): (S::Kind, S::Kind) = (typed(new)?, typed(old)?);
        self.0.prepare_update(&mut kind, &before, cx)?;
        self.0.default(&mut kind);
        self.0.validate(&kind, errors);
        self.0.validate_update(&kind, &before, errors);
        let outcome = Outcome { warnings: self.0.warnings(&kind) };
        erase(&kind, new)?;
        Ok(outcome)
    }

    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        let (mut kind, before): (S::Kind, S::Kind) = (typed(new)?, typed(old)?);
        self.0.prepare_status_update(&mut kind, &before, cx);
        self.0.validate_status_update(&kind, &before, errors);
        erase(&kind, new)?;
        Ok(Outcome::default())
    }

    fn allow_create_on_update(&self) -> bool {
        self.0.allow_create_on_update()
    }

    fn allow_unconditional_update(&self) -> bool {
        self.0.allow_unconditional_update()
    }

    fn exclusive(&self) -> bool {
        self.0.exclusive()
    }

    fn may_lose(&self, new: &Value, old: Option<&Value>) -> bool {
        self.0.may_lose(new, old)
    }

    fn ttl_seconds(&self) -> Option<u32> {
        self.0.ttl_seconds()
    }

    fn keeps_status(&self) -> bool {
        self.0.keeps_status()
    }

    fn keeps_deleted(&self, object: &mut Value) -> bool {
        self.0.keeps_deleted(object)
    }

    fn orphans_by_default(&self) -> bool {
        self.0.orphans_by_default()
    }

    fn returns_deleted(&self) -> bool {
        self.0.returns_deleted()
    }

    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(self.0.grace_seconds(&typed(object)?, asked))
    }
}
