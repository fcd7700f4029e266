//! Why a pod is not ready.

use super::{Finding, Named, Objects, message, named};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition};

/// A pod's condition of a type.
fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// Whether its `Ready` condition is true.
pub(super) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

fn about(pod: &Pod) -> String {
    format!("pod/{}", pod.name())
}

fn describe(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    format!("more: kubectl -n {namespace} describe pod {}", pod.name())
}

/// Follows the chain: being deleted, ended, scheduling, node, volumes, sandbox, containers, probes, gates.
pub(super) fn explain(pod: &Pod, objects: &Objects) -> Vec<Finding> {
    if let Some(finding) = ended(pod) {
        return vec![finding];
    }
    if is_ready(pod) {
        return vec![Finding::fine(about(pod), "is running and ready")];
    }
    for step in [unscheduled, node, volumes, sandbox] {
        if let Some(finding) = step(pod, objects) {
            return vec![finding];
        }
    }
    let mut findings = containers(pod, objects);
    if findings.is_empty() {
        findings.extend(gates(pod));
    }
    if findings.is_empty() {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        findings.push(
            Finding::waiting(about(pod), format!("is on node {node}, which has not reported it ready yet"))
                .hint(describe(pod)),
        );
    }
    findings
}

fn ended(pod: &Pod) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() {
        let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
        return Some(match finalizers {
            [] => Finding::waiting(about(pod), "is being deleted: its containers have time to end"),
            _ => Finding::stuck(
                about(pod),
                format!("is being deleted and waits for its finalizers: {}", finalizers.join(", ")),
            )
            .hint("whoever put a finalizer there must take it away"),
        });
    }
    match status.phase.as_deref() {
        Some("Succeeded") => {
            Some(Finding::fine(about(pod), "has ended as it should: every container exited with 0"))
        }
        Some("Failed") => {
            let why = match (status.reason.as_deref(), status.message.as_deref()) {
                (Some(reason), text) => format!("has failed ({reason}): {}", message(text)),
                (None, _) => format!("has failed: {}", exits(pod)),
            };
            Some(
                Finding::stuck(about(pod), why)
                    .hint("a pod that failed stays so: its controller makes another, or you do"),
            )
        }
        _ => None,
    }
}

fn exits(pod: &Pod) -> String {
    let all = pod.status.iter().flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let exits: Vec<_> = all
        .filter_map(|status| {
            let end = status.state.as_ref()?.terminated.as_ref()?;
            (end.exit_code != 0).then(|| format!("container {} exited with {}", status.name, end.exit_code))
        })
        .collect();
    if exits.is_empty() { "no container says why".to_owned() } else { exits.join(", ") }
}

fn unscheduled(pod: &Pod, _: &Objects) -> Option<Finding> {
    let spec = pod.spec.as_ref()?;
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return None;
    }
    let gates: Vec<_> = spec.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    if !gates.is_empty() {
        let says = format!("is not scheduled before its gates are removed: {}", gates.join(", "));
        return Some(Finding::stuck(about(pod), says));
    }
    let refused = condition(pod, "PodScheduled").filter(|condition| condition.status == "False");
    Some(match refused {
        Some(condition) => {
            let text = message(condition.message.as_deref());
            Finding::stuck(about(pod), format!("fits on no node: {text}")).hint(scheduling_hint(text))
        }
        None => {
            let name = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
            let finding = Finding::waiting(about(pod), format!("waits for the scheduler {name}"));
            match name {
                "default-scheduler" => finding,
                _ => finding.hint("is a scheduler of this name running?"),
            }
        }
    })
}

/// What helps against the first reason that a message of the scheduler names.
fn scheduling_hint(text: &str) -> &'static str {
    let hints = [
        (
            "Insufficient",
            "ask for less (resources.requests), or make room: kubectl describe nodes shows what is taken",
        ),
        ("node affinity/selector", "compare nodeSelector and affinity with kubectl get nodes --show-labels"),
        ("taint", "tolerate the taint or remove it: kubectl describe nodes shows taints"),
        ("unschedulable", "a node is cordoned: kubectl uncordon NODE"),
        ("free ports", "another pod has the host port"),
        ("PersistentVolumeClaim", "the pod's claims must be bound first: kubectl get pvc"),
        ("persistentvolumeclaim", "the pod's claims must be bound first: kubectl get pvc"),
        ("Too many pods", "nodes are full: delete pods or add a node"),
    ];
    let found = hints.iter().find(|(word, _)| text.contains(word));
    found.map_or("kubectl describe nodes shows what nodes offer", |(_, hint)| hint)
}

fn node(pod: &Pod, objects: &Objects) -> Option<Finding> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    let Some(node) = named(&objects.nodes, name) else {
        let says = format!("is bound to node {name}, which does not exist");
        return Some(Finding::stuck(about(pod), says).hint("kubectl get nodes shows those that do"));
    };
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    if ready.status == "True" {
        return None;
    }
    let text = message(ready.message.as_deref());
    Some(Finding::stuck(about(pod), format!("is on node {name}, which is not ready: {text}")))
}

fn volumes(pod: &Pod, objects: &Objects) -> Option<Finding> {
    let started = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    if started.into_iter().any(|status| status.container_id.is_some()) {
        return None;
    }
    for volume in pod.spec.as_ref()?.volumes.iter().flatten() {
        let Some(claim) = &volume.persistent_volume_claim else { continue };
        let name = claim.claim_name.as_str();
        let Some(found) = named(&objects.claims, name) else {
            return Some(Finding::stuck(
                about(pod),
                format!("wants the volume claim {name}, which does not exist"),
            ));
        };
        if found.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
            let reasons =
                ["ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer", "ExternalProvisioning"];
            let event = objects.event("PersistentVolumeClaim", name, &reasons);
            let why = event.map_or("it is not bound yet", |event| message(event.message.as_deref()));
            return Some(Finding::stuck(about(pod), format!("waits for the volume claim {name}: {why}")));
        }
    }
    let event =
        objects.event("Pod", pod.name(), &["FailedMount", "FailedAttachVolume", "FailedMapVolume"])?;
    let text = message(event.message.as_deref());
    Some(Finding::stuck(about(pod), format!("cannot have its volumes: {text}")).hint(describe(pod)))
}

fn sandbox(pod: &Pod, objects: &Objects) -> Option<Finding> {
    if pod.status.as_ref()?.pod_ip.is_some() {
        return None;
    }
    let event = objects.event("Pod", pod.name(), &["FailedCreatePodSandBox", "NetworkNotReady"])?;
    let text = message(event.message.as_deref());
    Some(Finding::stuck(about(pod), format!("cannot have its network or sandbox: {text}")))
}

fn containers(pod: &Pod, objects: &Objects) -> Vec<Finding> {
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else { return Vec::new() };
    // Those that must have ended or started before the others come first, and hold the others up.
    for container in spec.init_containers.iter().flatten() {
        let own = status.init_container_statuses.iter().flatten().find(|own| own.name == container.name);
        let Some(own) = own else { continue };
        let is_sidecar = container.restart_policy.as_deref() == Some("Always");
        let ended = own.state.as_ref().and_then(|state| state.terminated.as_ref());
        if ended.is_some_and(|end| end.exit_code == 0) || (is_sidecar && own.started == Some(true)) {
            continue;
        }
        let finding = container_finding(pod, container, own, objects);
        return vec![finding.unwrap_or_else(|| {
            Finding::waiting(about(pod), format!("its init container {} is still running", container.name))
        })];
    }
    let statuses = status.container_statuses.iter().flatten();
    let unready = statuses.filter(|own| !own.ready);
    unready
        .filter_map(|own| {
            let container = spec.containers.iter().find(|container| container.name == own.name)?;
            container_finding(pod, container, own, objects)
        })
        .collect()
}

fn container_finding(
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    objects: &Objects,
) -> Option<Finding> {
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        return Some(not_started(pod, container, status, reason, waiting.message.as_deref()));
    }
    if let Some(end) = &state.terminated {
        let how = format!("container {} ended with {}", container.name, end.exit_code);
        return Some(Finding::waiting(about(pod), format!("{how} and will be started again")).hint(logs(
            pod,
            &container.name,
            "",
        )));
    }
    unhealthy(pod, container, status, objects)
}

fn logs(pod: &Pod, container: &str, more: &str) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    format!("see what it said: kubectl -n {namespace} logs {} -c {container}{more}", pod.name())
}

fn not_started(
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    reason: &str,
    text: Option<&str>,
) -> Finding {
    let (about, name) = (about(pod), &container.name);
    let image = container.image.as_deref().unwrap_or_default();
    let text = message(text);
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" => {
            Finding::stuck(about, format!("container {name} has no image: {image} cannot be pulled: {text}"))
                .hint("is the name right, and can this node reach the registry? `clipper image import FILE` brings an image here without one")
        }
        "ErrImageNeverPull" => {
            Finding::stuck(about, format!("container {name} has no image: {image} is not on the node and imagePullPolicy is Never"))
                .hint("`clipper image import FILE` brings it here")
        }
        "InvalidImageName" => Finding::stuck(about, format!("container {name} has no image: {image} is no valid name")),
        "CreateContainerConfigError" => {
            Finding::stuck(about, format!("container {name} misses a setting: {text}"))
                .hint("create what is missing; the container starts by itself then")
        }
        "CrashLoopBackOff" => crashed(pod, container, status),
        "PodInitializing" | "ContainerCreating" | "" => {
            Finding::waiting(about, format!("container {name} is being made"))
        }
        _ => Finding::stuck(about, format!("container {name} does not start ({reason}): {text}")),
    }
}

fn crashed(pod: &Pod, container: &Container, status: &ContainerStatus) -> Finding {
    let name = &container.name;
    let end = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let Some(end) = end else {
        return Finding::stuck(about(pod), format!("container {name} ends again and again"));
    };
    if end.reason.as_deref() == Some("OOMKilled") {
        let limit = container.resources.as_ref().and_then(|own| own.limits.as_ref()?.get("memory"));
        let limit =
            limit.map_or_else(|| "the node's memory".to_owned(), |limit| format!("its limit of {}", limit.0));
        let says = format!(
            "container {name} needed more memory than {limit} and was killed, {} times so far",
            status.restart_count
        );
        return Finding::stuck(about(pod), says).hint("raise resources.limits.memory, or make it need less");
    }
    let how = match end.exit_code {
        0 => "ends although it should go on running (exit code 0)".to_owned(),
        126 => "cannot be executed (exit code 126)".to_owned(),
        127 => "names a command that does not exist (exit code 127)".to_owned(),
        code @ 129..=192 => format!("was ended by signal {} (exit code {code})", code - 128),
        code => format!("ends with exit code {code}"),
    };
    let why = end.message.as_deref().map(|text| format!(": {}", text.trim())).unwrap_or_default();
    let says = format!(
        "container {name} {how}{why}; restarted {} times, each time after a longer pause",
        status.restart_count
    );
    Finding::stuck(about(pod), says).hint(logs(pod, name, " --previous"))
}

/// Runs, but a probe is against it.
fn unhealthy(
    pod: &Pod,
    container: &Container,
    status: &ContainerStatus,
    objects: &Objects,
) -> Option<Finding> {
    let name = &container.name;
    let said = objects.event("Pod", pod.name(), &["Unhealthy"]);
    let said = said.and_then(|event| event.message.as_deref()).map(str::trim);
    if status.started != Some(true) && container.startup_probe.is_some() {
        let why = said
            .filter(|text| text.starts_with("Startup"))
            .unwrap_or("its startup probe has not succeeded yet");
        return Some(Finding::waiting(about(pod), format!("container {name} is starting: {why}")));
    }
    if container.readiness_probe.is_some() {
        let failed = said.filter(|text| text.starts_with("Readiness"));
        let finding = match failed {
            Some(text) => Finding::stuck(
                about(pod),
                format!("container {name} runs but says that it is not ready: {text}"),
            ),
            None => Finding::waiting(
                about(pod),
                format!("container {name} runs; its readiness probe has not succeeded yet"),
            ),
        };
        return Some(finding.hint(logs(pod, name, "")));
    }
    None
}

fn gates(pod: &Pod) -> Option<Finding> {
    let missing: Vec<_> = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten())
        .map(|gate| gate.condition_type.as_str())
        .filter(|type_| condition(pod, type_).is_none_or(|own| own.status != "True"))
        .collect();
    let says = format!("runs, but these readiness gates are not true: {}", missing.join(", "));
    (!missing.is_empty())
        .then(|| Finding::stuck(about(pod), says).hint("whoever asked for a gate must set the condition"))
}
