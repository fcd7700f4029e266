//! What the API shows of a pod: observation and spec in, `PodStatus` out. Pure.
//! Upstream: `pkg/kubelet` `generateAPIPodStatus`, `pkg/kubelet/status`.

mod conditions;
mod containers;
pub(crate) mod ended;
mod patch;
mod phase;

pub(crate) use patch::status_patch;
pub(crate) use phase::{failed_message, phase};

use crate::observed::Observed;
use crate::plan;
use crate::probe::ProbeResults;
use crate::resources;
use crate::spec::{Kind, PodDef};
use api::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// Why a container is not running, where the runtime does not know it: the last failure to pull, create or start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitReason {
    /// `ErrImagePull`, `CrashLoopBackOff`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Why a pod ends though its containers did not end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `DeadlineExceeded`, `Evicted`, `OutOfcpu`, …
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Everything a status is computed from.
pub(crate) struct Inputs<'a> {
    /// The pod.
    pub def: &'a PodDef,
    /// What is there.
    pub observed: &'a Observed,
    /// What the status was before: what we last computed, else what the API shows.
    pub old: &'a PodStatus,
    /// Results of probes.
    pub probes: &'a ProbeResults,
    /// Failures to start, by container name.
    pub waiting: &'a BTreeMap<String, WaitReason>,
    /// Why the pod has to end, if it has to.
    pub verdict: Option<&'a Verdict>,
    /// Nothing of the pod will run again: it is being deleted, or has ended.
    pub ending: bool,
    /// Conditions about resizing, from the allocation.
    pub resize: &'a [PodCondition],
    /// `DisruptionTarget`, where the node itself ends the pod.
    pub disruption: Option<&'a PodCondition>,
    /// The node's addresses, the primary one first.
    pub host_addresses: &'a [String],
    /// The time.
    pub now: Timestamp,
}

/// Conditions that the kubelet owns; all others in the status belong to somebody else.
const OWN_CONDITIONS: [&str; 8] = [
    "PodScheduled",
    "Ready",
    "Initialized",
    "ContainersReady",
    "PodReadyToStartContainers",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

/// Whether the kubelet owns conditions of this type. Upstream: `kubetypes.PodConditionByKubelet`.
pub(crate) fn is_own_condition(type_: &str) -> bool {
    OWN_CONDITIONS.contains(&type_)
}

/// Computes the status of a pod.
pub(crate) fn status(inputs: &Inputs<'_>) -> PodStatus {
    let Inputs { def, observed, old, .. } = *inputs;
    let has_init = def.init().next().is_some();
    let lists = [&[Kind::Regular][..], &[Kind::Init, Kind::Sidecar], &[Kind::Ephemeral]]
        .map(|kinds| containers::statuses(inputs, kinds, has_init));
    let [regular, init, ephemeral] = lists;
    let all: Vec<_> = init.iter().chain(&regular).cloned().collect();
    let initialized = def.regular().any(|container| observed.active(container.name()).is_some());
    let mut status = PodStatus {
        phase: Some(phase(def, &all, inputs.ending, initialized).to_owned()),
        ..Default::default()
    };
    settle_phase(inputs, &mut status);
    let phase = status.phase.clone().unwrap_or_default();

    let api_conditions =
        def.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut list: Vec<PodCondition> =
        api_conditions.iter().filter(|condition| !is_own_condition(&condition.type_)).cloned().collect();
    if !inputs.ending {
        list.extend(inputs.resize.iter().cloned());
    }
    if let Some(disruption) = inputs.disruption {
        list.retain(|condition| condition.type_ != disruption.type_);
        list.push(disruption.clone());
    }
    let new_sandbox = plan::sandbox_needed(def, observed).is_some();
    list.push(conditions::ready_to_start(new_sandbox, observed));
    list.push(conditions::initialized(def, &all, &phase));
    let ready = conditions::ready(def, &list, &all, &phase);
    list.push(ready);
    list.push(conditions::containers_ready(def, &all, &phase));
    list.push(conditions::of("PodScheduled", true, None, None));
    for condition in &mut list {
        finish_condition(inputs, condition);
    }
    status.conditions = Some(list);

    status.start_time = old.start_time.clone().or_else(|| Some(client::time(inputs.now)));
    status.observed_generation = Some(def.generation()).filter(|generation| *generation != 0);
    status.qos_class = Some(resources::qos(def).as_str().to_owned());
    let list = |list: Vec<_>| (!list.is_empty()).then_some(list);
    (status.container_statuses, status.init_container_statuses) = (list(regular), list(init));
    status.ephemeral_container_statuses = list(ephemeral);
    set_addresses(inputs, &mut status);
    keep_foreign_fields(def, &mut status);
    status
}

/// Ended stays ended; a verdict ends; reason and message stay with their phase.
fn settle_phase(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let ended = |phase: &Option<String>| {
        phase.clone().filter(|phase| matches!(phase.as_str(), "Failed" | "Succeeded"))
    };
    let api = inputs.def.pod.status.as_ref();
    let api_ended = api.and_then(|api| ended(&api.phase));
    if ended(&status.phase).is_none()
        && let Some(phase) = ended(&inputs.old.phase).or_else(|| api_ended.clone())
    {
        status.phase = Some(phase);
    }
    if status.phase == inputs.old.phase {
        let kept = |own: &Option<String>, api: Option<&String>| own.clone().or_else(|| api.cloned());
        status.reason = kept(&inputs.old.reason, api.and_then(|api| api.reason.as_ref()));
        status.message = kept(&inputs.old.message, api.and_then(|api| api.message.as_ref()));
    }
    if let Some(verdict) = inputs.verdict {
        status.phase = Some("Failed".to_owned());
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    if let Some(phase) = api_ended {
        status.phase = Some(phase);
    }
}

/// Sets when the condition last changed and which generation it speaks of.
fn finish_condition(inputs: &Inputs<'_>, condition: &mut PodCondition) {
    if !is_own_condition(&condition.type_) {
        return;
    }
    if !condition.type_.starts_with("PodResize") {
        condition.observed_generation = Some(inputs.def.generation()).filter(|generation| *generation != 0);
    }
    let old = inputs.old.conditions.iter().flatten().find(|old| old.type_ == condition.type_);
    let since =
        old.filter(|old| old.status == condition.status).and_then(|old| old.last_transition_time.clone());
    condition.last_transition_time = since.or_else(|| Some(client::time(inputs.now)));
}

fn set_addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let host = inputs.host_addresses;
    status.host_ip = host.first().cloned();
    status.host_ips = (!host.is_empty()).then(|| host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let seen = inputs.observed.addresses();
    let own: Vec<String> = match (inputs.def.host_network(), seen.is_empty()) {
        (true, _) => host.to_vec(),
        (false, false) => seen.to_vec(),
        // A pod that has ended keeps the address it had.
        (false, true) if inputs.ending => {
            inputs.old.pod_ips.iter().flatten().map(|address| address.ip.clone()).collect()
        }
        (false, true) => Vec::new(),
    };
    status.pod_ip = own.first().cloned();
    status.pod_ips = (!own.is_empty()).then(|| own.into_iter().map(|ip| PodIP { ip }).collect());
}

/// Fields of the status that others write stay as the API shows them.
fn keep_foreign_fields(def: &PodDef, status: &mut PodStatus) {
    let Some(api) = def.pod.status.clone() else { return };
    status.nominated_node_name = api.nominated_node_name;
    status.resource_claim_statuses = api.resource_claim_statuses;
    status.extended_resource_claim_status = api.extended_resource_claim_status;
    status.node_allocatable_resource_claim_statuses = api.node_allocatable_resource_claim_statuses;
    status.volume_health = api.volume_health;
    if def.spec().resources.is_some() {
        status.resources = def.spec().resources.clone();
        let requests = resources::pod_requests(def);
        let list = requests.iter().map(|(name, amount)| {
            let quantity = match name.as_str() {
                "cpu" => crate::amount::from_milli(amount.milli()),
                _ => crate::amount::from_bytes(amount.value()),
            };
            (name.clone(), quantity)
        });
        status.allocated_resources = Some(list.collect());
    }
}

/// Whether two statuses differ in a way that must be written.
pub(crate) fn differs(old: &PodStatus, new: &PodStatus) -> bool {
    serde_json::to_value(old).ok() != serde_json::to_value(new).ok()
}

/// A moment as statuses hold it.
pub(crate) fn moment(at: Timestamp) -> Time {
    client::time(at)
}

#[cfg(test)]
mod tests;
