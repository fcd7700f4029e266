//! Between the verbs and the store: keys, the transformation at rest, the one feed that fills every watch cache, and
//! writes that return only once their own cache has seen them. Where other servers write to the same store, requests that must see
//! their writes ask the store how far it is and wait until the caches are there.
//!
//! Flow: `write` → the store commits → the feed hears of it → the cache applies it → `progress` → the writer wakes.
//! Guarantee: after a write was answered, every read of this server sees it.

use crate::codec::json;
use crate::hooks::Transform;
use crate::watch_cache::{RawChange, WatchCache};
use api::{ObjectName, Reason, Status};
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::{Change, Expect, Key, Page, Revision, Store, Told};
use tokio::sync::oneshot;

/// Where everything is kept.
const ROOT: &str = "/registry/";
/// How long a reader waits for a revision that this server has not seen yet. Upstream: `cacher` (`blockTimeout`).
const FRESH_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long to wait before the store is asked again after it failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How many writes the feed applies before it tells its progress.
const FEED_BATCH_MAX: usize = 256;

type HomeKey = (String, String);

/// Where objects are kept and how caches hear of them.
pub struct Storage {
    inner: Arc<Inner>,
    feed: tokio::task::JoinHandle<()>,
}

struct Inner {
    store: Arc<dyn Store>,
    transforms: HashMap<HomeKey, Arc<dyn Transform>>,
    routes: RwLock<HashMap<Box<str>, Arc<WatchCache>>>,
    progress: Arc<AtomicU64>,
    waiters: Mutex<BTreeMap<Revision, Vec<oneshot::Sender<()>>>>,
    /// Revisions before this are forgotten: continue tokens older than that are expired.
    floor: AtomicU64,
    healthy: AtomicBool,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

/// The key of an object.
fn key_of(cache: &WatchCache, name: &ObjectName) -> Key {
    let (group, plural) = (&cache.group, &cache.plural);
    match &*name.namespace {
        "" => format!("{ROOT}{group}/{plural}/{}", name.name).into(),
        namespace => format!("{ROOT}{group}/{plural}/{namespace}/{}", name.name).into(),
    }
}

/// `GROUP/PLURAL`, and the object's name.
fn split_key(key: &[u8]) -> Option<(&str, ObjectName)> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let group_end = rest.find('/')?;
    let home_end = group_end + 1 + rest[group_end + 1..].find('/')?;
    let (home, name) = (&rest[..home_end], &rest[home_end + 1..]);
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new("", name),
    };
    Some((home, name))
}

fn home_text(cache: &WatchCache) -> Box<str> {
    format!("{}/{}", cache.group, cache.plural).into()
}

/// What a client is told when the store does not do it.
pub fn refusal(error: &store::Error) -> Status {
    match error {
        store::Error::TooLarge { .. } => {
            Status::failure(413, Reason::RequestEntityTooLarge, format!("the object is too large: {error}"))
        }
        store::Error::Compacted { .. } => {
            Status::expired("The resourceVersion for the provided watch is too old.")
        }
        store::Error::Unavailable { .. } | store::Error::Broken { .. } => {
            Status::unavailable(error.to_string())
        }
        _ => Status::internal(error),
    }
}

impl Storage {
    /// Starts to follow the store from where it is now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        store: Arc<dyn Store>,
        transforms: HashMap<HomeKey, Arc<dyn Transform>>,
    ) -> Result<Arc<Self>, Status> {
        let revision = store.revision().await.map_err(|error| refusal(&error))?;
        let inner = Arc::new(Inner {
            store,
            transforms,
            routes: RwLock::default(),
            progress: Arc::new(AtomicU64::new(revision)),
            waiters: Mutex::default(),
            floor: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
        });
        let feed = tokio::spawn(inner.clone().follow(revision));
        Ok(Arc::new(Self { inner, feed }))
    }

    /// A cache for a home, which hears the feed from now on but has to be loaded.
    pub fn open_cache(&self, group: &str, plural: &str) -> Arc<WatchCache> {
        let cache = Arc::new(WatchCache::new(group, plural, Vec::new(), self.inner.progress.clone()));
        self.inner.routes.write().insert(home_text(&cache), cache.clone());
        cache
    }

    /// Fills a cache.
    ///
    /// # Errors
    /// The store cannot be read, or a value in it cannot be decrypted: objects that are there are never shown as missing.
    pub async fn load(&self, cache: &WatchCache) -> Result<(), Status> {
        self.inner.load(cache).await
    }

    /// Stops feeding a cache and ends its watches.
    pub fn close_cache(&self, cache: &WatchCache) {
        self.inner.routes.write().remove(&home_text(cache));
        cache.close();
    }

    /// Writes one object: its kept bytes, or `None` to remove it. It returns once the cache shows it. `may_lose` writes are
    /// durable a little later.
    ///
    /// # Errors
    /// As the store says. After `Conflict` the cache has caught up with what was found.
    pub async fn write(
        &self,
        cache: &WatchCache,
        name: &ObjectName,
        expect: Expect,
        kept: Option<Bytes>,
        may_lose: bool,
    ) -> Result<Revision, WriteError> {
        let key = key_of(cache, name);
        let change = match kept {
            Some(bytes) => Change::Put(self.inner.seal(cache, &key, bytes)?),
            None => Change::Delete,
        };
        let written = match may_lose {
            true => self.inner.store.write_deferred(&key, expect, change).await,
            false => self.inner.store.write(&key, expect, change).await,
        };
        match written {
            Ok(revision) => {
                self.caught_up(revision).await;
                Ok(revision)
            }
            Err(store::Error::Conflict { found }) => {
                let seen = match &found {
                    Some(entry) => entry.revision,
                    None => self.inner.store.revision().await.map_err(|error| refusal(&error))?,
                };
                self.caught_up(seen).await;
                Err(WriteError::Conflict)
            }
            Err(error) => Err(WriteError::Refused(refusal(&error))),
        }
    }

    /// The revision up to which caches are complete.
    pub fn progress(&self) -> Revision {
        self.inner.progress.load(Ordering::Acquire)
    }

    /// Waits until caches show `revision`.
    async fn caught_up(&self, revision: Revision) {
        if let Some(receiver) = self.inner.wait_for(revision) {
            // The sender is dropped only when the feed ends, and then nothing more will be seen.
            let _ = receiver.await;
        }
    }

    /// Waits, a bounded time, until caches show all that anybody was acknowledged before. Where this process alone writes to the
    /// store, they do.
    ///
    /// # Errors
    /// The store cannot be asked, or 504 where it tells nothing.
    pub async fn fresh(&self) -> Result<(), Status> {
        if !self.inner.store.is_shared() {
            return Ok(());
        }
        let newest = self.inner.store.revision().await.map_err(|error| refusal(&error))?;
        self.at_least(newest).await
    }

    /// Waits, a bounded time, until caches show `revision`, which a client has seen elsewhere or made up.
    ///
    /// # Errors
    /// 504 with upstream's words where it does not come.
    pub async fn at_least(&self, revision: Revision) -> Result<(), Status> {
        let Some(receiver) = self.inner.wait_for(revision) else { return Ok(()) };
        if tokio::time::timeout(FRESH_WAIT_MAX, receiver).await.is_ok() {
            return Ok(());
        }
        let message = format!("Too large resource version: {revision}, current: {}", self.progress());
        let mut status = Status::timeout(message.clone()).retry_after(1);
        if let Some(details) = &mut status.details {
            details.causes = vec![api::status::Cause {
                reason: "ResourceVersionTooLarge".to_owned(),
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }];
        }
        Err(status)
    }

    /// Revisions before this are forgotten.
    pub fn floor(&self) -> Revision {
        self.inner.floor.load(Ordering::Acquire)
    }

    /// Forgets revisions before `floor`.
    pub async fn compact(&self, floor: Revision) {
        self.inner.floor.fetch_max(floor, Ordering::AcqRel);
        if let Err(error) = self.inner.store.compact(floor).await {
            tracing::warn!(%error, floor, "the store was not compacted");
        }
    }

    /// Whether the feed follows the store.
    pub fn is_healthy(&self) -> bool {
        self.inner.healthy.load(Ordering::Acquire)
    }
}

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote in between.
    #[error("the object is not as expected")]
    Conflict,
    /// Anything else.
    #[error(transparent)]
    Refused(#[from] Status),
}

impl Inner {
    fn seal(&self, cache: &WatchCache, key: &Key, plain: Bytes) -> Result<Bytes, Status> {
        match self.transform(cache) {
            Some(transform) => transform.seal(key, plain),
            None => Ok(plain),
        }
    }

    fn transform(&self, cache: &WatchCache) -> Option<&Arc<dyn Transform>> {
        if self.transforms.is_empty() {
            return None;
        }
        self.transforms.get(&(cache.group.clone(), cache.plural.clone()))
    }

    /// Published JSON of what is kept; `None` where it is no object.
    fn publish(
        &self,
        cache: &WatchCache,
        key: &Key,
        value: Bytes,
        revision: Revision,
    ) -> Result<Option<Bytes>, Status> {
        let plain = match self.transform(cache) {
            Some(transform) => transform.open(key, value)?,
            None => value,
        };
        Ok(json::published(&plain, revision).or_else(|| {
            let value: serde_json::Value = serde_json::from_slice(&plain).ok()?;
            json::published(&json::kept(&value), revision)
        }))
    }

    fn wait_for(&self, revision: Revision) -> Option<oneshot::Receiver<()>> {
        if self.progress.load(Ordering::Acquire) >= revision {
            return None;
        }
        let mut waiters = self.waiters.lock();
        // Progress is told under this lock: it cannot have passed unnoticed.
        if self.progress.load(Ordering::Acquire) >= revision {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        waiters.entry(revision).or_default().push(sender);
        Some(receiver)
    }

    fn tell_progress(&self, revision: Revision) {
        let mut waiters = self.waiters.lock();
        self.progress.fetch_max(revision, Ordering::AcqRel);
        let later = waiters.split_off(&(revision + 1));
        let due = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for waiter in due.into_values().flatten() {
            let _ = waiter.send(());
        }
    }

    async fn load(&self, cache: &WatchCache) -> Result<(), Status> {
        let prefix: Key = format!("{ROOT}{}/{}/", cache.group, cache.plural).into();
        let listed = self.store.list(&prefix, Page::default()).await;
        let listing = listed.map_err(|error| refusal(&error))?;
        let mut objects = Vec::with_capacity(listing.entries.len());
        for entry in listing.entries {
            objects.extend(self.publish(cache, &entry.key, entry.value, entry.revision)?);
        }
        cache.load(objects, listing.revision);
        Ok(())
    }

    /// Follows the store for ever. A failure is retried; what was missed is loaded anew.
    async fn follow(self: Arc<Self>, mut after: Revision) {
        let root = Key::from_static(ROOT.as_bytes());
        loop {
            let mut told = self.store.follow(&root, after).ready_chunks(FEED_BATCH_MAX);
            while let Some(batch) = told.next().await {
                for told in batch {
                    match told {
                        Ok(Told::Write(event)) => {
                            after = event.revision;
                            self.dispatch(event);
                        }
                        Ok(Told::Reached(revision)) => after = revision,
                        Err(store::Error::Compacted { .. }) => after = self.reload(after).await,
                        Err(error) => {
                            self.healthy.store(false, Ordering::Release);
                            tracing::error!(%error, "the store's feed failed");
                        }
                    }
                }
                self.tell_progress(after);
            }
            tokio::time::sleep(RETRY_AFTER).await;
            if self.store.revision().await.is_ok() {
                self.healthy.store(true, Ordering::Release);
            }
        }
    }

    /// Loads every cache anew. The revision from which to go on.
    async fn reload(&self, after: Revision) -> Revision {
        let Ok(revision) = self.store.revision().await else { return after };
        let caches: Vec<_> = self.routes.read().values().cloned().collect();
        for cache in caches {
            cache.unload();
            while let Err(error) = self.load(&cache).await {
                tracing::error!(%error, group = cache.group, plural = cache.plural, "a cache cannot be loaded");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        revision
    }

    fn dispatch(&self, event: store::Event) {
        let Some((home, key)) = split_key(&event.key) else { return };
        let Some(cache) = self.routes.read().get(home).cloned() else { return };
        let json = match event.value {
            Some(value) => match self.publish(&cache, &event.key, value, event.revision) {
                Ok(Some(json)) => Some(json),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "a value that another server wrote cannot be read");
                    return;
                }
            },
            None => None,
        };
        cache.apply(RawChange { key, json, revision: event.revision });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_home_and_name() {
        let check = |key: &str, expect: Option<(&str, &str)>| {
            let found = split_key(key.as_bytes()).map(|(home, name)| (home.to_owned(), name.to_string()));
            assert_eq!(found, expect.map(|(home, name)| (home.to_owned(), name.to_owned())), "{key}");
        };
        check("/registry/core/pods/a/b", Some(("core/pods", "a/b")));
        check("/registry/core/nodes/n", Some(("core/nodes", "n")));
        check(
            "/registry/rbac.authorization.k8s.io/clusterroles/system:x",
            Some(("rbac.authorization.k8s.io/clusterroles", "system:x")),
        );
        check("/other/a/b/c", None);
        check("/registry/x", None);
    }
}
