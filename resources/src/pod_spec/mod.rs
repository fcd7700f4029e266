//! The pod spec, as pods and the templates of all workloads share it: defaults and validation.
//! Upstream: `pkg/apis/core/v1/defaults.go`, `ValidatePodSpec` in `pkg/apis/core/validation`.

pub(crate) mod affinity;
pub(crate) mod container;
mod defaults;
mod environment;
mod probe;
mod projected;
pub(crate) mod resources;
pub(crate) mod restart;
mod scheduling;
mod security;
pub(crate) mod volume;
mod warnings;

pub(crate) use defaults::{canonical, default_claim_spec, default_pod, default_pod_spec, default_template};
pub(crate) use resources::qos_class;
pub(crate) use scheduling::{check_node_selector, check_taint_effect, check_tolerations};
pub(crate) use warnings::{pod_warnings, template_warnings};

use api::FieldErrors;
use api::names::{self, check_annotations, check_labels, check_required_one_of, report};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;

/// What the spec is part of.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    /// The pod's metadata; `None` for a template.
    pub meta: Option<&'a ObjectMeta>,
}

/// The value of an optional text, empty where there is none.
pub(crate) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

/// Whether an init container keeps running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    text(&container.restart_policy) == "Always"
}

/// Removes the fields of features that are off by default in v1.37. Upstream: `DropDisabledPodFields`.
pub(crate) fn drop_disabled(spec: &mut PodSpec) {
    spec.scheduling_group = None;
    spec.eviction_responders = None;
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    for container in containers {
        container::drop_disabled(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume::drop_disabled(volume);
    }
}

/// Validates the template of a workload. The path is the template's.
pub(crate) fn validate_template(template: &PodTemplateSpec, errors: &mut FieldErrors) {
    let none = ObjectMeta::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    check_labels(errors, "labels", meta.labels.as_ref());
    check_annotations(errors, "annotations", meta.annotations.as_ref());
    check_pod_annotations(meta, "", errors, "annotations");
    let no_spec = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&no_spec);
    errors.at("spec", |errors| {
        validate(spec, Of { meta: None }, errors);
        if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
            errors.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template");
        }
    });
}

/// Annotations that mean something for pods. `field` is where they are.
pub(crate) fn check_pod_annotations(meta: &ObjectMeta, node: &str, errors: &mut FieldErrors, field: &str) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let value = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    if let Some(value) = value(MIRROR)
        && node.is_empty()
    {
        errors.invalid(
            &format!("{field}[{MIRROR}]"),
            value.as_str(),
            "must set spec.nodeName if mirror pod annotation is set",
        );
    }
    if let Some(cost) = value(DELETION_COST)
        && (cost.starts_with('+') || cost.len() > 1 && cost.starts_with('0') || cost.parse::<i32>().is_err())
    {
        errors.invalid(&format!("{field}[{DELETION_COST}]"), cost.as_str(), "must be a 32bit integer");
    }
}

/// Validates a pod spec. The path is the spec's.
pub(crate) fn validate(spec: &PodSpec, of: Of<'_>, errors: &mut FieldErrors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required("terminationGracePeriodSeconds", "");
    }
    let volumes = volume::validate_all(spec.volumes.as_deref().unwrap_or_default(), of, errors);
    let claims = check_resource_claims(spec, of, errors);
    let scope = container::Scope { spec, volumes: &volumes, claims: &claims };
    container::validate_all(&scope, errors);
    resources::validate_pod_level(spec, errors);
    check_host_network_ports(spec, of, errors);
    check_required_one_of(
        errors,
        "restartPolicy",
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
    );
    scheduling::check_dns(spec, errors);
    check_labels(errors, "nodeSelector", spec.node_selector.as_ref());
    security::check_pod(spec, errors);
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.invalid(
            "shareProcessNamespace",
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    if let Some(affinity) = &spec.affinity {
        errors.at("affinity", |errors| affinity::check(affinity, errors));
    }
    scheduling::check_gates(spec, errors);
    scheduling::check_spread(spec, errors);
    check_names(spec, errors);
    check_numbers(spec, errors);
    if let Some(tolerations) = &spec.tolerations {
        check_tolerations(tolerations, errors);
    }
    if let Some(os) = &spec.os {
        check_os(spec, &os.name, errors);
    }
    environment::check_file_references(spec, errors);
}

fn check_resource_claims(spec: &PodSpec, of: Of<'_>, errors: &mut FieldErrors) -> BTreeSet<String> {
    let mirror = of.meta.and_then(|meta| meta.annotations.as_ref());
    let is_static = mirror.is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"));
    let mut names = BTreeSet::new();
    for (at, claim) in spec.resource_claims.iter().flatten().enumerate() {
        errors.at(&format!("resourceClaims[{at}]"), |errors| {
            if is_static {
                errors.forbidden("", "static pods do not support resource claims");
                return;
            }
            if claim.name.is_empty() {
                errors.required("name", "");
            } else if !names.insert(claim.name.clone()) {
                errors.duplicate("name", claim.name.as_str());
            } else {
                report(errors, "name", &claim.name, names::dns_label(&claim.name));
            }
            let shown = || serde_json::to_value(claim).unwrap_or_default();
            match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
                (Some(_), Some(_)) => errors.invalid(
                    "",
                    shown(),
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                ),
                (None, None) => errors.invalid(
                    "",
                    shown(),
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                ),
                _ => {}
            }
            for (field, name) in [
                ("resourceClaimName", &claim.resource_claim_name),
                ("resourceClaimTemplateName", &claim.resource_claim_template_name),
            ] {
                if let Some(name) = name {
                    report(errors, field, name, names::dns_subdomain(name));
                }
            }
        });
    }
    names
}

fn check_host_network_ports(spec: &PodSpec, of: Of<'_>, errors: &mut FieldErrors) {
    if spec.host_network != Some(true) {
        return;
    }
    for (at, container) in spec.containers.iter().enumerate() {
        for (port_at, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if (of.meta.is_some() || host_port != 0) && host_port != port.container_port {
                errors.invalid(
                    &format!("containers[{at}].ports[{port_at}].hostPort"),
                    host_port,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

/// Fields that name something.
fn check_names(spec: &PodSpec, errors: &mut FieldErrors) {
    type Check = fn(&str) -> names::Faults;
    let checks: [(&str, &Option<String>, Check); 6] = [
        ("serviceAccountName", &spec.service_account_name, names::dns_subdomain),
        ("nodeName", &spec.node_name, names::dns_subdomain),
        ("hostname", &spec.hostname, names::dns_label),
        ("subdomain", &spec.subdomain, names::dns_label),
        ("priorityClassName", &spec.priority_class_name, names::dns_subdomain),
        ("runtimeClassName", &spec.runtime_class_name, names::dns_subdomain),
    ];
    for (field, value, check) in checks {
        match value.as_deref() {
            None | Some("") if field != "runtimeClassName" => {}
            None => {}
            Some(value) => report(errors, field, value, check(value)),
        }
    }
    if text(&spec.service_account) != text(&spec.service_account_name) {
        errors.invalid(
            "deprecatedServiceAccount",
            text(&spec.service_account),
            format!("must be the same as serviceAccountName: \"{}\"", text(&spec.service_account_name)),
        );
    }
    if let Some(name) = &spec.hostname_override {
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.forbidden("hostnameOverride", "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.host_network == Some(true) {
            errors.forbidden("hostnameOverride", "may not be specified when hostNetwork is true");
        }
        if name.len() > 64 {
            errors.too_long("hostnameOverride", 64);
        }
        report(errors, "hostnameOverride", name, names::dns_subdomain(name));
    }
    for (at, alias) in spec.host_aliases.iter().flatten().enumerate() {
        names::check_ip(errors, &format!("hostAliases[{at}].ip"), &alias.ip);
        for (name_at, name) in alias.hostnames.iter().flatten().enumerate() {
            let field = format!("hostAliases[{at}].hostnames[{name_at}]");
            report(errors, &field, name, names::dns_subdomain(name));
        }
    }
}

fn check_numbers(spec: &PodSpec, errors: &mut FieldErrors) {
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.invalid("activeDeadlineSeconds", seconds, names::between(1, i64::from(i32::MAX)));
    }
    if let Some(policy) = &spec.preemption_policy {
        check_required_one_of(errors, "preemptionPolicy", Some(policy), &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = &spec.overhead {
        errors.at("overhead", |errors| resources::check_list(errors, "limits", overhead));
    }
}

fn check_os(spec: &PodSpec, name: &str, errors: &mut FieldErrors) {
    const KNOWN: [&str; 2] = ["linux", "windows"];
    match name {
        "" => errors.required("os.name", ""),
        "linux" => security::check_no_windows_options(spec, errors),
        "windows" => security::check_no_linux_options(spec, errors),
        other => errors.not_supported("os.name", other, &KNOWN),
    }
}

/// The containers of a spec with their paths: init containers, containers, ephemeral ones as containers.
pub(crate) fn each_container(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(at, container)| (format!("initContainers[{at}]"), container));
    init.chain(
        spec.containers.iter().enumerate().map(|(at, container)| (format!("containers[{at}]"), container)),
    )
}
