//! `CronJob`. Upstream: `pkg/registry/batch/cronjob`.

use crate::cells::{NONE, UNSET, count, joined, selector, since, text};
use api::resource::{Column, Resource, Scope};
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
}
