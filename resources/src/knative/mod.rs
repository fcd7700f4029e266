//! Knative's kinds: rows made from their definitions, with the rules that upstream keeps in its webhooks.
//!
//! Each part has a folder with its kinds, their definitions (`definitions.gz`, written by `cargo xtask codegen`) and their
//! rules. See docs/adr/0004.

mod eventing;
pub(crate) mod faults;
mod native;
mod serving;

use api::Resource;
use serde_json::{Map, Value, json};

/// The rows.
pub fn rows() -> Vec<Resource> {
    let mut rows = native::rows(serving::DEFINITIONS, serving::rules);
    rows.extend(native::rows(eventing::DEFINITIONS, eventing::rules));
    rows
}

/// The definitions as objects: clients look for Knative's kinds there.
pub fn definitions() -> Vec<Value> {
    let mut definitions = native::definitions(serving::DEFINITIONS);
    definitions.extend(native::definitions(eventing::DEFINITIONS));
    definitions
}

/// The objects, to go with the rows, that a cluster with Knative has from its first second on: definitions, namespaces and settings.
pub fn objects() -> Vec<Value> {
    let mut objects = definitions();
    objects.extend(serving::objects());
    objects.extend(eventing::objects());
    objects
}

/// By name of a ConfigMap, its keys and what they are until somebody says otherwise.
type Settings = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// A namespace of Knative and its ConfigMaps.
fn settings(namespace: &str, settings: Settings) -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": namespace});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
    ];
    for (name, keys) in settings {
        let data: Map<String, Value> =
            keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": data}));
    }
    objects
}
