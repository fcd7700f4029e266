//! From objects to the data plane's table, and back: who is served by now.
//!
//! # Flow
//! A change of any broker, trigger or channel → a new table of all of them → the data plane has it → those who were new in it hear
//! so, and become ready. Changes that come meanwhile make one more table.

use crate::delivery::{Format, Retry, retry::Spec};
use crate::dispatch::{Eventing, Kind, Name, Reply, Source, Subscriber, Table};
use crate::filter::Filter;
use crate::kinds::{Broker, InMemoryChannel, Trigger, annotation, name_of, namespace_of, text};
use client::{Caches, Context};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// The class of brokers that are ours.
pub(crate) const BROKER_CLASS: &str = "MTChannelBasedBroker";
/// Says of which class a broker is.
pub(crate) const BROKER_CLASS_KEY: &str = "eventing.knative.dev/broker.class";
/// How long changes are gathered before a table is made of them.
const GATHER: Duration = Duration::from_millis(2);
/// Before a table that the disk refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the data plane serves by now: UIDs of subscribers with the URI they have, and of brokers and channels with all of theirs, so that
/// whoever speaks of its subscribers in its status hears when one comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Programmed(BTreeMap<String, String>);

impl Programmed {
    fn of(table: &Table) -> Self {
        let shown = |own: &Subscriber| format!("{} {}\n", own.uid, own.uri.as_deref().unwrap_or_default());
        let sources =
            table.values().map(|source| (source.uid.clone(), source.subscribers.iter().map(shown).collect()));
        let subscribers = table.values().flat_map(|source| &source.subscribers);
        let subscribers = subscribers.map(|own| (own.uid.clone(), own.uri.clone().unwrap_or_default()));
        Self(sources.chain(subscribers).collect())
    }

    /// Whether a broker or channel takes events.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }

    /// Whether a subscriber gets its events at this URI.
    pub(crate) fn serves(&self, uid: &str, uri: &str) -> bool {
        self.0.get(uid).is_some_and(|own| own == uri)
    }
}

/// Keeps the data plane's table what the objects say, until `stop`. `first` hears when the first table was tried.
pub(crate) async fn run(
    caches: Caches,
    eventing: Eventing,
    programmed: watch::Sender<Programmed>,
    first: oneshot::Sender<()>,
    stop: CancellationToken,
) {
    let (brokers, triggers, channels) =
        (caches.of::<Broker>(), caches.of::<Trigger>(), caches.of::<InMemoryChannel>());
    let (mut a, mut b, mut c) = (brokers.subscribe(), triggers.subscribe(), channels.subscribe());
    // What is not in a table is gone for good: the first one must be whole.
    tokio::select! {
        () = async { tokio::join!(brokers.synced(), triggers.synced(), channels.synced()); } => {}
        () = stop.cancelled() => return,
    }
    let mut first = Some(first);
    loop {
        let table = table(&brokers.read_all(""), &triggers.read_all(""), &channels.read_all(""));
        let after = Programmed::of(&table);
        let set = eventing.set(table).await;
        if let Some(first) = first.take() {
            // Who waited may have been stopped.
            let _ = first.send(());
        }
        match set {
            Ok(()) => drop(programmed.send_if_modified(|own| {
                let is_new = *own != after;
                *own = after;
                is_new
            })),
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the table of events is not in effect"
                );
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => continue,
                    () = stop.cancelled() => return,
                }
            }
        }
        tokio::select! {
            Some(_) = a.next() => {}
            Some(_) = b.next() => {}
            Some(_) = c.next() => {}
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(GATHER).await;
        while a.try_next().is_some() || b.try_next().is_some() || c.try_next().is_some() {}
    }
}

/// Puts into the loop's queue whose state has changed.
pub(crate) async fn requeue<K: client::Kind>(
    context: Arc<Context>,
    mut programmed: watch::Receiver<Programmed>,
) {
    let mut before = Programmed::default();
    loop {
        let now = programmed.borrow_and_update().clone();
        for object in context.caches.of::<K>().list("") {
            if before.0.get(&*object.meta.uid) != now.0.get(&*object.meta.uid) {
                context.queue.add(object.meta.key.clone());
            }
        }
        before = now;
        if programmed.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a broker is ours.
pub(crate) fn is_ours(broker: &Broker) -> bool {
    annotation(&broker.metadata, BROKER_CLASS_KEY) == Some(BROKER_CLASS)
}

/// The table of everything that there is. Pure.
fn table(brokers: &[Broker], triggers: &[Trigger], channels: &[InMemoryChannel]) -> Table {
    let mut table = Table::new();
    let stays = |meta: &ObjectMeta| meta.deletion_timestamp.is_none();
    for broker in brokers.iter().filter(|own| is_ours(own) && stays(&own.metadata)) {
        table.insert(
            name(Kind::Broker, &broker.metadata),
            Source { uid: uid(&broker.metadata), subscribers: Vec::new() },
        );
    }
    let by_name: HashMap<_, _> =
        brokers.iter().map(|own| ((namespace_of(&own.metadata), name_of(&own.metadata)), own)).collect();
    for trigger in triggers.iter().filter(|own| stays(&own.metadata)) {
        let namespace = namespace_of(&trigger.metadata);
        let broker = text(&trigger.spec, "/broker");
        let wanted = Name { kind: Kind::Broker, namespace: namespace.to_owned(), name: broker.to_owned() };
        if let (Some(source), Some(broker)) = (table.get_mut(&wanted), by_name.get(&(namespace, broker))) {
            source.subscribers.extend(of_trigger(trigger, broker));
        }
    }
    for channel in channels.iter().filter(|own| stays(&own.metadata)) {
        let subscribers = channel.spec["subscribers"].as_array().into_iter().flatten();
        let subscribers = subscribers.map(|own| of_channel(channel, own)).collect();
        table.insert(
            name(Kind::Channel, &channel.metadata),
            Source { uid: uid(&channel.metadata), subscribers },
        );
    }
    table
}

fn uid(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn name(kind: Kind, meta: &ObjectMeta) -> Name {
    Name { kind, namespace: namespace_of(meta).to_owned(), name: name_of(meta).to_owned() }
}

fn set(value: &Value, pointer: &str) -> Option<String> {
    Some(text(value, pointer)).filter(|own| !own.is_empty()).map(str::to_owned)
}

/// `None` for a trigger whose filters cannot be read: it takes nothing, and its status says so.
fn of_trigger(trigger: &Trigger, broker: &Broker) -> Option<Subscriber> {
    let has_own = trigger.spec["delivery"].is_object();
    // A trigger's delivery replaces the broker's as a whole.
    let delivery = if has_own { &trigger.spec["delivery"] } else { &broker.spec["delivery"] };
    let dead_letter = set(if has_own { &trigger.status } else { &broker.status }, "/deadLetterSinkUri");
    Some(Subscriber {
        uid: uid(&trigger.metadata),
        namespace: namespace_of(&trigger.metadata).to_owned(),
        name: name_of(&trigger.metadata).to_owned(),
        uri: set(&trigger.status, "/subscriberUri"),
        filter: filter(trigger).ok()?,
        reply: Reply::Broker,
        retry: retry(delivery),
        format: format(delivery),
        dead_letter,
        in_flight_max: 1,
    })
}

/// The filter of a trigger.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn filter(trigger: &Trigger) -> Result<Filter, String> {
    let attributes = trigger.spec.pointer("/filter/attributes").and_then(Value::as_object);
    let attributes = attributes.map(|own| {
        own.iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect()
    });
    Filter::of(&trigger.spec["filters"], attributes).map_err(|faults| {
        faults.iter().map(|own| format!("{}: {}", own.path, own.message)).collect::<Vec<_>>().join("; ")
    })
}

fn of_channel(channel: &InMemoryChannel, own: &Value) -> Subscriber {
    let delivery = if own["delivery"].is_object() { &own["delivery"] } else { &channel.spec["delivery"] };
    let dead_letter =
        set(own, "/delivery/deadLetterSink/uri").or_else(|| set(&channel.status, "/deadLetterSinkUri"));
    Subscriber {
        uid: text(own, "/uid").to_owned(),
        namespace: namespace_of(&channel.metadata).to_owned(),
        name: set(own, "/name").unwrap_or_else(|| text(own, "/uid").to_owned()),
        uri: set(own, "/subscriberUri").or_else(|| set(own, "/replyUri")),
        filter: Filter::Everything,
        reply: match (set(own, "/subscriberUri"), set(own, "/replyUri")) {
            (Some(_), Some(to)) => Reply::To(to),
            _ => Reply::Dropped,
        },
        retry: retry(delivery),
        format: format(delivery),
        dead_letter,
        in_flight_max: 1,
    }
}

fn retry(delivery: &Value) -> Retry {
    Retry::of(Spec {
        retry: delivery["retry"].as_i64(),
        backoff_policy: delivery["backoffPolicy"].as_str(),
        backoff_delay: delivery["backoffDelay"].as_str(),
        timeout: delivery["timeout"].as_str(),
        retry_after_max: delivery["retryAfterMax"].as_str(),
    })
}

fn format(delivery: &Value) -> Format {
    if delivery["format"] == "json" { Format::Json } else { Format::Binary }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(name: &str, uid: &str) -> ObjectMeta {
        serde_json::from_value(json!({"namespace": "a", "name": name, "uid": uid,
            "annotations": {BROKER_CLASS_KEY: BROKER_CLASS}}))
        .unwrap()
    }

    #[test]
    fn triggers_belong_to_their_broker_and_inherit_its_delivery() {
        let mut broker = Broker::new(meta("own", "b"), json!({"delivery": {"retry": 7}}));
        broker.status = json!({"deadLetterSinkUri": "http://dead"});
        let mut foreign = Broker::new(meta("foreign", "f"), Value::Null);
        foreign.metadata.annotations = None;
        let trigger = |name: &str, broker: &str, delivery: Value| {
            let mut own = Trigger::new(
                meta(name, name),
                json!({"broker": broker, "filter": {"attributes": {"type": "x"}}}),
            );
            if !delivery.is_null() {
                own.spec["delivery"] = delivery;
            }
            own.status = json!({"subscriberUri": format!("http://{name}")});
            own
        };
        let triggers = [
            trigger("one", "own", Value::Null),
            trigger("two", "own", json!({"retry": 2})),
            trigger("three", "foreign", Value::Null),
        ];
        let table = table(&[broker, foreign], &triggers, &[]);
        let shown: Vec<_> = table
            .iter()
            .flat_map(|(name, source)| {
                source.subscribers.iter().map(move |own| {
                    (name.name.as_str(), own.uid.as_str(), own.retry.retry, own.dead_letter.as_deref())
                })
            })
            .collect();
        assert_eq!(shown, [("own", "one", 7, Some("http://dead")), ("own", "two", 2, None)]);
        assert_eq!(table.len(), 1);
        let programmed = Programmed::of(&table);
        assert_ne!(programmed.0["b"], "", "a broker's entry changes with its triggers");
        assert!(
            programmed.has("b")
                && programmed.serves("one", "http://one")
                && !programmed.serves("one", "http://x")
        );
    }

    #[test]
    fn channels_have_the_subscribers_that_they_name() {
        let spec = json!({"subscribers": [
            {"uid": "s", "subscriberUri": "http://sub", "replyUri": "http://reply", "delivery": {"retry": 1, "deadLetterSink": {"uri": "http://dead"}}},
            {"uid": "r", "replyUri": "http://only"}]});
        let table = table(&[], &[], &[InMemoryChannel::new(meta("ch", "c"), spec)]);
        let source = table.values().next().unwrap();
        let own = &source.subscribers[0];
        assert_eq!(
            (own.uri.as_deref(), &own.reply),
            (Some("http://sub"), &Reply::To("http://reply".to_owned()))
        );
        assert_eq!((own.retry.retry, own.dead_letter.as_deref()), (1, Some("http://dead")));
        assert_eq!(
            (source.subscribers[1].uri.as_deref(), &source.subscribers[1].reply),
            (Some("http://only"), &Reply::Dropped)
        );
    }
}
