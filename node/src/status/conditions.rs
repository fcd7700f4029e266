//! The conditions of a pod that the kubelet owns. Upstream: `pkg/kubelet/status/generate.go`.

use crate::observed::Observed;
use crate::spec::{Kind, PodDef};
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

/// A condition without its times.
pub(super) fn of(type_: &str, holds: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.map(str::to_owned),
        message: message.filter(|message| !message.is_empty()),
        ..Default::default()
    }
}

/// Whether a sandbox with its network is there.
pub(super) fn ready_to_start(new_sandbox_needed: bool, observed: &Observed) -> PodCondition {
    let type_ = "PodReadyToStartContainers";
    if !new_sandbox_needed {
        return of(type_, true, None, None);
    }
    let message = match &observed.sandbox {
        None => "No sandbox for pod can be found. Need to start a new one",
        Some(sandbox) if !sandbox.ready => "No ready sandbox for pod can be found. Need to start a new one",
        Some(_) => "Sandbox for pod has no IP address. Need to start a new one",
    };
    of(type_, false, Some("PodSandboxNotReady"), Some(message.to_owned()))
}

fn named<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

/// Names as Go prints a list of them.
fn list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn complaints(unknown: &[&str], wrong: &[&str], what: &str) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", list(unknown)));
    }
    if !wrong.is_empty() {
        parts.push(format!("containers with {what} status: {}", list(wrong)));
    }
    parts.join(", ")
}

/// Whether all containers that keep running are ready.
pub(super) fn containers_ready(def: &PodDef, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let type_ = "ContainersReady";
    if statuses.is_empty() {
        return of(type_, false, Some("UnknownContainerStatuses"), None);
    }
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in def.of(&[Kind::Sidecar, Kind::Regular]) {
        match named(statuses, container.name()) {
            None => unknown.push(container.name()),
            Some(status) if !status.ready => unready.push(container.name()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return of(type_, false, Some("PodCompleted"), None);
    }
    if phase == "Failed" {
        return of(type_, false, Some("PodFailed"), None);
    }
    match complaints(&unknown, &unready, "unready") {
        message if message.is_empty() => of(type_, true, None, None),
        message => of(type_, false, Some("ContainersNotReady"), Some(message)),
    }
}

/// Whether the pod takes traffic: its containers are ready and its readiness gates hold.
pub(super) fn ready(
    def: &PodDef,
    conditions: &[PodCondition],
    statuses: &[ContainerStatus],
    phase: &str,
) -> PodCondition {
    let containers = containers_ready(def, statuses, phase);
    if containers.status != "True" {
        return PodCondition { type_: "Ready".to_owned(), ..containers };
    }
    let gates = def.spec().readiness_gates.as_deref().unwrap_or_default();
    let complaints = gates.iter().filter_map(|gate| {
        let type_ = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *type_) {
            None => {
                Some(format!("corresponding condition of pod readiness gate \"{type_}\" does not exist."))
            }
            Some(condition) if condition.status != "True" => Some(format!(
                "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => None,
        }
    });
    match complaints.collect::<Vec<_>>().join(", ") {
        message if message.is_empty() => of("Ready", true, None, None),
        message => of("Ready", false, Some("ReadinessGatesNotReady"), Some(message)),
    }
}

/// Whether all init containers have done their part.
pub(super) fn initialized(def: &PodDef, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let type_ = "Initialized";
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in def.init() {
        let Some(status) = named(statuses, container.name()) else {
            unknown.push(container.name());
            continue;
        };
        let done = match container.kind {
            Kind::Sidecar => status.started == Some(true),
            _ => status.ready,
        };
        if !done {
            incomplete.push(container.name());
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return of(type_, true, Some("PodCompleted"), None);
    }
    let started = def.regular().any(|container| {
        let state = named(statuses, container.name()).and_then(|status| status.state.as_ref());
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    match complaints(&unknown, &incomplete, "incomplete") {
        message if started || message.is_empty() => of(type_, true, None, None),
        message => of(type_, false, Some("ContainersNotInitialized"), Some(message)),
    }
}
