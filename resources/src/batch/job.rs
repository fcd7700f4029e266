//! `Job`. Upstream: `pkg/registry/batch/job`, `pkg/apis/batch/validation`.

use super::{job_spec, job_status};
use crate::cells::{container_columns, list, number, selector, text};
use crate::equal::same;
use crate::workload;
use api::age::human_duration;
use api::resource::{Column, Field, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("batch", "v1", "Job", "jobs", Scope::Namespaced)
        .categories(&["all"])
        .fields(vec![Field::at("status.successful", "/status/succeeded").missing("0")])
        .columns(vec![
            Column::computed("Status", |o, _| shown_status(o).into()),
            Column::computed("Completions", |o, _| completions(o).into()),
            Column::computed("Duration", |o, now| duration(o, now).into()),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| selector(o, "/spec/selector").into()).wide(),
        ])
        .status()
        .generation()
        .rules(Typed(Rules))
}

fn shown_status(job: &Value) -> &'static str {
    let is = |kind: &str| {
        let mut conditions = list(job, "/status/conditions").iter();
        conditions.find(|c| c["type"] == kind).is_some_and(|c| c["status"] == "True")
    };
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !text(job, "/metadata/deletionTimestamp").is_empty() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = number(job, "/status/succeeded");
    match (job.pointer("/spec/completions").and_then(Value::as_i64), number(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let at = |pointer| text(job, pointer).parse::<Timestamp>().ok();
    match (at("/status/startTime"), at("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => human_duration(end.unwrap_or(now).duration_since(start).as_secs()),
    }
}

const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

struct Rules;

fn spec_of(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

impl Strategy for Rules {
    type Kind = Job;

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn default(&self, job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        job_spec::default(spec);
        let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        if job.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty)
            && let Some(labels) = labels
        {
            job.metadata.labels = Some(labels);
        }
        job.status.get_or_insert_default();
    }

    fn prepare_create(&self, job: &mut Job, _: &Context<'_>) -> Result<(), Status> {
        job.status = Some(JobStatus::default());
        job.metadata.generation = Some(1);
        let name = job.metadata.name.clone().unwrap_or_default();
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let spec = job.spec.get_or_insert_default();
        if spec.manual_selector != Some(true) {
            generate_selector(spec, &name, &uid);
        }
        job_spec::drop_disabled(spec);
        Ok(())
    }

    fn prepare_update(&self, new: &mut Job, old: &Job, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        job_spec::drop_disabled(new.spec.get_or_insert_default());
        Ok(())
    }

    fn validate(&self, job: &Job, errors: &mut FieldErrors) {
        let spec = spec_of(job);
        errors.at("spec", |errors| {
            job_spec::validate(&spec, errors);
            match &spec.selector {
                None => errors.required("selector", ""),
                Some(selector) => names::check_selector(errors, "selector", Some(selector)),
            }
            if !workload::matches(spec.selector.as_ref(), &spec.template) {
                workload::report_mismatch(&spec.template, errors);
            }
        });
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        if let Some(completions) = spec.completions.filter(|count| indexed && *count > 0) {
            let name = job.metadata.name.as_deref().unwrap_or("");
            let host = format!("{name}-{}", completions - 1);
            if !names::dns_label(&host).is_empty() {
                let why = format!("will not able to create pod with invalid DNS label: {host}");
                errors.invalid("metadata.name", name, why);
            }
        }
    }

    fn validate_create(&self, job: &Job, errors: &mut FieldErrors) {
        let spec = spec_of(job);
        if spec.manual_selector != Some(true) && spec.selector.is_some() {
            check_generated(job, &spec, errors);
        }
    }

    fn validate_update(&self, new: &Job, old: &Job, errors: &mut FieldErrors) {
        let status = old.status.clone().unwrap_or_default();
        let (new, old) = (spec_of(new), spec_of(old));
        errors.at("spec", |errors| {
            check_completions(&new, &old, errors);
            errors.immutable("selector", &new.selector, &old.selector);
            check_template_change(&new, &old, &status, errors);
            errors.immutable("completionMode", &new.completion_mode, &old.completion_mode);
            errors.immutable("podFailurePolicy", &new.pod_failure_policy, &old.pod_failure_policy);
            errors.immutable(
                "backoffLimitPerIndex",
                &new.backoff_limit_per_index,
                &old.backoff_limit_per_index,
            );
            errors.immutable("managedBy", &new.managed_by, &old.managed_by);
            errors.immutable("successPolicy", &new.success_policy, &old.success_policy);
        });
    }

    fn prepare_status_update(&self, new: &mut Job, old: &Job, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Job, old: &Job, errors: &mut FieldErrors) {
        let spec = spec_of(new);
        let none = JobStatus::default();
        let (new, old) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
        errors.at("status", |errors| job_status::validate(new, old, &spec, errors));
    }

    fn warnings(&self, job: &Job) -> Vec<String> {
        let mut found: Vec<_> = workload::name_warning(&job.metadata).into_iter().collect();
        found.extend(job_spec::warnings("spec", &spec_of(job)));
        found
    }
}

/// The job's pods are those with its UID.
fn generate_selector(spec: &mut JobSpec, name: &str, uid: &str) {
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (keys, value) in [(NAME_LABELS, name), (UID_LABELS, uid)] {
        for key in keys {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let own = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    own.entry(UID_LABELS[1].to_owned()).or_insert_with(|| uid.to_owned());
}

fn check_generated(job: &Job, spec: &JobSpec, errors: &mut FieldErrors) {
    let name = job.metadata.name.as_deref().unwrap_or("");
    let uid = job.metadata.uid.as_deref().unwrap_or("");
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    for (keys, value) in [(UID_LABELS, uid), (NAME_LABELS, name)] {
        for key in keys {
            let own = labels.get(key).map_or("", String::as_str);
            if own != value {
                let why = format!("must be '{value}'");
                errors.invalid("spec.template.metadata.labels", serde_json::json!({ key: own }), why);
            }
        }
    }
    let mut expected = BTreeMap::new();
    for (keys, value) in [(NAME_LABELS, name), (UID_LABELS, uid)] {
        expected.extend(keys.map(|key| (key.to_owned(), value.to_owned())));
    }
    let mut template = PodTemplateSpec::default();
    template.metadata.get_or_insert_default().labels = Some(expected);
    if !workload::matches(spec.selector.as_ref(), &template) {
        let shown = serde_json::to_value(&spec.selector).unwrap_or_default();
        errors.invalid("spec.selector", shown, "`selector` not auto-generated");
    }
}

fn check_completions(new: &JobSpec, old: &JobSpec, errors: &mut FieldErrors) {
    if new.completion_mode.as_deref() != Some("Indexed") {
        return errors.immutable("completions", &new.completions, &old.completions);
    }
    if new.completions != old.completions && new.completions.is_some() && new.completions != new.parallelism {
        errors.invalid(
            "completions",
            new.completions,
            "can only be modified in tandem with spec.parallelism",
        );
    }
}

/// What of the template may change while the job is suspended and none of its pods runs.
fn check_template_change(new: &JobSpec, old: &JobSpec, status: &JobStatus, errors: &mut FieldErrors) {
    let suspended = old.suspend == Some(true);
    let condition = |kind: &str| {
        let mut all = status.conditions.iter().flatten();
        all.any(|own| own.type_ == kind && own.status == "True")
    };
    let idle = suspended && (status.start_time.is_none() || condition("Suspended"));
    let (own, mut before) = (new.template.clone(), old.template.clone());
    if idle && let (Some(spec), Some(old)) = (&own.spec, &mut before.spec) {
        let affinity = spec.affinity.as_ref().and_then(|own| own.node_affinity.clone());
        if affinity.is_some() || old.affinity.is_some() {
            old.affinity.get_or_insert_default().node_affinity = affinity;
        }
        old.node_selector.clone_from(&spec.node_selector);
        old.tolerations.clone_from(&spec.tolerations);
        old.scheduling_gates.clone_from(&spec.scheduling_gates);
        let lists = [
            (Some(&spec.containers), Some(&mut old.containers)),
            (spec.init_containers.as_ref(), old.init_containers.as_mut()),
        ];
        for (own, before) in lists.into_iter().filter_map(|(own, before)| own.zip(before)) {
            for (own, before) in own.iter().zip(before).filter(|(own, before)| own.name == before.name) {
                before.resources.clone_from(&own.resources);
            }
        }
        let meta = before.metadata.get_or_insert_default();
        let none = Default::default();
        let own = own.metadata.as_ref().unwrap_or(&none);
        meta.annotations.clone_from(&own.annotations);
        meta.labels.clone_from(&own.labels);
    }
    if !same(&own, &before) {
        let shown = serde_json::to_value(&own).unwrap_or_default();
        errors.invalid("template", shown, "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, check, check_update, created};
    use serde_json::{Value, json};

    fn job(extra: Value) -> Value {
        let mut job = json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
        for (key, value) in extra.as_object().unwrap() {
            job["spec"][key] = value.clone();
        }
        job
    }

    #[test]
    fn the_selector_is_generated() {
        let (made, errors) = created(&resource(), job(json!({})), &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            made["spec"]["selector"]["matchLabels"],
            json!({"batch.kubernetes.io/controller-uid": "u"})
        );
        assert_eq!(made["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
        for (field, expect) in [
            ("completions", json!(1)),
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
            ("podReplacementPolicy", json!("TerminatingOrFailed")),
            ("manualSelector", json!(false)),
        ] {
            assert_eq!(made["spec"][field], expect, "{field}");
        }
    }

    #[test]
    fn what_is_refused() {
        let row = resource();
        check(&row, job(json!({"completionMode": "Indexed"})), &[]);
        check(
            &row,
            job(json!({"completionMode": "Indexed", "parallelism": 2})),
            &["spec.completions: Required value: when completion mode is Indexed"],
        );
        check(
            &row,
            job(json!({"backoffLimitPerIndex": 1})),
            &["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        );
        check(
            &row,
            job(json!({"podFailurePolicy": {"rules": [{"action": "Ignore",
                "onExitCodes": {"operator": "In", "values": [2, 1]}}]}})),
            &["spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered"],
        );
        let mut own = job(json!({}));
        own["spec"]["template"]["spec"]["restartPolicy"] = Value::Null;
        check(
            &row,
            own,
            &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
        );
    }

    #[test]
    fn the_template_changes_only_while_suspended() {
        let row = resource();
        let select = |new: &mut Value| new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        check_update(&row, job(json!({"suspend": true})), select, &[]);
        let (old, _) = created(&row, job(json!({})), &Objects::default());
        let mut expect = old["spec"]["template"].clone();
        expect["spec"]["nodeSelector"] = json!({"a": "b"});
        check_update(
            &row,
            job(json!({})),
            select,
            &[&format!("spec.template: Invalid value: {expect}: field is immutable")],
        );
        check_update(
            &row,
            job(json!({})),
            |new| new["spec"]["completions"] = json!(3),
            &["spec.completions: Invalid value: 3: field is immutable"],
        );
    }
}
