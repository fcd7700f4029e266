//! `StatefulSet`. Upstream: `pkg/registry/apps/statefulset`.

use crate::cells::{container_columns, number};
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "StatefulSet", "statefulsets", Scope::Namespaced)
        .short_names(&["sts"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Ready", |o, _| {
                format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
            }),
            Column::age(),
            containers,
            images,
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
}
