//! `ServiceAccount`. Upstream: `pkg/registry/core/serviceaccount`.

use api::resource::{Action, Resource, Scope, Subresource, VERBS_CREATE};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ServiceAccount", "serviceaccounts", Scope::Namespaced)
        .short_names(&["sa"])
        .subresource(Subresource {
            name: "token",
            verbs: VERBS_CREATE,
            body: Some(("authentication.k8s.io", "v1", "TokenRequest")),
            action: Action::Create,
        })
}
