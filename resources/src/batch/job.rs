//! `Job`. Upstream: `pkg/registry/batch/job`.

use crate::cells::{container_columns, list, number, selector, text};
use api::age::human_duration;
use api::resource::{Column, Field, Resource, Scope};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("batch", "v1", "Job", "jobs", Scope::Namespaced)
        .categories(&["all"])
        .fields(vec![Field {
            name: "status.successful".to_owned(),
            pointer: "/status/succeeded".to_owned(),
            missing: "0",
        }])
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
