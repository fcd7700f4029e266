//! The last status of a pod of which nothing is left: every container shows an end, and the phase is a last one.
//! Upstream: `pkg/kubelet/status` `TerminatePod`.

use crate::spec::{Kind, PodDef};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus};

/// Makes the status that of an ended pod. A container that never ran counts as failed, for nobody knows better; so does the pod.
pub(crate) fn settle(def: &PodDef, status: &mut PodStatus) {
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let regular = status.container_statuses.as_deref().unwrap_or_default();
    if is_initialized(def, init, regular) {
        status.container_statuses.iter_mut().flatten().for_each(end);
    }
    let tried = init.iter().rposition(|own| !is_waiting(own) || has_ended_before(own)).unwrap_or(0);
    status.init_container_statuses.iter_mut().flatten().take(tried + 1).for_each(end);
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        status.phase = Some("Failed".to_owned());
    }
}

fn end(status: &mut ContainerStatus) {
    if status.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        return;
    }
    let terminated = ContainerStateTerminated {
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        exit_code: 137,
        ..Default::default()
    };
    status.state = Some(ContainerState { terminated: Some(terminated), ..Default::default() });
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.waiting.is_some())
}

fn has_ended_before(status: &ContainerStatus) -> bool {
    status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
}

/// Whether ordinary containers may have been started.
fn is_initialized(def: &PodDef, init: &[ContainerStatus], regular: &[ContainerStatus]) -> bool {
    let Some(last) = def.of(&[Kind::Init, Kind::Sidecar]).last() else { return true };
    if regular.iter().any(|own| has_ended_before(own) || !is_waiting(own)) {
        return true;
    }
    let Some(status) = init.iter().find(|own| own.name == last.name()) else { return false };
    let states = [&status.state, &status.last_state];
    match last.kind {
        Kind::Sidecar => {
            states[0].as_ref().is_some_and(|state| state.running.is_some()) && status.started == Some(true)
        }
        _ => states
            .into_iter()
            .flatten()
            .any(|state| state.terminated.as_ref().is_some_and(|ended| ended.exit_code == 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::pod;
    use serde_json::{Value, json};

    fn check(spec: Value, status: Value, phase: &str, init: &[i32], regular: &[i32]) {
        let mut status: PodStatus = serde_json::from_value(status).unwrap();
        settle(&pod(json!({"metadata": {}, "spec": spec})), &mut status);
        let codes = |list: &Option<Vec<ContainerStatus>>| -> Vec<i32> {
            let states = list.iter().flatten().filter_map(|own| own.state.as_ref());
            states.filter_map(|state| Some(state.terminated.as_ref()?.exit_code)).collect()
        };
        assert_eq!(status.phase.as_deref(), Some(phase));
        assert_eq!(codes(&status.init_container_statuses), init);
        assert_eq!(codes(&status.container_statuses), regular);
    }

    #[test]
    fn what_never_ran_has_failed() {
        let of = |name: &str, state: Value| json!({"name": name, "state": state, "image": "", "imageID": "", "ready": false, "restartCount": 0});
        let waiting = |name: &str| of(name, json!({"waiting": {"reason": "x"}}));
        let exited = |name: &str, code: i32| of(name, json!({"terminated": {"exitCode": code}}));
        let spec = json!({"containers": [{"name": "a"}]});
        check(
            spec.clone(),
            json!({"phase": "Pending", "containerStatuses": [waiting("a")]}),
            "Failed",
            &[],
            &[137],
        );
        check(
            spec,
            json!({"phase": "Succeeded", "containerStatuses": [exited("a", 0)]}),
            "Succeeded",
            &[],
            &[0],
        );
        let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
        // The first one has tried; nothing is known of the second, and the ordinary one cannot have begun.
        let status = json!({"phase": "Pending", "initContainerStatuses": [waiting("i"), waiting("j")], "containerStatuses": [waiting("a")]});
        check(spec.clone(), status, "Failed", &[137], &[]);
        let status = json!({"phase": "Pending", "initContainerStatuses": [exited("i", 0), exited("j", 0)], "containerStatuses": [waiting("a")]});
        check(spec, status, "Failed", &[0, 0], &[137]);
    }
}
