//! Narrow views of objects for loops that read many of them often.

use super::delta::{Fanout, Subscription};
use super::table::{ByName, Sink, entries, insert, remove, values_in};
use api::{Object, ObjectName};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

type Extract<P> = dyn Fn(&Object) -> Option<P> + Send + Sync;

/// What a function makes of every object of a cache, kept up to date. Made by [`Cache::project`](super::Cache::project).
///
/// Objects for which the function says `None` are not in it. A change that leaves the extract equal is told to nobody.
pub struct Projection<P>(Arc<Inner<P>>);

impl<P> Clone for Projection<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(super) struct Inner<P> {
    extract: Box<Extract<P>>,
    values: RwLock<ByName<P>>,
    fanout: Mutex<Fanout<P>>,
}

impl<P: PartialEq + Send + Sync + 'static> Projection<P> {
    pub(super) fn new(extract: impl Fn(&Object) -> Option<P> + Send + Sync + 'static) -> Self {
        let inner = Inner {
            extract: Box::new(extract),
            values: RwLock::default(),
            fanout: Mutex::new(Fanout::default()),
        };
        Self(Arc::new(inner))
    }

    pub(super) fn inner(&self) -> &Arc<Inner<P>> {
        &self.0
    }

    /// The extract of one object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<P>> {
        self.0.values.read().get(namespace)?.get(name).cloned()
    }

    /// All extracts of a namespace, or of all where it is empty, ordered by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<P>> {
        values_in(&self.0.values.read(), namespace)
    }

    /// First everything that is there, then every change.
    pub fn subscribe(&self) -> Subscription<P> {
        let values = self.0.values.read();
        let mut fanout = self.0.fanout.lock();
        fanout.subscribe(entries(&values))
    }
}

impl<P: PartialEq + Send + Sync + 'static> Sink for Inner<P> {
    fn apply(&self, key: &ObjectName, new: Option<&Arc<Object>>) {
        let new = new.and_then(|object| (self.extract)(object)).map(Arc::new);
        let mut values = self.values.write();
        let old = match &new {
            Some(new) => {
                let current = values.get(&key.namespace).and_then(|inner| inner.get(&key.name));
                if current.is_some_and(|current| current == new) {
                    return;
                }
                insert(&mut values, key, new.clone())
            }
            None => remove(&mut values, key),
        };
        if old.is_some() || new.is_some() {
            self.fanout.lock().publish(key, old.as_ref(), new.as_ref());
        }
    }

    fn close(&self) {
        self.fanout.lock().close();
    }
}
