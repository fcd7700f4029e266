//! What objects count for towards a `ResourceQuota`, for admission and for the controller alike.
//! Upstream: `pkg/quota/v1/evaluator/core`, `apiserver/pkg/quota/v1`.
//!
//! Flow: [`terms`] of a quota and the names that it bounds → [`total`] over the objects of its namespace. For one object:
//! [`tracks`] says whether its resource is counted under a name, [`Measure`] for how much and in which scopes.
//!
//! Caveat: an extended resource that a device class stands for is charged by pods alone, not by resource claims.

mod amounts;
mod device;
mod measure;
mod pod;
mod storage;
#[cfg(test)]
mod tests;

pub use amounts::{Amounts, add, mask, read, subtract_to_zero, write};
pub use measure::Measure;
pub use pod::unset;

use crate::{Object, Timestamp};
use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One scope of a quota.
pub type Term = ScopedResourceSelectorRequirement;

/// Resources that no quota counts. Upstream: `DefaultIgnoredResources`.
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

/// Old names that count a resource besides `count/…`.
const ALIASES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

const SERVICE_NAMES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];

/// Whether no quota counts this resource.
pub fn is_ignored(group: &str, plural: &str) -> bool {
    IGNORED.contains(&(group, plural))
}

/// The name under which the objects of a resource are counted: `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> String {
    match group {
        "" => format!("count/{plural}"),
        group => format!("count/{plural}.{group}"),
    }
}

/// Whether objects of a resource count towards this name of a quota. Upstream: `MatchingResources` of the evaluators.
pub fn tracks(group: &str, plural: &str, name: &str) -> bool {
    if is_ignored(group, plural) {
        return false;
    }
    if name == count_name(group, plural) {
        return true;
    }
    match (group, plural) {
        ("", "pods") => pod::tracks(name),
        ("", "services") => SERVICE_NAMES.contains(&name),
        ("", "persistentvolumeclaims") => storage::tracks(name),
        ("resource.k8s.io", "resourceclaims") => device::tracks(name),
        ("", plural) => ALIASES.contains(&plural) && name == plural,
        _ => false,
    }
}

/// The resource (group and plural) whose objects count towards this name; `None` for a name that counts nothing.
pub fn source(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return (!is_ignored(group, plural)).then_some((group, plural));
    }
    let special = [
        ("", "pods"),
        ("", "services"),
        ("", "persistentvolumeclaims"),
        ("resource.k8s.io", "resourceclaims"),
    ];
    let found = special.into_iter().find(|(group, plural)| tracks(group, plural, name));
    found.or_else(|| ALIASES.into_iter().find(|alias| *alias == name).map(|alias| ("", alias)))
}

/// Every scope that a quota asks for: all of them must hold. Upstream: `getScopeSelectorsFromQuota`.
pub fn terms(spec: &ResourceQuotaSpec) -> Vec<Term> {
    let plain = spec.scopes.iter().flatten().map(|scope| Term {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|own| own.match_expressions.iter().flatten().cloned());
    plain.chain(selected).collect()
}

/// How much the objects of a namespace count under `names`, as far as they are in the scopes. Upstream: `CalculateUsage`.
///
/// `list` answers with all objects of a resource in that namespace, measured; `None` for a resource that is not served: its
/// names are absent from the answer, as those are that count nothing.
pub fn total<'a>(
    names: impl IntoIterator<Item = &'a str>,
    terms: &[Term],
    now: Timestamp,
    mut list: impl FnMut(&str, &str) -> Option<Vec<Arc<Measure>>>,
) -> Amounts {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let sources: BTreeSet<(&str, &str)> = names.iter().filter_map(|name| source(name)).collect();
    let mut total = Amounts::new();
    for (group, plural) in sources {
        let Some(objects) = list(group, plural) else { continue };
        let tracked = || names.iter().filter(|name| tracks(group, plural, name));
        for name in tracked() {
            total.entry((*name).to_owned()).or_default();
        }
        for object in objects.iter().filter(|object| object.is_in(terms)) {
            let usage = object.usage(now);
            for name in tracked() {
                if let (Some(sum), Some(amount)) = (total.get_mut(*name), usage.get(*name)) {
                    *sum = *sum + *amount;
                }
            }
        }
    }
    total
}

/// Measures objects of a resource, for [`total`].
///
/// # Errors
/// An object cannot be decoded as what it should be.
pub fn measure_all(
    group: &str,
    plural: &str,
    objects: &[Arc<Object>],
) -> Result<Vec<Arc<Measure>>, serde_json::Error> {
    objects.iter().map(|object| Measure::of_object(group, plural, object).map(Arc::new)).collect()
}
