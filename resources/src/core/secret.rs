//! `Secret`. Upstream: `pkg/registry/core/secret`.

use crate::cells::count;
use api::resource::{Column, Field, Resource, Scope};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "Secret", "secrets", Scope::Namespaced).fields(vec![Field::new("type")]).columns(
        vec![
            Column::or("Type", "/type", ""),
            Column::computed("Data", |o, _| count(o, "/data").into()),
            Column::age(),
        ],
    )
}
