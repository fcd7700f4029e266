//! The read side: the current objects of one home in a persistent ordered map, a bounded ring of what happened, and the
//! watchers. Upstream: `apiserver/pkg/storage/cacher`.
//!
//! Flow: the feed (`registry`) applies every committed write in order; readers take snapshots (constant time) or
//! subscribe.
//!
//! Guarantees: a snapshot shows exactly the writes up to its revision; a subscription delivers every later write once, in
//! order, or ends. Writers never wait for readers: a watcher that does not keep up is ended and has to come again.

use crate::codec::json;
use crate::fields;
use api::resource::Field;
use api::{Object, ObjectName, Resource};
use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events kept per home. More lets watchers resume from further back; each keeps two versions of an object alive.
const RING_LEN_MAX: usize = 4096;
/// Bytes of object versions that the events of one home may keep alive.
const RING_BYTES_MAX: usize = 16 << 20;
/// How long events are kept that nothing else pushes out: as long as the store keeps the past, so that pages go on and watchers resume.
const RING_AGE_MAX: Duration = Duration::from_secs(300);
/// The newest events are kept however old they are: they cost little, and who resumes at rest must not list anew.
const RING_LEN_MIN: usize = 100;
/// Events that one watcher may be behind: a burst of a full ring must fit.
const WATCHER_QUEUE_MAX: usize = RING_LEN_MAX;
/// Watchers of one home: kubelets of a large cluster, one each, with room.
const WATCHERS_MAX: usize = 50_000;

const _: () =
    assert!(WATCHER_QUEUE_MAX >= RING_LEN_MAX, "what the ring holds must fit into a watcher's queue");

/// One version of an object with what selectors ask of it.
#[derive(Debug)]
pub struct Item {
    /// The object.
    pub object: Arc<Object>,
    /// Values of the cache's fields, in their order.
    pub fields: Box<[Box<str>]>,
    /// When this process learned of this version.
    pub seen: Instant,
    /// The same object in other versions, made when first asked for.
    others: Mutex<Vec<(Arc<Resource>, Arc<Object>)>>,
}

/// Other versions of one object that are remembered: a home is rarely shared by more.
const OTHERS_MAX: usize = 3;

impl Item {
    /// The object as this row shows it, if that was made before.
    pub fn shown(&self, resource: &Arc<Resource>) -> Option<Arc<Object>> {
        let others = self.others.lock();
        others.iter().find(|(own, _)| Arc::ptr_eq(own, resource)).map(|(_, object)| object.clone())
    }

    /// Remembers how this row shows the object.
    pub fn remember(&self, resource: &Arc<Resource>, object: Arc<Object>) {
        let mut others = self.others.lock();
        if others.len() >= OTHERS_MAX {
            others.remove(0);
        }
        others.push((resource.clone(), object));
    }
}

/// A committed write.
#[derive(Debug)]
pub struct Change {
    /// The write's revision.
    pub revision: u64,
    /// The version before; `None` for a new object.
    pub old: Option<Arc<Item>>,
    /// The version it wrote; `None` for a removal.
    pub new: Option<Arc<Item>>,
    /// When this process learned of it.
    seen: Instant,
    /// The old version's JSON with this revision, made when first asked for.
    last: OnceLock<Bytes>,
}

impl Change {
    fn new(revision: u64, old: Option<Arc<Item>>, new: Option<Arc<Item>>) -> Self {
        Self { revision, old, new, seen: Instant::now(), last: OnceLock::new() }
    }

    /// What a watcher sees when the object leaves its sight: the last version it could see, with this write's revision.
    pub fn last_seen(&self) -> Bytes {
        let make = || {
            let old = self.old.as_ref().map(|item| item.object.json.clone()).unwrap_or_default();
            json::republished(&old, self.revision).unwrap_or(old)
        };
        self.last.get_or_init(make).clone()
    }

    /// The object's name.
    pub fn key(&self) -> Option<&ObjectName> {
        self.new.as_ref().or(self.old.as_ref()).map(|item| &item.object.meta.key)
    }

    fn bytes_len(&self) -> usize {
        [&self.old, &self.new].into_iter().flatten().map(|item| item.object.json.len()).sum()
    }
}

/// The objects as of a revision. Cloning is cheap.
#[derive(Clone)]
pub struct Snapshot {
    /// By name.
    pub items: OrdMap<ObjectName, Arc<Item>>,
    /// The store's revision that this shows.
    pub revision: u64,
}

impl Snapshot {
    /// The objects of a namespace (all where it is empty) in order, starting after `after` if given.
    pub fn range<'a>(
        &'a self,
        namespace: &'a str,
        after: Option<&ObjectName>,
    ) -> impl Iterator<Item = &'a Arc<Item>> + use<'a> {
        use std::ops::Bound;
        let start = match after {
            Some(name) => Bound::Excluded(name.clone()),
            None => Bound::Included(ObjectName::new(namespace, "")),
        };
        self.items
            .range((start, Bound::Unbounded))
            .take_while(move |(name, _)| namespace.is_empty() || &*name.namespace == namespace)
            .map(|(_, item)| item)
    }
}

/// Why a cache cannot answer from a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The revision is older than what is remembered; `oldest` is the first one that can be asked for.
    TooOld {
        /// What was asked.
        asked: u64,
        /// The oldest possible.
        oldest: u64,
    },
    /// There are too many watchers already.
    TooMany,
}

/// What a watcher is told about: a cheap test that the publisher makes before it queues.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// Only this namespace; empty means all.
    pub namespace: Box<str>,
    /// Only this name; empty means all.
    pub name: Box<str>,
    /// Only objects where the field of this index has this value, before or after.
    pub field: Option<(usize, Box<str>)>,
}

impl Interest {
    fn wants(&self, change: &Change) -> bool {
        let Some(key) = change.key() else { return false };
        let named = (self.namespace.is_empty() || self.namespace == key.namespace)
            && (self.name.is_empty() || self.name == key.name);
        named
            && self.field.as_ref().is_none_or(|(index, value)| {
                [&change.old, &change.new]
                    .into_iter()
                    .flatten()
                    .any(|item| item.fields.get(*index) == Some(value))
            })
    }
}

struct Subscriber {
    interest: Interest,
    queue: mpsc::Sender<Arc<Change>>,
}

struct State {
    items: OrdMap<ObjectName, Arc<Item>>,
    /// Revision of the last write to this home, or of the listing that filled it.
    last: u64,
    /// The ring remembers every write after this revision.
    floor: u64,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    fields: Arc<[Field]>,
    /// While the first listing is under way: what the feed said meanwhile.
    loading: Option<Vec<RawChange>>,
}

/// A write as the feed tells it; `json` is published.
#[derive(Clone, Debug)]
pub struct RawChange {
    /// The object's name.
    pub key: ObjectName,
    /// Published JSON, or `None` for a removal.
    pub json: Option<Bytes>,
    /// The write's revision.
    pub revision: u64,
}

/// The cache of one home.
pub struct WatchCache {
    /// Group part of the home's key.
    pub group: String,
    /// Plural part of the home's key.
    pub plural: String,
    state: RwLock<State>,
    subscribers: Mutex<Vec<Subscriber>>,
    /// The feed's progress: every write up to here was applied to its cache.
    progress: Arc<AtomicU64>,
    /// Counts what could not be read.
    broken: AtomicU64,
}

impl State {
    /// Forgets the oldest event: nobody can go on before it any more.
    fn forget_first(&mut self) {
        let Some(forgotten) = self.ring.pop_front() else { return };
        self.ring_bytes -= forgotten.bytes_len();
        self.floor = forgotten.revision;
    }
}

impl WatchCache {
    /// An empty cache that collects what the feed says until [`WatchCache::load`].
    pub fn new(group: &str, plural: &str, fields: Vec<Field>, progress: Arc<AtomicU64>) -> Self {
        let state = State {
            items: OrdMap::new(),
            last: 0,
            floor: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            fields: fields.into(),
            loading: Some(Vec::new()),
        };
        Self {
            group: group.to_owned(),
            plural: plural.to_owned(),
            state: RwLock::new(state),
            subscribers: Mutex::new(Vec::new()),
            progress,
            broken: AtomicU64::new(0),
        }
    }

    /// Replaces everything by a listing as of `revision`, then applies what the feed said meanwhile. Watchers are ended:
    /// they cannot know what they missed.
    pub fn load(&self, objects: Vec<Bytes>, revision: u64) {
        let fields = self.fields();
        let items = objects.into_iter().filter_map(|json| self.item(json, &fields));
        let items: OrdMap<_, _> = items.map(|item| (item.object.meta.key.clone(), item)).collect();
        let mut state = self.state.write();
        self.subscribers.lock().clear();
        (state.items, state.last, state.floor) = (items, revision, revision);
        state.ring.clear();
        state.ring_bytes = 0;
        for change in state.loading.take().unwrap_or_default() {
            if change.revision > revision {
                self.apply_to(&mut state, change);
            }
        }
    }

    /// Starts collecting again, before another [`WatchCache::load`].
    pub fn unload(&self) {
        self.state.write().loading = Some(Vec::new());
    }

    /// Applies a committed write. The feed calls it in order.
    pub fn apply(&self, change: RawChange) {
        let mut state = self.state.write();
        match &mut state.loading {
            Some(waiting) => waiting.push(change),
            None => self.apply_to(&mut state, change),
        }
    }

    fn apply_to(&self, state: &mut State, change: RawChange) {
        let RawChange { key, json, revision } = change;
        if revision <= state.last {
            return; // the listing showed it already
        }
        let new = match json {
            Some(json) => match self.item(json, &state.fields) {
                Some(item) => Some(item),
                None => return,
            },
            None => None,
        };
        let old = match &new {
            Some(item) => state.items.insert(key, item.clone()),
            None => state.items.remove(&key),
        };
        state.last = revision;
        if old.is_none() && new.is_none() {
            return;
        }
        let change = Arc::new(Change::new(revision, old, new));
        state.ring_bytes += change.bytes_len();
        state.ring.push_back(change.clone());
        while state.ring.len() > RING_LEN_MAX || state.ring_bytes > RING_BYTES_MAX {
            state.forget_first();
        }
        // Still under the state's lock: a subscription is either before or after this change.
        let slow = |subscriber: &mut Subscriber| {
            !subscriber.interest.wants(&change) || subscriber.queue.try_send(change.clone()).is_ok()
        };
        self.subscribers.lock().retain_mut(slow);
    }

    fn item(&self, json: Bytes, fields: &[Field]) -> Option<Arc<Item>> {
        let values = fields::extract(&json, fields);
        match (Object::parse(json), values) {
            (Ok(object), Ok(fields)) => {
                let object = Arc::new(object);
                Some(Arc::new(Item { object, fields, seen: Instant::now(), others: Mutex::default() }))
            }
            (Err(error), _) | (_, Err(error)) => {
                self.broken.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, group = self.group, plural = self.plural, "an object cannot be read");
                None
            }
        }
    }

    /// The fields whose values items carry.
    pub fn fields(&self) -> Arc<[Field]> {
        self.state.read().fields.clone()
    }

    /// Makes items carry the values of these fields.
    pub fn set_fields(&self, fields: Vec<Field>) {
        let mut state = self.state.write();
        let same = |(a, b): (&Field, &Field)| a.name == b.name && a.pointer == b.pointer;
        if state.fields.len() == fields.len() && state.fields.iter().zip(&fields).all(same) {
            return;
        }
        state.fields = fields.into();
        let fields = state.fields.clone();
        let items = state.items.values().filter_map(|item| self.item(item.object.json.clone(), &fields));
        state.items = items.map(|item| (item.object.meta.key.clone(), item)).collect();
        // Older events carry the old fields: nobody may resume from them.
        (state.floor, state.ring_bytes) = (state.last, 0);
        state.ring.clear();
        self.subscribers.lock().clear();
    }

    /// One object as it is now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Item>> {
        self.state.read().items.get(&ObjectName::new(namespace, name)).cloned()
    }

    /// All objects as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot { items: state.items.clone(), revision: self.revision_of(&state) }
    }

    fn revision_of(&self, state: &State) -> u64 {
        // Every write up to the feed's progress was applied before the progress was told.
        state.last.max(self.progress.load(Ordering::Acquire))
    }

    /// The objects as of a revision in the past, by undoing what the ring remembers.
    ///
    /// # Errors
    /// The ring does not go back that far. The revision must not be in the future.
    pub fn snapshot_at(&self, revision: u64) -> Result<Snapshot, Stale> {
        let state = self.state.read();
        if revision < state.floor {
            return Err(Stale::TooOld { asked: revision, oldest: state.floor });
        }
        let mut items = state.items.clone();
        for change in state.ring.iter().rev().take_while(|change| change.revision > revision) {
            let Some(key) = change.key() else { continue };
            match &change.old {
                Some(item) => items.insert(key.clone(), item.clone()),
                None => items.remove(key),
            };
        }
        Ok(Snapshot { items, revision })
    }

    /// The newest revision that this cache can answer for.
    pub fn revision(&self) -> u64 {
        self.revision_of(&self.state.read())
    }

    /// Another number after every change of an object.
    pub fn last_change(&self) -> u64 {
        self.state.read().last
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().items.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Follows every write after `after`.
    ///
    /// # Errors
    /// The ring does not go back that far, or there are too many watchers.
    pub fn watch_after(self: &Arc<Self>, after: u64, interest: Interest) -> Result<Watch, Stale> {
        let state = self.state.read();
        if after < state.floor {
            return Err(Stale::TooOld { asked: after, oldest: state.floor });
        }
        let start = state.ring.partition_point(|change| change.revision <= after);
        let backlog = state.ring.range(start..).filter(|change| interest.wants(change)).cloned().collect();
        self.subscribe(interest, backlog)
    }

    /// The present objects and every write after them.
    ///
    /// # Errors
    /// There are too many watchers.
    pub fn watch_now(self: &Arc<Self>, interest: Interest) -> Result<(Snapshot, Watch), Stale> {
        let state = self.state.read();
        let snapshot = Snapshot { items: state.items.clone(), revision: self.revision_of(&state) };
        Ok((snapshot, self.subscribe(interest, VecDeque::new())?))
    }

    /// Called under the state's lock, so that nothing is applied in between.
    fn subscribe(
        self: &Arc<Self>,
        interest: Interest,
        backlog: VecDeque<Arc<Change>>,
    ) -> Result<Watch, Stale> {
        let (queue, receiver) = mpsc::channel(WATCHER_QUEUE_MAX);
        let mut subscribers = self.subscribers.lock();
        if subscribers.len() >= WATCHERS_MAX {
            subscribers.retain(|subscriber| !subscriber.queue.is_closed());
            if subscribers.len() >= WATCHERS_MAX {
                return Err(Stale::TooMany);
            }
        }
        subscribers.push(Subscriber { interest, queue });
        Ok(Watch { cache: self.clone(), backlog, receiver })
    }

    /// Forgets subscribers that are gone although nothing happened since.
    pub fn sweep(&self) {
        self.subscribers.lock().retain(|subscriber| !subscriber.queue.is_closed());
        let mut state = self.state.write();
        let is_old = |change: &Arc<Change>| change.seen.elapsed() > RING_AGE_MAX;
        while state.ring.len() > RING_LEN_MIN && state.ring.front().is_some_and(is_old) {
            state.forget_first();
        }
        state.ring.shrink_to(RING_LEN_MIN);
    }

    /// How many follow.
    pub fn watchers(&self) -> usize {
        self.subscribers.lock().len()
    }

    /// Ends every watch: the resource is no longer served.
    pub fn close(&self) {
        self.subscribers.lock().clear();
    }
}

/// A subscription. Dropping it ends it.
pub struct Watch {
    cache: Arc<WatchCache>,
    backlog: VecDeque<Arc<Change>>,
    receiver: mpsc::Receiver<Arc<Change>>,
}

impl Watch {
    /// The next write; `None` when this watcher was too slow, or the cache was closed.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        match self.backlog.pop_front() {
            Some(change) => Some(change),
            None => self.receiver.recv().await,
        }
    }

    /// What is there already, without waiting, and the revision up to which it is complete: what a bookmark may promise once
    /// these were delivered.
    pub fn drain(&mut self) -> (Vec<Arc<Change>>, u64) {
        let revision = self.cache.revision();
        let mut changes: Vec<_> = self.backlog.drain(..).collect();
        while let Ok(change) = self.receiver.try_recv() {
            changes.push(change);
        }
        let last = changes.last().map_or(0, |change| change.revision);
        (changes, revision.max(last))
    }
}

#[cfg(test)]
mod tests;
