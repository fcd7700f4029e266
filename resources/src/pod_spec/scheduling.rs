//! Tolerations, gates, spreading, and the pod's DNS. Upstream: `ValidateTolerations`, `validateSchedulingGates`,
//! `validateTopologySpreadConstraints`, `validatePodDNSConfig`.

use super::{affinity, text};
use api::FieldErrors;
use api::names::{self, check_one_of, check_positive, check_required_one_of, report};
use k8s_openapi::api::core::v1::{NodeSelector, PodSpec, Toleration, TopologySpreadConstraint};
use std::collections::BTreeSet;

const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
/// How many DNS servers a pod may name; more are ignored by resolvers.
const NAMESERVERS_MAX: usize = 3;
/// How many DNS search paths a pod may name.
const SEARCHES_MAX: usize = 32;
/// How long the search paths may be together.
const SEARCHES_LEN_MAX: usize = 2048;

/// The effect of a taint.
pub(crate) fn check_taint_effect(errors: &mut FieldErrors, field: &str, effect: &str) {
    check_one_of(errors, field, effect, &TAINT_EFFECTS);
}

/// Tolerations. The path is that of what has them.
pub(crate) fn check_tolerations(tolerations: &[Toleration], errors: &mut FieldErrors) {
    for (at, toleration) in tolerations.iter().enumerate() {
        errors.at(&format!("tolerations[{at}]"), |errors| check_toleration(toleration, errors));
    }
}

fn check_toleration(toleration: &Toleration, errors: &mut FieldErrors) {
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    if !key.is_empty() {
        report(errors, "key", key, names::qualified(key));
    } else if operator != "Exists" {
        errors.invalid(
            "operator",
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        errors.invalid("effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
    }
    match operator {
        "" | "Equal" => {
            let faults = names::label_value(value);
            if !faults.is_empty() {
                errors.invalid("operator", value, faults.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.invalid("operator", value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" => errors.not_supported("operator", operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.not_supported("operator", other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        check_taint_effect(errors, "effect", effect);
    }
}

/// A node selector that must have terms.
pub(crate) fn check_node_selector(selector: &NodeSelector, errors: &mut FieldErrors) {
    if selector.node_selector_terms.is_empty() {
        errors.required("nodeSelectorTerms", "must have at least one node selector term");
    }
    for (at, term) in selector.node_selector_terms.iter().enumerate() {
        errors.at(&format!("nodeSelectorTerms[{at}]"), |errors| affinity::check_node_term(term, errors));
    }
}

/// Readiness gates and scheduling gates.
pub(super) fn check_gates(spec: &PodSpec, errors: &mut FieldErrors) {
    for (at, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let field = format!("readinessGates[{at}].conditionType");
        report(errors, &field, &gate.condition_type, names::qualified(&gate.condition_type));
    }
    let mut seen = BTreeSet::new();
    for (at, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let field = format!("schedulingGates[{at}]");
        report(errors, &field, &gate.name, names::qualified(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            errors.duplicate(&field, gate.name.as_str());
        }
    }
}

/// Topology spread constraints.
pub(super) fn check_spread(spec: &PodSpec, errors: &mut FieldErrors) {
    let all = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (at, constraint) in all.iter().enumerate() {
        errors.at(&format!("topologySpreadConstraints[{at}]"), |errors| {
            check_constraint(constraint, &all[at + 1..], errors);
        });
    }
}

fn check_constraint(
    constraint: &TopologySpreadConstraint,
    rest: &[TopologySpreadConstraint],
    errors: &mut FieldErrors,
) {
    let (key, action) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
    check_positive(errors, "maxSkew", i64::from(constraint.max_skew));
    if key.is_empty() {
        errors.required("topologyKey", "can not be empty");
    }
    check_one_of(errors, "whenUnsatisfiable", action, &["DoNotSchedule", "ScheduleAnyway"]);
    if rest.iter().any(|other| other.topology_key == key && other.when_unsatisfiable == action) {
        errors.duplicate("{topologyKey, whenUnsatisfiable}", format!("{{{key}, {action}}}"));
    }
    if let Some(domains) = constraint.min_domains {
        check_positive(errors, "minDomains", i64::from(domains));
        if action != "DoNotSchedule" {
            errors.invalid(
                "minDomains",
                domains,
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"),
            );
        }
    }
    for (field, policy) in [
        ("nodeAffinityPolicy", &constraint.node_affinity_policy),
        ("nodeTaintsPolicy", &constraint.node_taints_policy),
    ] {
        if let Some(policy) = policy {
            check_one_of(errors, field, policy, &["Honor", "Ignore"]);
        }
    }
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    affinity::check_label_keys(keys, &[], constraint.label_selector.as_ref(), errors);
    names::check_selector(errors, "labelSelector", constraint.label_selector.as_ref());
}

/// `dnsPolicy` and `dnsConfig`.
pub(super) fn check_dns(spec: &PodSpec, errors: &mut FieldErrors) {
    check_required_one_of(
        errors,
        "dnsPolicy",
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    let config = spec.dns_config.as_ref();
    let servers = config.and_then(|own| own.nameservers.as_deref()).unwrap_or_default();
    if text(&spec.dns_policy) == "None" {
        if config.is_none() {
            return errors.required("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(
                "dnsConfig.nameservers",
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    let Some(config) = config else {
        return;
    };
    errors.at("dnsConfig", |errors| {
        if servers.len() > NAMESERVERS_MAX {
            errors.invalid(
                "nameservers",
                servers.to_vec(),
                format!("must not have more than {NAMESERVERS_MAX} nameservers"),
            );
        }
        for (at, server) in servers.iter().enumerate() {
            names::check_ip(errors, &format!("nameservers[{at}]"), server);
        }
        let searches = config.searches.as_deref().unwrap_or_default();
        if searches.len() > SEARCHES_MAX {
            errors.invalid(
                "searches",
                searches.to_vec(),
                format!("must not have more than {SEARCHES_MAX} search paths"),
            );
        }
        if searches.join(" ").len() > SEARCHES_LEN_MAX {
            errors.invalid(
                "searches",
                searches.to_vec(),
                format!("must not have more than {SEARCHES_LEN_MAX} characters (including spaces) in the search list"),
            );
        }
        for (at, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
            let search = search.strip_suffix('.').unwrap_or(search);
            let faults = names::dns_subdomain_with_underscore(search);
            report(errors, &format!("searches[{at}]"), search, faults);
        }
        for (at, option) in config.options.iter().flatten().enumerate() {
            if text(&option.name).is_empty() {
                errors.required(&format!("options[{at}]"), "must not be empty");
            }
        }
    });
}
