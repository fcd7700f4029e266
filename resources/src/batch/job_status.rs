//! The status of a job. Upstream: `ValidateJobStatusUpdate` in `pkg/apis/batch/validation`.

use crate::pod_spec::text;
use crate::workload::check_counts;
use api::FieldErrors;
use api::errors::FieldErrorKind;
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use serde_json::Value;
use std::collections::BTreeSet;

/// Whether a condition holds.
fn is(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|own| own.type_ == kind && own.status == "True")
}

/// Intervals of indexes out of a text such as `1,3-5,7`.
pub(super) fn indexes(text: &str, completions: i32) -> Result<Vec<(i32, i32)>, String> {
    let mut found: Vec<(i32, i32)> = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = interval(part, completions)?;
        if let Some((_, before)) = found.last()
            && *before >= first
        {
            return Err(format!("non-increasing order, previous: {before}, current: {first}"));
        }
        found.push((first, last));
    }
    Ok(found)
}

fn interval(part: &str, completions: i32) -> Result<(i32, i32), String> {
    let limits: Vec<_> = part.split('-').collect();
    if limits.len() > 2 {
        return Err(format!(
            "the fragment \"{part}\" violates the requirement that an index interval can have at most two parts \
             separated by '-'"
        ));
    }
    let index = |text: &str| match text.parse::<i32>() {
        Err(_) => Err(format!("cannot convert string to integer for index: \"{text}\"")),
        Ok(index) if index >= completions => Err(format!("too large index: \"{text}\"")),
        Ok(index) => Ok(index),
    };
    let first = index(limits[0])?;
    let last = limits.get(1).map_or(Ok(first), |text| index(text))?;
    match limits.len() == 2 && first >= last {
        true => Err(format!("non-increasing order, previous: {first}, current: {last}")),
        false => Ok((first, last)),
    }
}

/// The path is the status'.
pub(super) fn validate(new: &JobStatus, old: &JobStatus, spec: &JobSpec, errors: &mut FieldErrors) {
    check_counts(
        errors,
        &[
            ("active", new.active),
            ("succeeded", new.succeeded),
            ("failed", new.failed),
            ("ready", new.ready),
            ("terminating", new.terminating),
        ],
    );
    check_uncounted(new, errors);
    check_conditions(new, spec, errors);
    check_times(new, old, spec, errors);
    check_finished(new, errors);
    check_indexes(new, spec, errors);
    if new.ready.is_some_and(|ready| ready > new.active.unwrap_or(0)) {
        errors.invalid("ready", new.ready, "cannot set more ready pods than active");
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is(old, kind) && !is(new, kind) {
            refuse(errors, format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    for (field, new, old) in [("failed", new.failed, old.failed), ("succeeded", new.succeeded, old.succeeded)]
    {
        if new.unwrap_or(0) < old.unwrap_or(0) {
            errors.invalid(field, new.unwrap_or(0), format!("cannot decrease the {field} counter"));
        }
    }
    if is(old, "SuccessCriteriaMet") && !is(new, "SuccessCriteriaMet") {
        refuse(errors, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if is(old, "Complete") && !is(old, "SuccessCriteriaMet") && is(new, "SuccessCriteriaMet") {
        refuse(errors, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}

fn refuse(errors: &mut FieldErrors, why: impl Into<String>) {
    errors.push(FieldErrorKind::Omitted, "conditions", Value::Null, why);
}

fn check_uncounted(status: &JobStatus, errors: &mut FieldErrors) {
    let Some(uncounted) = &status.uncounted_terminated_pods else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (part, list) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        for (at, uid) in list.iter().flatten().enumerate() {
            let field = format!("uncountedTerminatedPods.{part}[{at}]");
            if uid.is_empty() {
                errors.invalid(&field, "", "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&field, uid.as_str());
            }
        }
    }
}

/// Conditions that contradict each other, or come without the one that announces them.
fn check_conditions(status: &JobStatus, spec: &JobSpec, errors: &mut FieldErrors) {
    let has = |kind| is(status, kind);
    for (wrong, why) in [
        (has("Complete") && has("Failed"), "cannot set Complete=True and Failed=true conditions"),
        (
            has("Complete") && has("FailureTarget"),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            has("Failed") && !has("FailureTarget"),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            has("Complete") && !has("SuccessCriteriaMet"),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            has("SuccessCriteriaMet") && has("Failed"),
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            has("SuccessCriteriaMet") && has("FailureTarget"),
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            spec.success_policy.is_some() && has("Complete") && !has("SuccessCriteriaMet"),
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    ] {
        if wrong {
            refuse(errors, why);
        }
    }
}

fn check_times(new: &JobStatus, old: &JobStatus, spec: &JobSpec, errors: &mut FieldErrors) {
    let shown = |time: &Option<_>| serde_json::to_value(time).unwrap_or_default();
    let complete = is(new, "Complete");
    match &new.completion_time {
        None if complete => {
            errors.required("completionTime", "completionTime is required for Complete jobs");
        }
        None => {}
        Some(end) => {
            let mut wrong = |why| errors.invalid("completionTime", shown(&new.completion_time), why);
            if !complete {
                wrong("cannot set completionTime when there is no Complete=True condition");
            }
            if new.start_time.as_ref().is_some_and(|start| end.0 < start.0) {
                wrong("must be equal to or after `startTime`");
            }
            if old.completion_time.as_ref().is_some_and(|before| before != end) {
                wrong("field is immutable");
            }
        }
    }
    if old.start_time.is_some() && old.start_time != new.start_time && spec.suspend != Some(true) {
        errors.invalid(
            "startTime",
            shown(&new.start_time),
            "field is immutable for unsuspended job once set",
        );
    }
}

fn check_finished(status: &JobStatus, errors: &mut FieldErrors) {
    if !is(status, "Complete") && !is(status, "Failed") {
        return;
    }
    if status.active.unwrap_or(0) > 0 {
        errors.invalid("active", status.active, "active>0 is invalid for finished job");
    }
    if status.start_time.is_none() {
        errors.required("startTime", "startTime is required for finished job");
    }
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
    if uncounted.is_some_and(|own| count(&own.failed) + count(&own.succeeded) > 0) {
        let shown = serde_json::to_value(uncounted).unwrap_or_default();
        errors.invalid("uncountedTerminatedPods", shown, "must be empty for finished job");
    }
    if status.terminating.unwrap_or(0) > 0 {
        errors.invalid("terminating", status.terminating, "terminating>0 is invalid for finished job");
    }
}

fn check_indexes(status: &JobStatus, spec: &JobSpec, errors: &mut FieldErrors) {
    let completed = text(&status.completed_indexes);
    let failed = status.failed_indexes.as_deref();
    if !completed.is_empty() && spec.completion_mode.as_deref() != Some("Indexed") {
        errors.invalid(
            "completedIndexes",
            completed,
            "cannot set non-empty completedIndexes when non-indexed completion mode",
        );
    }
    if let Some(failed) = failed
        && spec.backoff_limit_per_index.is_none()
    {
        errors.invalid(
            "failedIndexes",
            failed,
            "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
        );
    }
    let Some(completions) = spec.completions else {
        return;
    };
    let mut read = |field: &str, own: &str| match indexes(own, completions) {
        Ok(list) => list,
        Err(why) => {
            errors.invalid(field, own, format!("error parsing {field}: {why}"));
            Vec::new()
        }
    };
    let done = read("completedIndexes", completed);
    let lost = failed.map(|failed| read("failedIndexes", failed)).unwrap_or_default();
    let overlap = |one: &(i32, i32)| {
        let hit = lost.iter().find(|other| one.0 <= other.1 && other.0 <= one.1);
        hit.map(|other| one.0.max(other.0))
    };
    if let Some(at) = done.iter().find_map(overlap) {
        let why = format!("failedIndexes and completedIndexes overlap at index: {at}");
        errors.invalid("failedIndexes", failed.unwrap_or(""), why);
    }
}

#[cfg(test)]
mod tests {
    use super::indexes;

    #[test]
    fn intervals() {
        assert_eq!(indexes("", 5), Ok(vec![]));
        assert_eq!(indexes("0,2-3", 5), Ok(vec![(0, 0), (2, 3)]));
        for (text, why) in [
            ("5", "too large index: \"5\""),
            ("3-2", "non-increasing order, previous: 3, current: 2"),
            ("2,1", "non-increasing order, previous: 2, current: 1"),
            ("a", "cannot convert string to integer for index: \"a\""),
        ] {
            assert_eq!(indexes(text, 5), Err(why.to_owned()));
        }
    }
}
