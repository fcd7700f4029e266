//! What the tables of this folder share: requests in one line, and a cluster in a map.

use crate::hooks::Attributes;
use api::{Lookup, Object, UserInfo};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// `get apps deployments/scale NAMESPACE NAME` with `-` for none and an empty core group (two blanks), or `get /path`.
pub(crate) fn asked<'a>(user: &'a UserInfo, text: &'a str) -> Attributes<'a> {
    let parts: Vec<&str> = text.split(' ').collect();
    let none = |part: &'a str| if part == "-" { "" } else { part };
    let mut asked = Attributes {
        user,
        verb: parts[0],
        group: "",
        version: "v1",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "",
        is_resource: false,
        label_selector: "",
        field_selector: "",
    };
    match parts.as_slice() {
        [_, path] => asked.path = path,
        [_, group, resource, namespace, name] => {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            (asked.group, asked.resource, asked.subresource) = (group, resource, subresource);
            (asked.namespace, asked.name, asked.is_resource) = (none(namespace), none(name), true);
        }
        _ => panic!("{text}"),
    }
    asked
}

/// Objects by group, plural, namespace and name.
#[derive(Default)]
pub(crate) struct Cluster(Mutex<BTreeMap<[String; 4], Arc<Object>>>, std::sync::atomic::AtomicU64);

impl Cluster {
    /// Adds or replaces an object.
    pub(crate) fn put(&self, group: &str, plural: &str, mut object: Value) {
        let version = 1 + self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let object = Object::parse(Bytes::from(object.to_string())).unwrap();
        let (namespace, name) = (object.meta.namespace().to_owned(), object.meta.name().to_owned());
        self.0.lock().insert([group.to_owned(), plural.to_owned(), namespace, name], Arc::new(object));
    }

    /// Removes an object.
    pub(crate) fn remove(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        self.0.lock().remove(&[group, plural, namespace, name].map(str::to_owned));
    }
}

impl Lookup for Cluster {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.lock().get(&[group, plural, namespace, name].map(str::to_owned)).cloned()
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.0.lock();
        let own = objects.iter().filter(|(key, _)| {
            key[0] == group && key[1] == plural && (namespace.is_empty() || key[2] == namespace)
        });
        own.map(|(_, object)| object.clone()).collect()
    }
}
