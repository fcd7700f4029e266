//! `ConfigMap`. Upstream: `pkg/registry/core/configmap`.

use crate::cells::count;
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ConfigMap", "configmaps", Scope::Namespaced).short_names(&["cm"]).columns(vec![
        Column::computed("Data", |o, _| (count(o, "/data") + count(o, "/binaryData")).into()),
        Column::age(),
    ])
}
