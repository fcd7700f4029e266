//! What of a pod may change. Upstream: `ValidatePodUpdate`.

use super::spec_of;
use crate::equal::same;
use crate::pod_spec::{check_tolerations, container::check_image, text};
use api::{FieldErrors, names};
use k8s_openapi::api::core::v1::{Affinity, Container, NodeAffinity, Pod, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

const MIRROR: &str = "kubernetes.io/config.mirror";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                          `spec.tolerations` (only additions to existing tolerations),\
                          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut FieldErrors) {
    check_annotations(&new.metadata, &old.metadata, errors);
    let (new, old) = (spec_of(new), spec_of(old));
    errors.at("spec", |errors| {
        let none = Vec::new();
        let lists = [
            ("containers", &new.containers, &old.containers),
            (
                "initContainers",
                new.init_containers.as_ref().unwrap_or(&none),
                old.init_containers.as_ref().unwrap_or(&none),
            ),
        ];
        for (field, new, old) in lists {
            if new.len() != old.len() {
                return errors.forbidden(field, "pod updates may not add or remove containers");
            }
            for (at, container) in new.iter().enumerate() {
                errors.at(&format!("{field}[{at}]"), |errors| check_image(text(&container.image), errors));
            }
        }
        if !check_deadline(&new, &old, errors) {
            return;
        }
        check_added_tolerations(
            new.tolerations.as_deref().unwrap_or_default(),
            old.tolerations.as_deref().unwrap_or_default(),
            errors,
        );
        let old_gates = old.scheduling_gates.as_deref().unwrap_or_default();
        for (at, gate) in new.scheduling_gates.iter().flatten().enumerate() {
            if !old_gates.contains(gate) {
                errors.forbidden(
                    &format!("schedulingGates[{at}].name"),
                    format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name),
                );
            }
        }
        check_rest(new, &old, errors);
    });
}

/// Annotations that belong to the node or are frozen. Upstream: `ValidatePodSpecificAnnotationUpdates`.
pub(super) fn check_annotations(new: &ObjectMeta, old: &ObjectMeta, errors: &mut FieldErrors) {
    let none = BTreeMap::new();
    let new = new.annotations.as_ref().unwrap_or(&none);
    let old = old.annotations.as_ref().unwrap_or(&none);
    for (key, value) in old {
        let field = format!("metadata.annotations[{key}]");
        if new.get(key) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&field, "may not remove or update AppArmor annotations");
        } else if key == MIRROR {
            errors.forbidden(&field, "may not remove or update mirror pod annotation");
        }
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        let field = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&field, "may not add AppArmor annotations");
        } else if key == MIRROR {
            errors.forbidden(&field, "may not add mirror pod annotation");
        }
    }
}

/// Whether the rest is worth looking at.
fn check_deadline(new: &PodSpec, old: &PodSpec, errors: &mut FieldErrors) -> bool {
    const FIELD: &str = "activeDeadlineSeconds";
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.invalid(FIELD, seconds, names::between(0, i64::from(i32::MAX)));
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.invalid(FIELD, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(
                FIELD,
                serde_json::Value::Null,
                "must not update from a positive integer to nil value",
            );
            true
        }
        _ => true,
    }
}

fn check_added_tolerations(new: &[Toleration], old: &[Toleration], errors: &mut FieldErrors) {
    let stays = |old: &Toleration| {
        new.iter().any(|new| {
            let old = Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() };
            same(&old, new)
        })
    };
    if !old.iter().all(stays) {
        return errors.forbidden(
            "tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    check_tolerations(new, errors);
}

/// Everything else stays as it is. The path is the spec's.
fn check_rest(mut new: PodSpec, old: &PodSpec, errors: &mut FieldErrors) {
    if same(&new, old) {
        return;
    }
    let take_images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    take_images(&mut new.containers, &old.containers);
    take_images(
        new.init_containers.as_deref_mut().unwrap_or_default(),
        old.init_containers.as_deref().unwrap_or_default(),
    );
    new.active_deadline_seconds = old.active_deadline_seconds;
    new.scheduling_gates.clone_from(&old.scheduling_gates);
    new.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && new.termination_grace_period_seconds == Some(1)
    {
        new.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        check_gated(&mut new, old, errors);
    }
    if !same(&new, old) {
        errors.forbidden(
            "",
            format!("pod updates may not change fields other than {CHANGEABLE}\n{}", difference(old, &new)),
        );
    }
}

/// A pod behind a gate may still be steered, in ways that only narrow the choice of nodes.
fn check_gated(new: &mut PodSpec, old: &PodSpec, errors: &mut FieldErrors) {
    if !same(&new.node_selector, &old.node_selector) {
        let kept = |(key, value): (&String, &String)| {
            new.node_selector.as_ref().and_then(|own| own.get(key)) == Some(value)
        };
        if !old.node_selector.iter().flatten().all(kept) {
            errors.invalid(
                "nodeSelector",
                serde_json::to_value(&new.node_selector).unwrap_or_default(),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
        }
        new.node_selector.clone_from(&old.node_selector);
    }
    let node_affinity = |spec: &PodSpec| spec.affinity.as_ref().and_then(|own| own.node_affinity.clone());
    let (own, before) = (node_affinity(new), node_affinity(old));
    if same(&own, &before) {
        return;
    }
    errors.at("affinity.nodeAffinity", |errors| check_node_affinity(own.as_ref(), before.as_ref(), errors));
    match (&mut new.affinity, &old.affinity) {
        (None, _) => new.affinity = Some(Affinity { node_affinity: before, ..Affinity::default() }),
        (Some(own), None) if own.pod_affinity.is_none() && own.pod_anti_affinity.is_none() => {
            new.affinity = None;
        }
        (Some(own), _) => own.node_affinity = before,
    }
}

/// Upstream: `validateNodeAffinityMutation`.
fn check_node_affinity(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, errors: &mut FieldErrors) {
    const FIELD: &str = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let terms = |own: Option<&NodeAffinity>| {
        let required = own.and_then(|own| own.required_during_scheduling_ignored_during_execution.clone());
        required.map(|required| required.node_selector_terms).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        return errors.invalid(
            FIELD,
            serde_json::to_value(&new).unwrap_or_default(),
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
    }
    for (at, (new, old)) in new.iter().zip(&old).enumerate() {
        let starts = |new: &Option<Vec<_>>, old: &Option<Vec<_>>| {
            let none = Vec::new();
            let (new, old) = (new.as_ref().unwrap_or(&none), old.as_ref().unwrap_or(&none));
            new.len() >= old.len() && same(&new[..old.len()].to_vec(), old)
        };
        let empty = old.match_expressions.is_none() && old.match_fields.is_none();
        let only_added = starts(&new.match_expressions, &old.match_expressions)
            && starts(&new.match_fields, &old.match_fields)
            && (!empty || same(new, old));
        if !only_added {
            errors.invalid(
                &format!("{FIELD}[{at}]"),
                serde_json::to_value(new).unwrap_or_default(),
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

/// The fields that differ, one per line.
fn difference(old: &PodSpec, new: &PodSpec) -> String {
    let value = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    let (old, new) = (value(old), value(new));
    let mut lines = Vec::new();
    let keys = |value: &serde_json::Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut all = keys(&old);
    all.extend(keys(&new));
    all.sort();
    all.dedup();
    for key in all {
        if !same(&old[&key], &new[&key]) {
            lines.push(format!("- {key}: {}\n+ {key}: {}", old[&key], new[&key]));
        }
    }
    lines.join("\n")
}
