//! Owners and what they own: references, claiming, adopting and releasing.
//!
//! Upstream: pkg/controller/controller_ref_manager.go.

use api::{LabelSelector, Object, ObjectName};
use client::{AnyCache, Context, Delta, Error, Kind, Patch, controller_reference};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use std::sync::Arc;

/// Name of the index of objects without a managing controller, by namespace.
pub(crate) const ORPHANS: &str = "orphans";
/// Name of the index of objects by the name of their managing controller.
pub(crate) const BY_CONTROLLER: &str = "controller";

/// Adds the index by the kind and name of the managing controller, for who looks for what a deleted one has left.
pub(crate) fn index_by_controller(cache: &AnyCache) {
    cache.index(BY_CONTROLLER, |object| {
        let owner = object.meta.controller();
        owner
            .map(|owner| controller_key(&object.meta.key.namespace, &owner.kind, &owner.name))
            .into_iter()
            .collect()
    });
}

/// The key of that index.
pub(crate) fn controller_key(namespace: &str, kind: &str, name: &str) -> Box<str> {
    format!("{namespace}/{kind}/{name}").into()
}

/// Adds the index of orphans to a cache.
pub(crate) fn index_orphans(cache: &AnyCache) {
    cache.index(ORPHANS, |object| match object.meta.controller() {
        None => vec![object.meta.key.namespace.clone()],
        Some(_) => Vec::new(),
    });
}

/// A kind that owns what its selector matches.
pub(crate) trait Selects: Kind {
    /// What it selects. `None` if the selector cannot be used.
    fn selector(&self) -> Option<LabelSelector>;
}

/// An object in its role as the managing controller of others.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) key: ObjectName,
    pub(crate) uid: String,
    pub(crate) deleting: bool,
    /// As it stands in what it owns.
    pub(crate) reference: OwnerReference,
    /// As events name it.
    pub(crate) about: ObjectReference,
}

impl Owner {
    pub(crate) fn of<K: Kind>(object: &K) -> Self {
        let meta = object.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        Self {
            key: ObjectName::new(namespace, name_of(meta)),
            uid: meta.uid.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            reference: controller_reference(object),
            about: client::reference(object),
        }
    }
}

/// The name; empty if there is none, which a kept object never is.
pub(crate) fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The UID of the managing controller.
pub(crate) fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// What to do with one candidate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Mine,
    Adopt,
    Release,
    Leave,
}

/// Whether a candidate belongs to an owner. Pure.
pub(crate) fn judge(owner_uid: &str, owner_deleting: bool, matches: bool, candidate: &Object) -> Claim {
    match candidate.meta.controller() {
        Some(controller) if *controller.uid != *owner_uid => Claim::Leave,
        Some(_) if matches => Claim::Mine,
        Some(_) if owner_deleting => Claim::Leave,
        Some(_) => Claim::Release,
        None if owner_deleting || !matches || candidate.meta.deleting => Claim::Leave,
        None => Claim::Adopt,
    }
}

/// The objects of `C` that belong to `owner` (a `K`): those it controls and its selector matches. Orphans that match are adopted,
/// those that no longer match are released. Objects for which `eligible` is false are left alone and left out.
///
/// # Errors
/// The owner was deleted meanwhile, or an adoption or release failed.
pub(crate) async fn claim<K: Kind, C: Kind>(
    context: &Context,
    owner: &Owner,
    selector: &LabelSelector,
    eligible: impl Fn(&C) -> bool,
) -> Result<Vec<C>, Error> {
    claim_with::<K, C>(context, owner, selector, None, eligible).await
}

/// As [`claim`], and what is adopted gets a finalizer, what is released loses it.
pub(crate) async fn claim_with<K: Kind, C: Kind>(
    context: &Context,
    owner: &Owner,
    selector: &LabelSelector,
    finalizer: Option<&str>,
    eligible: impl Fn(&C) -> bool,
) -> Result<Vec<C>, Error> {
    let cache = context.caches.of::<C>();
    let mut candidates: Vec<Arc<Object>> = cache.owned_by(&owner.uid);
    candidates.extend(cache.by(ORPHANS, &owner.key.namespace));
    candidates.sort_by(|a, b| a.meta.key.cmp(&b.meta.key));
    candidates.dedup_by(|a, b| a.meta.key == b.meta.key);
    let mut mine = Vec::new();
    let mut may_adopt = None;
    for candidate in candidates {
        let matches = selector.matches(|label| candidate.meta.label(label));
        let verdict = judge(&owner.uid, owner.deleting, matches, &candidate);
        if verdict == Claim::Leave {
            continue;
        }
        let object: C = candidate.decode()?;
        if !eligible(&object) {
            continue;
        }
        match verdict {
            Claim::Mine => mine.push(object),
            Claim::Release => write_owners(context, owner, &object, false, finalizer).await.map(drop)?,
            Claim::Adopt => {
                if may_adopt.is_none() {
                    may_adopt = Some(is_alive::<K>(context, owner).await?);
                }
                if may_adopt == Some(true) {
                    mine.extend(write_owners(context, owner, &object, true, finalizer).await?);
                }
            }
            Claim::Leave => {}
        }
    }
    Ok(mine)
}

/// Whether the owner still is the one we know and is not being deleted: asked of the server, not of the cache, because an
/// adoption by a deleted owner would be wrong for ever.
async fn is_alive<K: Kind>(context: &Context, owner: &Owner) -> Result<bool, Error> {
    let fresh = context.client.namespaced::<K>(&owner.key.namespace).get_opt(&owner.key.name).await?;
    Ok(fresh.is_some_and(|fresh| {
        let meta = fresh.metadata();
        meta.uid.as_deref() == Some(&owner.uid) && meta.deletion_timestamp.is_none()
    }))
}

/// Changes the owners of an object, if it is still the version we know. `None` if it is gone.
async fn write_owners<C: Kind>(
    context: &Context,
    owner: &Owner,
    object: &C,
    is_adoption: bool,
    finalizer: Option<&str>,
) -> Result<Option<C>, Error> {
    let meta = object.metadata();
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|own| own.uid != owner.uid);
    if is_adoption {
        owners.push(owner.reference.clone());
    }
    let mut patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}});
    if let Some(finalizer) = finalizer {
        let mut finalizers = meta.finalizers.clone().unwrap_or_default();
        finalizers.retain(|own| own != finalizer);
        if is_adoption {
            finalizers.push(finalizer.to_owned());
        }
        patch["metadata"]["finalizers"] = finalizers.into();
    }
    let patch = Patch::Merge(patch);
    let api = context.client.namespaced::<C>(meta.namespace.as_deref().unwrap_or_default());
    match api.patch(name_of(meta), patch).await {
        Ok(object) => {
            let version = object.metadata().resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<C>(), version);
            Ok(Some(object))
        }
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// The owners of kind `K` that might adopt what a change left without a controller.
pub(crate) fn might_adopt<K: Selects>(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let Some(object) = &delta.new else { return Vec::new() };
    if object.meta.controller().is_some() || object.meta.deleting {
        return Vec::new();
    }
    let selects = |owner: &K| {
        owner.selector().is_some_and(|selector| selector.matches(|label| object.meta.label(label)))
    };
    let owners = context.caches.of::<K>().read_all(object.meta.namespace());
    owners
        .iter()
        .filter(|owner| selects(owner))
        .map(|owner| ObjectName::new(object.meta.namespace(), name_of(owner.metadata())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_claimed_by_its_controller_or_adopted_if_it_has_none() {
        let check = |controller: Option<&str>, deleting: (bool, bool), matches: bool, expect: Claim| {
            let owners: Vec<_> =
                controller.iter().map(|uid| json!({"uid": uid, "controller": true})).collect();
            let mut json = json!({"metadata": {"name": "a", "ownerReferences": owners}});
            if deleting.1 {
                json["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            let object = Object::parse(json.to_string().into()).unwrap();
            assert_eq!(judge("me", deleting.0, matches, &object), expect, "{json}");
        };
        let alive = (false, false);
        check(Some("me"), alive, true, Claim::Mine);
        check(Some("me"), (true, false), true, Claim::Mine);
        check(Some("me"), alive, false, Claim::Release);
        check(Some("me"), (true, false), false, Claim::Leave);
        check(Some("other"), alive, true, Claim::Leave);
        check(None, alive, true, Claim::Adopt);
        check(None, alive, false, Claim::Leave);
        check(None, (true, false), true, Claim::Leave);
        check(None, (false, true), true, Claim::Leave);
    }
}
