//! `LimitRange`. Upstream: `pkg/registry/core/limitrange`.

use api::resource::{Resource, Scope};

pub(crate) fn resource() -> Resource {
    let mut resource =
        Resource::new("", "v1", "LimitRange", "limitranges", Scope::Namespaced).short_names(&["limits"]);
    // Upstream has no table for it: name and creation time are shown.
    resource.columns = crate::created_at();
    resource
}
