//! `Event` of the core group and of `events.k8s.io`: two views of the same objects, kept as core/v1.
//! Upstream: `pkg/registry/core/event`, `pkg/apis/events/v1/conversion.go`.

use crate::cells::{number, or, since, text};
use api::resource::{Column, Field, Resource, Scope};
use api::strategy::{Context, DynStrategy, Outcome, Thin};
use api::{FieldErrors, Status};
use jiff::Timestamp;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    let parts = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
        .map(|part| Field::new(&format!("involvedObject.{part}")));
    let mut fields = parts.to_vec();
    fields.extend([
        Field::new("reason"),
        Field::new("reportingComponent"),
        Field::at("source", "/source/component").or("/reportingComponent"),
        Field::new("type"),
    ]);
    Resource::new("", "v1", "Event", "events", Scope::Namespaced)
        .short_names(&["ev"])
        .fields(fields)
        .columns(columns(&CORE))
        .rules(Rules { names: &[] })
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
        .rules(Rules { names: &NAMES })
        .shares("", "events", "v1")
}

/// What a field is called where it is kept (core/v1), and in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// How long an event is kept after its last change. Upstream: `--event-ttl`.
const TTL_SECONDS: u32 = 3600;

/// Both versions follow the same rules; the newer one has other names.
struct Rules {
    names: &'static [(&'static str, &'static str)],
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

impl DynStrategy for Rules {
    fn default(&self, object: &mut Value) -> Result<(), Status> {
        Thin.default(object)
    }
    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.create(object, errors, cx)
    }
    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.update(new, old, errors, cx)
    }
    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.update_status(new, old, errors, cx)
    }
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Result<Option<i64>, Status> {
        Thin.grace_seconds(object, asked)
    }
    /// The old version never asked for more than that a name fits into a path, and clients rely on it.
    /// Upstream: `ValidateEventCreate`.
    fn name_faults(&self, name: &str) -> Vec<String> {
        match self.names.is_empty() {
            true => api::names::path_segment(name),
            false => api::names::dns_subdomain(name),
        }
    }
    fn allow_create_on_update(&self) -> bool {
        true
    }
    /// Events only tell people: see ADR 2.
    fn may_lose(&self, _: &Value, _: Option<&Value>) -> bool {
        true
    }
    fn ttl_seconds(&self) -> Option<u32> {
        Some(TTL_SECONDS)
    }
    fn converts(&self) -> bool {
        !self.names.is_empty()
    }
    fn from_stored(&self, object: &mut Value) -> Result<(), Status> {
        rename(object, self.names.iter().copied());
        object["apiVersion"] = "events.k8s.io/v1".into();
        Ok(())
    }
    fn to_stored(&self, object: &mut Value) -> Result<(), Status> {
        rename(object, self.names.iter().map(|(kept, shown)| (*shown, *kept)));
        Ok(())
    }
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
        Column::object_name().wide(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_versions_show_the_same_event() {
        let kept = json!({"apiVersion": "v1", "involvedObject": {"name": "p"}, "message": "m", "reason": "r",
            "source": {"component": "c"}, "firstTimestamp": null, "lastTimestamp": "t", "count": 2,
            "reportingComponent": "k", "related": {"name": "q"}});
        let shown = json!({"apiVersion": "events.k8s.io/v1", "regarding": {"name": "p"}, "note": "m", "reason": "r",
            "deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": "t",
            "deprecatedCount": 2, "reportingController": "k", "related": {"name": "q"}});
        let strategy = events_k8s_io().strategy;
        let mut object = kept.clone();
        strategy.from_stored(&mut object).unwrap();
        assert_eq!(object, shown);
        strategy.to_stored(&mut object).unwrap();
        object["apiVersion"] = "v1".into();
        assert_eq!(object, kept);
        assert!(!resource().strategy.converts());
    }

    /// Upstream: `pkg/printers/internalversion/printers.go`, `eventColumnDefinitions`.
    #[test]
    fn the_name_is_for_wide_tables_only() {
        for row in [resource(), events_k8s_io()] {
            let shown: Vec<_> = row
                .columns
                .iter()
                .filter(|column| column.priority == 0)
                .map(|column| &*column.name)
                .collect();
            assert_eq!(shown, ["Last Seen", "Type", "Reason", "Object", "Message"]);
            assert_eq!(row.columns.last().map(|column| &*column.name), Some("Name"));
        }
    }
}
