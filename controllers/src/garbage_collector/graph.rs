//! Who owns what: the caches of all resources that can be deleted, asked together.

use super::plan::FOREGROUND;
use api::object::Owner;
use api::{Object, ObjectName};
use client::{AnyCache, Caches, Discovered, Form, ResourceRef, Selection};
use parking_lot::RwLock;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// Resources that own nothing and are owned by nothing that matters, and are many. Upstream: `DefaultIgnoredResources`.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

/// One resource that is watched.
pub(crate) struct Monitor {
    pub(crate) resource: Arc<ResourceRef>,
    pub(crate) namespaced: bool,
    pub(crate) cache: AnyCache,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Graph {
    monitors: RwLock<HashMap<Arc<ResourceRef>, Arc<Monitor>>>,
    by_kind: RwLock<HashMap<(String, String), Vec<Arc<Monitor>>>>,
}

/// What the caches know of an owner.
pub(crate) enum Known {
    /// It exists, in the version and resource that are given.
    Present(Arc<Object>),
    /// The cache does not have it; only the server can say.
    NotSeen(Arc<Monitor>),
    /// Nothing of this kind is served here.
    NoSuchKind,
    /// A cluster-scoped object cannot have an owner in a namespace.
    Impossible,
}

impl Graph {
    /// Follows exactly these resources. Answers those that are new and those that are no longer followed.
    pub(crate) fn follow(
        &self,
        caches: &Caches,
        served: Vec<Discovered>,
    ) -> (Vec<Arc<Monitor>>, Vec<Arc<Monitor>>) {
        // In one process whole objects cost no more than metadata, and the typed caches are shared.
        let form = if caches.client().is_in_process() { Form::Whole } else { Form::Metadata };
        let mut monitors = self.monitors.write();
        let mut kept = HashMap::new();
        let mut added = Vec::new();
        for row in served {
            if IGNORED.contains(&(&*row.resource.group, &*row.resource.plural)) {
                continue;
            }
            let monitor = monitors.remove(&row.resource).unwrap_or_else(|| {
                let selection = Selection { form, ..Selection::default() };
                let cache = caches.any(row.resource.clone(), selection);
                let monitor =
                    Arc::new(Monitor { resource: Arc::new(row.resource), namespaced: row.namespaced, cache });
                added.push(monitor.clone());
                monitor
            });
            kept.insert(monitor.resource.clone(), monitor);
        }
        let mut by_kind: HashMap<_, Vec<_>> = HashMap::new();
        for monitor in kept.values() {
            let key = (monitor.resource.group.to_string(), monitor.resource.kind.to_string());
            by_kind.entry(key).or_default().push(monitor.clone());
        }
        *self.by_kind.write() = by_kind;
        let removed = std::mem::replace(&mut *monitors, kept).into_values().collect();
        (added, removed)
    }

    pub(crate) fn monitor(&self, resource: &ResourceRef) -> Option<Arc<Monitor>> {
        self.monitors.read().get(resource).cloned()
    }

    pub(crate) fn monitors(&self) -> Vec<Arc<Monitor>> {
        self.monitors.read().values().cloned().collect()
    }

    /// An owner of an object in `namespace`.
    pub(crate) fn owner(&self, owner: &Owner, namespace: &str) -> Known {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let key = (group.to_owned(), owner.kind.to_string());
        let Some(monitor) = self.by_kind.read().get(&key).and_then(|found| found.first().cloned()) else {
            return Known::NoSuchKind;
        };
        if monitor.namespaced && namespace.is_empty() {
            return Known::Impossible;
        }
        let namespace = if monitor.namespaced { namespace } else { "" };
        match monitor.cache.get(namespace, &owner.name) {
            Some(object) if object.meta.uid == owner.uid => Known::Present(object),
            _ => Known::NotSeen(monitor),
        }
    }

    /// All objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Arc<Monitor>, Arc<Object>)> {
        let monitors = self.monitors();
        let owned = |monitor: Arc<Monitor>| {
            let objects = monitor.cache.owned_by(uid);
            objects.into_iter().map(move |object| (monitor.clone(), object))
        };
        monitors.into_iter().flat_map(owned).collect()
    }
}

/// The finalizers of an object; only asked of those that are being deleted.
pub(crate) fn finalizers(object: &Object) -> Vec<String> {
    #[derive(Deserialize)]
    struct Raw {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        finalizers: Option<Vec<String>>,
    }
    object.decode::<Raw>().ok().and_then(|raw| raw.metadata.finalizers).unwrap_or_default()
}

/// Whether an object is being deleted and waits for what it owns.
pub(crate) fn waits_for_dependents(object: &Object) -> bool {
    object.meta.deleting && finalizers(object).iter().any(|own| own == FOREGROUND)
}

/// Whether `object` makes the deletion of `uid` wait.
pub(crate) fn blocks(object: &Object, uid: &str) -> bool {
    object.meta.owners.iter().any(|owner| *owner.uid == *uid && owner.block_owner_deletion)
}

/// One object that somebody has to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    pub(crate) resource: Arc<ResourceRef>,
    pub(crate) key: ObjectName,
    /// Whether what it owns must be released, rather than itself be deleted.
    pub(crate) orphan: bool,
}

impl Task {
    pub(crate) fn delete(monitor: &Monitor, object: &Object) -> Self {
        Self { resource: monitor.resource.clone(), key: object.meta.key.clone(), orphan: false }
    }
}
