//! Gives cluster roles that are put together from others the rules of those. Upstream: pkg/controller/clusterroleaggregation.

mod plan;
#[cfg(test)]
mod tests;

use api::{LabelSelector, ObjectName};
use client::{AnyCache, Context, Controller, Error, Next, Patch};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;
use std::sync::Arc;

/// Name of the index of roles that are put together from others, all under one key.
const AGGREGATED: &str = "aggregated";
/// Who owns the rules. Upstream's name.
const MANAGER: &str = "clusterrole-aggregation-controller";

pub(crate) fn controller() -> Controller {
    // A role may come to match, cease to match or change its rules: all that are put together from others are looked at.
    Controller::of_some::<ClusterRole>(MANAGER, |_| false)
        .watches::<ClusterRole>(|_, context| {
            let aggregated = context.caches.of::<ClusterRole>().by(AGGREGATED, "");
            aggregated.iter().map(|role| role.meta.key.clone()).collect()
        })
        .reconcile(reconcile)
}

/// Adds the index that the controller needs.
pub(crate) fn index(roles: &AnyCache) {
    roles.index(AGGREGATED, |role| if plan::is_aggregated(role) { vec!["".into()] } else { Vec::new() });
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let roles = context.caches.of::<ClusterRole>();
    let Some(role) = roles.read("", &key.name) else { return Ok(Next::Done) };
    let Some(rule) = &role.aggregation_rule else { return Ok(Next::Done) };
    let mut parts: Vec<ClusterRole> = Vec::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        let selector = LabelSelector::from_object(selector)?;
        let is_part =
            |own: &&Arc<api::Object>| own.meta.key != key && selector.matches(|label| own.meta.label(label));
        for part in roles.list("").iter().filter(is_part) {
            parts.push(part.decode()?);
        }
    }
    let rules = plan::rules(&parts);
    if plan::is_same(&rules, role.rules.as_deref().unwrap_or_default()) {
        return Ok(Next::Done);
    }
    let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": key.name}, "rules": rules});
    let patch = Patch::Apply { object, field_manager: MANAGER.to_owned(), force: true };
    match context.client.api::<ClusterRole>().patch(&key.name, patch).await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(Next::Done),
    }
}
