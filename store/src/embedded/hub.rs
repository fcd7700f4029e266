//! Tells watchers what was committed.
//!
//! # Flow
//! The writer publishes a batch after it is durable. Each watcher has a bounded queue of the events under its prefix. One whose
//! queue is full gets no more: it reads what it has, then what it missed from the log, and joins again. So a slow
//! watcher costs bounded memory and misses nothing that is not compacted.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Event, Key, Revision};

/// Events that wait for one watcher: a second of a busy cluster, before the log is read instead.
const QUEUE_LEN_MAX: usize = 1024;
/// Bytes that wait for one watcher. Values are shared with other queues, so this bounds what a stuck watcher pins.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    published: Revision,
    closed: bool,
    watchers: Vec<(Key, Weak<Queue>)>,
}

/// What one watcher has not read yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    overflown: bool,
    closed: bool,
}

/// What a watcher finds in its queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// These, in order.
    Events(VecDeque<Event>),
    /// The queue was too short for what came after the last events: read the log and join again.
    Overflown,
    /// The store is closed.
    Closed,
}

impl Hub {
    /// What is committed so far, at the start.
    pub fn start(&self, newest: Revision) {
        self.0.lock().published = newest;
    }

    /// The newest revision that watchers were told.
    pub fn published(&self) -> Revision {
        self.0.lock().published
    }

    /// Whether anybody listens: without, events need not be made.
    pub fn is_watched(&self) -> bool {
        !self.0.lock().watchers.is_empty()
    }

    /// A queue of what comes under `prefix` after the revision that is returned with it.
    pub fn join(&self, prefix: &Key) -> (Arc<Queue>, Revision) {
        let queue = Arc::new(Queue::default());
        let mut state = self.0.lock();
        queue.waiting.lock().closed = state.closed;
        state.watchers.push((prefix.clone(), Arc::downgrade(&queue)));
        (queue, state.published)
    }

    /// Tells everybody of durable writes up to `newest`.
    pub fn publish(&self, events: &[Event], newest: Revision) {
        let mut state = self.0.lock();
        state.published = newest;
        state.watchers.retain(|(prefix, queue)| match queue.upgrade() {
            Some(queue) => queue.push(events.iter().filter(|event| event.key.starts_with(prefix))),
            None => false,
        });
    }

    /// Ends every watch.
    pub fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        for queue in state.watchers.drain(..).filter_map(|(_, queue)| queue.upgrade()) {
            queue.waiting.lock().closed = true;
            queue.wake.notify_one();
        }
    }
}

impl Queue {
    /// Adds events while there is room; false once there is none.
    fn push<'a>(&self, events: impl Iterator<Item = &'a Event>) -> bool {
        let mut waiting = self.waiting.lock();
        let mut woken = false;
        for event in events {
            if waiting.events.len() >= QUEUE_LEN_MAX || waiting.bytes >= QUEUE_BYTES_MAX {
                waiting.overflown = true;
                break;
            }
            waiting.bytes += event.value.as_ref().map_or(0, |value| value.len());
            waiting.events.push_back(event.clone());
            woken = true;
        }
        let open = !waiting.overflown;
        drop(waiting);
        if woken {
            self.wake.notify_one();
        }
        open
    }

    /// Waits for something to read.
    pub async fn next(&self) -> Batch {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if !waiting.events.is_empty() {
                    waiting.bytes = 0;
                    return Batch::Events(std::mem::take(&mut waiting.events));
                }
                if waiting.closed {
                    return Batch::Closed;
                }
                if waiting.overflown {
                    return Batch::Overflown;
                }
            }
            self.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(key: &'static str, revision: Revision) -> Event {
        Event { key: key.into(), value: Some(Bytes::from_static(b"v")), previous: None, revision }
    }

    #[tokio::test]
    async fn a_full_queue_keeps_what_it_has_and_says_that_more_was_missed() {
        let hub = Hub::default();
        let (queue, _) = hub.join(&"a".into());
        let events: Vec<_> = (1..=QUEUE_LEN_MAX as u64 + 5).map(|revision| event("a", revision)).collect();
        hub.publish(&events, events.len() as u64);
        let Batch::Events(got) = queue.next().await else { panic!("events") };
        assert_eq!(got.len(), QUEUE_LEN_MAX);
        assert_eq!(queue.next().await, Batch::Overflown);
        hub.publish(&[event("a", 9999)], 9999);
        assert_eq!(queue.next().await, Batch::Overflown, "nothing after a hole");
    }

    #[tokio::test]
    async fn only_the_prefix_is_told_and_a_dropped_watcher_is_forgotten() {
        let hub = Hub::default();
        let (queue, published) = hub.join(&"a/".into());
        assert_eq!(published, 0);
        hub.publish(&[event("b", 1), event("a/x", 2)], 2);
        let Batch::Events(got) = queue.next().await else { panic!("events") };
        assert_eq!(got, [event("a/x", 2)]);
        drop(queue);
        hub.publish(&[event("a/x", 3)], 3);
        assert!(!hub.is_watched());
        assert_eq!(hub.published(), 3);
    }
}
