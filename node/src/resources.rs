//! What a pod asks of the node, its class, and the bounds that follow for its control groups. Pure.
//! Upstream: component-helpers `resource`, `pkg/kubelet/cm/helpers_linux.go`, `pkg/kubelet/qos`.

use crate::amount::{self, Amount, ResourceList};
use crate::spec::{ContainerDef, Kind, PodDef};
use k8s_openapi::api::core::v1::ResourceRequirements;
use runtime::Limits;
use std::collections::BTreeMap;

/// The fewest shares the kernel takes.
pub(crate) const SHARES_MIN: u64 = 2;
/// The most shares the kernel takes.
pub(crate) const SHARES_MAX: u64 = 262_144;
/// The smallest quota the kernel takes, in µs.
const QUOTA_MIN_US: i64 = 1000;
/// The period over which quotas count, in µs.
const PERIOD_US: u64 = 100_000;
/// The limit below which a smaller one has no more effect (quota's minimum over the period).
pub(crate) const MILLI_CPU_LIMIT_MIN: i64 = 10;

const OOM_SCORE_GUARANTEED: i64 = -997;
const OOM_SCORE_BEST_EFFORT: i64 = 1000;
/// Priority from which a pod counts as critical for its node (`system-cluster-critical`). Upstream: `scheduling.SystemCriticalPriority`.
pub(crate) const PRIORITY_CRITICAL: i32 = 2_000_000_000;

/// How much a pod can count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Qos {
    /// Limits equal requests, everywhere.
    Guaranteed,
    /// Something is asked for.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// As the status shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod: what the API says, else computed.
pub(crate) fn qos(def: &PodDef) -> Qos {
    match def.pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => Qos::Guaranteed,
        Some("Burstable") => Qos::Burstable,
        Some("BestEffort") => Qos::BestEffort,
        _ => compute_qos(def),
    }
}

fn compute_qos(def: &PodDef) -> Qos {
    if let Some(resources) =
        def.spec().resources.as_ref().filter(|own| own.limits.is_some() || own.requests.is_some())
    {
        return requirements_qos(Some(resources));
    }
    let mut classes = def
        .of(&[Kind::Init, Kind::Sidecar, Kind::Regular])
        .map(|one| requirements_qos(one.spec.resources.as_ref()));
    let Some(first) = classes.next() else { return Qos::BestEffort };
    if classes.all(|class| class == first) { first } else { Qos::Burstable }
}

fn requirements_qos(resources: Option<&ResourceRequirements>) -> Qos {
    let requests = resources.and_then(|own| own.requests.as_ref());
    let limits = resources.and_then(|own| own.limits.as_ref());
    let pair = |name| (amount::in_list(requests, name), amount::in_list(limits, name));
    let (cpu, memory) = (pair("cpu"), pair("memory"));
    if [cpu, memory].iter().all(|(request, limit)| request.is_zero() && limit.is_zero()) {
        return Qos::BestEffort;
    }
    let bound =
        |(request, limit): (Amount, Amount)| !limit.is_zero() && (request.is_zero() || request == limit);
    if bound(cpu) && bound(memory) { Qos::Guaranteed } else { Qos::Burstable }
}

/// What one pod asks for in all, by resource.
pub(crate) type Totals = BTreeMap<String, Amount>;

/// The requests of a pod: ordinary containers and sidecars together, or the largest moment of initialisation; then what the pod asks
/// for as a whole; then overhead. Upstream: `resource.PodRequests`.
pub(crate) fn pod_requests(def: &PodDef) -> Totals {
    let mut totals = aggregate(def, |resources| resources.requests.as_ref());
    if let Some(own) = def.spec().resources.as_ref().and_then(|own| own.requests.as_ref()) {
        overrule(&mut totals, own);
    }
    add_overhead(def, &mut totals, |_| true);
    totals
}

/// The limits of a pod, in the same way. Overhead counts where there is a limit at all.
pub(crate) fn pod_limits(def: &PodDef) -> Totals {
    let mut totals = aggregate(def, |resources| resources.limits.as_ref());
    if let Some(own) = def.spec().resources.as_ref().and_then(|own| own.limits.as_ref()) {
        overrule(&mut totals, own);
    }
    add_overhead(def, &mut totals, |amount| amount.is_some_and(|amount| !amount.is_zero()));
    totals
}

fn overrule(totals: &mut Totals, own: &ResourceList) {
    for (name, quantity) in own {
        if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
            totals.insert(name.clone(), Amount::of(quantity));
        }
    }
}

fn add_overhead(def: &PodDef, totals: &mut Totals, applies: impl Fn(Option<Amount>) -> bool) {
    for (name, quantity) in def.spec().overhead.iter().flatten() {
        if applies(totals.get(name).copied()) {
            *totals.entry(name.clone()).or_default() =
                totals.get(name).copied().unwrap_or_default() + Amount::of(quantity);
        }
    }
}

fn aggregate(def: &PodDef, list: impl Fn(&ResourceRequirements) -> Option<&ResourceList>) -> Totals {
    let of = |one: &ContainerDef| -> Totals {
        let own = one.spec.resources.as_ref().and_then(&list);
        own.into_iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
    };
    let mut running = Totals::new();
    for container in def.regular() {
        add(&mut running, &of(container));
    }
    let mut sidecars = Totals::new();
    let mut peak = Totals::new();
    for container in def.init() {
        let mut moment = of(container);
        if container.kind == Kind::Sidecar {
            add(&mut running, &moment);
            add(&mut sidecars, &moment);
            moment = sidecars.clone();
        } else {
            add(&mut moment, &sidecars);
        }
        for (name, amount) in moment {
            let highest = peak.entry(name).or_default();
            *highest = (*highest).max(amount);
        }
    }
    for (name, amount) in peak {
        let total = running.entry(name).or_default();
        *total = (*total).max(amount);
    }
    running
}

fn add(totals: &mut Totals, more: &Totals) {
    for (name, amount) in more {
        let total = totals.entry(name.clone()).or_default();
        *total = *total + *amount;
    }
}

/// Shares for a request in thousandths of a processor.
pub(crate) fn shares(milli: i64) -> u64 {
    (u64::try_from(milli).unwrap_or(0) * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// The request that shares stand for, as the status reports it. The inverse of [`shares`], rounded up.
pub(crate) fn shares_to_milli(shares: u64) -> i64 {
    i64::try_from((shares * 1000).div_ceil(1024)).unwrap_or(0)
}

/// Quota per period for a limit in thousandths; `None` where there is no limit.
fn quota(milli: i64) -> Option<i64> {
    (milli > 0).then(|| (milli * PERIOD_US as i64 / 1000).max(QUOTA_MIN_US))
}

/// Bounds of the pod's own control group, which holds all its containers.
pub(crate) fn pod_group(def: &PodDef) -> Limits {
    let requests = pod_requests(def);
    let limits = pod_limits(def);
    let milli = |totals: &Totals, name: &str| totals.get(name).copied().unwrap_or_default().milli();
    let declared = |name: &str| {
        let own = def.spec().resources.as_ref().and_then(|own| own.limits.as_ref());
        !amount::in_list(own, name).is_zero()
            || def.of(&[Kind::Init, Kind::Sidecar, Kind::Regular]).all(|one| {
                !amount::in_list(one.spec.resources.as_ref().and_then(|own| own.limits.as_ref()), name)
                    .is_zero()
            })
    };
    let memory = limits.get("memory").copied().unwrap_or_default().value();
    let quota_us = quota(milli(&limits, "cpu"));
    let mut group = Limits { cpu_shares: Some(shares(milli(&requests, "cpu"))), ..Limits::default() };
    group.hugepages = huge_pages(&requests);
    let class = qos(def);
    if class == Qos::BestEffort {
        group.cpu_shares = Some(SHARES_MIN);
        return group;
    }
    if class == Qos::Guaranteed || declared("cpu") {
        (group.cpu_quota_us, group.cpu_period_us) = (Some(quota_us.unwrap_or(-1)), Some(PERIOD_US));
    }
    if class == Qos::Guaranteed || declared("memory") {
        group.memory_bytes = Some(memory).filter(|bytes| *bytes > 0);
    }
    group
}

fn huge_pages(totals: &Totals) -> BTreeMap<String, u64> {
    let pages = totals.iter().filter_map(|(name, amount)| {
        let size = name.strip_prefix("hugepages-")?;
        // The kernel's file names say `2MB` where quantities say `2Mi`.
        let size = size.strip_suffix('i').map(|size| format!("{size}B"))?;
        Some((size, u64::try_from(amount.value()).ok()?))
    });
    pages.collect()
}

/// Bounds of one container.
pub(crate) fn container_group(def: &PodDef, container: &ContainerDef) -> Limits {
    let own = container.spec.resources.as_ref();
    let limit = |name: &str| {
        let amount = amount::in_list(own.and_then(|own| own.limits.as_ref()), name);
        let pod = def.spec().resources.as_ref().and_then(|pod| pod.limits.as_ref());
        if amount.is_zero() { amount::in_list(pod, name) } else { amount }
    };
    let requested =
        own.and_then(|own| own.requests.as_ref()).and_then(|list| list.get("cpu")).map(Amount::of);
    let cpu_limit = limit("cpu").milli();
    let cpu_request = requested.map_or(cpu_limit, Amount::milli);
    let memory = limit("memory").value();
    let requests: Totals = own
        .and_then(|own| own.limits.as_ref())
        .into_iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), Amount::of(quantity)))
        .collect();
    Limits {
        cpu_shares: Some(shares(cpu_request)),
        cpu_quota_us: Some(quota(cpu_limit).unwrap_or(-1)),
        cpu_period_us: Some(PERIOD_US),
        memory_bytes: Some(if memory > 0 { memory } else { -1 }),
        hugepages: huge_pages(&requests),
        ..Limits::default()
    }
}

/// How eagerly the kernel kills the container's processes when memory runs out.
pub(crate) fn oom_score(def: &PodDef, container: &ContainerDef, memory_capacity_bytes: i64) -> i32 {
    let critical = def.spec().priority.unwrap_or(0) >= PRIORITY_CRITICAL;
    let score = match qos(def) {
        _ if critical => OOM_SCORE_GUARANTEED,
        Qos::Guaranteed => OOM_SCORE_GUARANTEED,
        Qos::BestEffort => OOM_SCORE_BEST_EFFORT,
        Qos::Burstable => {
            let request = |one: &ContainerDef| {
                amount::in_list(one.spec.resources.as_ref().and_then(|own| own.requests.as_ref()), "memory")
                    .value()
            };
            let score =
                |bytes: i64| 1000 - 1000 * i128::from(bytes) / i128::from(memory_capacity_bytes.max(1));
            let mut own = score(request(container));
            if container.kind == Kind::Sidecar {
                let least = def.regular().map(request).min().unwrap_or(0);
                own = own.min(score(least));
            }
            i64::try_from(own)
                .unwrap_or(OOM_SCORE_BEST_EFFORT)
                .clamp(1000 + OOM_SCORE_GUARANTEED, OOM_SCORE_BEST_EFFORT - 1)
        }
    };
    i32::try_from(score).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::pod;
    use serde_json::json;

    fn check_qos(spec: serde_json::Value, expect: Qos) {
        assert_eq!(qos(&pod(json!({"spec": spec.clone()}))), expect, "{spec}");
    }

    #[test]
    fn classes() {
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        check_qos(json!({"containers": [{"name": "a"}]}), Qos::BestEffort);
        check_qos(json!({"containers": [{"name": "a", "resources": full}]}), Qos::Guaranteed);
        check_qos(json!({"containers": [{"name": "a", "resources": full}, {"name": "b"}]}), Qos::Burstable);
        check_qos(
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}),
            Qos::Burstable,
        );
        check_qos(json!({"resources": full, "containers": [{"name": "a"}]}), Qos::Guaranteed);
    }

    fn check_requests(spec: serde_json::Value, milli: i64) {
        let totals = pod_requests(&pod(json!({"spec": spec.clone()})));
        assert_eq!(totals.get("cpu").copied().unwrap_or_default().milli(), milli, "{spec}");
    }

    #[test]
    fn initialisation_sidecars_and_overhead_count() {
        let container = |cpu: &str| json!({"name": "x", "resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"name": "x", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        check_requests(json!({"containers": [container("100m"), container("200m")]}), 300);
        check_requests(json!({"containers": [container("100m")], "initContainers": [container("1")]}), 1000);
        check_requests(json!({"containers": [container("100m")], "initContainers": [sidecar("50m")]}), 150);
        check_requests(
            json!({"containers": [container("1m")], "initContainers": [sidecar("50m"), container("1")]}),
            1050,
        );
        check_requests(json!({"containers": [container("100m")], "overhead": {"cpu": "10m"}}), 110);
        check_requests(
            json!({"containers": [container("100m")], "resources": {"requests": {"cpu": "2"}}}),
            2000,
        );
    }

    #[test]
    fn groups_follow_the_class() {
        let def = pod(json!({"spec": {"containers": [{"name": "a", "resources": {
            "limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m", "memory": "32Mi"}}}]}}));
        let group = pod_group(&def);
        assert_eq!(
            (group.cpu_shares, group.cpu_quota_us, group.memory_bytes),
            (Some(256), Some(50_000), Some(64 << 20))
        );
        let own = container_group(&def, &def.containers[0]);
        assert_eq!(
            (own.cpu_shares, own.cpu_quota_us, own.memory_bytes),
            (Some(256), Some(50_000), Some(64 << 20))
        );
        let def = pod(json!({"spec": {"containers": [{"name": "a"}]}}));
        let group = pod_group(&def);
        assert_eq!((group.cpu_shares, group.cpu_quota_us, group.memory_bytes), (Some(2), None, None));
        assert_eq!(container_group(&def, &def.containers[0]).memory_bytes, Some(-1));
    }

    #[test]
    fn burstable_pods_are_killed_by_what_they_asked_for() {
        let check = |request: &str, expect: i32| {
            let def = pod(
                json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"memory": request}}}]}}),
            );
            assert_eq!(oom_score(&def, &def.containers[0], 10 << 30), expect, "{request}");
        };
        check("1Gi", 900);
        check("1", 999);
        check("10Gi", 3);
    }
}
