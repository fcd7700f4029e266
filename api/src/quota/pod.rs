//! What pods count for. Upstream: `evaluator/core/pods.go`, `component-helpers/resource`.

use super::amounts::max;
use super::measure::{Measure, Traits, count};
use super::{Amounts, add, mask, read};
use crate::{Quantity, Timestamp};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, Pod, PodAffinityTerm, PodSpec, PodStatus, ResourceRequirements,
};
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];

/// What every container must ask for where a quota bounds it. Nothing may be added here: see upstream's `validationSet`.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Extended resources that stand for a device class.
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub(super) fn tracks(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || requested.is_some_and(|own| {
            own.starts_with("hugepages-") || own.starts_with(DEVICE_CLASS) || !is_native(name)
        })
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn measure(pod: &Pod) -> Measure {
    let none = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&none.0);
    let status = pod.status.as_ref().unwrap_or(&none.1);
    let mut usage = Amounts::from([("count/pods".to_owned(), count(1))]);
    if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        usage.append(&mut compute(&requests(spec, status), &limits(spec, status)));
    }
    let meta = &pod.metadata;
    let ends = match (&meta.deletion_timestamp, meta.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => Timestamp::from_second(at.0.as_second().saturating_add(grace)).ok(),
        _ => None,
    };
    let traits = Traits::Pod {
        is_terminating: spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
        is_best_effort: is_best_effort(spec, status),
        priority_class: spec.priority_class_name.clone().unwrap_or_default(),
        crosses_namespaces: spec.affinity.as_ref().is_some_and(crosses_namespaces),
    };
    Measure { usage, ends, traits }
}

/// Upstream: `podComputeUsageHelper`.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::from([("pods".to_owned(), count(1))]);
    for (name, amount) in requests {
        let is_plain = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str());
        let is_huge = name.starts_with("hugepages-");
        if is_plain || is_huge {
            usage.insert(name.clone(), *amount);
        }
        if is_plain || is_huge || !is_native(name) || name.starts_with(DEVICE_CLASS) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

/// Whether a pod may ask for this as a whole.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn has_pod_level(resources: &ResourceRequirements) -> bool {
    let lists = [&resources.requests, &resources.limits];
    lists.into_iter().flatten().flat_map(BTreeMap::keys).any(|name| is_pod_level(name))
}

/// Which required amounts containers of a new pod do not set, as upstream says it: `limits.cpu for: a,b; memory for: c`.
/// `None` if nothing is missing. Upstream: `podEvaluator.Constraints`.
pub fn unset<'a>(pod: &Pod, bounded: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.resources.as_ref().is_some_and(has_pod_level) {
        return None;
    }
    let required: BTreeSet<&str> = bounded.into_iter().filter(|name| REQUIRED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let own = container.resources.as_ref();
        let set = compute(
            &read(own.and_then(|own| own.requests.as_ref())),
            &read(own.and_then(|own| own.limits.as_ref())),
        );
        for name in required.iter().filter(|name| !set.contains_key(**name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn requests(spec: &PodSpec, status: &PodStatus) -> Amounts {
    let infeasible = is_infeasible(status);
    let of = |container: &Container, own: Option<&ContainerStatus>, view: View| -> Amounts {
        let allocated = own.and_then(|own| own.allocated_resources.as_ref());
        let actuated = own.and_then(|own| own.resources.as_ref()).and_then(|own| own.requests.as_ref());
        let spec = container.resources.as_ref().and_then(|own| own.requests.as_ref());
        let spec_or_none = spec.filter(|_| !infeasible);
        read(match view {
            View::Spec => spec,
            View::Allocated => allocated.or(spec_or_none),
            View::Actuated => actuated.or(allocated).or(spec_or_none),
        })
    };
    let sum = |view| sum(spec, status, &|container, own| of(container, own, view));
    let mut total = max(sum(View::Actuated), &sum(View::Allocated));
    if !infeasible {
        total = max(sum(View::Spec), &total);
    }
    if let Some(own) = spec.resources.as_ref().and_then(|own| own.requests.as_ref()) {
        total.extend(mask(&read(Some(own)), is_pod_level));
    }
    add(total, &read(spec.overhead.as_ref()))
}

fn limits(spec: &PodSpec, status: &PodStatus) -> Amounts {
    let infeasible = is_infeasible(status);
    let of = |container: &Container, own: Option<&ContainerStatus>, view: View| -> Amounts {
        let actuated = own.and_then(|own| own.resources.as_ref()).and_then(|own| own.limits.as_ref());
        let spec = container.resources.as_ref().and_then(|own| own.limits.as_ref());
        read(match view {
            View::Spec => spec,
            _ => actuated.or(spec.filter(|_| !infeasible)),
        })
    };
    let sum = |view| sum(spec, status, &|container, own| of(container, own, view));
    let mut total = sum(View::Actuated);
    if !infeasible {
        total = max(sum(View::Spec), &total);
    }
    if let Some(own) = spec.resources.as_ref().and_then(|own| own.limits.as_ref()) {
        total.extend(mask(&read(Some(own)), is_pod_level));
    }
    let overhead = read(spec.overhead.as_ref());
    let overhead = mask(&overhead, |name| total.get(name).is_some_and(|own: &Quantity| !own.is_zero()));
    add(total, &overhead)
}

/// Whose word on a container's resources is taken.
#[derive(Clone, Copy)]
enum View {
    Spec,
    Allocated,
    Actuated,
}

/// Whether the node said that it can never resize the pod as the spec asks.
fn is_infeasible(status: &PodStatus) -> bool {
    let pending = status.conditions.iter().flatten().find(|own| own.type_ == "PodResizePending");
    pending.is_some_and(|own| own.reason.as_deref() == Some("Infeasible"))
}

/// Over containers that run together, or the most that initialisation needs. Upstream: `aggregateContainerResourcesByFn`.
fn sum(
    spec: &PodSpec,
    status: &PodStatus,
    of: &dyn Fn(&Container, Option<&ContainerStatus>) -> Amounts,
) -> Amounts {
    let own_of = |container: &Container| {
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let found = lists.into_iter().flatten().flatten().find(|own| own.name == container.name);
        of(container, found)
    };
    let mut total = spec.containers.iter().fold(Amounts::new(), |total, own| add(total, &own_of(own)));
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = own_of(container);
        let needed = if container.restart_policy.as_deref() == Some("Always") {
            total = add(total, &own);
            sidecars = add(sidecars, &own);
            sidecars.clone()
        } else {
            add(own, &sidecars)
        };
        peak = max(peak, &needed);
    }
    max(total, &peak)
}

/// Upstream: `qos.GetPodQOS`.
fn is_best_effort(spec: &PodSpec, status: &PodStatus) -> bool {
    if let Some(class) = status.qos_class.as_deref().filter(|class| !class.is_empty()) {
        return class == "BestEffort";
    }
    let asks = |own: &ResourceRequirements| {
        let lists = [&own.requests, &own.limits].map(|list| read(list.as_ref()));
        lists.iter().any(|list| ["cpu", "memory"].iter().any(|name| list.get(*name).is_some_and(is_some)))
    };
    match spec.resources.as_ref().filter(|own| has_pod_level(own)) {
        Some(own) => !asks(own),
        None => {
            let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
            !containers.filter_map(|own| own.resources.as_ref()).any(asks)
        }
    }
}

fn is_some(amount: &Quantity) -> bool {
    !amount.is_zero()
}

fn crosses_namespaces(affinity: &Affinity) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|list| !list.is_empty()) || term.namespace_selector.is_some()
    };
    let with = affinity.pod_affinity.iter();
    let with = with.flat_map(|own| {
        let preferred = own.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = own.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|own| &own.pod_affinity_term))
    });
    let without = affinity.pod_anti_affinity.iter();
    let without = without.flat_map(|own| {
        let preferred = own.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        let required = own.required_during_scheduling_ignored_during_execution.iter().flatten();
        required.chain(preferred.map(|own| &own.pod_affinity_term))
    });
    with.chain(without).any(crosses)
}
