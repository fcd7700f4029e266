//! `Event` of the core group and of `events.k8s.io`: two views of the same objects, kept as core/v1.
//! Upstream: `pkg/registry/core/event`, `pkg/apis/events/v1/conversion.go`.

use crate::cells::{number, or, since, text};
use api::resource::{Column, Field, Resource, Scope};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    let parts = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
        .map(|part| Field::new(&format!("involvedObject.{part}")));
    let mut fields = parts.to_vec();
    fields.extend([
        Field::new("reason"),
        Field::new("reportingComponent"),
        Field { name: "source".into(), pointer: "/source/component".into(), missing: "" },
        Field::new("type"),
    ]);
    Resource::new("", "v1", "Event", "events", Scope::Namespaced)
        .short_names(&["ev"])
        .fields(fields)
        .columns(columns(&CORE))
}

/// The same objects as `events.k8s.io/v1` shows them.
pub(crate) fn events_k8s_io() -> Resource {
    let parts = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
        .map(|part| Field::new(&format!("regarding.{part}")));
    let mut fields = parts.to_vec();
    fields.extend([Field::new("reason"), Field::new("reportingController"), Field::new("type")]);
    Resource::new("events.k8s.io", "v1", "Event", "events", Scope::Namespaced)
        .short_names(&["ev"])
        .fields(fields)
        .columns(columns(&NEW))
        .shares("", "events", "v1")
}

type CellOf = fn(&Value, Timestamp) -> Value;

/// Where the two versions keep what the table shows.
struct View {
    last_seen: CellOf,
    object: CellOf,
    field_path: &'static str,
    source: CellOf,
    message: CellOf,
    first_seen: CellOf,
    count: CellOf,
}

const CORE: View = View {
    last_seen: |o, now| last_seen(o, "/firstTimestamp", "/lastTimestamp", now).into(),
    object: |o, _| target(o, "/involvedObject").into(),
    field_path: "/involvedObject/fieldPath",
    source: |o, _| source(o, "/source", "/reportingComponent").into(),
    message: |o, _| text(o, "/message").trim().into(),
    first_seen: |o, now| first_seen(o, "/firstTimestamp", now).into(),
    count: |o, _| count(o, "/count").into(),
};

const NEW: View = View {
    last_seen: |o, now| last_seen(o, "/deprecatedFirstTimestamp", "/deprecatedLastTimestamp", now).into(),
    object: |o, _| target(o, "/regarding").into(),
    field_path: "/regarding/fieldPath",
    source: |o, _| source(o, "/deprecatedSource", "/reportingController").into(),
    message: |o, _| text(o, "/note").trim().into(),
    first_seen: |o, now| first_seen(o, "/deprecatedFirstTimestamp", now).into(),
    count: |o, _| count(o, "/deprecatedCount").into(),
};

fn columns(view: &View) -> Vec<Column> {
    vec![
        Column::computed("Last Seen", view.last_seen),
        Column::or("Type", "/type", ""),
        Column::or("Reason", "/reason", ""),
        Column::computed("Object", view.object),
        Column::or("Subobject", view.field_path, "").wide(),
        Column::computed("Source", view.source).wide(),
        Column::computed("Message", view.message),
        Column::computed("First Seen", view.first_seen).wide(),
        Column::computed("Count", view.count).wide(),
        Column::new("Name", "/metadata/name").wide(),
    ]
}

fn first_seen(event: &Value, first: &str, now: Timestamp) -> String {
    match text(event, first) {
        "" => since(event, "/eventTime", now),
        _ => since(event, first, now),
    }
}

fn last_seen(event: &Value, first: &str, last: &str, now: Timestamp) -> String {
    if event["series"].is_object() {
        return since(event, "/series/lastObservedTime", now);
    }
    match text(event, last) {
        "" => first_seen(event, first, now),
        _ => since(event, last, now),
    }
}

fn count(event: &Value, pointer: &str) -> i64 {
    match event["series"].is_object() {
        true => number(event, "/series/count"),
        false => number(event, pointer).max(1),
    }
}

fn target(event: &Value, pointer: &str) -> String {
    let kind = text(event, &format!("{pointer}/kind")).to_lowercase();
    match text(event, &format!("{pointer}/name")) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value, pointer: &str, controller: &str) -> String {
    let component = or(text(event, &format!("{pointer}/component")), text(event, controller));
    match or(text(event, &format!("{pointer}/host")), text(event, "/reportingInstance")) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}
