//! `Namespace`. Upstream: `pkg/registry/core/namespace`.

use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use api::strategy::Thin;
use std::sync::Arc;

pub(crate) fn resource() -> Resource {
    let mut resource = Resource::new("", "v1", "Namespace", "namespaces", Scope::Cluster)
        .short_names(&["ns"])
        .fields(vec![Field::new("status.phase"), crate::legacy_name_field()])
        .columns(vec![Column::or("Status", "/status/phase", ""), Column::age()])
        .subresource(Subresource {
            name: "finalize",
            verbs: &["update"],
            body: None,
            action: Action::Part(Arc::new(Thin)),
        })
        .status();
    resource.verbs = &["create", "delete", "get", "list", "patch", "update", "watch"];
    resource
}
