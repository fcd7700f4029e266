//! Says how many pods of a budget may be disrupted now. Upstream: pkg/controller/disruption.
//!
//! Evictions read `status.disruptionsAllowed` and take from it (the API server's `pods/eviction`); this loop counts anew.

mod plan;
mod scale;
#[cfg(test)]
mod tests;

pub(crate) use stale::controller as stale_targets;

mod stale;

use api::{LabelSelector, ObjectName};
use client::{Context, Controller, Delta, Error, Next, reference};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::sync::Arc;

pub(crate) fn controller() -> Controller {
    Controller::of::<PodDisruptionBudget>("controllermanager").watches::<Pod>(budgets_of).reconcile(reconcile)
}

/// The budgets that select a pod as it was or as it is.
fn budgets_of(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let budgets = context.caches.of::<PodDisruptionBudget>().read_all(&delta.key.namespace);
    let versions = [delta.old.as_deref(), delta.new.as_deref()];
    let selects = |budget: &PodDisruptionBudget| {
        let selector = selector(budget);
        versions
            .into_iter()
            .flatten()
            .any(|pod| selector.as_ref().is_some_and(|own| own.matches(|key| pod.meta.label(key))))
    };
    let selected = budgets.iter().filter(|budget| selects(budget));
    selected
        .map(|budget| {
            ObjectName::new(&delta.key.namespace, budget.metadata.name.as_deref().unwrap_or_default())
        })
        .collect()
}

/// The pods of a budget; a budget without a selector has none.
fn selector(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    LabelSelector::from_object(budget.spec.as_ref()?.selector.as_ref()?).ok()
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(budget) = context.caches.of::<PodDisruptionBudget>().read(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    let selector = selector(&budget);
    let mut pods = context.caches.of::<Pod>().read_all(&key.namespace);
    pods.retain(|pod| {
        selector.as_ref().is_some_and(|own| own.matches(|key| crate::pod::label(&pod.metadata, key)))
    });
    if pods.is_empty() {
        context.events.normal(&reference(&budget), "NoPods", "No matching pods found");
    }
    let counted = match plan::needs_scale(&budget) {
        true => scale::expected(&context, &pods).await,
        false => Ok(scale::Expected::default()),
    };
    let now = context.now();
    let (status, next, failure) = match counted {
        Ok(expected) => {
            if !expected.unmanaged.is_empty() {
                let text = format!(
                    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    plan::selector_text(&budget)
                );
                context.events.warning(&reference(&budget), "UnmanagedPods", text);
            }
            let plan = plan::plan(&budget, &pods, expected.count, now);
            for pod in plan.not_deleted {
                let text = format!(
                    "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                    key.namespace, key.name
                );
                context.events.warning(&reference(pod), "NotDeleted", text);
            }
            (plan.status, plan.next, None)
        }
        Err(error) => {
            let text = format!("Failed to calculate the number of expected pods: {error}");
            context.events.warning(&reference(&budget), "CalculateExpectedPodCountFailed", text.clone());
            (plan::failed(&budget, &error.to_string(), now), None, Some(error))
        }
    };
    if let Some(status) = status {
        let changed = PodDisruptionBudget { status: Some(status), ..budget };
        let api = context.client.namespaced::<PodDisruptionBudget>(&key.namespace);
        match api.replace_status(&changed).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
    }
    match (failure, next) {
        (Some(failure), _) => Err(failure),
        (None, Some(at)) => Ok(Next::at(&context.clock, at)),
        (None, None) => Ok(Next::Done),
    }
}
