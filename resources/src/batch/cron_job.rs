//! `CronJob`. Upstream: `pkg/registry/batch/cronjob`, `pkg/apis/batch/validation`.

use super::job_spec;
use crate::cells::{NONE, UNSET, count, joined, selector, since, text};
use crate::workload::{self, check_counts};
use api::cron::Schedule;
use api::names::{check_not_negative, check_required_one_of, dns_subdomain};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    const CONTAINERS: &str = "/spec/jobTemplate/spec/template/spec/containers";
    Resource::new("batch", "v1", "CronJob", "cronjobs", Scope::Namespaced)
        .short_names(&["cj"])
        .categories(&["all"])
        .columns(vec![
            Column::or("Schedule", "/spec/schedule", ""),
            Column::or("Timezone", "/spec/timeZone", NONE),
            Column::computed("Suspend", |o, _| match o.pointer("/spec/suspend") {
                Some(Value::Bool(true)) => "True".into(),
                Some(Value::Bool(false)) => "False".into(),
                _ => UNSET.into(),
            })
            .kind("boolean"),
            Column::computed("Active", |o, _| count(o, "/status/active").into()).kind("integer"),
            Column::computed("Last Schedule", |o, now| match text(o, "/status/lastScheduleTime") {
                "" => NONE.into(),
                _ => since(o, "/status/lastScheduleTime", now).into(),
            }),
            Column::age(),
            Column::computed("Containers", |o, _| joined(o, CONTAINERS, "name").into()).wide(),
            Column::computed("Images", |o, _| joined(o, CONTAINERS, "image").into()).wide(),
            Column::computed("Selector", |o, _| selector(o, "/spec/jobTemplate/spec/selector").into()).wide(),
        ])
        .status()
        .generation()
        .rules(Typed(Rules))
}

/// A job's name is the cron job's with up to eleven characters more, and a label.
const NAME_LEN_MAX: usize = 63 - 11;

struct Rules;

impl Strategy for Rules {
    type Kind = CronJob;

    fn name_faults(&self, name: &str) -> Vec<String> {
        dns_subdomain(name)
    }

    fn default(&self, cron: &mut CronJob) {
        let spec = &mut cron.spec;
        if spec.concurrency_policy.as_deref().unwrap_or("").is_empty() {
            spec.concurrency_policy = Some("Allow".to_owned());
        }
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        job_spec::default_template_spec(spec.job_template.spec.get_or_insert_default());
        cron.status.get_or_insert_default();
    }

    fn prepare_create(&self, cron: &mut CronJob, _: &Context<'_>) -> Result<(), Status> {
        cron.status = Some(CronJobStatus::default());
        cron.metadata.generation = Some(1);
        job_spec::drop_disabled(cron.spec.job_template.spec.get_or_insert_default());
        Ok(())
    }

    fn prepare_update(&self, new: &mut CronJob, old: &CronJob, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        job_spec::drop_disabled(new.spec.job_template.spec.get_or_insert_default());
        Ok(())
    }

    fn validate(&self, cron: &CronJob, errors: &mut FieldErrors) {
        errors.at("spec", |errors| validate(&cron.spec, errors));
    }

    fn validate_create(&self, cron: &CronJob, errors: &mut FieldErrors) {
        if let Some(zone) = &cron.spec.time_zone {
            check_time_zone(zone, errors);
        }
        if cron.spec.schedule.contains("TZ") {
            errors.invalid(
                "spec.schedule",
                cron.spec.schedule.as_str(),
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            );
        }
        let name = cron.metadata.name.as_deref().unwrap_or("");
        if name.len() > NAME_LEN_MAX {
            errors.invalid("metadata.name", name, "must be no more than 52 characters");
        }
    }

    fn validate_update(&self, new: &CronJob, old: &CronJob, errors: &mut FieldErrors) {
        if let Some(zone) = &new.spec.time_zone
            && new.spec.time_zone != old.spec.time_zone
        {
            check_time_zone(zone, errors);
        }
        let named = |cron: &CronJob| cron.spec.schedule.contains("TZ");
        let why = match (named(old), named(new)) {
            (true, true) if new.spec.time_zone.is_some() => {
                "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            }
            (false, true) => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            _ => return,
        };
        errors.invalid("spec.schedule", new.spec.schedule.as_str(), why);
    }

    fn prepare_status_update(&self, new: &mut CronJob, old: &CronJob, _: &Context<'_>) {
        new.spec = old.spec.clone();
    }

    fn warnings(&self, cron: &CronJob) -> Vec<String> {
        let mut found: Vec<_> = workload::name_warning(&cron.metadata).into_iter().collect();
        if let Some(spec) = &cron.spec.job_template.spec {
            found.extend(job_spec::warnings("spec.jobTemplate.spec", spec));
        }
        found
    }
}

fn validate(spec: &CronJobSpec, errors: &mut FieldErrors) {
    let bare = match spec.schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => spec.schedule.as_str(),
    };
    if spec.schedule.is_empty() {
        errors.required("schedule", "");
    } else if let Err(error) = Schedule::parse(bare) {
        errors.invalid("schedule", spec.schedule.as_str(), error.to_string());
    }
    check_not_negative(errors, "startingDeadlineSeconds", spec.starting_deadline_seconds.unwrap_or(0));
    check_required_one_of(
        errors,
        "concurrencyPolicy",
        spec.concurrency_policy.as_deref(),
        &["Allow", "Forbid", "Replace"],
    );
    let none = Default::default();
    let job = spec.job_template.spec.as_ref().unwrap_or(&none);
    errors.at("jobTemplate.spec", |errors| {
        job_spec::validate(job, errors);
        if let Some(selector) = &job.selector {
            let shown = serde_json::to_value(selector).unwrap_or_default();
            errors.invalid("selector", shown, "`selector` will be auto-generated");
        }
        if job.manual_selector == Some(true) {
            errors.not_supported("manualSelector", true, &["nil", "false"]);
        }
    });
    check_counts(
        errors,
        &[
            ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
            ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
        ],
    );
}

/// A name of the IANA database.
fn check_time_zone(zone: &str, errors: &mut FieldErrors) {
    /// The longest part of a name.
    const PART_LEN_MAX: usize = 14;
    const FIELD: &str = "spec.timeZone";
    if zone.is_empty() {
        return errors.invalid(FIELD, zone, "timeZone must be nil or non-empty string");
    }
    let fine = |part: &str| {
        let shaped = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
        shaped
            && !part.is_empty()
            && part.len() <= PART_LEN_MAX
            && part != "."
            && part != ".."
            && !part.starts_with('-')
    };
    if !zone.split('/').all(fine) {
        return errors.invalid(FIELD, zone, format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("local") {
        errors.invalid(
            FIELD,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::check;
    use serde_json::{Value, json};

    fn cron(extra: Value) -> Value {
        let mut cron = json!({"spec": {"schedule": "*/1 * * * ?", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "i:1"}]}}}}}});
        for (key, value) in extra.as_object().unwrap() {
            cron["spec"][key] = value.clone();
        }
        cron
    }

    #[test]
    fn schedules() {
        let row = resource();
        check(&row, cron(json!({})), &[]);
        check(
            &row,
            cron(json!({"schedule": "error"})),
            &["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"],
        );
        check(
            &row,
            cron(json!({"schedule": "TZ=UTC 0 * * * *"})),
            &[
                "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ],
        );
        check(
            &row,
            cron(json!({"timeZone": "../etc"})),
            &["spec.timeZone: Invalid value: \"../etc\": unknown time zone ../etc"],
        );
    }
}
