//! `Deployment`. Upstream: `pkg/registry/apps/deployment`.

use crate::cells::{container_columns, number, selector_text};
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced)
        .short_names(&["deploy"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Ready", |o, _| {
                format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
            }),
            Column::or("Up-to-date", "/status/updatedReplicas", 0),
            Column::or("Available", "/status/availableReplicas", 0),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| {
                o.pointer("/spec/selector").map(selector_text).unwrap_or_default().into()
            })
            .wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
}
