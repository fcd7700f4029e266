//! Ping sources: an event at set times, sent by this process. Upstream: `pkg/reconciler/pingsource`,
//! `pkg/adapter/mtping`, `pkg/apis/sources/v1/ping_lifecycle.go`.

use crate::delivery::{self, Format, Parcel, Post, SOURCE_RETRY};
use crate::event::Event;
use crate::event::record::Kept;
use crate::kinds::{PingSource, name_of, namespace_of, text};
use crate::marks;
use crate::resolve;
use api::cron::Schedule;
use api::{ObjectName, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Clock, Context, Controller, Error, Next};
use duck::conditions::Conditions;
use duck::write;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// The conditions of a ping source.
const CONDITIONS: &[&str] = &["Deployed", "OIDCIdentityCreated", "SinkProvided"];
/// The type of its events.
const EVENT_TYPE: &str = "dev.knative.sources.ping";
/// When each source is due next.
type Due = Arc<Mutex<HashMap<ObjectName, (String, Timestamp)>>>;

pub(crate) fn controller(cluster_domain: Arc<str>, post: Arc<dyn Post>) -> Controller {
    let due = Due::default();
    let controller = Controller::of::<PingSource>("pingsource-controller");
    resolve::follows::<PingSource>(controller, |own| {
        vec![own.pointer("/spec/sink").cloned().unwrap_or_default()]
    })
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone(), post.clone(), due.clone()))
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    cluster_domain: Arc<str>,
    post: Arc<dyn Post>,
    due: Due,
) -> Result<Next, Error> {
    let found = context.caches.of::<PingSource>().read(&key.namespace, &key.name);
    let next = write::observe(&context, found, CONDITIONS, async |source, conditions| {
        Ok(sync(source, conditions, &context, &cluster_domain, &post, &due))
    })
    .await?;
    if next.is_none() {
        due.lock().remove(&key);
    }
    Ok(next.flatten().map_or(Next::Done, |at| Next::at(&context.clock, at)))
}

/// Says how the source is, sends what is due, and answers when the next event is.
fn sync(
    source: &PingSource,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
    post: &Arc<dyn Post>,
    due: &Due,
) -> Option<Timestamp> {
    marks::identity(conditions);
    let key = ObjectName::new(namespace_of(&source.metadata), name_of(&source.metadata));
    let sink = marks::sink(&source.spec, &key.namespace, "NotFound", conditions, context, cluster_domain)?;
    conditions.status()["ceAttributes"] = json!([{"type": EVENT_TYPE, "source": event_source(source)}]);
    let timing = match timing(source) {
        Ok(timing) => timing,
        Err(message) => {
            conditions.mark("Deployed", "False", "ScheduleInvalid", &message);
            return None;
        }
    };
    // This process is the adapter.
    conditions.mark("Deployed", "True", "", "");
    let now = context.now();
    let said = format!("{} {}", text(&source.spec, "/schedule"), text(&source.spec, "/timezone"));
    let mut due = due.lock();
    let is_due = due.get(&key).is_some_and(|(own, at)| *own == said && *at <= now);
    let is_known = due.get(&key).is_some_and(|(own, _)| *own == said);
    if is_due {
        let (post, clock) = (post.clone(), context.clock.clone());
        tokio::spawn(send(event(source, now), sink, key.namespace.to_string(), post, clock));
    }
    if is_due || !is_known {
        match timing.0.next_after(now, &timing.1) {
            Some(at) => drop(due.insert(key.clone(), (said, at))),
            None => drop(due.remove(&key)),
        }
    }
    due.get(&key).map(|(_, at)| *at)
}

fn timing(source: &PingSource) -> Result<(Schedule, TimeZone), String> {
    let schedule = Schedule::parse(text(&source.spec, "/schedule")).map_err(|error| error.to_string())?;
    let zone = match text(&source.spec, "/timezone") {
        "" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|error| error.to_string())?,
    };
    Ok((schedule, zone))
}

fn event_source(source: &PingSource) -> String {
    let meta = &source.metadata;
    format!("/apis/v1/namespaces/{}/pingsources/{}", namespace_of(meta), name_of(meta))
}

/// The event of a moment.
fn event(source: &PingSource, now: Timestamp) -> Event {
    let uid = source.metadata.uid.as_deref().unwrap_or_default();
    let mut event = Event::new(&format!("{uid}-{}", now.as_millisecond()), &event_source(source), EVENT_TYPE);
    let spec = &source.spec;
    let data = match (text(spec, "/data"), text(spec, "/dataBase64")) {
        ("", encoded) => Bytes::from(STANDARD.decode(encoded).unwrap_or_default()),
        (data, _) => Bytes::from(data.to_owned()),
    };
    let extensions = spec.pointer("/ceOverrides/extensions").and_then(serde_json::Value::as_object);
    let content = match text(spec, "/contentType") {
        "" if data.is_empty() => "",
        "" => "application/json",
        own => own,
    };
    let attributes = [("time", api::time_text::format_seconds(now)), ("datacontenttype", content.to_owned())];
    let extensions = extensions
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default().to_owned()));
    for (name, value) in attributes.into_iter().chain(extensions).filter(|(_, value)| !value.is_empty()) {
        if let Err(error) = event.set(name, value) {
            tracing::warn!(name, %error, "an attribute of a ping source's event is left out");
        }
    }
    event.data = Some(data).filter(|own| !own.is_empty());
    event
}

/// Sends an event, some times if need be. What nobody takes then is lost, as upstream's is: the next one comes.
async fn send(event: Event, sink: String, namespace: String, post: Arc<dyn Post>, clock: Clock) {
    let kept = Kept { event, headers: Vec::new() };
    let parcel = Parcel { kept: &kept, namespace: &namespace, format: Format::Binary, wants_reply: false };
    if let Err(failure) = delivery::post_again(&*post, &clock, parcel, &sink, &SOURCE_RETRY).await {
        tracing::warn!(
            sink,
            id = kept.event.id,
            code = failure.code,
            "nobody took an event of a ping source"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_what_the_source_says() {
        let meta = json!({"namespace": "a", "name": "p", "uid": "u"});
        let spec = json!({"data": "{\"x\":1}", "contentType": "application/json", "ceOverrides": {"extensions": {"own": "1"}}});
        let source = PingSource::new(serde_json::from_value(meta).unwrap(), spec);
        let made = event(&source, Timestamp::UNIX_EPOCH);
        assert_eq!((made.id.as_str(), made.attribute("type")), ("u-0", Some(EVENT_TYPE)));
        assert_eq!(made.attribute("source"), Some("/apis/v1/namespaces/a/pingsources/p"));
        assert_eq!(
            (made.attribute("own"), made.attribute("datacontenttype")),
            (Some("1"), Some("application/json"))
        );
        assert_eq!(made.attribute("time"), Some("1970-01-01T00:00:00Z"));
        assert_eq!(made.data.as_deref(), Some(&b"{\"x\":1}"[..]));
        made.validate().unwrap();
    }
}
