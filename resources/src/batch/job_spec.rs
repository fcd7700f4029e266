//! The spec of a job, as jobs and cron jobs share it. Upstream: `validateJobSpec` in `pkg/apis/batch/validation`.

use super::job_status::indexes;
use crate::pod_spec::{default_template, template_warnings, text, validate_template};
use crate::workload::{self, check_counts};
use api::names::{self, check_not_negative, check_one_of};
use api::{FieldErrors, errors::FieldErrorKind};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many pods of an indexed job may run at once: what the status can list.
const PARALLELISM_MAX: i32 = 100_000;
/// The same for jobs with many completions and a limit per index.
const PARALLELISM_MAX_HIGH: i32 = 10_000;
/// From how many completions on a job has many.
const COMPLETIONS_HIGH: i32 = 100_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
const FAILED_INDEXES_MAX_HIGH: i32 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const MANAGED_BY_LEN_MAX: usize = 63;
const INDEXES_LEN_MAX: usize = 64 * 1024;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];

/// Upstream: `SetDefaults_Job` without what concerns the job's own metadata.
pub(super) fn default(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
    spec.backoff_limit.get_or_insert(limit);
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let policy = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| policy.to_owned());
    default_template_spec(spec);
}

/// What a cron job's template of a job gets: nothing but its pods' defaults.
pub(super) fn default_template_spec(spec: &mut JobSpec) {
    default_template(&mut spec.template);
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        for pattern in rule.on_pod_conditions.iter_mut().flatten() {
            if text(&pattern.status).is_empty() {
                pattern.status = Some("True".to_owned());
            }
        }
    }
}

/// See `drop_disabled` of the pod spec.
pub(super) fn drop_disabled(spec: &mut JobSpec) {
    spec.scheduling = None;
    workload::drop_disabled(&mut spec.template);
}

/// Warnings of a spec at `path`.
pub(super) fn warnings(path: &str, spec: &JobSpec) -> Vec<String> {
    let mut found = Vec::new();
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let completions = spec.completions.unwrap_or(0);
    if indexed && completions > COMPLETIONS_HIGH && spec.parallelism.unwrap_or(0) > PARALLELISM_MAX_HIGH {
        found.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
                    Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
    }
    found.extend(template_warnings(&format!("{path}.template"), Some(&spec.template)));
    found
}

/// The path is the spec's.
pub(super) fn validate(spec: &JobSpec, errors: &mut FieldErrors) {
    check_counts(errors, &[("parallelism", spec.parallelism), ("completions", spec.completions)]);
    check_not_negative(errors, "activeDeadlineSeconds", spec.active_deadline_seconds.unwrap_or(0));
    check_counts(
        errors,
        &[
            ("backoffLimit", spec.backoff_limit),
            ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ],
    );
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required("backoffLimitPerIndex", "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        check_domain_path("managedBy", manager, errors);
        if manager.len() > MANAGED_BY_LEN_MAX {
            errors.too_long("managedBy", MANAGED_BY_LEN_MAX);
        }
    }
    check_mode(spec, errors);
    if let Some(policy) = &spec.pod_failure_policy {
        errors.at("podFailurePolicy", |errors| {
            if policy.rules.len() > RULES_MAX {
                errors.too_many("rules", policy.rules.len(), RULES_MAX);
            }
            for (at, rule) in policy.rules.iter().enumerate() {
                errors.at(&format!("rules[{at}]"), |errors| check_failure_rule(spec, rule, errors));
            }
        });
    }
    check_success_policy(spec, errors);
    if let Some(policy) = &spec.pod_replacement_policy {
        let allowed: &[&str] = match spec.pod_failure_policy {
            Some(_) => &["Failed"],
            None => &["Failed", "TerminatingOrFailed"],
        };
        check_one_of(errors, "podReplacementPolicy", policy, allowed);
    }
    errors.at("template", |errors| validate_template(&spec.template, errors));
    check_restart_policy(spec, errors);
}

fn check_restart_policy(spec: &JobSpec, errors: &mut FieldErrors) {
    const FIELD: &str = "template.spec.restartPolicy";
    let policy = spec.template.spec.as_ref().map_or("", |spec| text(&spec.restart_policy));
    match policy {
        "Always" | "" => errors.required(FIELD, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            errors.invalid(FIELD, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(FIELD, other, &["OnFailure", "Never"]),
    }
}

/// `domain/path`. Upstream: `IsDomainPrefixedPath`.
fn check_domain_path(field: &str, value: &str, errors: &mut FieldErrors) {
    let Some((domain, path)) = value.split_once('/') else {
        return errors.invalid(field, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    for (part, text) in [("domain", domain), ("path", path)] {
        if text.is_empty() {
            errors.invalid(field, value, format!("{part} part must be non-empty"));
        }
    }
    if !domain.is_empty() {
        names::report(errors, field, domain, names::dns_subdomain(domain));
    }
}

fn check_mode(spec: &JobSpec, errors: &mut FieldErrors) {
    let mode = spec.completion_mode.as_deref().unwrap_or("NonIndexed");
    check_one_of(errors, "completionMode", mode, &["NonIndexed", "Indexed"]);
    if mode == "NonIndexed" {
        for (field, count) in [
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ] {
            if let Some(count) = count {
                errors.invalid(field, count, "requires indexed completion mode");
            }
        }
    }
    if mode == "Indexed" {
        check_indexed(spec, errors);
    }
}

fn check_indexed(spec: &JobSpec, errors: &mut FieldErrors) {
    let (parallelism, failed) = (spec.parallelism.unwrap_or(0), spec.max_failed_indexes.unwrap_or(0));
    if spec.completions.is_none() {
        errors.required("completions", "when completion mode is Indexed");
    }
    if parallelism > PARALLELISM_MAX {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        errors.invalid("parallelism", parallelism, why);
    }
    if spec.completions.is_some_and(|completions| failed > completions) {
        errors.invalid("maxFailedIndexes", failed, "must be less than or equal to completions");
    }
    if failed > FAILED_INDEXES_MAX {
        let why = format!("must be less than or equal to {FAILED_INDEXES_MAX}");
        errors.invalid("maxFailedIndexes", failed, why);
    }
    if spec.completions.unwrap_or(0) <= COMPLETIONS_HIGH || spec.backoff_limit_per_index.is_none() {
        return;
    }
    if spec.max_failed_indexes.is_none() {
        let why = format!("must be specified when completions is above {COMPLETIONS_HIGH}");
        errors.required("maxFailedIndexes", why);
    }
    for (field, value, max) in [
        ("parallelism", parallelism, PARALLELISM_MAX_HIGH),
        ("maxFailedIndexes", failed, FAILED_INDEXES_MAX_HIGH),
    ] {
        if value > max {
            errors.invalid(
                field,
                value,
                format!(
                    "must be less than or equal to {max} when completions are above {COMPLETIONS_HIGH} and used \
                     with backoff limit per index"
                ),
            );
        }
    }
}

fn check_failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, errors: &mut FieldErrors) {
    match rule.action.as_str() {
        "" => errors.required("action", "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
        own @ "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.invalid("action", own, "requires the backoffLimitPerIndex to be set");
        }
        own => check_one_of(errors, "action", own, &["Count", "FailIndex", "FailJob", "Ignore"]),
    }
    if let Some(codes) = &rule.on_exit_codes {
        errors.at("onExitCodes", |errors| check_exit_codes(spec, codes, errors));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    if patterns.len() > PATTERNS_MAX {
        errors.too_many("onPodConditions", patterns.len(), PATTERNS_MAX);
    }
    for (at, pattern) in patterns.iter().enumerate() {
        errors.at(&format!("onPodConditions[{at}]"), |errors| {
            names::report(errors, "type", &pattern.type_, names::qualified(&pattern.type_));
            match text(&pattern.status) {
                "" => errors.required("status", "valid values: [\"False\" \"True\" \"Unknown\"]"),
                status => check_one_of(errors, "status", status, &STATUSES),
            }
        });
    }
    let why = match (&rule.on_exit_codes, patterns.is_empty()) {
        (Some(_), false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(FieldErrorKind::Omitted, "", Value::Null, why);
}

fn check_exit_codes(
    spec: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    errors: &mut FieldErrors,
) {
    match codes.operator.as_str() {
        "" => errors.required("operator", "valid values: [\"In\" \"NotIn\"]"),
        operator => check_one_of(errors, "operator", operator, &["In", "NotIn"]),
    }
    let pod = spec.template.spec.clone().unwrap_or_default();
    let mut containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    if let Some(name) = &codes.container_name
        && !containers.any(|container| container.name == *name)
    {
        errors.invalid(
            "containerName",
            name.as_str(),
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = &codes.values;
    if values.is_empty() {
        errors.invalid("values", values.clone(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many("values", values.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (at, value) in values.iter().enumerate() {
        let field = format!("values[{at}]");
        if codes.operator == "In" && *value == 0 {
            errors.invalid(&field, *value, "must not be 0 for the In operator");
        }
        if !seen.insert(*value) {
            errors.duplicate(&field, *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid("values", values.clone(), "must be ordered");
    }
}

fn check_success_policy(spec: &JobSpec, errors: &mut FieldErrors) {
    let Some(policy) = &spec.success_policy else {
        return;
    };
    if spec.completion_mode.as_deref() != Some("Indexed") {
        let shown = serde_json::to_value(policy).unwrap_or_default();
        return errors.invalid("successPolicy", shown, "requires indexed completion mode");
    }
    errors.at("successPolicy", |errors| {
        if policy.rules.is_empty() {
            errors.required(
                "rules",
                "at least one rules must be specified when the successPolicy is specified",
            );
        }
        if policy.rules.len() > RULES_MAX {
            errors.too_many("rules", policy.rules.len(), RULES_MAX);
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            errors.at(&format!("rules[{at}]"), |errors| check_success_rule(spec, rule, errors));
        }
    });
}

fn check_success_rule(spec: &JobSpec, rule: &SuccessPolicyRule, errors: &mut FieldErrors) {
    let completions = spec.completions.unwrap_or(0);
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.required("", "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut total = None;
    if let Some(own) = &rule.succeeded_indexes {
        if own.len() > INDEXES_LEN_MAX {
            errors.too_long("succeededIndexes", INDEXES_LEN_MAX);
        }
        match indexes(own, completions) {
            Ok(list) => total = Some(list.iter().map(|(first, last)| last - first + 1).sum::<i32>()),
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                errors.invalid("succeededIndexes", own.as_str(), why);
                total = Some(0);
            }
        }
    }
    let Some(count) = rule.succeeded_count else {
        return;
    };
    check_not_negative(errors, "succeededCount", i64::from(count));
    if count > completions {
        let why =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid("succeededCount", count, why);
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid("succeededCount", count, why);
    }
}
