//! What is allowed in a pod spec but probably not meant. Upstream: `pkg/api/pod/warnings.go`.

use super::{each_container, resources, text};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet};

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
/// Labels of nodes that have a better name now.
const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Warnings of a template; `path` is where it is (`spec.template`).
pub(crate) fn template_warnings(path: &str, template: Option<&PodTemplateSpec>) -> Vec<String> {
    let Some(template) = template else {
        return Vec::new();
    };
    let none = ObjectMeta::default();
    let meta = template.metadata.as_ref().unwrap_or(&none);
    template.spec.as_ref().map_or(Vec::new(), |spec| warnings(&format!("{path}."), meta, spec))
}

/// Warnings of a pod.
pub(crate) fn pod_warnings(meta: &ObjectMeta, spec: &PodSpec) -> Vec<String> {
    warnings("", meta, spec)
}

/// `path` ends with a dot or is empty.
fn warnings(path: &str, meta: &ObjectMeta, spec: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    let outdated = |label: &str| NODE_LABELS.iter().find(|(own, _)| *own == label);
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some((_, text)) = outdated(key) {
            found.push(format!("{path}spec.nodeSelector[{key}]: {text}"));
        }
    }
    for (at, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let field = format!("{path}spec.topologySpreadConstraints[{at}]");
        if let Some((label, text)) = outdated(&constraint.topology_key) {
            found.push(format!("{field}.topologyKey: {label} is {text}"));
        }
        if constraint.label_selector.is_none() {
            found.push(format!("{field}.labelSelector: {NULL_SELECTOR}"));
        }
    }
    for (key, text) in ANNOTATIONS {
        if meta.annotations.as_ref().is_some_and(|all| all.contains_key(key)) {
            found.push(format!("{path}metadata.annotations[{key}]: {text}"));
        }
    }
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        volume_warnings(&format!("{path}spec.volumes[{at}]"), volume, &mut found);
    }
    list_warnings(path, spec, &mut found);
    for (field, container) in each_container(spec) {
        container_warnings(&format!("{path}spec.{field}"), container, &mut found);
    }
    port_warnings(path, spec, &mut found);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        found.push(format!(
            "{path}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    affinity_warnings(path, spec, &mut found);
    found
}

fn volume_warnings(field: &str, volume: &Volume, found: &mut Vec<String>) {
    for (name, is_set, text) in [
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11"),
        ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ] {
        if is_set {
            found.push(format!("{field}.{name}: {text}"));
        }
    }
}

fn list_warnings(path: &str, spec: &PodSpec, found: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (at, alias) in spec.host_aliases.iter().flatten().enumerate() {
        if !seen.insert(alias.ip.as_str()) {
            found.push(format!("{path}spec.hostAliases[{at}].ip: duplicate ip \"{}\"", alias.ip));
        }
    }
    let mut seen = BTreeSet::new();
    for (at, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let field = format!("{path}spec.imagePullSecrets[{at}].name");
        if !seen.insert(secret.name.as_str()) {
            found.push(format!("{field}: duplicate name \"{}\"", secret.name));
        }
        if secret.name.is_empty() {
            found.push(format!("{field}: invalid empty name \"\""));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        if let Some(own) = spec.overhead.as_ref().and_then(|list| list.get(name)) {
            fraction_warning(&format!("{path}spec.overhead[{name}]"), own, found);
        }
    }
}

fn fraction_warning(
    field: &str,
    own: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    found: &mut Vec<String>,
) {
    let amount = resources::amount(own);
    if amount.millis() % 1000 != 0 {
        found.push(format!("{field}: fractional byte value \"{amount}\" is invalid, must be an integer"));
    }
}

fn container_warnings(field: &str, container: &Container, found: &mut Vec<String>) {
    if let Some(own) = &container.resources {
        for name in ["memory", "ephemeral-storage"] {
            for (part, list) in [("limits", &own.limits), ("requests", &own.requests)] {
                if let Some(own) = list.as_ref().and_then(|list| list.get(name)) {
                    fraction_warning(&format!("{field}.resources.{part}[{name}]"), own, found);
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (at, variable) in container.env.iter().flatten().enumerate() {
        let (name, value) = (variable.name.as_str(), text(&variable.value));
        let reference = format!("$({name})");
        let hides = variable.value_from.is_some() || value == reference || !value.contains(&reference);
        if !seen.insert(name) && hides {
            found.push(format!(
                "{field}.env[{at}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
}

fn port_warnings(path: &str, spec: &PodSpec, found: &mut Vec<String>) {
    let mut by_number: BTreeMap<String, Vec<(String, &ContainerPort)>> = BTreeMap::new();
    let mut by_name: BTreeMap<&str, String> = BTreeMap::new();
    let mut name_warnings = Vec::new();
    for (container_field, container) in each_container(spec) {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let field = format!("{path}spec.{container_field}.ports[{at}]");
            let key = format!("{}/{}", port.container_port, text(&port.protocol));
            let others = by_number.entry(key).or_default();
            for (other_field, other) in others.iter() {
                if let Some(what) = port_conflict(port, other) {
                    found.push(format!("{field}: {what} port definition with {other_field}"));
                }
            }
            others.push((field.clone(), port));
            let name = text(&port.name);
            if name.is_empty() {
                continue;
            }
            match by_name.get(name) {
                None => {
                    by_name.insert(name, field);
                }
                Some(other) => name_warnings.push(format!(
                    "{field}: duplicate port name \"{name}\" with {other}, services and probes that select ports by name will use {other}"
                )),
            }
        }
    }
    found.extend(name_warnings);
}

fn port_conflict(one: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let number = |port: &ContainerPort| port.host_port.unwrap_or(0);
    let (own_ip, other_ip) = (text(&one.host_ip), text(&other.host_ip));
    if own_ip == other_ip && number(one) == number(other) {
        Some("duplicate")
    } else if number(one) == 0 || number(other) == 0 {
        Some("overlapping")
    } else if number(one) == number(other) && (own_ip.is_empty() != other_ip.is_empty()) {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

fn affinity_warnings(path: &str, spec: &PodSpec, found: &mut Vec<String>) {
    let Some(affinity) = &spec.affinity else {
        return;
    };
    let sides = [
        (
            "podAffinity",
            affinity.pod_affinity.as_ref().map(|own| {
                (
                    &own.required_during_scheduling_ignored_during_execution,
                    &own.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
        (
            "podAntiAffinity",
            affinity.pod_anti_affinity.as_ref().map(|own| {
                (
                    &own.required_during_scheduling_ignored_during_execution,
                    &own.preferred_during_scheduling_ignored_during_execution,
                )
            }),
        ),
    ];
    for (side, terms) in sides {
        let Some((required, preferred)) = terms else {
            continue;
        };
        let field = format!("{path}spec.affinity.{side}");
        for (at, term) in required.iter().flatten().enumerate() {
            if term.label_selector.is_none() {
                found.push(format!(
                    "{field}.requiredDuringSchedulingIgnoredDuringExecution[{at}].labelSelector: {NULL_SELECTOR}"
                ));
            }
        }
        for (at, term) in preferred.iter().flatten().enumerate() {
            if term.pod_affinity_term.label_selector.is_none() {
                found.push(format!(
                    "{field}.preferredDuringSchedulingIgnoredDuringExecution[{at}].podAffinityTerm.labelSelector: {NULL_SELECTOR}"
                ));
            }
        }
    }
}
