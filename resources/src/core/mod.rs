//! The core group, `v1`.

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod event;
pub(crate) mod limit_range;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod persistent_volume;
pub(crate) mod persistent_volume_claim;
pub(crate) mod pod;
pub(crate) mod pod_template;
pub(crate) mod replication_controller;
pub(crate) mod resource_quota;
pub(crate) mod secret;
pub mod service;
pub(crate) mod service_account;

use crate::cells::list;
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

/// `Binding`: assigns a pod to a node when it is posted. Nothing is stored.
pub(crate) fn binding() -> Resource {
    Resource::new("", "v1", "Binding", "bindings", Scope::Namespaced).computed()
}

/// `ComponentStatus`: deprecated view of the control plane's parts, computed when asked.
pub(crate) fn component_status() -> Resource {
    let mut resource = Resource::new("", "v1", "ComponentStatus", "componentstatuses", Scope::Cluster)
        .short_names(&["cs"])
        .computed()
        .columns(vec![
            Column::computed("Status", |o, _| {
                match healthy(o).map(|condition| condition["status"] == "True") {
                    Some(true) => "Healthy".into(),
                    Some(false) => "Unhealthy".into(),
                    None => "Unknown".into(),
                }
            }),
            Column::computed("Message", |o, _| healthy(o).map_or("".into(), |c| c["message"].clone())),
            Column::computed("Error", |o, _| healthy(o).map_or("".into(), |c| c["error"].clone())),
        ]);
    resource.deprecation = Some("v1 ComponentStatus is deprecated in v1.19+".to_owned());
    resource.verbs = &["get", "list"];
    resource
}

fn healthy(status: &Value) -> Option<&Value> {
    list(status, "/conditions").iter().find(|condition| condition["type"] == "Healthy")
}
