//! `DaemonSet`. Upstream: `pkg/registry/apps/daemonset`.

use crate::cells::{container_columns, labels, selector};
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "DaemonSet", "daemonsets", Scope::Namespaced)
        .short_names(&["ds"])
        .categories(&["all"])
        .columns(vec![
            Column::number("Desired", "/status/desiredNumberScheduled"),
            Column::number("Current", "/status/currentNumberScheduled"),
            Column::number("Ready", "/status/numberReady"),
            Column::number("Up-to-date", "/status/updatedNumberScheduled"),
            Column::number("Available", "/status/numberAvailable"),
            Column::computed("Node Selector", |o, _| labels(o, "/spec/template/spec/nodeSelector").into()),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| selector(o, "/spec/selector").into()).wide(),
        ])
        .status()
        .generation()
}
