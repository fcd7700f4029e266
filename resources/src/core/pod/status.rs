//! The status of a pod. Upstream: `podStatusStrategy`, `ValidatePodStatusUpdate`.

use super::spec_of;
use crate::pod_spec::{restart, text};
use api::{FieldErrors, names};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus};
use std::collections::BTreeMap;

/// `podIP` and the first of `podIPs` say the same.
pub(super) fn default(status: &mut PodStatus) {
    let single = text(&status.pod_ip).to_owned();
    let first = status.pod_ips.as_ref().and_then(|all| all.first()).map(|own| own.ip.clone());
    match (single.as_str(), first) {
        ("", Some(first)) => status.pod_ip = Some(first),
        ("", None) => {}
        (single, first) if first.as_deref() != Some(single) => {
            status.pod_ips = Some(vec![PodIP { ip: single.to_owned() }]);
        }
        _ => {}
    }
    if text(&status.phase).is_empty() {
        status.phase = None;
    }
}

pub(super) fn prepare(new: &mut Pod, old: &Pod) {
    new.spec.clone_from(&old.spec);
    new.metadata.deletion_timestamp.clone_from(&old.metadata.deletion_timestamp);
    new.metadata.owner_references.clone_from(&old.metadata.owner_references);
    let (Some(status), Some(before)) = (&mut new.status, &old.status) else {
        return;
    };
    if text(&status.qos_class).is_empty() {
        status.qos_class.clone_from(&before.qos_class);
    }
    if status.resource_claim_statuses.is_none() {
        status.resource_claim_statuses.clone_from(&before.resource_claim_statuses);
    }
    if status.extended_resource_claim_status.is_none() {
        status.extended_resource_claim_status.clone_from(&before.extended_resource_claim_status);
    }
    if status.observed_generation.unwrap_or(0) == 0 {
        status.observed_generation = before.observed_generation;
    }
    let mut generations: BTreeMap<&str, Vec<Option<i64>>> = BTreeMap::new();
    for condition in before.conditions.iter().flatten().rev() {
        generations.entry(&condition.type_).or_default().push(condition.observed_generation);
    }
    for condition in status.conditions.iter_mut().flatten() {
        let before = generations.get_mut(condition.type_.as_str()).and_then(Vec::pop).flatten();
        if condition.observed_generation.unwrap_or(0) == 0 {
            condition.observed_generation = before;
        }
    }
}

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    super::update::check_annotations(&new.metadata, &old.metadata, errors);
    let none = PodStatus::default();
    let (status, before) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
    let spec = spec_of(old);
    errors.at("status", |errors| {
        for (at, condition) in status.conditions.iter().flatten().enumerate() {
            if condition.observed_generation.is_some_and(|generation| generation < 0) {
                errors.invalid(
                    &format!("conditions[{at}].observedGeneration"),
                    condition.observed_generation,
                    "must be a non-negative integer",
                );
            }
            let kind = condition.type_.as_str();
            names::report(errors, &format!("conditions[{at}].Type"), kind, names::qualified(kind));
        }
        check_nominated(status, before, &spec, errors);
        if status.observed_generation.is_some_and(|generation| generation < 0) {
            errors.invalid(
                "observedGeneration",
                status.observed_generation,
                "must be a non-negative integer",
            );
        }
        errors.immutable("qosClass", &text(&status.qos_class), &text(&before.qos_class));
        check_transitions("containerStatuses", status, before, &spec, errors);
        check_transitions("initContainerStatuses", status, before, &spec, errors);
        check_ephemeral_transitions(status, before, errors);
        check_pod_ips(status, before, errors);
        check_host_ips(status, errors);
    });
}

fn check_nominated(status: &PodStatus, before: &PodStatus, spec: &PodSpec, errors: &mut FieldErrors) {
    const FIELD: &str = "nominatedNodeName";
    let own = text(&status.nominated_node_name);
    if own.is_empty() || own == text(&before.nominated_node_name) {
        return;
    }
    names::report(errors, FIELD, own, names::dns_subdomain(own));
    if !text(&spec.node_name).is_empty() {
        errors.forbidden(FIELD, "may not be set on pods that are already bound to a node");
    }
}

/// A container that ended stays so unless its policy starts it again.
fn check_transitions(
    field: &str,
    status: &PodStatus,
    before: &PodStatus,
    spec: &PodSpec,
    errors: &mut FieldErrors,
) {
    if restart::may_restart_all(spec) {
        return;
    }
    let is_init = field == "initContainerStatuses";
    let pick = |status: &PodStatus| match is_init {
        true => status.init_container_statuses.clone(),
        false => status.container_statuses.clone(),
    };
    let containers: &[Container] = match is_init {
        true => spec.init_containers.as_deref().unwrap_or_default(),
        false => &spec.containers,
    };
    let new = pick(status).unwrap_or_default();
    for (at, old) in pick(before).iter().flatten().enumerate() {
        let Some(code) = exit_code(old) else {
            continue;
        };
        let Some(own) = new.iter().find(|own| own.name == old.name) else {
            continue;
        };
        let container = containers.iter().find(|container| container.name == old.name);
        let may = container.is_some_and(|container| restart::should_restart(container, spec, code));
        if exit_code(own).is_none() && !may {
            errors.forbidden(
                &format!("{field}[{at}].state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

fn check_ephemeral_transitions(status: &PodStatus, before: &PodStatus, errors: &mut FieldErrors) {
    for (at, old) in before.ephemeral_container_statuses.iter().flatten().enumerate() {
        let new = status.ephemeral_container_statuses.iter().flatten().find(|own| own.name == old.name);
        if exit_code(old).is_some() && new.is_some_and(|own| exit_code(own).is_none()) {
            errors.forbidden(
                &format!("ephemeralContainerStatuses[{at}].state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    status.state.as_ref().and_then(|state| state.terminated.as_ref()).map(|own| own.exit_code)
}

fn check_pod_ips(status: &PodStatus, before: &PodStatus, errors: &mut FieldErrors) {
    let none = Vec::new();
    let all = status.pod_ips.as_ref().unwrap_or(&none);
    for (at, own) in
        all.iter().enumerate().filter(|(_, own)| !before.pod_ips.iter().flatten().any(|o| o == *own))
    {
        names::check_ip(errors, &format!("podIPs[{at}]"), &own.ip);
    }
    let shown = || serde_json::to_value(all).unwrap_or_default();
    let families: Vec<bool> = all.iter().map(|own| own.ip.contains(':')).collect();
    if families.len() > 2 || families.len() == 2 && families[0] == families[1] {
        errors.invalid("podIPs", shown(), "may specify no more than one IP for each IP family");
    }
    match (text(&status.pod_ip), all.first()) {
        ("", None) => {}
        ("", Some(_)) | (_, None) => {
            errors.invalid("podIPs", shown(), "podIP and podIPs must either both be set or both be unset");
        }
        (single, Some(first)) if single != first.ip => {
            errors.invalid("podIPs[0].ip", first.ip.as_str(), "must be equal to `podIP`");
        }
        _ => {}
    }
}

fn check_host_ips(status: &PodStatus, errors: &mut FieldErrors) {
    let none = Vec::new();
    let all: &Vec<HostIP> = status.host_ips.as_ref().unwrap_or(&none);
    for (at, own) in all.iter().enumerate() {
        names::check_ip(errors, &format!("hostIPs[{at}]"), &own.ip);
    }
    if let Some(first) = all.first()
        && text(&status.host_ip) != first.ip
    {
        errors.invalid("hostIPs[0].ip", first.ip.as_str(), "must be equal to `hostIP`");
    }
}
