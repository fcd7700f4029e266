//! The status of each container. Upstream: `pkg/kubelet` `convertToAPIContainerStatuses`, `prober` `UpdatePodStatus`.

use super::{Inputs, moment};
use crate::amount;
use crate::observed::{ContainerSeen, State};
use crate::resources;
use crate::spec::{ContainerDef, Kind};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, ResourceRequirements, VolumeMountStatus,
};

const REASON_LOST: &str = "ContainerStatusUnknown";
const EXIT_LOST: i32 = 137;

/// The statuses of the containers of these kinds, in upstream's order: init containers as in the spec, others by name.
pub(super) fn statuses(inputs: &Inputs<'_>, kinds: &[Kind], has_init: bool) -> Vec<ContainerStatus> {
    let old_list = match kinds[0] {
        Kind::Regular => &inputs.old.container_statuses,
        Kind::Ephemeral => &inputs.old.ephemeral_container_statuses,
        _ => &inputs.old.init_container_statuses,
    };
    let mut statuses: Vec<ContainerStatus> = inputs
        .def
        .of(kinds)
        .map(|container| {
            let old = old_list.iter().flatten().find(|old| old.name == container.name());
            let mut status = one(inputs, container, old, has_init);
            set_started_and_ready(inputs, container, &mut status);
            status
        })
        .collect();
    if kinds[0] != Kind::Init {
        statuses.sort_by(|a, b| a.name.cmp(&b.name));
    }
    statuses
}

fn waiting(reason: &str, message: Option<&str>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            message: message.filter(|message| !message.is_empty()).map(str::to_owned),
        }),
        ..Default::default()
    }
}

fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some(REASON_LOST.to_owned()),
            message: Some(message.to_owned()),
            exit_code: EXIT_LOST,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn one(
    inputs: &Inputs<'_>,
    container: &ContainerDef,
    old: Option<&ContainerStatus>,
    has_init: bool,
) -> ContainerStatus {
    let name = container.name();
    let mut status = match inputs.observed.latest(name) {
        Some(seen) => from_seen(inputs, container, seen, old),
        None => not_seen(inputs, container, old, has_init),
    };
    status.volume_mounts = mounts(container);
    if let Some(previous) = inputs.observed.previous(name) {
        status.last_state = Some(state_of(previous));
    }
    settle_waiting(inputs, container, &mut status);
    status
}

/// A container that will be started again shows why it has not been yet.
fn settle_waiting(inputs: &Inputs<'_>, container: &ContainerDef, status: &mut ContainerStatus) {
    let seen = inputs.observed.latest(container.name());
    let done =
        container.kind == Kind::Init && seen.and_then(ContainerSeen::exit).is_some_and(|exit| exit.code == 0);
    if done || inputs.ending || !inputs.def.should_start(container, seen) {
        return;
    }
    let Some(reason) = inputs.waiting.get(container.name()) else { return };
    let state = status.state.take().unwrap_or_default();
    if state.terminated.is_some() {
        status.last_state = Some(state);
    }
    status.state = Some(waiting(&reason.reason, Some(&reason.message)));
}

fn state_of(seen: &ContainerSeen) -> ContainerState {
    match &seen.state {
        State::Created => waiting("", None),
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: seen.started_at.map(moment) }),
            ..Default::default()
        },
        State::Exited(exit) => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: Some(seen.api_id()),
                exit_code: exit.code,
                finished_at: Some(moment(exit.finished_at)),
                message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
                reason: Some(exit.reason.clone()),
                signal: None,
                // A program that never ran has a start all the same in the API: upstream's runtimes say 1970.
                started_at: seen.started_at.or(Some(api::Timestamp::UNIX_EPOCH)).map(moment),
            }),
            ..Default::default()
        },
    }
}

fn from_seen(
    inputs: &Inputs<'_>,
    container: &ContainerDef,
    seen: &ContainerSeen,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let user = seen.runs_as.as_ref().map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: i64::from(user.uid),
            gid: i64::from(user.gid),
            supplemental_groups: (!user.groups.is_empty())
                .then(|| user.groups.iter().map(|group| i64::from(*group)).collect()),
        }),
    });
    // An instance that the runtime no longer lists lives on as the last state that was shown.
    let last = old.and_then(|old| match &old.container_id {
        Some(id) if *id != seen.api_id() => {
            old.state.clone().filter(|state| state.terminated.is_some()).or(old.last_state.clone())
        }
        _ => old.last_state.clone(),
    });
    ContainerStatus {
        name: seen.name.clone(),
        restart_count: seen.restart_count,
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        container_id: Some(seen.api_id()),
        state: Some(state_of(seen)),
        last_state: last,
        user,
        resources: effective_resources(inputs, container, seen),
        allocated_resources: container.spec.resources.as_ref().and_then(|own| own.requests.clone()),
        ..Default::default()
    }
}

/// A container without an instance: not made yet, or lost.
fn not_seen(
    inputs: &Inputs<'_>,
    container: &ContainerDef,
    old: Option<&ContainerStatus>,
    has_init: bool,
) -> ContainerStatus {
    let default_reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ContainerStatus {
        name: container.name().to_owned(),
        image: container.image().to_owned(),
        state: Some(waiting(default_reason, None)),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    if old_state.running.is_none() {
        if inputs.ending && old.container_id.is_some() {
            status.state = Some(lost("The container could not be located when the pod was terminated"));
        }
        return status;
    }
    if inputs.ending {
        status.state = Some(lost("The container could not be located when the pod was terminated"));
        return status;
    }
    if status.last_state.as_ref().is_none_or(|last| last.terminated.is_none()) {
        let message =
            "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(lost(message));
        status.restart_count += i32::from(inputs.def.deletion_at().is_none());
    }
    status
}

fn mounts(container: &ContainerDef) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.spec.volume_mounts.as_deref().unwrap_or_default();
    let statuses = mounts.iter().map(|mount| {
        let read_only = mount.read_only.unwrap_or(false);
        let mode = match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: Some(read_only).filter(|own| *own),
            recursive_read_only: read_only.then(|| mode.to_owned()),
            volume_status: None,
        }
    });
    (!mounts.is_empty()).then(|| statuses.collect())
}

/// What holds now: what the spec says, with processor and memory as the control group has them.
fn effective_resources(
    inputs: &Inputs<'_>,
    container: &ContainerDef,
    seen: &ContainerSeen,
) -> Option<ResourceRequirements> {
    let mut own = container.spec.resources.clone().unwrap_or_default();
    if !seen.is_running() {
        return Some(own);
    }
    let wanted = resources::container_group(inputs.def, container);
    let now = &seen.limits;
    if let Some(limits) = &mut own.limits {
        if let (Some(quota), Some(period)) = (now.cpu_quota_us.filter(|quota| *quota > 0), now.cpu_period_us)
        {
            let milli = quota * 1000 / i64::try_from(period).unwrap_or(100_000).max(1);
            let spec = amount::in_list(Some(limits), "cpu").milli();
            let tiny = milli <= resources::MILLI_CPU_LIMIT_MIN && spec <= resources::MILLI_CPU_LIMIT_MIN;
            if limits.contains_key("cpu") && now.cpu_quota_us != wanted.cpu_quota_us && !tiny {
                limits.insert("cpu".to_owned(), amount::from_milli(milli));
            }
        }
        if let Some(bytes) = now.memory_bytes.filter(|bytes| *bytes > 0)
            && limits.contains_key("memory")
            && now.memory_bytes != wanted.memory_bytes
        {
            limits.insert("memory".to_owned(), amount::from_bytes(bytes));
        }
    }
    if let (Some(requests), Some(shares)) = (&mut own.requests, now.cpu_shares)
        && requests.contains_key("cpu")
        && now.cpu_shares != wanted.cpu_shares
        && shares > resources::SHARES_MIN
    {
        requests.insert("cpu".to_owned(), amount::from_milli(resources::shares_to_milli(shares)));
    }
    Some(own)
}

/// Started: running, and the startup probe (if there is one) has succeeded. Ready: also the readiness probe.
fn set_started_and_ready(inputs: &Inputs<'_>, container: &ContainerDef, status: &mut ContainerStatus) {
    let state = status.state.clone().unwrap_or_default();
    if container.kind == Kind::Ephemeral {
        status.ready = false;
        return;
    }
    let seen = inputs.observed.latest(container.name()).filter(|_| state.running.is_some());
    let started = seen.is_some_and(|seen| {
        container.spec.startup_probe.is_none() || inputs.probes.startup(&seen.id) == Some(true)
    });
    status.started = Some(started);
    status.ready = match container.kind {
        Kind::Init => state.terminated.is_some_and(|terminated| terminated.exit_code == 0),
        _ => {
            started
                && seen.is_some_and(|seen| {
                    container.spec.readiness_probe.is_none()
                        || inputs.probes.readiness(&seen.id) == Some(true)
                })
        }
    };
}
