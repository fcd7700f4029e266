//! Containers of all three sorts. Upstream: `validateContainers`, `validateInitContainers`,
//! `validateEphemeralContainers`.

use super::{environment, is_sidecar, probe, resources, restart, security, text, volume};
use api::FieldErrors;
use api::names::{self, check_one_of, check_required_one_of, report};
use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, Volume};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What the rules of a container must know of its pod.
pub(crate) struct Scope<'a> {
    pub spec: &'a PodSpec,
    /// The volumes without errors, by name.
    pub volumes: &'a BTreeMap<&'a str, &'a Volume>,
    /// Names of the pod's resource claims.
    pub claims: &'a BTreeSet<String>,
}

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// See `drop_disabled` of the spec.
pub(super) fn drop_disabled(container: &mut Container) {
    if let Some(lifecycle) = &mut container.lifecycle {
        lifecycle.stop_signal = None;
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            if let Some(http) = &mut handler.http_get {
                http.protocol = None;
            }
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        if let Some(http) = &mut probe.http_get {
            http.protocol = None;
        }
        if let Some(grpc) = &mut probe.grpc {
            grpc.mode = None;
        }
    }
    for mount in container.volume_mounts.iter_mut().flatten() {
        mount.bind_mount_options = None;
    }
}

/// An ephemeral container seen as a container.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    serde_json::to_value(ephemeral).and_then(serde_json::from_value).unwrap_or_default()
}

pub(super) fn validate_all(scope: &Scope<'_>, errors: &mut FieldErrors) {
    let spec = scope.spec;
    if spec.containers.is_empty() {
        errors.required("containers", "");
    }
    let mut names = BTreeSet::new();
    for (at, container) in spec.containers.iter().enumerate() {
        errors.at(&format!("containers[{at}]"), |errors| {
            common(scope, container, errors);
            if !names.insert(container.name.as_str()) {
                errors.duplicate("name", container.name.as_str());
            }
            probe::check_lifecycle(spec, container, errors);
            probe::check_probes(spec, container, errors);
            restart::check(container, errors);
        });
    }
    check_host_ports("containers", &spec.containers, errors);
    for (at, container) in spec.init_containers.iter().flatten().enumerate() {
        errors.at(&format!("initContainers[{at}]"), |errors| {
            common(scope, container, errors);
            if !names.insert(container.name.as_str()) && !container.name.is_empty() {
                errors.duplicate("name", container.name.as_str());
            }
            init_container(scope, container, errors);
        });
        check_host_ports("initContainers", std::slice::from_ref(container), errors);
    }
    let others = names.clone();
    for (at, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        errors.at(&format!("ephemeralContainers[{at}]"), |errors| {
            common(scope, &as_container(container), errors);
            if !names.insert(container.name.as_str()) {
                errors.duplicate("name", container.name.as_str());
            }
            ephemeral_container(container, &others, errors);
        });
    }
}

fn init_container(scope: &Scope<'_>, container: &Container, errors: &mut FieldErrors) {
    restart::check_init(container, errors);
    if is_sidecar(container) {
        probe::check_lifecycle(scope.spec, container, errors);
        probe::check_probes(scope.spec, container, errors);
        return;
    }
    for (field, is_set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if is_set {
            errors.forbidden(field, "may not be set for init containers without restartPolicy=Always");
        }
    }
    for (at, policy) in container.resize_policy.iter().flatten().enumerate() {
        if policy.restart_policy == "RestartContainer" {
            errors.invalid(
                &format!("resizePolicy[{at}].restartPolicy"),
                policy.restart_policy.as_str(),
                "must not be set to 'RestartContainer' for non-sidecar initContainers",
            );
        }
    }
}

fn ephemeral_container(container: &EphemeralContainer, others: &BTreeSet<&str>, errors: &mut FieldErrors) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let target = text(&container.target_container_name);
    if !target.is_empty() && !others.contains(target) {
        errors.not_found("targetContainerName", target);
    }
    let has_resources = container.resources.as_ref().is_some_and(|own| {
        let filled = |list: &Option<resources::Amounts>| list.as_ref().is_some_and(|list| !list.is_empty());
        own.claims.is_some() || filled(&own.limits) || filled(&own.requests)
    });
    for (field, is_set) in [
        ("ports", container.ports.is_some()),
        ("resources", has_resources),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
    ] {
        if is_set {
            errors.forbidden(field, WHY);
        }
    }
    for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if !text(value).is_empty() {
                errors.forbidden(&format!("volumeMounts[{at}].{field}"), WHY);
            }
        }
    }
}

/// What holds for containers of all sorts.
fn common(scope: &Scope<'_>, container: &Container, errors: &mut FieldErrors) {
    if container.name.is_empty() {
        errors.required("name", "");
    } else {
        report(errors, "name", &container.name, names::dns_label(&container.name));
    }
    check_image(text(&container.image), errors);
    check_required_one_of(
        errors,
        "terminationMessagePolicy",
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
    );
    check_ports(container.ports.as_deref().unwrap_or_default(), errors);
    environment::check(container, errors);
    volume::check_mounts(scope, container, errors);
    volume::check_devices(scope, container, errors);
    check_required_one_of(
        errors,
        "imagePullPolicy",
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(own) = &container.resources {
        errors.at("resources", |errors| resources::check(own, scope.claims, errors));
    }
    check_resize_policy(scope.spec, container, errors);
    let host_users = scope.spec.host_users.unwrap_or(true);
    if let Some(context) = &container.security_context {
        errors.at("securityContext", |errors| security::check_container(context, host_users, errors));
    }
    if !host_users && container.volume_devices.as_ref().is_some_and(|list| !list.is_empty()) {
        errors.forbidden("volumeDevices", "when `hostUsers` is false");
    }
}

/// An image's name.
pub(crate) fn check_image(image: &str, errors: &mut FieldErrors) {
    if image.is_empty() {
        errors.required("image", "");
    } else if image.trim() != image {
        errors.invalid("image", image, "must not have leading or trailing whitespace");
    }
}

fn check_ports(ports: &[ContainerPort], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        errors.at(&format!("ports[{at}]"), |errors| {
            let name = text(&port.name);
            if !name.is_empty() {
                let faults = names::port_name(name);
                if faults.is_empty() && !seen.insert(name) {
                    errors.duplicate("name", name);
                }
                report(errors, "name", name, faults);
            }
            if port.container_port == 0 {
                errors.required("containerPort", "");
            } else {
                for fault in names::port(port.container_port) {
                    errors.invalid("containerPort", port.container_port, fault);
                }
            }
            if let Some(host_port) = port.host_port.filter(|port| *port != 0) {
                for fault in names::port(host_port) {
                    errors.invalid("hostPort", host_port, fault);
                }
            }
            check_required_one_of(errors, "protocol", port.protocol.as_deref(), &PROTOCOLS);
        });
    }
}

fn check_host_ports(field: &str, containers: &[Container], errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (at, container) in containers.iter().enumerate() {
        for (port_at, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|port| *port != 0) else {
                continue;
            };
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if !seen.insert(key.clone()) {
                errors.duplicate(&format!("{field}[{at}].ports[{port_at}].hostPort"), key);
            }
        }
    }
}

fn check_resize_policy(spec: &PodSpec, container: &Container, errors: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (at, policy) in container.resize_policy.iter().flatten().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errors.duplicate(&format!("resizePolicy[{at}]"), policy.resource_name.as_str());
        }
        match policy.resource_name.as_str() {
            "" => errors.required("resizePolicy", ""),
            name => check_one_of(errors, "resizePolicy", name, &["cpu", "memory"]),
        }
        match policy.restart_policy.as_str() {
            "" => errors.required("resizePolicy", ""),
            name => check_one_of(errors, "resizePolicy", name, &["NotRequired", "RestartContainer"]),
        }
        if text(&spec.restart_policy) == "Never" && policy.restart_policy != "NotRequired" {
            errors.invalid(
                "resizePolicy",
                Value::from(policy.restart_policy.as_str()),
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}
