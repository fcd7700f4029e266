//! Requests and limits, and the class of service that follows from them.
//! Upstream: `validateResourceRequirements`, `ComputePodQOS`, `k8s.io/component-helpers/resource`.

use api::names::{self, report};
use api::{FieldErrors, Quantity};
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use std::collections::{BTreeMap, BTreeSet};

/// Names and amounts as an object has them.
pub(crate) type Amounts = BTreeMap<String, Amount>;
/// Names and parsed amounts.
pub(crate) type Totals = BTreeMap<String, Quantity>;

/// The amount, or nothing where the text is none (validation has refused it).
pub(crate) fn amount(amount: &Amount) -> Quantity {
    Quantity::parse(&amount.0).unwrap_or_default()
}

/// Whether the name has no domain, or one of kubernetes.io.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether limits may be above requests.
pub(crate) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A resource of somebody else's, such as `example.com/gpu`.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified(&format!("requests.{name}")).is_empty()
}

/// Names that count objects.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const STANDARD: [&str; 11] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "storage",
];

/// A name without a domain that a quota may bound.
pub(crate) fn is_standard_for_quota(name: &str) -> bool {
    let huge = is_huge_page(name) || name.starts_with("requests.hugepages-");
    huge || COUNTED.contains(&name) || (STANDARD.contains(&name) && name != "storage")
}

pub(crate) fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// A name that means something somewhere. Upstream: `validateResourceName`.
pub(crate) fn check_name(errors: &mut FieldErrors, field: &str, name: &str) -> bool {
    let faults = names::qualified(name);
    let fine = faults.is_empty();
    report(errors, field, name, faults);
    let huge = is_huge_page(name) || name.starts_with("requests.hugepages-");
    if fine && !name.contains('/') && !STANDARD.contains(&name) && !COUNTED.contains(&name) && !huge {
        errors.invalid(field, name, "must be a standard resource type or fully qualified");
        return false;
    }
    fine
}

/// A name that a container may ask for.
pub(crate) fn check_container_name(errors: &mut FieldErrors, field: &str, name: &str) {
    check_name(errors, field, name);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !is_huge_page(name) {
            errors.invalid(field, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(field, name, "doesn't follow extended resource name standard");
    }
}

/// An amount: a quantity, not negative, whole where it counts things.
pub(crate) fn check_amount(errors: &mut FieldErrors, field: &str, name: &str, own: &Amount) {
    let parsed = match Quantity::parse(&own.0) {
        Ok(parsed) => parsed,
        Err(error) => return errors.invalid(field, own.0.as_str(), error.to_string()),
    };
    if parsed.sign() < 0 {
        errors.invalid(field, own.0.as_str(), "must be greater than or equal to 0");
    }
    if is_integer(name) && parsed.millis() % 1000 != 0 {
        errors.invalid(field, own.0.as_str(), "must be an integer");
    }
}

/// A list of amounts by name, as containers have them.
pub(super) fn check_list(errors: &mut FieldErrors, field: &str, list: &Amounts) {
    for (name, own) in list {
        let field = format!("{field}[{name}]");
        check_container_name(errors, &field, name);
        check_amount(errors, &field, name, own);
        if is_huge_page(name) {
            check_huge_page(errors, &field, name, own);
        }
    }
}

fn check_huge_page(errors: &mut FieldErrors, field: &str, name: &str, own: &Amount) {
    let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let size = size.filter(|size| size.sign() > 0 && size.is_whole());
    let fits = size.is_some_and(|size| amount(own).units() % size.units() == 0);
    if !fits {
        let shown = Quantity::canonical(&own.0).unwrap_or_else(|_| own.0.clone());
        let text = format!("{shown} is not positive integer multiple of {name}");
        errors.invalid(field, shown, text);
    }
}

/// Requests and limits of one container.
pub(super) fn check(own: &ResourceRequirements, claims: &BTreeSet<String>, errors: &mut FieldErrors) {
    let none = Amounts::new();
    let (limits, requests) = (own.limits.as_ref().unwrap_or(&none), own.requests.as_ref().unwrap_or(&none));
    check_list(errors, "limits", limits);
    check_list(errors, "requests", requests);
    check_pairs(limits, requests, errors);
    let computes = |list: &Amounts| list.contains_key("cpu") || list.contains_key("memory");
    let huge = limits.keys().chain(requests.keys()).any(|name| is_huge_page(name));
    if huge && !computes(limits) && !computes(requests) {
        errors.forbidden("", "HugePages require cpu or memory");
    }
    check_claims(own, claims, errors);
}

fn check_pairs(limits: &Amounts, requests: &Amounts, errors: &mut FieldErrors) {
    for (name, request) in requests {
        let (own, shown) = (amount(request), amount(request).to_string());
        match limits.get(name).map(amount) {
            Some(limit) if own != limit && !may_overcommit(name) => {
                errors.invalid("requests", shown, format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if own > limit => errors.invalid(
                "requests",
                shown,
                format!("must be less than or equal to {name} limit of {limit}"),
            ),
            Some(_) => {}
            None if !may_overcommit(name) => {
                errors.required("limits", "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
    }
}

fn check_claims(own: &ResourceRequirements, claims: &BTreeSet<String>, errors: &mut FieldErrors) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (at, claim) in own.claims.iter().flatten().enumerate() {
        let field = format!("claims[{at}]");
        let (name, request) = (claim.name.as_str(), super::text(&claim.request));
        if name.is_empty() {
            errors.required(&field, "");
            continue;
        }
        if !request.is_empty() {
            report(errors, &format!("{field}.request"), request, names::dns_label(request));
        }
        let whole = seen.contains(&(name, ""));
        let conflict = whole || (request.is_empty() && seen.iter().any(|(own, _)| *own == name));
        if conflict || !seen.insert((name, request)) {
            let key = match request {
                "" => name.to_owned(),
                _ if whole => name.to_owned(),
                request => format!("{name}/{request}"),
            };
            errors.duplicate(&field, key);
        }
        if !claims.contains(name) {
            let known: Vec<_> = claims.iter().map(String::as_str).collect();
            let detail = match known.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", known.join(", ")),
            };
            errors.push(
                api::errors::FieldErrorKind::NotFound,
                &field,
                name,
                format!("must be one of the names in pod.spec.resourceClaims{detail}"),
            );
        }
    }
}

/// Whether pods as a whole may ask for it.
pub(crate) fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || is_huge_page(name)
}

/// Requests and limits of the pod as a whole. The path is the spec's.
pub(super) fn validate_pod_level(spec: &PodSpec, errors: &mut FieldErrors) {
    let Some(own) = &spec.resources else {
        return;
    };
    let none = Amounts::new();
    let (limits, requests) = (own.limits.as_ref().unwrap_or(&none), own.requests.as_ref().unwrap_or(&none));
    errors.at("resources", |errors| {
        if own.claims.is_some() {
            errors.forbidden("claims", "claims may not be set for Resources at pod-level");
        }
        for (part, list) in [("limits", limits), ("requests", requests)] {
            for (name, own) in list {
                let field = format!("{part}[{name}]");
                if check_name(errors, &field, name) && !is_pod_level(name) {
                    errors.not_supported(&field, name.as_str(), &["cpu", "hugepages-", "memory"]);
                }
                check_amount(errors, &field, name, own);
            }
        }
        check_pairs(limits, requests, errors);
        for (name, sum) in container_total(spec, |own| own.requests.as_ref()) {
            if let Some(whole) = requests.get(&name).map(amount)
                && sum > whole
            {
                errors.invalid(
                    &format!("requests[{name}]"),
                    whole.to_string(),
                    format!("must be greater than or equal to aggregate container requests of {sum}"),
                );
            }
        }
        for (at, container) in spec.containers.iter().enumerate() {
            for (name, limit) in container.resources.iter().filter_map(|own| own.limits.as_ref()).flatten() {
                if let Some(whole) = limits.get(name).map(amount)
                    && amount(limit) > whole
                {
                    errors.invalid(
                        &format!("containers[{at}][{name}].limits"),
                        amount(limit).to_string(),
                        format!("must be less than or equal to pod limits of {whole}"),
                    );
                }
            }
        }
    });
}

type Part = fn(&ResourceRequirements) -> Option<&Amounts>;

fn add(total: &mut Totals, list: &Totals) {
    for (name, own) in list {
        let sum = total.entry(name.clone()).or_default();
        *sum = *sum + *own;
    }
}

fn raise(total: &mut Totals, list: &Totals) {
    for (name, own) in list {
        let most = total.entry(name.clone()).or_default();
        if *own > *most {
            *most = *own;
        }
    }
}

fn parsed(container: &Container, part: Part) -> Totals {
    let list = container.resources.as_ref().and_then(part);
    list.into_iter().flatten().map(|(name, own)| (name.clone(), amount(own))).collect()
}

/// What the containers need together: the sum of those that run at once, or the largest init container on top of
/// the sidecars started before it. Upstream: `AggregateContainerRequests`.
fn container_total(spec: &PodSpec, part: Part) -> Totals {
    let mut total = Totals::new();
    for container in &spec.containers {
        add(&mut total, &parsed(container, part));
    }
    let (mut sidecars, mut peak) = (Totals::new(), Totals::new());
    for container in spec.init_containers.iter().flatten() {
        let own = parsed(container, part);
        let mut needed = sidecars.clone();
        add(&mut needed, &own);
        if super::is_sidecar(container) {
            add(&mut total, &own);
            sidecars = needed.clone();
        }
        raise(&mut peak, &needed);
    }
    raise(&mut total, &peak);
    total
}

/// What a pod requests as a whole, overhead included. Upstream: `PodRequests`.
pub(crate) fn pod_requests(spec: &PodSpec) -> Totals {
    let mut total = container_total(spec, |own| own.requests.as_ref());
    overlay(&mut total, spec.resources.as_ref().and_then(|own| own.requests.as_ref()));
    add_overhead(&mut total, spec, false);
    total
}

/// What a pod is limited to as a whole, overhead included where there is a limit. Upstream: `PodLimits`.
pub(crate) fn pod_limits(spec: &PodSpec) -> Totals {
    let mut total = container_total(spec, |own| own.limits.as_ref());
    overlay(&mut total, spec.resources.as_ref().and_then(|own| own.limits.as_ref()));
    add_overhead(&mut total, spec, true);
    total
}

/// What is said of the pod as a whole wins.
fn overlay(total: &mut Totals, whole: Option<&Amounts>) {
    for (name, own) in whole.into_iter().flatten().filter(|(name, _)| is_pod_level(name)) {
        total.insert(name.clone(), amount(own));
    }
}

fn add_overhead(total: &mut Totals, spec: &PodSpec, only_known: bool) {
    for (name, own) in spec.overhead.iter().flatten() {
        if only_known && !total.contains_key(name) {
            continue;
        }
        let sum = total.entry(name.clone()).or_default();
        *sum = *sum + amount(own);
    }
}

/// The class of service. Upstream: `ComputePodQOS` in `pkg/apis/core/helper/qos`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let whole = spec.resources.as_ref().filter(|own| {
        let filled = |list: &Option<Amounts>| list.as_ref().is_some_and(|list| !list.is_empty());
        filled(&own.requests) || filled(&own.limits)
    });
    if let Some(own) = whole {
        return class_of(own);
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let none = ResourceRequirements::default();
    let mut class = None;
    for container in containers {
        let own = class_of(container.resources.as_ref().unwrap_or(&none));
        if own == "Burstable" || class.is_some_and(|class| class != own) {
            return "Burstable";
        }
        class = Some(own);
    }
    class.unwrap_or("BestEffort")
}

fn class_of(own: &ResourceRequirements) -> &'static str {
    let of = |list: &Option<Amounts>, name: &str| {
        let found = list.as_ref().and_then(|list| list.get(name)).map(amount);
        found.filter(|amount| amount.sign() > 0)
    };
    let pairs = ["cpu", "memory"].map(|name| (of(&own.requests, name), of(&own.limits, name)));
    if pairs.iter().all(|(request, limit)| request.is_none() && limit.is_none()) {
        return "BestEffort";
    }
    match pairs.iter().all(|(request, limit)| limit.is_some() && request.or(*limit) == *limit) {
        true => "Guaranteed",
        false => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_class(spec: serde_json::Value, expect: &str) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(qos_class(&spec), expect);
    }

    #[test]
    fn classes_of_service() {
        let container = |requests: serde_json::Value, limits: serde_json::Value| json!({"resources": {"requests": requests, "limits": limits}});
        let full = json!({"cpu": "1", "memory": "1Gi"});
        check_class(json!({"containers": [{}]}), "BestEffort");
        check_class(json!({"containers": [container(full.clone(), full.clone())]}), "Guaranteed");
        check_class(json!({"containers": [container(json!({}), full.clone())]}), "Guaranteed");
        check_class(json!({"containers": [container(json!({"cpu": "1"}), json!({}))]}), "Burstable");
        check_class(json!({"containers": [container(full.clone(), full.clone()), {}]}), "Burstable");
        check_class(
            json!({"containers": [{}], "resources": {"requests": full, "limits": {"cpu": "1", "memory": "1Gi"}}}),
            "Guaranteed",
        );
    }

    #[test]
    fn sidecars_run_beside_and_init_containers_before() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"resources": cpu("1")}],
            "initContainers": [
                {"resources": cpu("200m"), "restartPolicy": "Always"},
                {"resources": cpu("1500m")}],
            "overhead": {"cpu": "50m"}}))
        .unwrap();
        assert_eq!(pod_requests(&spec)["cpu"].to_string(), "1750m");
    }
}
