//! Node affinity, pod affinity and anti-affinity. Upstream: `validateAffinity`.

use api::FieldErrors;
use api::names::{self, check_selector, report};
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn check(affinity: &Affinity, errors: &mut FieldErrors) {
    if let Some(node) = &affinity.node_affinity {
        errors.at("nodeAffinity", |errors| {
            if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
                errors.at(REQUIRED, |errors| super::check_node_selector(selector, errors));
            }
            let preferred = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            for (at, term) in preferred.enumerate() {
                errors.at(&format!("{PREFERRED}[{at}]"), |errors| {
                    check_weight(term.weight, errors);
                    errors.at("preference", |errors| check_node_term(&term.preference, errors));
                });
            }
        });
    }
    if let Some(own) = &affinity.pod_affinity {
        errors.at("podAffinity", |errors| {
            check_pod_terms(
                own.required_during_scheduling_ignored_during_execution.as_deref(),
                own.preferred_during_scheduling_ignored_during_execution.as_deref(),
                errors,
            );
        });
    }
    if let Some(own) = &affinity.pod_anti_affinity {
        errors.at("podAntiAffinity", |errors| {
            check_pod_terms(
                own.required_during_scheduling_ignored_during_execution.as_deref(),
                own.preferred_during_scheduling_ignored_during_execution.as_deref(),
                errors,
            );
        });
    }
}

fn check_weight(weight: i32, errors: &mut FieldErrors) {
    if !(1..=100).contains(&weight) {
        errors.invalid("weight", weight, "must be in the range 1-100");
    }
}

/// A term over labels and fields of nodes.
pub(super) fn check_node_term(term: &NodeSelectorTerm, errors: &mut FieldErrors) {
    for (at, own) in term.match_expressions.iter().flatten().enumerate() {
        errors.at(&format!("matchExpressions[{at}]"), |errors| check_expression(own, errors));
    }
    for (at, own) in term.match_fields.iter().flatten().enumerate() {
        errors.at(&format!("matchFields[{at}]"), |errors| check_field(own, errors));
    }
}

fn check_expression(own: &NodeSelectorRequirement, errors: &mut FieldErrors) {
    let values = own.values.as_deref().unwrap_or_default();
    match own.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required("values", "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required("values", "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid("operator", other, "not a valid selector operator"),
    }
    report(errors, "key", &own.key, names::qualified(&own.key));
    for (at, value) in values.iter().enumerate() {
        report(errors, &format!("values[{at}]"), value, names::label_value(value));
    }
}

fn check_field(own: &NodeSelectorRequirement, errors: &mut FieldErrors) {
    let values = own.values.as_deref().unwrap_or_default();
    match own.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => errors.required(
            "values",
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        "In" | "NotIn" => {}
        other => errors.invalid("operator", other, "not a valid selector operator"),
    }
    if own.key != "metadata.name" {
        return errors.invalid("key", own.key.as_str(), "not a valid field selector key");
    }
    for (at, value) in values.iter().enumerate() {
        report(errors, &format!("values[{at}]"), value, names::dns_subdomain(value));
    }
}

fn check_pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    errors: &mut FieldErrors,
) {
    for (at, term) in required.unwrap_or_default().iter().enumerate() {
        errors.at(&format!("{REQUIRED}[{at}]"), |errors| check_pod_term(term, errors));
    }
    for (at, term) in preferred.unwrap_or_default().iter().enumerate() {
        errors.at(&format!("{PREFERRED}[{at}]"), |errors| {
            check_weight(term.weight, errors);
            errors.at("podAffinityTerm", |errors| check_pod_term(&term.pod_affinity_term, errors));
        });
    }
}

fn check_pod_term(term: &PodAffinityTerm, errors: &mut FieldErrors) {
    check_selector(errors, "labelSelector", term.label_selector.as_ref());
    check_selector(errors, "namespaceSelector", term.namespace_selector.as_ref());
    for name in term.namespaces.iter().flatten() {
        report(errors, "namespace", name, names::dns_label(name));
    }
    check_label_keys(
        term.match_label_keys.as_deref().unwrap_or_default(),
        term.mismatch_label_keys.as_deref().unwrap_or_default(),
        term.label_selector.as_ref(),
        errors,
    );
    if term.topology_key.is_empty() {
        errors.required("topologyKey", "can not be empty");
    }
    report(errors, "topologyKey", &term.topology_key, names::qualified(&term.topology_key));
}

/// `matchLabelKeys` and `mismatchLabelKeys`. Upstream: `ValidateMatchLabelKeysAndMismatchLabelKeys`.
pub(super) fn check_label_keys(
    same: &[String],
    other: &[String],
    selector: Option<&LabelSelector>,
    errors: &mut FieldErrors,
) {
    for (field, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        if keys.is_empty() {
            continue;
        }
        if selector.is_none() {
            errors.forbidden(field, "must not be specified when labelSelector is not set");
            continue;
        }
        for (at, key) in keys.iter().enumerate() {
            report(errors, &format!("{field}[{at}]"), key, names::qualified(key));
        }
    }
    if let Some(selector) = selector {
        let labels = selector.match_labels.iter().flatten().map(|(key, _)| key.as_str());
        let mut seen: Vec<&str> = labels.collect();
        for term in selector.match_expressions.iter().flatten() {
            let at = same.iter().position(|key| *key == term.key);
            if let Some(at) = at
                && seen.contains(&term.key.as_str())
            {
                errors.invalid(
                    &format!("[{at}]"),
                    term.key.as_str(),
                    "exists in both matchLabelKeys and labelSelector",
                );
            }
            seen.push(&term.key);
        }
    }
    for (at, key) in same.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        errors.invalid(
            &format!("matchLabelKeys[{at}]"),
            key.as_str(),
            "exists in both matchLabelKeys and mismatchLabelKeys",
        );
    }
}

/// Turns label keys into terms of the selector, with the pod's own values. Upstream: `mutatePodAffinity`.
pub(crate) fn apply_label_keys(affinity: &mut Affinity, labels: &std::collections::BTreeMap<String, String>) {
    let required = |own: &mut Option<Vec<PodAffinityTerm>>, labels| {
        for term in own.iter_mut().flatten() {
            apply_to_term(term, labels);
        }
    };
    let preferred = |own: &mut Option<Vec<WeightedPodAffinityTerm>>, labels| {
        for term in own.iter_mut().flatten() {
            apply_to_term(&mut term.pod_affinity_term, labels);
        }
    };
    if let Some(own) = &mut affinity.pod_affinity {
        required(&mut own.required_during_scheduling_ignored_during_execution, labels);
        preferred(&mut own.preferred_during_scheduling_ignored_during_execution, labels);
    }
    if let Some(own) = &mut affinity.pod_anti_affinity {
        required(&mut own.required_during_scheduling_ignored_during_execution, labels);
        preferred(&mut own.preferred_during_scheduling_ignored_during_execution, labels);
    }
}

fn apply_to_term(term: &mut PodAffinityTerm, labels: &std::collections::BTreeMap<String, String>) {
    let Some(selector) = &mut term.label_selector else {
        return;
    };
    apply_keys(term.match_label_keys.as_deref(), "In", selector, labels);
    apply_keys(term.mismatch_label_keys.as_deref(), "NotIn", selector, labels);
}

/// Adds a term for every key that the pod has a label of.
pub(crate) fn apply_keys(
    keys: Option<&[String]>,
    operator: &str,
    selector: &mut LabelSelector,
    labels: &std::collections::BTreeMap<String, String>,
) {
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: Some(vec![value.clone()]),
                },
            );
        }
    }
}
