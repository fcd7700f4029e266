//! `coordination.k8s.io/v1`. Upstream: `pkg/registry/coordination`.

use api::resource::{Column, Resource, Scope};

pub(crate) fn lease() -> Resource {
    Resource::new("coordination.k8s.io", "v1", "Lease", "leases", Scope::Namespaced)
        .columns(vec![Column::or("Holder", "/spec/holderIdentity", ""), Column::age()])
}
