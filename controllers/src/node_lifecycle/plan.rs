//! What a node's signs of life and conditions lead to. Pure.

use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a node may be silent. Upstream: `--node-monitor-grace-period`.
const GRACE: SignedDuration = SignedDuration::from_secs(50);

/// Conditions that only the node can know.
const OWN_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Which condition in which state becomes which taint.
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// What changes while a node lives.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Signs {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
}

/// The signs that a node and its lease show.
pub(super) fn signs(node: &Node, lease: Option<&Lease>) -> Signs {
    let renewed = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
    let ready = condition(node, "Ready");
    Signs { renewed, heartbeat: ready.and_then(|own| Some(own.last_heartbeat_time.as_ref()?.0)) }
}

/// What to do about a node.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Conditions to write.
    pub(super) conditions: Option<Vec<NodeCondition>>,
    /// Whether its pods have to be said not to be ready.
    pub(super) pods_not_ready: bool,
    /// Taints to write.
    pub(super) taints: Option<Vec<Taint>>,
    /// When to look again though nothing changes.
    pub(super) next: Option<Timestamp>,
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_deref()?.iter().find(|own| own.type_ == kind)
}

fn status_of<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    condition(node, kind).map(|own| own.status.as_str())
}

/// `alive_at`: when the last sign of life was seen.
pub(super) fn plan(node: &Node, alive_at: Timestamp, now: Timestamp) -> Plan {
    let ends = alive_at + GRACE;
    let is_silent = ends <= now;
    let mut plan = Plan { next: (!is_silent).then_some(ends), ..Plan::default() };
    let ready = status_of(node, "Ready").map(str::to_owned);
    let shown = if is_silent { Some("Unknown".to_owned()) } else { ready.clone() };
    if is_silent && OWN_CONDITIONS.iter().any(|kind| status_of(node, kind) != Some("Unknown")) {
        plan.conditions = Some(OWN_CONDITIONS.map(|kind| unknown(condition(node, kind), kind, now)).into());
        plan.pods_not_ready = ready.as_deref() == Some("True");
    }
    let taints = taints(node, shown.as_deref(), is_silent, now);
    let before = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let plain = |list: &[Taint]| {
        let mut plain: Vec<_> = list.iter().map(|own| (own.key.clone(), own.effect.clone())).collect();
        plain.sort();
        plain
    };
    plan.taints = (plain(&before) != plain(&taints)).then_some(taints);
    plan
}

fn unknown(before: Option<&NodeCondition>, kind: &str, now: Timestamp) -> NodeCondition {
    let (reason, message) = match before {
        Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
    };
    let same = before.filter(|own| own.status == "Unknown");
    NodeCondition {
        type_: kind.to_owned(),
        status: "Unknown".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: before.and_then(|own| own.last_heartbeat_time.clone()),
        last_transition_time: same.and_then(|own| own.last_transition_time.clone()).or(Some(Time(now))),
    }
}

/// Taints of others first, then ours by the conditions.
fn taints(node: &Node, ready: Option<&str>, is_silent: bool, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let before = spec.taints.unwrap_or_default();
    let is_ours = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => taint.key == UNSCHEDULABLE || TAINTS.iter().any(|(.., key)| taint.key == *key),
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    };
    let mut taints: Vec<Taint> = before.iter().filter(|own| !is_ours(own)).cloned().collect();
    let mut add = |key: &str, effect: &str| {
        let same = before.iter().find(|own| own.key == key && own.effect == effect).cloned();
        taints.push(same.unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: None,
            time_added: Some(Time(now)),
        }));
    };
    for (kind, status, key) in TAINTS {
        let shown = match kind {
            "Ready" => ready,
            // A node that is silent says nothing about the rest.
            kind if is_silent && OWN_CONDITIONS.contains(&kind) => Some("Unknown"),
            kind => status_of(node, kind),
        };
        if shown == Some(status) {
            add(key, "NoSchedule");
        }
    }
    if spec.unschedulable == Some(true) {
        add(UNSCHEDULABLE, "NoSchedule");
    }
    match ready {
        Some("False") => add(NOT_READY, "NoExecute"),
        Some("Unknown") => add(UNREACHABLE, "NoExecute"),
        _ => {}
    }
    // A node that has never said anything keeps the taint that it was made with.
    if ready.is_none() && before.iter().any(|own| own.key == NOT_READY && own.effect == "NoSchedule") {
        add(NOT_READY, "NoSchedule");
    }
    taints
}
