//! What a set of replicas needs, and what it says about itself. Pure.

use crate::pod;
use api::{LabelSelector, Timestamp};
use client::time;
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

/// Pods made or removed in one go: as upstream's burst.
const BURST_MAX: usize = 500;
/// Which pod goes first. Upstream: `core.PodDeletionCost`.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The condition that says that pods could not be made or removed.
pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What a ReplicaSet and a ReplicationController have in common.
pub(crate) struct View<'a> {
    pub(crate) generation: i64,
    pub(crate) deleting: bool,
    pub(crate) replicas: i32,
    pub(crate) min_ready_seconds: i32,
    pub(crate) template: Option<&'a PodTemplateSpec>,
}

/// The status of both.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SetStatus {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: i64,
    pub(crate) conditions: Vec<ReplicaSetCondition>,
}

/// What must change.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan<'a> {
    pub(crate) create: usize,
    pub(crate) delete: Vec<&'a Pod>,
}

/// How many pods must be made or which must go so that `active` has as many as asked for. `related` counts the active pods
/// of the same owner's other sets by node: of equal pods the one on the fullest node goes.
pub(crate) fn plan<'a>(
    view: &View<'_>,
    active: &'a [Pod],
    related: &HashMap<String, usize>,
    now: Timestamp,
) -> Plan<'a> {
    let wanted = usize::try_from(view.replicas).unwrap_or(0);
    if active.len() <= wanted {
        return Plan { create: (wanted - active.len()).min(BURST_MAX), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST_MAX);
    let mut order: Vec<_> = active.iter().collect();
    if surplus < active.len() {
        order.sort_by_cached_key(|pod| Rank::of(pod, related, now));
    }
    order.truncate(surplus);
    Plan { create: 0, delete: order }
}

/// Pods in the order in which they are given up.
pub(crate) fn in_order_of_removal(pods: &mut [&Pod], now: Timestamp) {
    let nowhere = HashMap::new();
    pods.sort_by_cached_key(|pod| Rank::of(pod, &nowhere, now));
}

/// What makes a pod go before another; the smaller goes first. Upstream: `ActivePodsWithRanks`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    crowd: Reverse<usize>,
    /// Pods that became ready lately go first; times that are alike count as equal.
    ready_age: Age,
    restarts: Reverse<(i32, i32)>,
    age: Age,
    uid: String,
}

/// The order of magnitude of an age: small ages first.
#[derive(PartialEq, Eq)]
struct Age(Option<i64>);

impl Age {
    fn of(at: Option<Timestamp>, now: Timestamp) -> Self {
        let magnitude = |at: Timestamp| {
            let nanos = now.as_nanosecond() - at.as_nanosecond();
            if nanos <= 0 { 0 } else { i64::from(127 - nanos.leading_zeros()) }
        };
        Self(at.map(magnitude))
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        // Unknown is as young as can be.
        self.0.unwrap_or(-1).cmp(&other.0.unwrap_or(-1))
    }
}

impl Rank {
    fn of(pod: &Pod, related: &HashMap<String, usize>, now: Timestamp) -> Self {
        let phase = match pod::phase(pod) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let cost = pod::annotation(&pod.metadata, DELETION_COST).and_then(|text| text.parse().ok());
        let ready = pod::is_ready(pod);
        Self {
            assigned: !pod::node_name(pod).is_empty(),
            phase,
            ready,
            cost: cost.unwrap_or(0),
            crowd: Reverse(related.get(pod::node_name(pod)).copied().unwrap_or(0)),
            ready_age: Age::of(pod::ready_since(pod), now),
            restarts: Reverse(restarts(pod)),
            age: Age::of(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// The most restarts of a container, then of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |list: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        list.iter().flatten().map(|container| container.restart_count).max().unwrap_or(0)
    };
    (most(&status.container_statuses), most(&status.init_container_statuses))
}

/// The status after a plan was carried out; `failure` is what went wrong.
pub(crate) fn status(
    view: &View<'_>,
    old: &SetStatus,
    active: &[Pod],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> SetStatus {
    let labels = view.template.and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let full = LabelSelector::from_map(labels.into_iter().flatten());
    let count = |of: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| of(pod)).count()).unwrap_or(i32::MAX)
    };
    let mut conditions = old.conditions.clone();
    let has_failure = conditions.iter().any(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE));
    match failure {
        Some(message) if !has_failure => {
            let is_short = active.len() < usize::try_from(view.replicas).unwrap_or(0);
            conditions.push(ReplicaSetCondition {
                type_: Some(REPLICA_FAILURE.to_owned()),
                status: Some("True".to_owned()),
                reason: Some(if is_short { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                message: Some(message.to_owned()),
                last_transition_time: Some(time(now)),
            });
        }
        None => conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
        Some(_) => {}
    }
    SetStatus {
        replicas: count(&|_| true),
        fully_labeled: count(&|pod| full.matches(|label| pod::label(&pod.metadata, label))),
        ready: count(&pod::is_ready),
        available: count(&|pod| pod::is_available(pod, view.min_ready_seconds, now)),
        terminating: i32::try_from(terminating).ok(),
        observed_generation: view.generation,
        conditions,
    }
}
