//! A work queue of keys. Upstream: client-go `util/workqueue`.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(5);
/// The longest wait after failures.
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// Keys that somebody has to look at.
///
/// # Guarantees
/// A key is never handed to two workers at once. A key added while it is worked on is handed out again afterwards. A key
/// added many times is handed out once. So the queue is never longer than there are keys.
///
/// # Assumptions
/// Whoever got a key calls [`Queue::done`] with it.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    /// Keys to be handed out, in order; each is in `dirty`, none in `working`.
    ready: VecDeque<T>,
    dirty: HashSet<T>,
    working: HashSet<T>,
    /// Keys to be added later. The number keeps equal times apart.
    later: BTreeMap<(Instant, u64), T>,
    later_at: HashMap<T, (Instant, u64)>,
    later_number: u64,
    failures: HashMap<T, u32>,
    closed: bool,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BTreeMap::new(),
            later_at: HashMap::new(),
            later_number: 0,
            failures: HashMap::new(),
            closed: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// Adds a key.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.wake.notify_one();
    }

    /// Adds a key after a time. If it is waiting already, the earlier time counts.
    pub fn add_after(&self, key: T, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        let at = Instant::now() + wait;
        if state.closed || state.later_at.get(&key).is_some_and(|(known, _)| *known <= at) {
            return;
        }
        if let Some(old) = state.later_at.remove(&key) {
            state.later.remove(&old);
        }
        state.later_number += 1;
        let slot = (at, state.later_number);
        state.later.insert(slot, key.clone());
        state.later_at.insert(key, slot);
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Adds a key after a wait that doubles with each failure since the last [`Queue::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let wait = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let wait = RETRY_FIRST.saturating_mul(1_u32.checked_shl(*failures).unwrap_or(u32::MAX));
            *failures = (*failures + 1).min(31);
            wait.min(RETRY_MAX)
        };
        self.add_after(key, wait);
    }

    /// How often a key failed since the last [`Queue::forget`].
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// A key succeeded: its next failure waits shortly again.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// The next key; waits for one. `None` once the queue is closed and empty.
    pub async fn get(&self) -> Option<T> {
        loop {
            let wait = {
                let mut state = self.shared.state.lock();
                state.move_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    let more = !state.ready.is_empty() || !state.later.is_empty();
                    drop(state);
                    if more {
                        // Another worker takes over the watch on what is left.
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                if state.closed {
                    drop(state);
                    self.shared.wake.notify_one();
                    return None;
                }
                state.later.keys().next().map(|(at, _)| *at)
            };
            match wait {
                None => self.shared.wake.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// A worker is through with a key.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        state.working.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Takes no more keys; workers get what is ready, then `None`. What was to be added later is dropped.
    pub fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.later.clear();
        state.later_at.clear();
        drop(state);
        self.shared.wake.notify_one();
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing is ready, worked on or waiting.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.ready.is_empty() && state.working.is_empty() && state.later.is_empty()
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        if self.closed || !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn move_due(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.later_at.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time_and_again_if_added_meanwhile() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.len(), 0);
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_counts() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("slow", Duration::from_secs(9));
        queue.add_after("slow", Duration::from_secs(3));
        queue.add_after("slow", Duration::from_secs(7));
        queue.add_after("fast", Duration::from_secs(1));
        assert_eq!(queue.get().await, Some("fast"));
        assert_eq!(start.elapsed().as_secs(), 1);
        assert_eq!(queue.get().await, Some("slow"));
        assert_eq!(start.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer() {
        let queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..20 {
            let start = Instant::now();
            queue.add_rate_limited("a");
            queue.get().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
        }
        assert_eq!(waits[..4], [5, 10, 20, 40]);
        assert_eq!(waits[19], 1_000_000);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_ends_every_worker_after_the_rest() {
        let queue = Queue::new();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut count = 0;
                    while let Some(key) = queue.get().await {
                        count += 1;
                        queue.done(&key);
                    }
                    count
                })
            })
            .collect();
        (0..5).for_each(|key| queue.add(key));
        queue.close();
        queue.add(9);
        let mut total = 0;
        for worker in workers {
            total += worker.await.unwrap();
        }
        assert_eq!(total, 5);
    }
}
