//! `ServiceAccount`. Upstream: `pkg/registry/core/serviceaccount`.

use api::resource::{Action, Resource, Scope, Subresource, VERBS_CREATE};
use api::strategy::Typed;
use api::{Context, Status, Strategy};
use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ServiceAccount", "serviceaccounts", Scope::Namespaced)
        .short_names(&["sa"])
        .subresource(Subresource {
            name: "token",
            verbs: VERBS_CREATE,
            body: Some(("authentication.k8s.io", "v1", "TokenRequest")),
            action: Action::Create,
        })
        .rules(Typed(Rules))
}

struct Rules;

/// Only the names of secrets mean something.
fn clean(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..ObjectReference::default() };
    }
}

impl Strategy for Rules {
    type Kind = ServiceAccount;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn prepare_create(&self, account: &mut ServiceAccount, _: &Context<'_>) -> Result<(), Status> {
        clean(account);
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut ServiceAccount,
        _: &ServiceAccount,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        clean(new);
        Ok(())
    }
}
