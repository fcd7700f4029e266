//! `ReplicaSet`. Upstream: `pkg/registry/apps/replicaset`.

use crate::cells::{container_columns, selector};
use api::resource::{Column, Field, Resource, Scope};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "ReplicaSet", "replicasets", Scope::Namespaced)
        .short_names(&["rs"])
        .categories(&["all"])
        .fields(vec![Field::new("status.replicas").missing("0")])
        .columns(vec![
            Column::number("Desired", "/spec/replicas"),
            Column::number("Current", "/status/replicas"),
            Column::number("Ready", "/status/readyReplicas"),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| selector(o, "/spec/selector").into()).wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
}
