//! What the rules of several workloads have in common. Upstream: `pkg/apis/apps/validation`.

use crate::pod_spec::{self, text, validate_template};
use api::names::{self, check_not_negative};
use api::{FieldErrors, LabelSelector as Matcher};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How the selector of a workload is bound to its template.
pub(crate) struct Selected<'a> {
    /// As errors name the kind in "empty selector is invalid for …".
    pub kind: &'a str,
    /// As errors name the kind in "activeDeadlineSeconds in … is not Supported".
    pub title: &'a str,
    pub selector: Option<&'a LabelSelector>,
    pub template: &'a PodTemplateSpec,
}

/// Removes the fields of features that are off by default.
pub(crate) fn drop_disabled(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        pod_spec::drop_disabled(spec);
    }
}

/// Whether a selector matches a template's labels. Upstream's rule for an absent selector: it matches nothing.
pub(crate) fn matches(selector: Option<&LabelSelector>, template: &PodTemplateSpec) -> bool {
    let Some(matcher) = selector.and_then(|own| Matcher::from_object(own).ok()) else {
        return false;
    };
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    matcher.matches(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
}

pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|own| own.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// `selector does not match` of a template. The path is the spec's.
pub(crate) fn report_mismatch(template: &PodTemplateSpec, errors: &mut FieldErrors) {
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    errors.invalid(
        "template.metadata.labels",
        serde_json::to_value(labels).unwrap_or_default(),
        "`selector` does not match template `labels`",
    );
}

/// Selector and template of a workload that runs for ever. The path is the spec's.
pub(crate) fn check_selected(own: &Selected<'_>, errors: &mut FieldErrors) {
    check_selector(own, errors);
    let empty = own.selector.is_some_and(is_empty);
    if !empty && own.selector.is_some() && !matches(own.selector, own.template) {
        report_mismatch(own.template, errors);
    }
    errors.at("template", |errors| validate_template(own.template, errors));
    check_runs_for_ever(own, errors);
}

/// The selector alone.
pub(crate) fn check_selector(own: &Selected<'_>, errors: &mut FieldErrors) {
    let Some(selector) = own.selector else {
        return errors.required("selector", "");
    };
    names::check_selector(errors, "selector", Some(selector));
    if is_empty(selector) {
        errors.invalid(
            "selector",
            serde_json::to_value(selector).unwrap_or_default(),
            format!("empty selector is invalid for {}", own.kind),
        );
    }
}

/// Restart policy and deadline of a template whose pods run for ever. The path is the spec's.
pub(crate) fn check_runs_for_ever(own: &Selected<'_>, errors: &mut FieldErrors) {
    let Some(spec) = &own.template.spec else {
        return;
    };
    let policy = text(&spec.restart_policy);
    if policy != "Always" {
        errors.not_supported("template.spec.restartPolicy", policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        errors.forbidden(
            "template.spec.activeDeadlineSeconds",
            format!("activeDeadlineSeconds in {} is not Supported", own.title),
        );
    }
}

/// A count or a percentage, not negative.
pub(crate) fn check_int_or_percent(errors: &mut FieldErrors, field: &str, value: &IntOrString) {
    match value {
        IntOrString::Int(count) => check_not_negative(errors, field, i64::from(*count)),
        IntOrString::String(percent) => names::report(errors, field, percent, names::percent(percent)),
    }
}

/// A percentage above 100 makes no sense where something is taken away.
pub(crate) fn check_at_most_all(errors: &mut FieldErrors, field: &str, value: &IntOrString) {
    if let IntOrString::String(percent) = value
        && names::percent(percent).is_empty()
        && number(value) > 100
    {
        errors.invalid(field, percent.as_str(), "must not be greater than 100%");
    }
}

/// The count, or the number before the percent sign.
pub(crate) fn number(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(count) => i64::from(*count),
        IntOrString::String(percent) => percent.trim_end_matches('%').parse().unwrap_or(0),
    }
}

/// As errors show it.
pub(crate) fn shown(value: &IntOrString) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Optional numbers that must not be negative.
pub(crate) fn check_counts(errors: &mut FieldErrors, counts: &[(&str, Option<i32>)]) {
    for (field, count) in counts {
        check_not_negative(errors, field, i64::from(count.unwrap_or(0)));
    }
}

/// Counts of pods in a status that cannot be above all of them. Available pods are ready ones.
pub(crate) fn check_replica_counts(
    errors: &mut FieldErrors,
    all: Option<i32>,
    parts: &[(&str, Option<i32>)],
    ready: Option<i32>,
    ready_name: &str,
) {
    let all = all.unwrap_or(0);
    for (field, count) in parts {
        let count = count.unwrap_or(0);
        if count > all {
            errors.invalid(field, count, "cannot be greater than status.replicas");
        }
        if *field == "availableReplicas" && count > ready.unwrap_or(0) {
            errors.invalid(field, count, format!("cannot be greater than {ready_name}"));
        }
    }
}

/// A collision count only grows.
pub(crate) fn check_collisions(errors: &mut FieldErrors, new: Option<i32>, old: Option<i32>) {
    if old.is_some_and(|old| new.unwrap_or(i32::MIN) < old) {
        errors.invalid("status.collisionCount", new.unwrap_or(0), "cannot be decremented");
    }
}

/// The warning about names that become host names.
pub(crate) fn name_warning(meta: &ObjectMeta) -> Option<String> {
    let faults = names::dns_label(text(&meta.name));
    (!faults.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            faults.join(" ")
        )
    })
}
