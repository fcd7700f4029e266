//! `ReplicationController`. Upstream: `pkg/registry/core/replicationcontroller`.

use crate::cells::{container_columns, labels};
use api::resource::{Column, Field, Resource, Scope};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("", "v1", "ReplicationController", "replicationcontrollers", Scope::Namespaced)
        .short_names(&["rc"])
        .categories(&["all"])
        .fields(vec![Field::new("status.replicas").missing("0")])
        .columns(vec![
            Column::number("Desired", "/spec/replicas"),
            Column::number("Current", "/status/replicas"),
            Column::number("Ready", "/status/readyReplicas"),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| labels(o, "/spec/selector").into()).wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
}
