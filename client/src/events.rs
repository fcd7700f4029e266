//! Telling people what happened: core/v1 Events, joined where they repeat and bounded where they flood.
//!
//! Upstream: client-go `tools/record`, with its bounds.

use crate::client::Client;
use crate::clock::{Clock, time};
use crate::params::Patch;
use crate::resource::{Kind, ResourceRef};
use api::{Object, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Events that wait to be written; more are dropped, as upstream drops them.
const QUEUE_LEN_MAX: usize = 1000;
/// Different messages of one reason for one object before they are shown as one.
const SIMILAR_MAX: usize = 10;
/// How long similar events are counted together.
const SIMILAR_SECONDS: i64 = 600;
/// Events of one component about one object at once.
const BURST: f64 = 25.0;
/// Then one in this many seconds.
const REFILL_SECONDS: f64 = 300.0;
/// Objects and messages that are remembered.
const MEMORY_LEN_MAX: usize = 4096;
/// Upstream's bound on `message`.
const MESSAGE_BYTES_MAX: usize = 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EventType {
    Normal,
    Warning,
}

/// Records events for a component. Never blocks and never fails: an event that cannot be written is dropped.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Record>,
    component: Arc<str>,
    host: Arc<str>,
}

struct Record {
    component: Arc<str>,
    host: Arc<str>,
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// The reference of an event to a typed object.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl ResourceRef {
    /// The reference of an event to an object of this resource.
    pub fn reference(&self, object: &Object) -> ObjectReference {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ObjectReference {
            api_version: Some(self.api_version()),
            kind: some(&self.kind),
            namespace: some(object.meta.namespace()),
            name: some(object.meta.name()),
            uid: some(&object.meta.uid),
            resource_version: Some(object.meta.resource_version.to_string()),
            field_path: None,
        }
    }
}

impl EventRecorder {
    /// Starts the task that writes; it ends with the last clone. `host` is the node for components of a node, else empty.
    pub fn new(client: Client, clock: Clock, component: &str, host: &str) -> Self {
        let (queue, records) = mpsc::channel(QUEUE_LEN_MAX);
        tokio::spawn(write_all(client, clock, records));
        Self { queue, component: component.into(), host: host.into() }
    }

    /// The same recorder under the name of another component.
    pub fn named(&self, component: &str) -> Self {
        Self { queue: self.queue.clone(), component: component.into(), host: self.host.clone() }
    }

    /// Records what happened to an object: `reason` for programs, `message` for people.
    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let record = Record {
            component: self.component.clone(),
            host: self.host.clone(),
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
        };
        if self.queue.try_send(record).is_err() {
            tracing::warn!(component = %self.component, reason, "an event is dropped");
        }
    }

    /// Something that is as it should be.
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, message);
    }

    /// Something somebody should look at.
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, message);
    }
}

async fn write_all(client: Client, clock: Clock, mut records: mpsc::Receiver<Record>) {
    let mut correlator = Correlator::default();
    while let Some(record) = records.recv().await {
        let Some((identity, step)) = correlator.step(&record, clock.now()) else { continue };
        match step {
            Step::Create(event) => create(&client, &event).await,
            Step::Count { namespace, name, patch, event } => {
                let api = client.namespaced::<Event>(&namespace);
                match api.patch(&name, Patch::Strategic(patch)).await {
                    Err(status) if status.is_not_found() => {
                        // It has expired: tell it anew, under a new name.
                        correlator.known.insert(identity, known(&event, clock.now()));
                        create(&client, &event).await;
                    }
                    Err(status) => tracing::debug!(%status, "an event cannot be counted"),
                    Ok(_) => {}
                }
            }
        }
    }
}

async fn create(client: &Client, event: &Event) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    if let Err(status) = client.namespaced::<Event>(namespace).create(event).await {
        tracing::debug!(%status, reason = event.reason, "an event cannot be written");
    }
}

enum Step {
    Create(Box<Event>),
    Count { namespace: String, name: String, patch: serde_json::Value, event: Box<Event> },
}

type Identity = Vec<String>;

/// Decides what becomes of a record. Pure.
#[derive(Default)]
struct Correlator {
    known: HashMap<Identity, Known>,
    similar: HashMap<Identity, Similar>,
    buckets: HashMap<Identity, Bucket>,
}

struct Known {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

struct Similar {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

fn known(event: &Event, now: Timestamp) -> Known {
    Known { name: event.metadata.name.clone().unwrap_or_default(), count: 1, first: now, last: now }
}

impl Correlator {
    fn step(&mut self, record: &Record, now: Timestamp) -> Option<(Identity, Step)> {
        let about = &record.about;
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let source: Identity = vec![
            record.component.to_string(),
            record.host.to_string(),
            of(&about.kind),
            of(&about.namespace),
            of(&about.name),
            of(&about.uid),
            of(&about.api_version),
            of(&about.field_path),
        ];
        self.bound_memory(now);
        if !self.take(&source, now) {
            return None;
        }
        let mut identity = source;
        identity.extend([format!("{:?}", record.kind), record.reason.clone()]);
        let similar = self
            .similar
            .entry(identity.clone())
            .or_insert_with(|| Similar { messages: HashSet::new(), last: now });
        if (now - similar.last).get_seconds() > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        let mut message = clip(&record.message);
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.insert(record.message.clone());
        }
        if similar.messages.len() >= SIMILAR_MAX {
            message = clip(&format!("(combined from similar events): {}", record.message));
        } else {
            identity.push(record.message.clone());
        }
        let event = event(record, message, now);
        let Some(known_event) = self.known.get_mut(&identity) else {
            self.known.insert(identity.clone(), known(&event, now));
            return Some((identity, Step::Create(Box::new(event))));
        };
        known_event.count += 1;
        known_event.last = now;
        let patch = serde_json::json!({
            "count": known_event.count,
            "firstTimestamp": time(known_event.first),
            "lastTimestamp": event.last_timestamp,
            "message": event.message,
        });
        let step = Step::Count {
            namespace: event.metadata.namespace.clone().unwrap_or_default(),
            name: known_event.name.clone(),
            patch,
            event: Box::new(event),
        };
        Some((identity, step))
    }

    fn take(&mut self, source: &Identity, now: Timestamp) -> bool {
        let bucket =
            self.buckets.entry(source.clone()).or_insert_with(|| Bucket { tokens: BURST, last: now });
        let passed = (now - bucket.last).get_seconds() as f64;
        bucket.tokens = (bucket.tokens + passed / REFILL_SECONDS).min(BURST);
        if passed > 0.0 {
            bucket.last = now;
        }
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Forgets what is old, and everything if that is not enough.
    fn bound_memory(&mut self, now: Timestamp) {
        let is_recent = |last: &Timestamp| (now - *last).get_seconds() <= SIMILAR_SECONDS;
        if self.known.len() >= MEMORY_LEN_MAX {
            self.known.retain(|_, known| is_recent(&known.last));
        }
        if self.similar.len() >= MEMORY_LEN_MAX {
            self.similar.retain(|_, similar| is_recent(&similar.last));
        }
        if self.buckets.len() >= MEMORY_LEN_MAX {
            self.buckets.retain(|_, bucket| is_recent(&bucket.last));
        }
        if self.known.len().max(self.similar.len()).max(self.buckets.len()) >= MEMORY_LEN_MAX {
            *self = Self::default();
        }
    }
}

fn clip(message: &str) -> String {
    let end = (0..=message.len().min(MESSAGE_BYTES_MAX)).rev().find(|at| message.is_char_boundary(*at));
    message[..end.unwrap_or(0)].to_owned()
}

fn event(record: &Record, message: String, now: Timestamp) -> Event {
    let about = &record.about;
    let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
    let (name, component) = (about.name.as_deref().unwrap_or_default(), record.component.to_string());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(format!("{:?}", record.kind)),
        reason: Some(record.reason.clone()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(time(now)),
        last_timestamp: Some(time(now)),
        source: Some(EventSource {
            component: Some(component.clone()),
            host: (!record.host.is_empty()).then(|| record.host.to_string()),
        }),
        reporting_component: Some(component),
        reporting_instance: Some(record.host.to_string()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str) -> Record {
        let about = ObjectReference { name: Some("a".to_owned()), ..ObjectReference::default() };
        let reason = "Why".to_owned();
        Record {
            component: "c".into(),
            host: "".into(),
            about,
            kind: EventType::Normal,
            reason,
            message: message.to_owned(),
        }
    }

    /// What is done at second `at` with a message.
    fn step(correlator: &mut Correlator, message: &str, at: i64) -> String {
        match correlator.step(&record(message), Timestamp::from_second(at).unwrap()) {
            None => "dropped".to_owned(),
            Some((_, Step::Create(event))) => format!("create {}", event.message.unwrap()),
            Some((_, Step::Count { patch, .. })) => format!("count {}", patch["count"]),
        }
    }

    #[test]
    fn the_same_event_again_is_counted() {
        let mut correlator = Correlator::default();
        assert_eq!(step(&mut correlator, "x", 1), "create x");
        assert_eq!(step(&mut correlator, "x", 2), "count 2");
        assert_eq!(step(&mut correlator, "x", 3), "count 3");
    }

    #[test]
    fn many_similar_events_become_one() {
        let mut correlator = Correlator::default();
        for number in 0..9 {
            assert_eq!(step(&mut correlator, &number.to_string(), 1), format!("create {number}"));
        }
        assert_eq!(step(&mut correlator, "n", 1), "create (combined from similar events): n");
        assert_eq!(step(&mut correlator, "m", 1), "count 2");
        assert_eq!(step(&mut correlator, "o", 1000), "create o");
    }

    #[test]
    fn a_flood_is_dropped_until_time_has_passed() {
        let mut correlator = Correlator::default();
        for _ in 0..25 {
            assert_ne!(step(&mut correlator, "x", 1), "dropped");
        }
        assert_eq!(step(&mut correlator, "x", 1), "dropped");
        assert_eq!(step(&mut correlator, "x", 200), "dropped");
        assert_eq!(step(&mut correlator, "x", 302), "count 26");
    }
}
