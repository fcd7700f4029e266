//! Waiting until a cache shows what was written. Upstream: pkg/controller/util/consistency and `ControllerExpectations`.

use crate::cache::AnyCache;
use api::{Meta, ObjectName};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// After this time a write is taken as seen, so that a lost one (a restored store) does not stop a loop for ever.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What a loop wrote on behalf of each of its keys and has not seen in its caches yet.
///
/// A loop that plans from a cache that does not show its own last writes makes them twice. So it notes each write here and
/// plans only if all of them are [`met`](Expectations::met). Instead of counting events, as upstream used to do, it compares
/// the revision of the write with that of the cache: nothing has to be observed, nothing can be miscounted.
///
/// # Assumptions
/// The event of the write itself puts the key into the queue again (the object is owned by the key).
#[derive(Default)]
pub struct Expectations {
    entries: Mutex<HashMap<ObjectName, Entry>>,
}

struct Entry {
    until: Instant,
    /// The newest write of each cache.
    written: Vec<(AnyCache, u64)>,
    /// What was deleted.
    gone: Vec<(AnyCache, ObjectName, Box<str>)>,
    /// What was changed in a way that may make it go away: it is gone, another one, or at least this version.
    changed: Vec<(AnyCache, ObjectName, Box<str>, u64)>,
}

impl Expectations {
    fn note(&self, key: &ObjectName, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        let fresh =
            || Entry { until: Instant::now(), written: Vec::new(), gone: Vec::new(), changed: Vec::new() };
        let entry = entries.entry(key.clone()).or_insert_with(fresh);
        entry.until = Instant::now() + TIMEOUT;
        change(entry);
    }

    /// An object of `cache` was created or changed for `key` and now has this `resourceVersion`.
    pub fn wrote(&self, key: &ObjectName, cache: &AnyCache, resource_version: Option<&str>) {
        let revision = resource_version.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.note(key, |entry| {
            match entry.written.iter_mut().find(|(own, _)| own.resource() == cache.resource()) {
                Some((_, newest)) => *newest = revision.max(*newest),
                None => entry.written.push((cache.clone(), revision)),
            }
        });
    }

    /// The deletion of an object of `cache` was asked for on behalf of `key`. It is seen once the object is gone, replaced
    /// by another or marked as being deleted.
    pub fn deleted(&self, key: &ObjectName, cache: &AnyCache, victim: &Meta) {
        self.gone(key, cache, &victim.key, &victim.uid);
    }

    /// As [`Expectations::deleted`], for who has only the name and the UID.
    pub fn gone(&self, key: &ObjectName, cache: &AnyCache, victim: &ObjectName, uid: &str) {
        self.note(key, |entry| entry.gone.push((cache.clone(), victim.clone(), uid.into())));
    }

    /// An object of `cache` was changed for `key` (to this `resourceVersion`) in a way that may have made it go away, such as by
    /// the removal of its last finalizer.
    pub fn changed(
        &self,
        key: &ObjectName,
        cache: &AnyCache,
        object: &ObjectName,
        uid: &str,
        resource_version: Option<&str>,
    ) {
        let revision = resource_version.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.note(key, |entry| entry.changed.push((cache.clone(), object.clone(), uid.into(), revision)));
    }

    /// Whether the caches show everything that was written for `key`.
    pub fn met(&self, key: &ObjectName) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(key) else { return true };
        if entry.until <= Instant::now() {
            tracing::warn!(%key, "own writes were not seen in time");
            entries.remove(key);
            return true;
        }
        entry.written.retain(|(cache, revision)| cache.revision() < *revision);
        entry.gone.retain(|(cache, victim, uid)| {
            let current = cache.get(&victim.namespace, &victim.name);
            current.is_some_and(|object| object.meta.uid == *uid && !object.meta.deleting)
        });
        entry.changed.retain(|(cache, object, uid, revision)| {
            let current = cache.get(&object.namespace, &object.name);
            current.is_some_and(|now| now.meta.uid == *uid && now.meta.resource_version < *revision)
        });
        let met = entry.written.is_empty() && entry.gone.is_empty() && entry.changed.is_empty();
        if met {
            entries.remove(key);
        }
        met
    }

    /// The key is gone: nothing is expected for it any more.
    pub fn forget(&self, key: &ObjectName) {
        self.entries.lock().remove(key);
    }
}
