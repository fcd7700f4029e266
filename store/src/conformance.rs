//! What every backend must do: the invariants of [`crate::Store`], as checks that panic where one does not hold.
//!
//! Call [`all`] with a store and a part of its keys that nobody else writes to. Faults are the backend's own affair: the
//! embedded engine runs [`Workload`] again with a crash at every sync.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use crate::testing::Dice;
use crate::{
    Change, Error, Event, Expect, KEY_BYTES_MAX, Key, Page, Result, Revision, Store, VALUE_BYTES_MAX,
};

/// Every check, each below its own part of `space`.
pub async fn all(store: Arc<dyn Store>, space: &str) {
    let key = |name: &str| Key::from(format!("{space}/{name}/"));
    writes_take_growing_revisions(&*store, &key("grow")).await;
    a_conflict_changes_nothing(&*store, &key("conflict")).await;
    what_is_too_large_is_refused(&*store, &key("large")).await;
    a_watch_tells_every_later_write_once(&*store, &key("watch")).await;
    a_prefix_is_bytes(&*store, &key("prefix")).await;
    writers_at_once_lose_nothing(store.clone(), &key("many")).await;
    for seed in 1..=3 {
        let prefix = key(&format!("random{seed}"));
        let mut workload = Workload::new(prefix, seed);
        for _ in 0..150 {
            workload.step(&*store).await.expect("a healthy store");
        }
        workload.check_all(&*store).await;
    }
    compaction_forgets_and_keeps(&*store, &key("compact")).await;
}

fn below(prefix: &Key, name: &str) -> Key {
    [prefix.as_ref(), name.as_bytes()].concat().into()
}

fn put(value: &str) -> Change {
    Change::Put(Bytes::copy_from_slice(value.as_bytes()))
}

/// Invariants 1 and 4: a write is readable once it is acknowledged, at a revision larger than all before.
pub async fn writes_take_growing_revisions(store: &dyn Store, prefix: &Key) {
    let key = below(prefix, "a");
    let mut last = store.revision().await.expect("a revision");
    let mut expect = Expect::Absent;
    for round in 0..5 {
        let revision = store.write(&key, expect, put(&round.to_string())).await.expect("a write");
        assert!(revision > last, "{revision} after {last}");
        assert!(store.revision().await.expect("a revision") >= revision);
        let entry = store.get(&key).await.expect("a read").expect("an entry");
        assert_eq!((entry.revision, entry.value), (revision, Bytes::from(round.to_string())));
        (last, expect) = (revision, Expect::At(revision));
    }
    let removed = store.write(&key, expect, Change::Delete).await.expect("a removal");
    assert!(removed > last);
    assert_eq!(store.get(&key).await.expect("a read"), None);
    let again = store.write(&key, Expect::Absent, put("again")).await.expect("a write");
    assert!(again > removed);
}

/// Invariant 2.
pub async fn a_conflict_changes_nothing(store: &dyn Store, prefix: &Key) {
    let key = below(prefix, "a");
    let found = |result: Result<Revision>| match result {
        Err(Error::Conflict { found }) => found,
        other => panic!("not a conflict: {other:?}"),
    };
    assert_eq!(found(store.write(&key, Expect::At(1), put("x")).await), None);
    assert_eq!(found(store.write(&key, Expect::At(1), Change::Delete).await), None);
    let first = store.write(&key, Expect::Absent, put("1")).await.expect("a write");
    let before = store.get(&key).await.expect("a read");
    assert_eq!(found(store.write(&key, Expect::Absent, put("x")).await), before);
    assert_eq!(found(store.write(&key, Expect::At(first + 1), put("x")).await), before);
    assert_eq!(found(store.write(&key, Expect::At(first + 1), Change::Delete).await), before);
    assert_eq!(store.get(&key).await.expect("a read"), before);
}

/// The bounds.
pub async fn what_is_too_large_is_refused(store: &dyn Store, prefix: &Key) {
    let long = Key::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let refused = store.write(&long, Expect::Absent, put("x")).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes_max: KEY_BYTES_MAX, .. })), "{refused:?}");
    let key = below(prefix, "a");
    let refused = store.write(&key, Expect::Absent, Change::Put(vec![0; VALUE_BYTES_MAX + 1].into())).await;
    assert!(matches!(refused, Err(Error::TooLarge { bytes_max: VALUE_BYTES_MAX, .. })), "{refused:?}");
    let whole = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    store.write(&key, Expect::Absent, Change::Put(whole.clone())).await.expect("the largest value");
    assert_eq!(store.get(&key).await.expect("a read").expect("an entry").value, whole);
}

/// Invariant 3, from before, and live.
pub async fn a_watch_tells_every_later_write_once(store: &dyn Store, prefix: &Key) {
    let start = store.revision().await.expect("a revision");
    let key = below(prefix, "a");
    let first = store.write(&key, Expect::Absent, put("1")).await.expect("a write");
    let mut early = store.watch(prefix, start);
    let mut late = store.watch(prefix, first);
    let second = store.write(&key, Expect::At(first), put("2")).await.expect("a write");
    let gone = store.write(&key, Expect::At(second), Change::Delete).await.expect("a removal");
    let event = |revision, value: Option<&str>, previous: Option<&str>| Event {
        key: key.clone(),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        previous: previous.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        revision,
    };
    let told =
        [event(first, Some("1"), None), event(second, Some("2"), Some("1")), event(gone, None, Some("2"))];
    for expect in &told {
        assert_eq!(&early.next().await.expect("open").expect("an event"), expect);
    }
    for expect in &told[1..] {
        assert_eq!(&late.next().await.expect("open").expect("an event"), expect);
    }
}

/// A prefix does not end at a separator, and a neighbour is not below it.
pub async fn a_prefix_is_bytes(store: &dyn Store, prefix: &Key) {
    for name in ["a", "a/1", "a/2", "ab", "b"] {
        store.write(&below(prefix, name), Expect::Absent, put(name)).await.expect("a write");
    }
    let names = async |under: &str, page: Page| {
        let listing = store.list(&below(prefix, under), page).await.expect("a listing");
        let cut = |key: &Key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        (listing.entries.iter().map(|entry| cut(&entry.key)).collect::<Vec<_>>(), listing.more)
    };
    assert_eq!(names("", Page::default()).await.0, ["a", "a/1", "a/2", "ab", "b"]);
    assert_eq!(names("a", Page::default()).await.0, ["a", "a/1", "a/2", "ab"]);
    assert_eq!(
        names("a/", Page { limit: 2, ..Page::default() }).await,
        (vec!["a/1".into(), "a/2".into()], false)
    );
    assert_eq!(names("", Page { limit: 2, ..Page::default() }).await, (vec!["a".into(), "a/1".into()], true));
    let rest = Page { after: Some(below(prefix, "a/1")), ..Page::default() };
    assert_eq!(names("", rest).await.0, ["a/2", "ab", "b"]);
}

/// Compare-and-swap from many tasks: as many revisions as increments, and a watch that saw each.
pub async fn writers_at_once_lose_nothing(store: Arc<dyn Store>, prefix: &Key) {
    const WRITERS: u64 = 8;
    const ROUNDS: u64 = 20;
    let key = below(prefix, "counter");
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch(prefix, start);
    store.write(&key, Expect::Absent, put("0")).await.expect("a write");
    let add = |store: Arc<dyn Store>, key: Key| async move {
        for _ in 0..ROUNDS {
            let mut now = store.get(&key).await.expect("a read").expect("an entry");
            loop {
                let count: u64 = String::from_utf8_lossy(&now.value).parse().expect("a number");
                match store.write(&key, Expect::At(now.revision), put(&(count + 1).to_string())).await {
                    Ok(_) => break,
                    Err(Error::Conflict { found: Some(found) }) => now = found,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    let tasks: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(add(store.clone(), key.clone()))).collect();
    for task in tasks {
        task.await.expect("a writer");
    }
    let mut last = start;
    for count in 0..=WRITERS * ROUNDS {
        let event = watch.next().await.expect("open").expect("an event");
        assert_eq!(event.value, Some(Bytes::from(count.to_string())));
        assert!(event.revision > last);
        last = event.revision;
    }
}

/// After compaction the oldest revision is as asked; before it is `Compacted`, what is current stays.
pub async fn compaction_forgets_and_keeps(store: &dyn Store, prefix: &Key) {
    let (kept, changed) = (below(prefix, "kept"), below(prefix, "changed"));
    let first = store.write(&kept, Expect::Absent, put("kept")).await.expect("a write");
    let mut at = store.write(&changed, Expect::Absent, put("0")).await.expect("a write");
    let middle = store.write(&changed, Expect::At(at), put("1")).await.expect("a write");
    at = store.write(&changed, Expect::At(middle), put("2")).await.expect("a write");
    store.compact(middle).await.expect("a compaction");
    store.compact(middle).await.expect("compaction again");
    let values = async |at| {
        let listing = store.list(prefix, Page { at, ..Page::default() }).await?;
        Ok::<_, Error>(listing.entries.into_iter().map(|entry| entry.value).collect::<Vec<_>>())
    };
    assert_eq!(values(Some(middle)).await.expect("the oldest"), ["1", "kept"]);
    assert_eq!(values(None).await.expect("the newest"), ["2", "kept"]);
    let gone = values(Some(first)).await;
    assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
    let told = store.watch(prefix, first).next().await.expect("an answer");
    assert!(matches!(told, Err(Error::Compacted { .. })), "{told:?}");
    let told = store.watch(prefix, middle).next().await.expect("open").expect("an event");
    assert_eq!((told.revision, told.previous), (at, Some(Bytes::from("1"))));
    let future = values(Some(at + 1_000_000)).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
    let future = store.compact(at + 1_000_000).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
}

/// Random writes to a few keys, and what the store must show for them.
#[derive(Debug)]
pub struct Workload {
    prefix: Key,
    dice: Dice,
    /// Every acknowledged write.
    history: Vec<(Revision, Key, Option<Bytes>)>,
    /// The write that was under way when the store failed.
    unanswered: Option<(Key, Option<Bytes>)>,
    count: u64,
}

type State = BTreeMap<Key, (Revision, Bytes)>;

impl Workload {
    /// The same seed gives the same writes.
    pub fn new(prefix: Key, seed: u64) -> Workload {
        Workload { prefix, dice: Dice::new(seed), history: Vec::new(), unanswered: None, count: 0 }
    }

    /// The state that the first writes up to `at` make.
    fn state(&self, at: Revision) -> State {
        let mut state = State::new();
        for (revision, key, value) in self.history.iter().take_while(|write| write.0 <= at) {
            match value {
                Some(value) => state.insert(key.clone(), (*revision, value.clone())),
                None => state.remove(key),
            };
        }
        state
    }

    fn newest(&self) -> Revision {
        self.history.last().map_or(0, |write| write.0)
    }

    /// How many writes were acknowledged.
    pub fn len(&self) -> usize {
        self.history.len()
    }

    /// Whether no write was acknowledged yet.
    pub fn is_empty(&self) -> bool {
        self.history.is_empty()
    }

    /// One write.
    ///
    /// # Errors
    /// What the store says, where it is not a conflict that had to be.
    pub async fn step(&mut self, store: &dyn Store) -> Result<()> {
        self.count += 1;
        let key = below(&self.prefix, &format!("k{}", self.dice.roll(12)));
        let now = self.state(Revision::MAX).remove(&key);
        let fill = vec![b'a' + self.dice.roll(26) as u8; self.dice.roll(3000) as usize];
        let value = Bytes::from([self.count.to_string().as_bytes(), &fill].concat());
        let (expect, change) = match (&now, self.dice.roll(4)) {
            (Some((revision, _)), 0) => (Expect::At(*revision), None),
            (Some((revision, _)), _) => (Expect::At(*revision), Some(value)),
            (None, _) => (Expect::Absent, Some(value)),
        };
        self.unanswered = Some((key.clone(), change.clone()));
        let put = change.clone().map_or(Change::Delete, Change::Put);
        let revision = store.write(&key, expect, put).await?;
        assert!(revision > self.newest());
        self.unanswered = None;
        self.history.push((revision, key, change));
        Ok(())
    }

    /// After a restart: takes over the write that was not answered where the store has it.
    pub async fn settle(&mut self, store: &dyn Store) {
        let Some((key, value)) = self.unanswered.take() else { return };
        let now = store.revision().await.expect("a revision");
        if now > self.newest() {
            assert_eq!(now, self.newest() + 1, "one write was under way");
            self.history.push((now, key, value));
        }
    }

    /// Invariants 3 to 5 for all that was written: each older state, in pages, and a watch from the start.
    pub async fn check_all(&mut self, store: &dyn Store) {
        let revisions: Vec<_> = self.history.iter().map(|write| write.0).collect();
        for at in revisions.iter().copied() {
            self.check_listing(store, Some(at)).await;
        }
        self.check_listing(store, None).await;
        let Some(start) = revisions.first().copied() else { return };
        self.check_watch(store, start).await;
    }

    async fn check_listing(&mut self, store: &dyn Store, at: Option<Revision>) {
        let expect: Vec<_> = self
            .state(at.unwrap_or(Revision::MAX))
            .into_iter()
            .map(|(key, (at, value))| (key, at, value))
            .collect();
        let mut got = Vec::new();
        let mut page = Page { after: None, limit: self.dice.roll(5) as usize, at };
        loop {
            let listing = store.list(&self.prefix, page.clone()).await.expect("a listing");
            page.at = Some(listing.revision);
            page.after = listing.entries.last().map(|entry| entry.key.clone());
            got.extend(listing.entries.into_iter().map(|entry| (entry.key, entry.revision, entry.value)));
            if !listing.more {
                break;
            }
        }
        assert_eq!(got, expect, "at {at:?}");
    }

    /// Every write after `after`, with the value before it.
    pub async fn check_watch(&self, store: &dyn Store, after: Revision) {
        let mut watch = store.watch(&self.prefix, after);
        for (revision, key, value) in self.history.iter().filter(|write| write.0 > after) {
            let previous = self.state(revision - 1).remove(key).map(|(_, value)| value);
            let expect = Event { key: key.clone(), value: value.clone(), previous, revision: *revision };
            assert_eq!(watch.next().await.expect("open").expect("an event"), expect);
        }
    }
}
