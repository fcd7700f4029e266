//! Server-side apply, and who owns which fields after any other write.
//! Upstream: structured-merge-diff `merge`, apimachinery `pkg/util/managedfields`.
//!
//! Flow: [`apply`] merges a configuration into the live object, removes what its owner no longer applies, and refuses what
//! others own. [`update`] is for every other write: it finds out what changed and who owns it now. Both are pure.
//! [`Place`] is what they know about the schema.

mod element;
mod managers;
mod place;
mod set;
mod walk;

pub use element::Element;
pub use place::Place;
pub use set::Set;

use crate::schema::{Schema, TypeId};
use crate::status::{Reason, Status};
use crate::structural::Structural;
use jiff::Timestamp;
use managers::{Conflicts, Managers, Owned, Owner};
use serde_json::{Map, Value};
use std::sync::{Arc, LazyLock};
use walk::Comparison;

/// The annotation of client-side apply, which a first server-side apply by kubectl takes over.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The field manager of kubectl's server-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Bytes of all annotations together. Upstream: `TotalAnnotationSizeLimitB`.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// What nobody owns.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The schemas of a kind.
#[derive(Clone, Copy, Debug)]
pub enum Types<'s> {
    /// A published type, as this version of the kind has it. What owners of other versions own is left alone.
    Published(TypeId),
    /// A custom resource: each served version and its schema. Owners of versions that are gone are dropped.
    Custom(&'s [(String, Arc<Structural>)]),
    /// A custom resource without a schema.
    Unknown,
}

/// What a version of the schemas is for an owner.
enum Version<'s> {
    /// This is its schema.
    Known(Place<'s>),
    /// It cannot be told what its fields are in terms of the present object.
    Foreign,
    /// It no longer exists.
    Gone,
}

/// Who writes, what and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager; empty counts as `unknown`.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// `kind` of the object.
    pub kind: &'a str,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Now.
    pub now: Timestamp,
    /// The schemas.
    pub types: Types<'a>,
    /// Fields that this write does not change whatever it says (`status` for a write of the object, `spec` for one of the status).
    pub reset: &'a Set,
}

/// What an apply made.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object with its new `managedFields`. Not yet defaulted.
    pub object: Value,
    /// Whether anything besides `managedFields` differs from the live object.
    pub is_changed: bool,
}

impl<'a> Writer<'a> {
    fn place(&self) -> Place<'a> {
        match self.version(self.api_version) {
            Version::Known(place) => place,
            Version::Foreign | Version::Gone => Place::Deduced,
        }
    }

    fn version(&self, api_version: &str) -> Version<'a> {
        match self.types {
            Types::Published(id) if api_version == self.api_version => Version::Known(Place::Type(id, None)),
            Types::Published(_) => Version::Foreign,
            Types::Unknown => Version::Known(Place::Deduced),
            Types::Custom(versions) => match versions.iter().find(|(version, _)| version == api_version) {
                Some((_, schema)) => Version::Known(Place::custom(schema)),
                None => Version::Gone,
            },
        }
    }

    fn owner(&self, is_apply: bool) -> Owner {
        Owner::new(self.manager, is_apply, self.api_version, self.subresource)
    }

    fn empty(&self) -> Value {
        serde_json::json!({ "apiVersion": self.api_version, "kind": self.kind })
    }
}

/// Works out `managedFields` of a write that is no apply, and puts them into `new`.
///
/// `live` is what was there before; `None` for a create. It never fails: what cannot be worked out leaves the owners as they were.
pub fn update(live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let sent = take_managed(new);
    let before = live.and_then(managed_of);
    let own = match (&sent, writer.subresource.is_empty()) {
        (Some(sent), true) if is_reset(sent) => Managers::default(),
        (Some(_), true) => match Managers::decode(sent.as_ref()) {
            Ok(managers) if !managers.0.is_empty() => managers,
            _ => Managers::decode(before).unwrap_or_default(),
        },
        _ => Managers::decode(before).unwrap_or_default(),
    };
    let empty;
    let old = match live {
        Some(live) => live,
        None => {
            empty = writer.empty();
            &empty
        }
    };
    // An object that nobody tracks stays so until the first apply.
    if own.0.is_empty() && live.is_some() {
        return;
    }
    match tracked(old, new, own, writer) {
        Ok(managers) => put_managed(new, &managers),
        Err(_) => {
            if let (Some(before), Some(metadata)) = (before, metadata_mut(new)) {
                metadata.insert("managedFields".to_owned(), before.clone());
            }
        }
    }
}

/// The owners after `old` became `new` by an update.
fn tracked(old: &Value, new: &Value, managers: Managers, writer: Writer<'_>) -> Result<Managers, Status> {
    fits(new, true, "failed to convert new object", " to smd typed", writer)?;
    fits(old, true, "failed to convert live object", " to smd typed", writer)?;
    let managers = reconciled(managers, writer);
    let (mut managers, comparison) = match taken(old, new, managers, None, true, writer)? {
        Taken::Done(managers, comparison) => (managers, comparison),
        Taken::Refused(conflicts) => return Err(conflicts.status()),
    };
    let changed = comparison.modified.union(&comparison.added);
    let fields = changed.recursive_difference(writer.reset).difference(&STRIPPED);
    if !fields.is_empty() {
        let owner = writer.owner(false);
        let fields = match managers.0.get(&owner) {
            Some(before) => fields.union(&before.fields),
            None => fields,
        };
        let time = Some(writer.now.as_second());
        let owned = Owned { fields, api_version: writer.api_version.to_owned(), is_apply: false, time };
        managers.0.insert(owner, owned);
    }
    managers.cap();
    Ok(managers)
}

/// Checks an object against its schema. `what` and `after` are put around its name in the refusal.
fn fits(object: &Value, may_repeat: bool, what: &str, after: &str, writer: Writer<'_>) -> Result<(), Status> {
    walk::validate(writer.place(), object, may_repeat).map_err(|misfits| {
        let text = |name: &str| object["metadata"].get(name).and_then(Value::as_str).unwrap_or_default();
        unexpected(format!(
            "{what} ({}/{}; {}, Kind={}){after}: {}",
            text("namespace"),
            text("name"),
            writer.api_version,
            writer.kind,
            walk::misfit_text(&misfits)
        ))
    })
}

/// Brings what owners own in line with the present schema.
fn reconciled(mut managers: Managers, writer: Writer<'_>) -> Managers {
    managers.0.retain(|_, owned| match writer.version(&owned.api_version) {
        Version::Known(place) => {
            if let Some(fields) = walk::reconcile(place, &owned.fields) {
                owned.fields = fields;
            }
            true
        }
        Version::Foreign => true,
        Version::Gone => false,
    });
    managers
}

enum Taken {
    Done(Managers, Comparison),
    Refused(Conflicts),
}

/// Takes from all others what changed between `old` and `new`, or says who is in the way.
fn taken(
    old: &Value,
    new: &Value,
    mut managers: Managers,
    writes: Option<&Owner>,
    force: bool,
    writer: Writer<'_>,
) -> Result<Taken, Status> {
    let compare = |place| {
        let compared = walk::compare(place, old, new);
        compared
            .map(|comparison| Comparison {
                removed: comparison.removed.recursive_difference(writer.reset),
                modified: comparison.modified.recursive_difference(writer.reset),
                added: comparison.added.recursive_difference(writer.reset),
            })
            .map_err(|misfits| {
                unexpected(format!("failed to compare objects: {}", walk::misfit_text(&misfits)))
            })
    };
    let comparison = compare(writer.place())?;
    let mut conflicts = Conflicts::default();
    let mut losses = Vec::new();
    for (owner, owned) in &managers.0 {
        if Some(owner) == writes {
            continue;
        }
        let other;
        let comparison = match writer.version(&owned.api_version) {
            Version::Known(_) if owned.api_version == writer.api_version => &comparison,
            Version::Known(place) => {
                other = compare(place)?;
                &other
            }
            Version::Foreign | Version::Gone => continue,
        };
        let lost = owned.fields.intersection(&comparison.modified.union(&comparison.added));
        conflicts.0.extend(lost.paths().into_iter().map(|path| (owner.clone(), path)));
        if !lost.is_empty() || !comparison.removed.is_empty() {
            losses.push((owner.clone(), owned.fields.difference(&lost).difference(&comparison.removed)));
        }
    }
    if !force && !conflicts.0.is_empty() {
        return Ok(Taken::Refused(conflicts));
    }
    for (owner, fields) in losses {
        if let Some(owned) = managers.0.get_mut(&owner) {
            owned.fields = fields;
        }
    }
    managers.0.retain(|_, owned| !owned.fields.is_empty());
    Ok(Taken::Done(managers, comparison))
}

/// Applies a configuration.
///
/// `live` is `None` where nothing exists yet. The result has to be defaulted and validated as any other write.
///
/// # Errors
/// 400 for a configuration of another kind or with `managedFields`, 409 with `FieldManagerConflict` causes unless `force`,
/// 500 with upstream's text where it does not fit the schema.
pub fn apply(
    live: Option<&Value>,
    patch: &Value,
    force: bool,
    writer: Writer<'_>,
) -> Result<Applied, Status> {
    check_patch(patch, writer)?;
    let empty = writer.empty();
    let live = live.unwrap_or(&empty);
    let mut own = Managers::decode(managed_of(live))
        .map_err(|error| unexpected(format!("failed to decode managed fields: {error}")))?;
    if own.0.is_empty() {
        let before = Writer { manager: BEFORE_FIRST_APPLY, ..writer };
        own = tracked(&empty, live, own, before).map_err(|status| {
            unexpected(format!("failed to create manager for existing fields: {}", status.message))
        })?;
    }
    let merged = match merged(live, patch, own.clone(), force, writer)? {
        Merged::Done(merged) => merged,
        Merged::Refused(conflicts) => {
            let left = after_last_applied(live, conflicts, writer);
            if !left.0.is_empty() {
                return Err(left.status());
            }
            match merged(live, patch, own, true, writer)? {
                Merged::Done(merged) => merged,
                Merged::Refused(conflicts) => return Err(conflicts.status()),
            }
        }
    };
    let (mut object, managers, is_changed) = merged;
    take_managed(&mut object);
    put_managed(&mut object, &managers);
    if writer.manager == KUBECTL {
        sync_last_applied(&mut object, patch);
    }
    Ok(Applied { object, is_changed })
}

fn check_patch(patch: &Value, writer: Writer<'_>) -> Result<(), Status> {
    let text = |name: &str| patch.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != writer.api_version || kind != writer.kind {
        return Err(Status::bad_request(format!("invalid object type: {api_version}, Kind={kind}")));
    }
    if managed_of(patch).is_some() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// A refusal that upstream does not give a reason.
fn unexpected(message: String) -> Status {
    Status::failure(500, Reason::Unknown, message)
}

enum Merged {
    Done((Value, Managers, bool)),
    Refused(Conflicts),
}

fn merged(
    live: &Value,
    patch: &Value,
    managers: Managers,
    force: bool,
    writer: Writer<'_>,
) -> Result<Merged, Status> {
    let place = writer.place();
    fits(patch, false, "failed to create typed patch object", "", writer)?;
    fits(live, true, "failed to create typed live object", "", writer)?;
    let mut managers = reconciled(managers, writer);
    let merged = walk::merge(place, Some(live), Some(patch))
        .map_err(|misfits| unexpected(format!("failed to merge config: {}", walk::misfit_text(&misfits))))?
        .unwrap_or_else(|| writer.empty());
    let owner = writer.owner(true);
    let last = managers.0.get(&owner).cloned();
    let fields = walk::fields_of(place, patch).recursive_difference(writer.reset);
    let mut owned = Owned {
        fields,
        api_version: writer.api_version.to_owned(),
        is_apply: true,
        time: last.as_ref().and_then(|last| last.time),
    };
    managers.0.insert(owner.clone(), owned.clone());
    let object = match last {
        Some(last) if !last.fields.is_empty() => pruned(&merged, &managers, &last, writer),
        _ => merged,
    };
    let mut managers = match taken(live, &object, managers, Some(&owner), force, writer)? {
        Taken::Done(managers, _) => managers,
        Taken::Refused(conflicts) => return Ok(Merged::Refused(conflicts)),
    };
    let is_changed = !walk::same(live, &object);
    owned.fields = owned.fields.difference(&STRIPPED);
    if is_changed {
        owned.time = Some(writer.now.as_second());
    }
    match owned.fields.is_empty() {
        true => managers.0.remove(&owner),
        false => managers.0.insert(owner, owned),
    };
    Ok(Merged::Done((object, managers, is_changed)))
}

/// Removes what the owner applied last time, did not apply now, and nobody else owns.
fn pruned(merged: &Value, managers: &Managers, last: &Owned, writer: Writer<'_>) -> Value {
    let place = match writer.version(&last.api_version) {
        Version::Known(place) => place,
        Version::Foreign | Version::Gone => return merged.clone(),
    };
    let named = |set: &Set| walk::with_named_fields(Some(place), set);
    let last = named(&last.fields);
    let mut pruned = walk::remove(place, merged, &last);
    let merged_fields = named(&walk::fields_of(place, merged));
    // What somebody owns comes back.
    let mut versions: Vec<(&str, Set)> = Vec::new();
    for owned in managers.0.values() {
        match versions.iter_mut().find(|(version, _)| *version == owned.api_version) {
            Some((_, fields)) => *fields = fields.union(&owned.fields),
            None => versions.push((&owned.api_version, owned.fields.clone())),
        }
    }
    for (version, owned) in versions {
        let place = match writer.version(version) {
            Version::Known(place) => place,
            // In whatever version: where the names are the same, they mean the same.
            Version::Foreign => place,
            Version::Gone => continue,
        };
        let named = |set: &Set| walk::with_named_fields(Some(place), set);
        let kept = named(&walk::fields_of(place, &pruned)).union(&named(&owned));
        let merged_fields = named(&walk::fields_of(place, merged));
        pruned = walk::remove(place, merged, &merged_fields.difference(&kept));
    }
    // What the owner did not own before comes back too.
    let pruned_fields = named(&walk::fields_of(place, &pruned));
    walk::remove(place, merged, &merged_fields.difference(&pruned_fields).intersection(&last))
}

/// The conflicts that remain when kubectl takes over what its client-side apply set, as far as it is still so.
fn after_last_applied(live: &Value, conflicts: Conflicts, writer: Writer<'_>) -> Conflicts {
    let own = match writer.manager {
        KUBECTL => last_applied_fields(live, writer),
        _ => None,
    };
    match own {
        Some(own) => Conflicts(conflicts.0.into_iter().filter(|(_, path)| !own.has(path)).collect()),
        None => conflicts,
    }
}

fn last_applied_fields(live: &Value, writer: Writer<'_>) -> Option<Set> {
    let text = live["metadata"]["annotations"].get(LAST_APPLIED)?.as_str()?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if applied.get("apiVersion")?.as_str()? != writer.api_version {
        return None;
    }
    let place = writer.place();
    walk::validate(place, &applied, false).ok()?;
    let comparison = walk::compare(place, &applied, live).ok()?;
    let fields = walk::fields_of(place, &applied);
    Some(
        fields.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed),
    )
}

/// Keeps the annotation of client-side apply in step, where there is one.
fn sync_last_applied(object: &mut Value, patch: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = patch.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.to_owned(), format!("{applied}\n").into());
    let bytes: usize =
        annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

/// Takes back new times in `managedFields` where nothing else changed, so that a write that changes nothing is none.
/// Upstream: apiserver `pkg/endpoints/handlers/fieldmanager/equality.go`.
pub fn keep_times(new: &mut Value, old: &Value) {
    let (Some(Value::Array(new_entries)), Some(Value::Array(old_entries))) =
        (managed_of(new), managed_of(old))
    else {
        return;
    };
    let without_time = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().map(|entry| entry.remove("time"));
        entry
    };
    let alike = new_entries.len() == old_entries.len()
        && new_entries != old_entries
        && new_entries.iter().zip(old_entries).all(|(new, old)| without_time(new) == without_time(old));
    if !alike {
        return;
    }
    let restored = managed_of(old).cloned();
    let sent = take_managed(new);
    let is_same = {
        let mut old = old.clone();
        take_managed(&mut old);
        walk::same(new, &old)
    };
    if let (Some(entries), Some(metadata)) = (if is_same { restored } else { sent }, metadata_mut(new)) {
        metadata.insert("managedFields".to_owned(), entries);
    }
}

fn managed_of(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|entries| !entries.is_null())
}

fn metadata_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    metadata.as_object_mut()
}

fn take_managed(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn put_managed(object: &mut Value, managers: &Managers) {
    if managers.0.is_empty() {
        return;
    }
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("managedFields".to_owned(), managers.encode());
    }
}

/// Whether a client asks to forget all owners: an empty list, or one empty entry.
fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.is_empty(),
        _ => false,
    }
}

/// The published type of a kind, for [`Types::Published`].
pub fn published(api_version: &str, kind: &str) -> Option<TypeId> {
    Schema::published().object(api_version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn writer<'a>(api_version: &'a str, kind: &'a str, reset: &'a Set) -> Writer<'a> {
        Writer {
            manager: "m",
            api_version,
            kind,
            subresource: "",
            now: Timestamp::UNIX_EPOCH,
            types: Types::Published(published(api_version, kind).unwrap()),
            reset,
        }
    }

    #[test]
    fn a_write_that_changes_nothing_keeps_the_times() {
        let reset = Set::default();
        let mut old =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        update(None, &mut old, writer("v1", "ConfigMap", &reset));
        assert_eq!(old["metadata"]["managedFields"][0]["time"], "1970-01-01T00:00:00Z");
        let later = Timestamp::from_second(60).unwrap();
        let check = |value: &str, time: &str| {
            let mut new = old.clone();
            new["data"]["k"] = value.into();
            update(Some(&old), &mut new, Writer { now: later, ..writer("v1", "ConfigMap", &reset) });
            keep_times(&mut new, &old);
            assert_eq!(new["metadata"]["managedFields"][0]["time"], time, "{value}");
        };
        check("v", "1970-01-01T00:00:00Z");
        check("w", "1970-01-01T00:01:00Z");
    }

    #[test]
    fn an_empty_list_of_owners_forgets_them() {
        let reset = Set::default();
        let mut old =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        update(None, &mut old, writer("v1", "ConfigMap", &reset));
        for entries in [json!([]), json!([{}])] {
            let mut new = old.clone();
            new["metadata"]["managedFields"] = entries;
            update(Some(&old), &mut new, writer("v1", "ConfigMap", &reset));
            assert_eq!(new["metadata"].get("managedFields"), None);
        }
        let mut new = old.clone();
        new["metadata"].as_object_mut().unwrap().remove("managedFields");
        update(Some(&old), &mut new, writer("v1", "ConfigMap", &reset));
        assert_eq!(new, old);
    }
}
