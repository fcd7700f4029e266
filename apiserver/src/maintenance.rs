//! What a server does by itself from time to time: it forgets the past, removes what has lived its time, and lets go of
//! watchers that left.

use crate::registry::Registry;
use crate::storage::Storage;
use crate::watch_cache::WatchCache;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::Expect;
use tokio::time::{Instant, MissedTickBehavior};

/// How long the past is kept. Upstream: `--etcd-compaction-interval`.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// How often objects that have lived their time are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Expired objects of one home that are removed at a time: the rest waits for the next round, so that clients come first.
const EXPIRED_MAX: usize = 5_000;

/// Runs until the registry is gone.
pub(crate) async fn run(registry: Weak<Registry>) {
    let mut compact = tokio::time::interval_at(Instant::now() + COMPACT_EVERY, COMPACT_EVERY);
    let mut expire = tokio::time::interval_at(Instant::now() + EXPIRE_EVERY, EXPIRE_EVERY);
    for interval in [&mut compact, &mut expire] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    // What was the present at the last round is the past that is forgotten in this one.
    let mut floor = 0;
    loop {
        tokio::select! {
            _ = compact.tick() => {
                let Some(registry) = registry.upgrade() else { return };
                let storage = registry.storage();
                if floor > 0 {
                    storage.compact(floor).await;
                }
                floor = storage.progress();
            }
            _ = expire.tick() => {
                let Some(registry) = registry.upgrade() else { return };
                expire_all(&registry).await;
            }
        }
    }
}

async fn expire_all(registry: &Registry) {
    let table = Arc::clone(&registry.table());
    let mut swept: Vec<&Arc<WatchCache>> = Vec::new();
    for entry in table.entries() {
        let Some(cache) = &entry.cache else { continue };
        if swept.iter().any(|other| Arc::ptr_eq(other, cache)) {
            continue;
        }
        swept.push(cache);
        cache.sweep();
        if let Some(seconds) = entry.resource.strategy.ttl_seconds() {
            expire(registry.storage(), cache, Duration::from_secs(u64::from(seconds))).await;
        }
    }
}

/// Removes the objects that were not written for `ttl`. Somebody who writes one meanwhile keeps it.
async fn expire(storage: &Storage, cache: &WatchCache, ttl: Duration) {
    let now = Instant::now();
    let snapshot = cache.snapshot();
    let old = snapshot.items.values().filter(|item| now.duration_since(item.seen) >= ttl).take(EXPIRED_MAX);
    for item in old {
        let meta = &item.object.meta;
        let removed = storage.write(cache, &meta.key, Expect::At(meta.resource_version), None, true).await;
        if let Err(error) = removed {
            tracing::debug!(%error, name = %meta.key, "an expired object was not removed");
        }
    }
}
