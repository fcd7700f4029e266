//! The shared caches of a process: one per resource (and selection), fed by one watch, read by everybody.
//!
//! A cache holds bytes with decoded metadata, never typed objects: a typed pod takes eight times its JSON. Who works on an
//! object decodes it; who reads many often keeps a [`Projection`].

mod delta;
mod projection;
mod reflector;
mod table;
#[cfg(test)]
mod tests;

pub use delta::{Delta, Subscription};
pub use projection::Projection;

use crate::client::Client;
use crate::dynamic::DynamicApi;
use crate::resource::{Kind, ResourceRef};
use api::Object;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use table::Table;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Whether a cache holds whole objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// Whole objects.
    #[default]
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

/// Which objects of a resource a cache holds. `Default` is all of them, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace; empty for all.
    pub namespace: String,
    /// Label selector.
    pub labels: Option<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// Whole objects or metadata.
    pub form: Form,
}

/// All caches of one process. Cheap to clone; the watches end when the last clone is gone.
#[derive(Clone)]
pub struct Caches {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    caches: Mutex<HashMap<(ResourceRef, Selection), (AnyCache, AbortHandle)>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        for (cache, task) in self.caches.get_mut().values() {
            task.abort();
            cache.core.table.write().close();
        }
    }
}

impl Caches {
    /// No cache yet. Must be used inside a tokio runtime.
    pub fn new(client: Client) -> Self {
        Self { shared: Arc::new(Shared { client, caches: Mutex::default() }) }
    }

    /// The client that the caches read with.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The cache of a kind. Starts it at first use; does not wait until it is [`synced`](Cache::synced).
    pub fn of<K: Kind>(&self) -> Cache<K> {
        self.select(Selection::default())
    }

    /// The cache of those objects of a kind that a field selector (`spec.nodeName=x`) names.
    pub fn of_fields<K: Kind>(&self, fields: &str) -> Cache<K> {
        self.select(Selection { fields: Some(fields.to_owned()), ..Selection::default() })
    }

    /// The cache of some objects of a kind.
    pub fn select<K: Kind>(&self, selection: Selection) -> Cache<K> {
        Cache { any: self.any(ResourceRef::of::<K>(), selection), kind: PhantomData }
    }

    /// The cache of a resource whose type is not known. Shares the cache of the typed kind.
    pub fn any(&self, resource: ResourceRef, selection: Selection) -> AnyCache {
        let mut caches = self.shared.caches.lock();
        let key = (resource, selection);
        if let Some((cache, _)) = caches.get(&key) {
            return cache.clone();
        }
        let (resource, selection) = key.clone();
        let access = self.shared.client.dynamic(resource, &selection.namespace);
        let access = if selection.form == Form::Metadata { access.metadata_only() } else { access };
        let core = Core {
            access,
            selection,
            table: RwLock::default(),
            progress: watch::Sender::new(Progress::default()),
        };
        let cache = AnyCache { core: Arc::new(core) };
        let task = tokio::spawn(reflector::run(cache.clone())).abort_handle();
        caches.insert(key, (cache.clone(), task));
        cache
    }

    /// Ends a cache: its resource is no longer served. Subscriptions end, and the next use starts a new one.
    pub fn stop(&self, cache: &AnyCache) {
        let mut caches = self.shared.caches.lock();
        caches.retain(|_, (own, task)| {
            let stopped = Arc::ptr_eq(&own.core, &cache.core);
            if stopped {
                task.abort();
            }
            !stopped
        });
        drop(caches);
        cache.core.table.write().close();
    }

    /// Waits until every cache that was started has everything.
    pub async fn synced(&self) {
        let caches: Vec<_> = self.shared.caches.lock().values().map(|(cache, _)| cache.clone()).collect();
        for cache in caches {
            cache.synced().await;
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Progress {
    synced: bool,
    revision: u64,
}

struct Core {
    access: DynamicApi,
    selection: Selection,
    table: RwLock<Table>,
    progress: watch::Sender<Progress>,
}

/// A cache of a resource whose type is not known.
///
/// # Guarantees
/// Objects are immutable; what two reads show may differ by the changes in between. After [`AnyCache::reached`] a version,
/// reads show at least that version. Subscribers are told a change after reads show it.
#[derive(Clone)]
pub struct AnyCache {
    core: Arc<Core>,
}

impl AnyCache {
    /// What it holds.
    pub fn resource(&self) -> &ResourceRef {
        self.core.access.resource()
    }

    pub(crate) fn selection(&self) -> &Selection {
        &self.core.selection
    }

    pub(crate) fn access(&self) -> &DynamicApi {
        &self.core.access
    }

    /// One object. `namespace` is empty for cluster-scoped ones.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.core.table.read().get(namespace, name).cloned()
    }

    /// All objects of a namespace, or of all where it is empty, ordered by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        table::values_in(&self.core.table.read().objects, namespace)
    }

    /// All objects that have an owner with this UID, managing controller or not.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.core.table.read().owned_by(uid)
    }

    /// Adds an index unless there is one of this name. `of` says under which keys an object is found.
    pub fn index(&self, name: &'static str, of: impl Fn(&Object) -> Vec<Box<str>> + Send + Sync + 'static) {
        self.core.table.write().add_index(name, Arc::new(of));
    }

    /// All objects under a key of an index, ordered by name. An index nobody added is empty.
    pub fn by(&self, index: &str, key: &str) -> Vec<Arc<Object>> {
        let found = self.core.table.read().by(index, key);
        found.unwrap_or_else(|| {
            tracing::error!(index, resource = %self.resource().id(), "no such index");
            Vec::new()
        })
    }

    /// First everything that is there, then every change.
    pub fn subscribe(&self) -> Subscription {
        let mut table = self.core.table.write();
        let Table { objects, fanout, .. } = &mut *table;
        fanout.subscribe(table::entries(objects))
    }

    /// A narrow view, kept up to date as long as somebody holds it.
    pub fn project<P: PartialEq + Send + Sync + 'static>(
        &self,
        extract: impl Fn(&Object) -> Option<P> + Send + Sync + 'static,
    ) -> Projection<P> {
        let projection = Projection::new(extract);
        self.core.table.write().add_sink(projection.inner());
        projection
    }

    /// Waits until everything has been read once.
    pub async fn synced(&self) {
        // The sender lives in `self`: waiting cannot fail.
        let _ = self.core.progress.subscribe().wait_for(|progress| progress.synced).await;
    }

    /// Whether everything has been read once.
    pub fn is_synced(&self) -> bool {
        self.core.progress.borrow().synced
    }

    /// Up to which version changes are shown.
    pub fn revision(&self) -> u64 {
        self.core.progress.borrow().revision
    }

    /// Waits until changes up to a version are shown. Only a version of this very resource is sure to come.
    pub async fn shows(&self, revision: u64) {
        let _ = self.core.progress.subscribe().wait_for(|progress| progress.revision >= revision).await;
    }

    // Progress is told under the lock and before the change is published: whoever hears of a change and asks for the
    // revision, or sees the revision and reads, gets what belongs together.

    fn replace(&self, objects: Vec<Object>, revision: u64) {
        let mut table = self.core.table.write();
        self.core.progress.send_modify(|progress| progress.revision = revision);
        table.replace(objects);
        self.core.progress.send_modify(|progress| progress.synced = true);
    }

    /// Puts or removes the object of a change.
    fn change(&self, object: Object, is_there: bool) {
        let key = object.meta.key.clone();
        let mut table = self.core.table.write();
        self.reached(object.meta.resource_version);
        table.apply(&key, is_there.then(|| Arc::new(object)));
    }

    fn reached(&self, revision: u64) {
        self.core.progress.send_modify(|progress| progress.revision = progress.revision.max(revision));
    }
}

/// The cache of a kind. See [`AnyCache`] for what can be read from it.
pub struct Cache<K> {
    any: AnyCache,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { any: self.any.clone(), kind: PhantomData }
    }
}

impl<K> std::ops::Deref for Cache<K> {
    type Target = AnyCache;

    fn deref(&self) -> &AnyCache {
        &self.any
    }
}

impl<K: Kind> Cache<K> {
    /// One object, decoded. What cannot be decoded is logged and not there.
    pub fn read(&self, namespace: &str, name: &str) -> Option<K> {
        self.get(namespace, name).as_deref().and_then(decode)
    }

    /// All objects of a namespace (or of all where it is empty), decoded.
    pub fn read_all(&self, namespace: &str) -> Vec<K> {
        self.list(namespace).iter().filter_map(|object| decode(object)).collect()
    }

    /// The objects whose managing controller has this UID, decoded.
    pub fn controlled_by(&self, uid: &str) -> Vec<K> {
        let controls =
            |object: &&Arc<Object>| object.meta.controller().is_some_and(|owner| *owner.uid == *uid);
        self.owned_by(uid).iter().filter(controls).filter_map(|object| decode(object)).collect()
    }
}

fn decode<K: Kind>(object: &Object) -> Option<K> {
    match object.decode() {
        Ok(typed) => Some(typed),
        Err(error) => {
            tracing::error!(kind = K::KIND, key = %object.meta.key, %error, "an object cannot be decoded");
            None
        }
    }
}
