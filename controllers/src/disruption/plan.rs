//! The status of a budget. Pure.

use crate::number::scaled;
use crate::pod::{is_deleting, is_ready};
use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// A pod that was evicted is expected to go within this time, and counts as healthy again after it. Upstream: `DeletionTimeout`.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// What to do about a budget.
#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// The status to write, where it is another one than now.
    pub(super) status: Option<PodDisruptionBudgetStatus>,
    /// When something changes by itself.
    pub(super) next: Option<Timestamp>,
    /// Pods that were evicted and did not go.
    pub(super) not_deleted: Vec<&'a Pod>,
}

/// Whether the number of pods that should be there has to be asked of their controllers.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// `expected`: how many pods their controllers want, where [`needs_scale`].
pub(super) fn plan<'a>(
    budget: &PodDisruptionBudget,
    pods: &'a [Pod],
    expected: i32,
    now: Timestamp,
) -> Plan<'a> {
    let (expected, desired) = wanted(budget, count(pods.len()), expected);
    let before = budget.status.clone().unwrap_or_default();
    let mut plan = Plan::default();
    let mut disrupted = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !is_deleting(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(at) = before.disrupted_pods.as_ref().and_then(|pods| pods.get(&name)) else { continue };
        let due = at.0 + DELETION_TIMEOUT;
        if due < now {
            plan.not_deleted.push(pod);
            continue;
        }
        plan.next = plan.next.into_iter().chain([due]).min();
        disrupted.insert(name, at.clone());
    }
    let is_healthy = |pod: &&Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        !is_deleting(pod) && !disrupted.contains_key(name) && is_ready(pod)
    };
    let healthy = count(pods.iter().filter(is_healthy).count());
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let status = PodDisruptionBudgetStatus {
        conditions: before.conditions.clone(),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    let (holds, reason) = if allowed > 0 { (true, "SufficientPods") } else { (false, "InsufficientPods") };
    plan.status = finish(status, &before, holds, reason, "", now);
    plan
}

/// The status while the count cannot be known: nothing may be disrupted.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let before = budget.status.clone().unwrap_or_default();
    let status = PodDisruptionBudgetStatus { disruptions_allowed: Some(0), ..before.clone() };
    finish(status, &before, false, "SyncFailed", why, now)
}

fn count(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

/// How many pods are expected, and how many of them must be healthy.
fn wanted(budget: &PodDisruptionBudget, pods: i32, scale: i32) -> (i32, i32) {
    let Some(spec) = &budget.spec else { return (pods, 0) };
    // What is neither a number nor a share was refused when the budget was made.
    if let Some(most) = &spec.max_unavailable {
        let most = scaled(most, scale, true).unwrap_or(0);
        return (scale, (scale - most).max(0));
    }
    match &spec.min_available {
        Some(IntOrString::Int(least)) => (pods, *least),
        Some(share) => (scale, scaled(share, scale, true).unwrap_or(scale)),
        None => (pods, 0),
    }
}

/// Sets the condition; `None` where nothing differs from what is there.
fn finish(
    mut status: PodDisruptionBudgetStatus,
    before: &PodDisruptionBudgetStatus,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<PodDisruptionBudgetStatus> {
    let word = if holds { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|own| own.type_ == CONDITION);
    let since =
        old.filter(|own| own.status == word).map_or(Time(now), |own| own.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION.to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: status.observed_generation,
    };
    match conditions.iter_mut().find(|own| own.type_ == CONDITION) {
        Some(own) => *own = condition,
        None => conditions.push(condition),
    }
    (status != *before).then_some(status)
}

/// A budget's selector as events show it.
pub(super) fn selector_text(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.map(|own| serde_json::to_string(own).unwrap_or_default()).unwrap_or_default()
}
