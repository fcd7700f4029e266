//! The objects of a cache and its indexes. Pure: no I/O, no locks.

use super::delta::Fanout;
use api::{Object, ObjectName};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

/// Which keys of a named index an object has.
pub(super) type IndexOf = Arc<dyn Fn(&Object) -> Vec<Box<str>> + Send + Sync>;

/// Somebody who follows every change while it is made.
pub(super) trait Sink: Send + Sync {
    fn apply(&self, key: &ObjectName, new: Option<&Arc<Object>>);
    fn close(&self);
}

/// Values by namespace and name.
pub(super) type ByName<T> = BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<T>>>;

/// All values of a namespace, or of all where it is empty, in the order of their names.
pub(super) fn values_in<T>(values: &ByName<T>, namespace: &str) -> Vec<Arc<T>> {
    match namespace {
        "" => values.values().flat_map(BTreeMap::values).cloned().collect(),
        namespace => values.get(namespace).map(|inner| inner.values().cloned().collect()).unwrap_or_default(),
    }
}

/// All values with their names.
pub(super) fn entries<T>(values: &ByName<T>) -> impl Iterator<Item = (ObjectName, &Arc<T>)> {
    values.iter().flat_map(|(namespace, inner)| {
        inner.iter().map(move |(name, value)| {
            (ObjectName { namespace: namespace.clone(), name: name.clone() }, value)
        })
    })
}

pub(super) fn insert<T>(values: &mut ByName<T>, key: &ObjectName, value: Arc<T>) -> Option<Arc<T>> {
    match values.get_mut(&key.namespace) {
        Some(inner) => inner.insert(key.name.clone(), value),
        None => values.entry(key.namespace.clone()).or_default().insert(key.name.clone(), value),
    }
}

pub(super) fn remove<T>(values: &mut ByName<T>, key: &ObjectName) -> Option<Arc<T>> {
    let inner = values.get_mut(&key.namespace)?;
    let old = inner.remove(&key.name);
    if inner.is_empty() {
        values.remove(&key.namespace);
    }
    old
}

/// Objects by one of their properties. The inner key is the object's address: what is indexed is one version.
#[derive(Default)]
struct Index(HashMap<Box<str>, BTreeMap<usize, Arc<Object>>>);

impl Index {
    fn add(&mut self, key: &str, object: &Arc<Object>) {
        let address = Arc::as_ptr(object) as usize;
        match self.0.get_mut(key) {
            Some(inner) => _ = inner.insert(address, object.clone()),
            None => _ = self.0.entry(key.into()).or_default().insert(address, object.clone()),
        }
    }

    fn remove(&mut self, key: &str, object: &Arc<Object>) {
        if let Some(inner) = self.0.get_mut(key) {
            inner.remove(&(Arc::as_ptr(object) as usize));
            if inner.is_empty() {
                self.0.remove(key);
            }
        }
    }

    fn get(&self, key: &str) -> Vec<Arc<Object>> {
        let mut found: Vec<_> = self.0.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect();
        found.sort_by(|a, b| a.meta.key.cmp(&b.meta.key));
        found
    }
}

/// What a cache holds.
#[derive(Default)]
pub(super) struct Table {
    pub(super) objects: ByName<Object>,
    owners: Index,
    named: BTreeMap<&'static str, (IndexOf, Index)>,
    pub(super) fanout: Fanout<Object>,
    sinks: Vec<Weak<dyn Sink>>,
}

impl Table {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(namespace)?.get(name)
    }

    pub(super) fn owned_by(&self, uid: &str) -> Vec<Arc<Object>> {
        self.owners.get(uid)
    }

    pub(super) fn by(&self, index: &str, key: &str) -> Option<Vec<Arc<Object>>> {
        self.named.get(index).map(|(_, index)| index.get(key))
    }

    /// Adds an index unless one of this name is there.
    pub(super) fn add_index(&mut self, name: &'static str, of: IndexOf) {
        if self.named.contains_key(name) {
            return;
        }
        let mut index = Index::default();
        for object in self.objects.values().flat_map(BTreeMap::values) {
            of(object).iter().for_each(|key| index.add(key, object));
        }
        self.named.insert(name, (of, index));
    }

    pub(super) fn add_sink(&mut self, sink: &Arc<impl Sink + 'static>) {
        for (key, object) in entries(&self.objects) {
            sink.apply(&key, Some(object));
        }
        let weak: Weak<dyn Sink> = Arc::downgrade(sink) as Weak<dyn Sink>;
        self.sinks.push(weak);
    }

    /// Puts or removes one object.
    pub(super) fn apply(&mut self, key: &ObjectName, new: Option<Arc<Object>>) {
        let old = match &new {
            Some(new) => insert(&mut self.objects, key, new.clone()),
            None => remove(&mut self.objects, key),
        };
        match (&old, &new) {
            (None, None) => (),
            (Some(old), Some(new)) if old.meta.uid != new.meta.uid => {
                self.note(key, Some(old), None);
                self.note(key, None, Some(new));
            }
            (old, new) => self.note(key, old.as_ref(), new.as_ref()),
        }
    }

    fn note(&mut self, key: &ObjectName, old: Option<&Arc<Object>>, new: Option<&Arc<Object>>) {
        if let Some(old) = old {
            old.meta.owners.iter().for_each(|owner| self.owners.remove(&owner.uid, old));
            for (of, index) in self.named.values_mut() {
                of(old).iter().for_each(|key| index.remove(key, old));
            }
        }
        if let Some(new) = new {
            new.meta.owners.iter().for_each(|owner| self.owners.add(&owner.uid, new));
            for (of, index) in self.named.values_mut() {
                of(new).iter().for_each(|key| index.add(key, new));
            }
        }
        self.sinks.retain(|sink| match sink.upgrade() {
            Some(sink) => {
                sink.apply(key, new);
                true
            }
            None => false,
        });
        self.fanout.publish(key, old, new);
    }

    /// Makes the content equal to `objects`, telling subscribers only what differs.
    pub(super) fn replace(&mut self, objects: Vec<Object>) {
        let mut gone: BTreeMap<ObjectName, ()> = entries(&self.objects).map(|(key, _)| (key, ())).collect();
        for object in objects {
            let key = object.meta.key.clone();
            gone.remove(&key);
            let same = self.get(&key.namespace, &key.name).is_some_and(|old| {
                old.meta.resource_version == object.meta.resource_version && old.meta.uid == object.meta.uid
            });
            if !same {
                self.apply(&key, Some(Arc::new(object)));
            }
        }
        gone.into_keys().for_each(|key| self.apply(&key, None));
    }

    pub(super) fn close(&mut self) {
        self.fanout.close();
        self.sinks.drain(..).filter_map(|sink| sink.upgrade()).for_each(|sink| sink.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, uid: &str, version: u64, owner: &str) -> Object {
        let json = serde_json::json!({"metadata": {"namespace": "n", "name": name, "uid": uid,
            "resourceVersion": version.to_string(), "ownerReferences": [{"uid": owner}]}});
        Object::parse(json.to_string().into()).unwrap()
    }

    fn names(objects: &[Arc<Object>]) -> Vec<String> {
        objects.iter().map(|object| object.meta.name().to_owned()).collect()
    }

    #[test]
    fn a_replacement_tells_only_what_differs_and_keeps_indexes_right() {
        let mut table = Table::default();
        table.add_index("version", Arc::new(|object| vec![object.meta.resource_version.to_string().into()]));
        table.replace(vec![object("a", "1", 1, "x"), object("b", "2", 1, "x"), object("c", "3", 1, "y")]);
        let mut subscription = table.fanout.subscribe(std::iter::empty());
        table.replace(vec![object("a", "1", 1, "x"), object("b", "2", 5, "y"), object("d", "4", 6, "y")]);
        let told: Vec<_> = std::iter::from_fn(|| subscription.try_next())
            .map(|delta| (delta.key.to_string(), delta.old.is_some(), delta.new.is_some()))
            .collect();
        let expect = [
            ("n/b".to_owned(), true, true),
            ("n/d".to_owned(), false, true),
            ("n/c".to_owned(), true, false),
        ];
        assert_eq!(told, expect);
        assert_eq!(names(&table.owned_by("x")), ["a"]);
        assert_eq!(names(&table.owned_by("y")), ["b", "d"]);
        assert_eq!(names(&table.by("version", "5").unwrap()), ["b"]);
        assert!(table.by("none", "5").is_none());
    }

    #[test]
    fn another_uid_is_a_deletion_and_an_addition() {
        let mut table = Table::default();
        table.replace(vec![object("a", "1", 1, "x")]);
        let mut subscription = table.fanout.subscribe(std::iter::empty());
        table.replace(vec![object("a", "2", 3, "x")]);
        let first = subscription.try_next().unwrap();
        assert!(first.old.is_some() && first.new.is_none());
        let second = subscription.try_next().unwrap();
        assert!(second.old.is_none() && second.new.is_some());
        assert_eq!(names(&table.owned_by("x")), ["a"]);
    }
}
