//! The phase of a pod. Upstream: `pkg/kubelet` `getPhase`.

use crate::spec::{ContainerDef, Kind, PodDef};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};

#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    failed_for_good: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

/// The phase from the statuses of all init and ordinary containers. `ending`: nothing will run again. `initialized`: an ordinary
/// container has started in this sandbox.
pub(crate) fn phase(
    def: &PodDef,
    statuses: &[ContainerStatus],
    ending: bool,
    initialized: bool,
) -> &'static str {
    let mut counts = Counts::default();
    for container in def.of(&[Kind::Init, Kind::Sidecar, Kind::Regular]) {
        let status = statuses.iter().find(|status| status.name == container.name());
        match container.kind {
            Kind::Init => count_init(def, container, status, &mut counts),
            Kind::Sidecar => count_sidecar(status, &mut counts),
            _ => count_regular(def, container, status, &mut counts),
        }
    }
    let Counts { stopped, succeeded, running, unknown, .. } = counts;
    if counts.failed_for_good > 0 {
        return "Failed";
    }
    let initializing = counts.pending_init > 0 || (counts.pending_sidecars > 0 && !initialized);
    if initializing || counts.waiting > 0 {
        return "Pending";
    }
    if unknown > 0 {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    if !ending && stopped != counts.stopped_for_good {
        return "Running";
    }
    if stopped == succeeded { "Succeeded" } else { "Failed" }
}

fn state(status: Option<&ContainerStatus>) -> Option<(&ContainerState, Option<i32>)> {
    let status = status?;
    let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    Some((status.state.as_ref()?, last.map(|last| last.exit_code)))
}

fn count_init(def: &PodDef, container: &ContainerDef, status: Option<&ContainerStatus>, counts: &mut Counts) {
    let exit_code = match state(status) {
        Some((ContainerState { terminated: Some(terminated), .. }, _)) => Some(terminated.exit_code),
        Some((ContainerState { waiting: Some(_), .. }, last)) => last,
        _ => None,
    };
    match exit_code {
        None => counts.pending_init += 1,
        Some(code) if code != 0 && !def.restarts_after(container, code) => counts.failed_for_good += 1,
        Some(_) => {}
    }
}

fn count_sidecar(status: Option<&ContainerStatus>, counts: &mut Counts) {
    match state(status) {
        Some((ContainerState { running: Some(_), .. }, _)) => {
            counts.running += 1;
            let started = status.and_then(|status| status.started).unwrap_or(false);
            counts.pending_sidecars += usize::from(!started);
        }
        Some((ContainerState { terminated: Some(_), .. }, _)) => {}
        Some((ContainerState { waiting: Some(_), .. }, Some(_))) => {}
        Some((ContainerState { waiting: Some(_), .. }, None)) => {
            counts.pending_sidecars += 1;
            counts.waiting += 1;
        }
        Some(_) => {
            counts.pending_sidecars += 1;
            counts.unknown += 1;
        }
        None => counts.unknown += 1,
    }
}

fn count_regular(
    def: &PodDef,
    container: &ContainerDef,
    status: Option<&ContainerStatus>,
    counts: &mut Counts,
) {
    let mut stopped = |code: i32, counted: bool| {
        counts.stopped += 1;
        counts.stopped_for_good += usize::from(!def.restarts_after(container, code));
        counts.succeeded += usize::from(counted && code == 0);
    };
    match state(status) {
        Some((ContainerState { running: Some(_), .. }, _)) => counts.running += 1,
        Some((ContainerState { terminated: Some(terminated), .. }, _)) => stopped(terminated.exit_code, true),
        Some((ContainerState { waiting: Some(_), .. }, Some(code))) => stopped(code, false),
        Some((ContainerState { waiting: Some(_), .. }, None)) => counts.waiting += 1,
        _ => counts.unknown += 1,
    }
}

/// The words of a pod that ran longer than it may. Upstream: `pkg/kubelet/active_deadline.go`.
pub(crate) fn failed_message() -> (&'static str, &'static str) {
    ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
}
