//! `node.k8s.io/v1`. Upstream: `pkg/registry/node`.

use api::resource::{Column, Resource, Scope};

pub(crate) fn runtime_class() -> Resource {
    Resource::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", Scope::Cluster)
        .columns(vec![Column::or("Handler", "/handler", ""), Column::age()])
}
