//! `ControllerRevision`. Upstream: `pkg/registry/apps/controllerrevision`.

use crate::cells::{NONE, list};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("apps", "v1", "ControllerRevision", "controllerrevisions", Scope::Namespaced).columns(vec![
        Column::computed("Controller", |o, _| controller(o).into()),
        Column::or("Revision", "/revision", 0),
        Column::age(),
    ])
}

/// The managing controller as `kind.group/name`.
fn controller(revision: &Value) -> String {
    let owners = list(revision, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return NONE.to_owned();
    };
    let group = owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let kind = owner["kind"].as_str().unwrap_or("").to_lowercase();
    let name = owner["name"].as_str().unwrap_or("");
    match group {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{}/{name}", group.to_lowercase()),
    }
}
