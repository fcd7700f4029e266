//! The table of pods. Upstream: `printPod` in `pkg/printers/internalversion/printers.go`.

use crate::cells::{NONE, list, number, or, text};
use api::resource::Column;
use jiff::Timestamp;
use serde_json::Value;

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::computed("Ready", |o, now| summary(o, now).ready.into()),
        Column::computed("Status", |o, now| summary(o, now).reason.into()),
        Column::computed("Restarts", |o, now| summary(o, now).restarts.into()),
        Column::age(),
        Column::computed("IP", |o, _| or(text(o, "/status/podIPs/0/ip"), NONE).into()).wide(),
        Column::computed("Node", |o, _| or(text(o, "/spec/nodeName"), NONE).into()).wide(),
        Column::computed("Nominated Node", |o, _| or(text(o, "/status/nominatedNodeName"), NONE).into())
            .wide(),
        Column::computed("Readiness Gates", |o, _| readiness_gates(o).into()).wide(),
    ]
}

struct Summary {
    ready: String,
    reason: String,
    restarts: String,
}

/// Restarts, and when the last one was.
#[derive(Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += number(status, "/restartCount");
        // RFC 3339 in UTC without fractions: the order of the text is the order in time.
        self.last = self.last.max(text(status, "/lastState/terminated/finishedAt"));
    }
}

fn summary(pod: &Value, now: Timestamp) -> Summary {
    let mut reason = or(text(pod, "/status/reason"), text(pod, "/status/phase")).to_owned();
    let conditions = list(pod, "/status/conditions");
    if conditions.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let is_sidecar = |name: &Value| {
        let mut init = list(pod, "/spec/initContainers").iter();
        init.any(|container| container["name"] == *name && container["restartPolicy"] == "Always")
    };
    let sidecars =
        list(pod, "/spec/initContainers").iter().filter(|c| c["restartPolicy"] == "Always").count();
    let total = list(pod, "/spec/containers").len() + sidecars;

    let (mut ready, mut restarts, mut sidecar_restarts) = (0, Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (at, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        restarts.add(status);
        let sidecar = is_sidecar(&status["name"]);
        if sidecar {
            sidecar_restarts.add(status);
        }
        match init_reason(pod, at, status, sidecar) {
            None => ready += usize::from(sidecar && status["ready"] == true && status["started"] == true),
            Some(why) => {
                (reason, initializing) = (why, true);
                break;
            }
        }
    }
    let initialized = conditions.iter().find(|c| c["type"] == "Initialized").map(|c| c["status"] == "True");
    if !initializing || initialized == Some(true) {
        restarts = sidecar_restarts;
        ready += app_containers(pod, &mut reason, &mut restarts);
    }
    if !text(pod, "/metadata/deletionTimestamp").is_empty() {
        if text(pod, "/status/reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") {
            reason = "Terminating".to_owned();
        }
    }
    let shown = match restarts.last {
        last if restarts.count != 0 && !last.is_empty() => {
            format!("{} ({} ago)", restarts.count, api::age::since(Some(last), now))
        }
        _ => restarts.count.to_string(),
    };
    Summary { ready: format!("{ready}/{total}"), reason, restarts: shown }
}

/// Why an init container is not done; `None` if it is.
fn init_reason(pod: &Value, at: usize, status: &Value, sidecar: bool) -> Option<String> {
    let (terminated, waiting) = (&status["state"]["terminated"], text(status, "/state/waiting/reason"));
    if terminated.is_object() && number(terminated, "/exitCode") == 0 {
        return None;
    }
    if sidecar && status["started"] == true {
        return None;
    }
    Some(if terminated.is_object() {
        format!("Init:{}", exit_reason(terminated))
    } else if !waiting.is_empty() && waiting != "PodInitializing" {
        format!("Init:{waiting}")
    } else {
        format!("Init:{at}/{}", list(pod, "/spec/initContainers").len())
    })
}

fn exit_reason(terminated: &Value) -> String {
    match (text(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Looks at the app containers, last one first, and returns how many are ready.
fn app_containers<'a>(pod: &'a Value, reason: &mut String, restarts: &mut Restarts<'a>) -> usize {
    let (mut ready, mut failure) = (0, String::new());
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        restarts.add(status);
        let (terminated, waiting) = (&status["state"]["terminated"], text(status, "/state/waiting/reason"));
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if terminated.is_object() {
            *reason = exit_reason(terminated);
            if number(terminated, "/exitCode") != 0 {
                failure.clone_from(reason);
            }
        } else if status["ready"] == true && status["state"]["running"].is_object() {
            ready += 1;
        }
    }
    if reason == "Completed" {
        let pod_ready =
            list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if ready > 0 && pod_ready {
            *reason = "Running".to_owned();
        } else if !failure.is_empty() {
            *reason = failure;
        } else if ready > 0 {
            *reason = "NotReady".to_owned();
        }
    }
    ready
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    let holds = |gate: &&Value| {
        let mut conditions = list(pod, "/status/conditions").iter();
        conditions.find(|c| c["type"] == gate["conditionType"]).is_some_and(|c| c["status"] == "True")
    };
    match gates.len() {
        0 => NONE.to_owned(),
        all => format!("{}/{all}", gates.iter().filter(holds).count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(pod: Value, expect: (&str, &str, &str)) {
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let found = summary(&pod, now);
        assert_eq!((&*found.ready, &*found.reason, &*found.restarts), expect, "{pod}");
    }

    #[test]
    fn pods_as_kubectl_shows_them() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        check(json!({"spec": spec, "status": {"phase": "Pending"}}), ("0/2", "Pending", "0"));
        check(
            json!({"spec": spec, "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "ready": true, "state": {"running": {}}},
                {"name": "b", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"finishedAt": "2026-01-01T00:50:00Z"}}}]}}),
            ("1/2", "CrashLoopBackOff", "3 (10m ago)"),
        );
        check(
            json!({"spec": {"containers": [{}], "initContainers": [{"name": "i"}]}, "status": {"phase": "Pending",
                "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]}}),
            ("0/1", "Init:ExitCode:2", "0"),
        );
        check(
            json!({"metadata": {"deletionTimestamp": "x"}, "spec": spec, "status": {"phase": "Running"}}),
            ("0/2", "Terminating", "0"),
        );
        check(
            json!({"spec": {"containers": [{}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
                "status": {"phase": "Running", "initContainerStatuses": [
                    {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"ready": true, "state": {"running": {}}}]}}),
            ("2/2", "Running", "1"),
        );
    }
}
