//! What a revision's status says of its deployment, pods and autoscaler. Pure.
//! Upstream: `pkg/apis/serving/v1/revision_lifecycle.go`, `pkg/reconciler/revision/reconcile_resources.go`.

use crate::conditions::{Conditions, parts, state};
use crate::kinds::{PodAutoscaler, text};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// The conditions of a revision.
pub(super) const CONDITIONS: &[&str] = &["ContainerHealthy", "ResourcesAvailable"];

fn condition<'d>(deployment: &'d Deployment, kind: &str) -> Option<(&'d str, &'d str, &'d str)> {
    let all = deployment.status.as_ref()?.conditions.as_deref()?;
    let own = all.iter().find(|own| own.type_.as_deref() == Some(kind))?;
    let text = |own: &'d Option<String>| own.as_deref().unwrap_or_default();
    Some((text(&own.status), text(&own.reason), text(&own.message)))
}

/// What the deployment and one of its pods say.
pub(super) fn take_deployment(conditions: &mut Conditions<'_>, deployment: &Deployment, pod: Option<&Pod>) {
    let progressing = condition(deployment, "Progressing").unwrap_or(("Unknown", "Deploying", ""));
    match (condition(deployment, "ReplicaFailure"), progressing) {
        (Some(("True", reason, message)), _) | (_, ("False", reason, message)) => {
            conditions.mark("ResourcesAvailable", "False", reason, message);
        }
        (_, ("True", ..)) => conditions.mark("ResourcesAvailable", "True", "", ""),
        (_, (_, reason, message)) => conditions.mark("ResourcesAvailable", "Unknown", reason, message),
    }
    let status = deployment.status.as_ref();
    let available = status.and_then(|own| own.available_replicas).unwrap_or(0);
    if let Some(pod) = pod.filter(|_| deployment.spec.replicas.unwrap_or(0) > 0 && available == 0) {
        let timed_out = progressing.0 == "False" && progressing.1 == "ProgressDeadlineExceeded";
        take_pod(conditions, pod, timed_out);
    }
    if status.and_then(|own| own.ready_replicas).unwrap_or(0) > 0 {
        conditions.mark("ContainerHealthy", "True", "", "");
    }
}

fn take_pod(conditions: &mut Conditions<'_>, pod: &Pod, timed_out: bool) {
    let Some(status) = &pod.status else { return };
    let unscheduled =
        status.conditions.iter().flatten().find(|own| own.type_ == "PodScheduled" && own.status == "False");
    if let Some(own) = unscheduled {
        let (reason, message) = (own.reason.as_deref(), own.message.as_deref());
        conditions.mark(
            "ResourcesAvailable",
            "False",
            reason.unwrap_or_default(),
            message.unwrap_or_default(),
        );
    }
    for own in status.container_statuses.iter().flatten() {
        let ended = own.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let waiting = own.state.as_ref().and_then(|state| state.waiting.as_ref());
        if let Some(ended) = ended {
            let message = match (ended.exit_code, ended.message.as_deref().unwrap_or_default()) {
                (0, "") => "container exited with no error",
                (_, message) => message,
            };
            let reason = format!("ExitCode{}", ended.exit_code);
            conditions.mark(
                "ContainerHealthy",
                "False",
                &reason,
                &format!("Container failed with: {message}"),
            );
            return;
        }
        if let Some(waiting) = waiting.filter(|_| timed_out) {
            let (reason, message) = (waiting.reason.as_deref(), waiting.message.as_deref());
            conditions.mark(
                "ResourcesAvailable",
                "False",
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
            );
            return;
        }
    }
}

/// What the autoscaler says.
pub(super) fn take_autoscaler(conditions: &mut Conditions<'_>, autoscaler: &PodAutoscaler) {
    let own = &autoscaler.status;
    for (to, from) in [("actualReplicas", "actualScale"), ("desiredReplicas", "desiredScale")] {
        let scale = own[from].as_i64().filter(|scale| *scale >= 0);
        conditions.status()[to] = scale.map_or(Value::Null, Value::from);
    }
    let is_broken = CONDITIONS.iter().any(|kind| state(conditions.status(), kind) == "False");
    let Some((ready, reason, message)) = parts(own, "Ready") else {
        conditions.mark("Active", "Unknown", "Deploying", "");
        if !is_broken {
            conditions.mark("ResourcesAvailable", "Unknown", "Deploying", "");
        }
        return;
    };
    let is_initialized = state(own, "ScaleTargetInitialized") == "True";
    let has_service = !text(own, "/serviceName").is_empty();
    if is_initialized && !is_broken {
        conditions.mark("ResourcesAvailable", "True", "", "");
        conditions.mark("ContainerHealthy", "True", "", "");
    }
    if state(conditions.status(), "ResourcesAvailable") == "True" && !(has_service && is_initialized) {
        conditions.mark("ResourcesAvailable", "Unknown", "Deploying", "");
    }
    match ready {
        "True" => conditions.mark("Active", "True", "", ""),
        "False" => {
            if !is_initialized && !is_broken && has_service {
                let message = "Initial scale was never achieved";
                conditions.mark("ResourcesAvailable", "False", "ProgressDeadlineExceeded", message);
            }
            conditions.mark("Active", "False", reason, message);
        }
        _ => conditions.mark("Active", "Unknown", reason, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Timestamp;
    use serde_json::json;

    fn check(deployment: Value, pod: Option<Value>, autoscaler: Value, expect: (&str, &str, &str)) {
        let mut status = Value::Null;
        let mut conditions = Conditions::of(&mut status, CONDITIONS, Timestamp::UNIX_EPOCH);
        let pod = pod.map(|own| serde_json::from_value(json!({"status": own})).unwrap());
        let whole = json!({"spec": {"replicas": 1, "selector": {}, "template": {}}, "status": deployment});
        take_deployment(&mut conditions, &serde_json::from_value(whole).unwrap(), pod.as_ref());
        let mut own = PodAutoscaler::default();
        own.status = autoscaler;
        take_autoscaler(&mut conditions, &own);
        let (ready, reason, _) = parts(&status, "Ready").unwrap();
        assert_eq!((ready, reason, state(&status, "Active")), expect, "{status}");
    }

    #[test]
    fn a_revision_is_ready_when_its_scale_was_reached_once() {
        let going = json!({"conditions": [{"type": "Progressing", "status": "True"}]});
        check(json!({}), None, Value::Null, ("Unknown", "Deploying", "Unknown"));
        let active = json!({"serviceName": "x", "conditions": [{"type": "Ready", "status": "True"},
            {"type": "ScaleTargetInitialized", "status": "True"}]});
        check(going.clone(), None, active, ("True", "", "True"));
        let idle = json!({"serviceName": "x", "conditions": [{"type": "Ready", "status": "False", "reason": "NoTraffic"},
            {"type": "ScaleTargetInitialized", "status": "True"}]});
        check(going.clone(), None, idle, ("True", "", "False"));
        let never = json!({"serviceName": "x", "conditions": [{"type": "Ready", "status": "False", "reason": "NoTraffic"}]});
        check(going, None, never, ("False", "ProgressDeadlineExceeded", "False"));
    }

    #[test]
    fn pods_that_fail_are_told() {
        let going = json!({"conditions": [{"type": "Progressing", "status": "True"}]});
        let ended = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "lastState": {"terminated": {"exitCode": 5, "message": "no"}}}]});
        check(going.clone(), Some(ended), Value::Null, ("False", "ExitCode5", "Unknown"));
        let pending =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
        check(going, Some(pending), Value::Null, ("False", "Unschedulable", "Unknown"));
        let late = json!({"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]});
        let waiting = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        check(late, Some(waiting), Value::Null, ("False", "ImagePullBackOff", "Unknown"));
    }
}
