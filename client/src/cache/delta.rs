//! Handing changes on to any number of subscribers.

use api::{Object, ObjectName};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

/// After a burst the buffer of a subscriber is given back down to this many entries.
const IDLE_ENTRIES_MAX: usize = 1024;

/// A change of one object, or of what was extracted from it. Never both `None`.
#[derive(Debug)]
pub struct Delta<T = Object> {
    /// Namespace and name.
    pub key: ObjectName,
    /// What the subscriber saw last; `None` if it is new.
    pub old: Option<Arc<T>>,
    /// What it is now; `None` if it is gone.
    pub new: Option<Arc<T>>,
}

impl<T> Delta<T> {
    /// The newest version that is known: the new one, or the last one of what is gone.
    pub fn last(&self) -> Option<&Arc<T>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// The changes of a cache: first everything that is there, then every change.
///
/// # Guarantees
/// Changes of one object come in order. A subscriber that is slow gets several changes of one object as one (`old` is what
/// it saw last, `new` is the newest), so its buffer never holds more than one entry per object and nothing is ever lost.
/// An object that was deleted and made again under the same name always comes as a deletion and an addition.
pub struct Subscription<T = Object> {
    buffer: Arc<Buffer<T>>,
    /// The second half of a deletion and addition.
    then: Option<Delta<T>>,
}

pub(super) struct Buffer<T> {
    pending: Mutex<Pending<T>>,
    waker: AtomicWaker,
    closed: AtomicBool,
}

struct Pending<T> {
    order: VecDeque<ObjectName>,
    changes: HashMap<ObjectName, Change<T>>,
}

struct Change<T> {
    old: Option<Arc<T>>,
    new: Option<Arc<T>>,
    /// Whether what `old` was has been deleted before `new` came.
    made_again: bool,
}

impl<T> Buffer<T> {
    fn push(&self, key: &ObjectName, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
        let mut pending = self.pending.lock();
        if let Some(change) = pending.changes.get_mut(key) {
            change.made_again |= change.old.is_some() && change.new.is_none() && new.is_some();
            change.new = new.cloned();
        } else {
            pending.order.push_back(key.clone());
            let change = Change { old: old.cloned(), new: new.cloned(), made_again: false };
            pending.changes.insert(key.clone(), change);
        }
        drop(pending);
        self.waker.wake();
    }

    fn pop(&self) -> Option<(ObjectName, Change<T>)> {
        let mut pending = self.pending.lock();
        while let Some(key) = pending.order.pop_front() {
            match pending.changes.remove(&key) {
                Some(Change { old: None, new: None, .. }) | None => {}
                Some(change) => return Some((key, change)),
            }
        }
        if pending.order.capacity() > IDLE_ENTRIES_MAX {
            pending.order.shrink_to(IDLE_ENTRIES_MAX);
            pending.changes.shrink_to(IDLE_ENTRIES_MAX);
        }
        None
    }
}

impl<T> Subscription<T> {
    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Delta<T>> {
        if let Some(delta) = self.then.take() {
            return Some(delta);
        }
        let (key, change) = self.buffer.pop()?;
        if change.made_again {
            if change.new.is_some() {
                self.then = Some(Delta { key: key.clone(), old: None, new: change.new });
            }
            return Some(Delta { key, old: change.old, new: None });
        }
        Some(Delta { key, old: change.old, new: change.new })
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Delta<T>;

    /// Ends when the cache is stopped.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delta<T>>> {
        if let Some(delta) = self.try_next() {
            return Poll::Ready(Some(delta));
        }
        self.buffer.waker.register(cx.waker());
        match self.try_next() {
            Some(delta) => Poll::Ready(Some(delta)),
            None if self.buffer.closed.load(Ordering::Acquire) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// All subscribers of one source.
pub(super) struct Fanout<T> {
    buffers: Vec<Weak<Buffer<T>>>,
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self { buffers: Vec::new() }
    }
}

impl<T> Fanout<T> {
    /// Adds a subscriber who sees `present` first.
    pub(super) fn subscribe<'a>(
        &mut self,
        present: impl Iterator<Item = (ObjectName, &'a Arc<T>)>,
    ) -> Subscription<T>
    where
        T: 'a,
    {
        let mut pending = Pending { order: VecDeque::new(), changes: HashMap::new() };
        for (key, object) in present {
            pending.order.push_back(key.clone());
            let change = Change { old: None, new: Some(object.clone()), made_again: false };
            pending.changes.insert(key, change);
        }
        let buffer = Arc::new(Buffer {
            pending: Mutex::new(pending),
            waker: AtomicWaker::new(),
            closed: AtomicBool::new(false),
        });
        self.buffers.push(Arc::downgrade(&buffer));
        Subscription { buffer, then: None }
    }

    /// Hands on a change.
    pub(super) fn publish(&mut self, key: &ObjectName, old: Option<&Arc<T>>, new: Option<&Arc<T>>) {
        self.buffers.retain(|buffer| match buffer.upgrade() {
            Some(buffer) => {
                buffer.push(key, old, new);
                true
            }
            None => false,
        });
    }

    /// Ends every subscription after what is pending.
    pub(super) fn close(&mut self) {
        for buffer in self.buffers.drain(..).filter_map(|buffer| buffer.upgrade()) {
            buffer.closed.store(true, Ordering::Release);
            buffer.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies changes of one key (`None`: deleted) to a subscriber that looks only at the end.
    fn check(present: Option<u32>, changes: &[Option<u32>], expect: &[(Option<u32>, Option<u32>)]) {
        let key = ObjectName::new("n", "a");
        let mut now = present.map(Arc::new);
        let mut fanout = Fanout::default();
        let mut subscription = fanout.subscribe(std::iter::empty());
        if let Some(present) = &now {
            fanout.publish(&key, None, Some(present));
            assert!(subscription.try_next().is_some());
        }
        for change in changes {
            let new = change.map(Arc::new);
            fanout.publish(&key, now.as_ref(), new.as_ref());
            now = new;
        }
        let found: Vec<_> = std::iter::from_fn(|| subscription.try_next())
            .map(|delta| (delta.old.map(|old| *old), delta.new.map(|new| *new)))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_slow_subscriber_gets_changes_of_one_object_as_one() {
        check(None, &[Some(1)], &[(None, Some(1))]);
        check(None, &[Some(1), Some(2), Some(3)], &[(None, Some(3))]);
        check(None, &[Some(1), None], &[]);
        check(None, &[Some(1), None, Some(2)], &[(None, Some(2))]);
        check(Some(1), &[Some(2), Some(3)], &[(Some(1), Some(3))]);
        check(Some(1), &[Some(2), None], &[(Some(1), None)]);
        check(Some(1), &[None, Some(2)], &[(Some(1), None), (None, Some(2))]);
        check(Some(1), &[None, Some(2), None], &[(Some(1), None)]);
        check(Some(1), &[None, Some(2), Some(3)], &[(Some(1), None), (None, Some(3))]);
    }

    #[test]
    fn a_subscriber_that_went_away_is_forgotten() {
        let mut fanout = Fanout::<u32>::default();
        drop(fanout.subscribe(std::iter::empty()));
        fanout.publish(&ObjectName::new("", "a"), None, Some(&Arc::new(1)));
        assert!(fanout.buffers.is_empty());
    }
}
