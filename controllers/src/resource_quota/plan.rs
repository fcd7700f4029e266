//! What the status of a quota should be. Pure.

use api::Timestamp;
use api::quota::{self, Amounts, Measure};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What to do about a quota.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The status to write, where it is another one than now.
    pub(super) status: Option<ResourceQuotaStatus>,
    /// When something counts less by itself (a pod's time to end is over).
    pub(super) next: Option<Timestamp>,
}

/// What the quota bounds.
pub(super) fn hard(quota: &ResourceQuota) -> Amounts {
    quota::read(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

/// The resources whose objects count.
pub(super) fn sources(hard: &Amounts) -> BTreeSet<(&str, &str)> {
    hard.keys().filter_map(|name| quota::source(name)).collect()
}

/// Counts anew. `list` answers with the measured objects of a resource in the quota's namespace, `None` if it is not served.
pub(super) fn plan(
    quota: &ResourceQuota,
    hard: &Amounts,
    now: Timestamp,
    mut list: impl FnMut(&str, &str) -> Option<Vec<Arc<Measure>>>,
) -> Plan {
    let terms = quota.spec.as_ref().map(quota::terms).unwrap_or_default();
    let mut next: Option<Timestamp> = None;
    let total = quota::total(hard.keys().map(String::as_str), &terms, now, |group, plural| {
        let objects = list(group, plural)?;
        let ends = objects.iter().filter_map(|object| object.counts_less_at(now)).min();
        next = next.into_iter().chain(ends).min();
        Some(objects)
    });
    // A bound whose objects nobody serves keeps what was counted last.
    let before = quota.status.clone().unwrap_or_default();
    let (hard_before, used_before) = (quota::read(before.hard.as_ref()), quota::read(before.used.as_ref()));
    let mut used = quota::mask(&used_before, |name| hard.contains_key(name));
    used.extend(quota::mask(&total, |name| hard.contains_key(name)));
    let is_same =
        before.hard.is_some() && before.used.is_some() && hard_before == *hard && used_before == used;
    let status = ResourceQuotaStatus { hard: Some(quota::write(hard)), used: Some(quota::write(&used)) };
    Plan { status: (!is_same).then_some(status), next }
}
