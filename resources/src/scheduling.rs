//! `scheduling.k8s.io/v1`. Upstream: `pkg/registry/scheduling`.

use api::resource::{Column, Resource, Scope};

pub(crate) fn priority_class() -> Resource {
    Resource::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", Scope::Cluster)
        .short_names(&["pc"])
        .columns(vec![
            Column::number("Value", "/value"),
            Column::or("Global-Default", "/globalDefault", false).kind("boolean"),
            Column::age(),
            Column::or("PreemptionPolicy", "/preemptionPolicy", "").wide(),
        ])
        .generation()
}
