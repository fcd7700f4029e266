//! The Ingress that another object wants, and what its status means there. Upstream: `pkg/reconciler/accessor`,
//! `PropagateIngressStatus` of routes and domain mappings.

use crate::conditions::{Conditions, find, state};
use crate::kinds::{Ingress, is_controlled_by, name_of, namespace_of};
use crate::write;
use client::{Context, Error};

/// What is said before the Ingress is looked at.
pub(crate) fn mark_not_configured(conditions: &mut Conditions<'_>) {
    let message = "Ingress has not yet been reconciled.";
    conditions.mark("IngressReady", "Unknown", "IngressNotConfigured", message);
}

/// Makes the Ingress what its owner wants, and says how it is in `IngressReady`. `None` where it is somebody else's.
///
/// # Errors
/// The server refuses.
pub(crate) async fn wanted<K: client::Kind>(
    owner: &K,
    want: Ingress,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<Option<Ingress>, Error> {
    let (namespace, name) = (namespace_of(&want.metadata).to_owned(), name_of(&want.metadata).to_owned());
    let ingress = match context.caches.of::<Ingress>().read(&namespace, &name) {
        None => match write::create(context, &want).await? {
            Some(made) => {
                context.events.normal(&write::about(owner), "Created", format!("Created Ingress {name:?}"));
                made
            }
            None => want,
        },
        Some(have) if !is_controlled_by(&have.metadata, owner.metadata()) => {
            let message = format!("There is an existing Ingress {name:?} that we do not own.");
            conditions.mark("IngressReady", "False", "NotOwned", &message);
            return Ok(None);
        }
        Some(have) if is_same(&have, &want) => have,
        Some(mut have) => {
            have.spec = want.spec;
            have.metadata.labels = want.metadata.labels;
            have.metadata.annotations = want.metadata.annotations;
            context.client.namespaced::<Ingress>(&namespace).replace(&have).await?
        }
    };
    let is_observed = ingress.metadata.generation == ingress.status["observedGeneration"].as_i64();
    match is_observed && find(&ingress.status, "Ready").is_some() {
        true => conditions.copy("IngressReady", &ingress.status, "Ready"),
        false => mark_not_configured(conditions),
    }
    Ok(Some(ingress))
}

/// Whether the gateway does what the Ingress says now.
pub(crate) fn is_ready(ingress: &Ingress) -> bool {
    ingress.metadata.generation == ingress.status["observedGeneration"].as_i64()
        && state(&ingress.status, "Ready") == "True"
}

fn is_same(have: &Ingress, want: &Ingress) -> bool {
    (&have.spec, &have.metadata.labels, &have.metadata.annotations)
        == (&want.spec, &want.metadata.labels, &want.metadata.annotations)
}
