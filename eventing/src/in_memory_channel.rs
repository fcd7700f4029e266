//! In-memory channels, which here keep their events on the disk. Upstream: `pkg/reconciler/inmemorychannel`,
//! `pkg/apis/messaging/v1/in_memory_channel_lifecycle.go`.

use crate::kinds::{
    Channel, InMemoryChannel, Subscription, controller_reference, is_controlled_by, name_of, namespace_of,
    text,
};
use crate::marks;
use crate::program::{Programmed, requeue};
use crate::resolve;
use api::ObjectName;
use client::{Context, Controller, Error, Next, Patch};
use duck::conditions::Conditions;
use duck::write;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The conditions of an in-memory channel.
const CONDITIONS: &[&str] = &[
    "Addressable",
    "ChannelServiceReady",
    "DeadLetterSinkResolved",
    "DispatcherReady",
    "EndpointsReady",
    "EventPoliciesReady",
    "ServiceReady",
];

pub(crate) fn controller(cluster_domain: Arc<str>, programmed: watch::Receiver<Programmed>) -> Controller {
    let told = programmed.clone();
    let controller = Controller::of::<InMemoryChannel>("inmemorychannel-controller")
        .owns::<Service>()
        .watches::<Channel>(|delta, _| {
            // Subscriptions to a channel are ours once it says who is behind it, which may be after they came.
            let behind = delta.new.as_ref().and_then(|own| own.decode::<Channel>().ok());
            let name = behind.map(|own| text(&own.status, "/channel/name").to_owned()).unwrap_or_default();
            (!name.is_empty()).then(|| ObjectName::new(&delta.key.namespace, &name)).into_iter().collect()
        })
        .watches::<Subscription>(|delta, context| {
            let versions = [delta.old.as_deref(), delta.new.as_deref()];
            let of = |own: &api::Object| {
                let own: Subscription = own.decode().ok()?;
                let name = backing(&own, context)?;
                Some(ObjectName::new(&delta.key.namespace, &name))
            };
            versions.into_iter().flatten().filter_map(of).collect()
        });
    resolve::follows::<InMemoryChannel>(controller, |own| {
        vec![own.pointer("/spec/delivery/deadLetterSink").cloned().unwrap_or_default()]
    })
    .beside(move |context| requeue::<InMemoryChannel>(context, told))
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone(), programmed.clone()))
}

/// The in-memory channel that a subscription's channel is, or stands for.
pub(crate) fn backing(subscription: &Subscription, context: &Context) -> Option<String> {
    let of = &subscription.spec["channel"];
    let name = text(of, "/name");
    match text(of, "/kind") {
        "InMemoryChannel" => Some(name.to_owned()),
        "Channel" => {
            let channel = context.caches.of::<Channel>().read(namespace_of(&subscription.metadata), name)?;
            let backing = text(&channel.status, "/channel/name");
            (!backing.is_empty()).then(|| backing.to_owned())
        }
        _ => None,
    }
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    cluster_domain: Arc<str>,
    programmed: watch::Receiver<Programmed>,
) -> Result<Next, Error> {
    let found = context.caches.of::<InMemoryChannel>().read(&key.namespace, &key.name);
    let Some(mut channel) = found.filter(|own| own.metadata.deletion_timestamp.is_none()) else {
        return Ok(Next::Done);
    };
    let subscribers = subscribers(&channel, &context);
    let have = channel.spec["subscribers"].as_array().cloned().unwrap_or_default();
    if have != subscribers {
        let patch = Patch::Merge(json!({"spec": {"subscribers": subscribers}}));
        let api = context.client.namespaced::<InMemoryChannel>(&key.namespace);
        channel = api.patch(&key.name, patch).await?;
    }
    let now = programmed.borrow().clone();
    write::observe(&context, Some(channel), CONDITIONS, async |channel, conditions| {
        sync(channel, conditions, &context, &cluster_domain, &now).await
    })
    .await?;
    Ok(Next::Done)
}

/// What the subscriptions of the namespace say of this channel, in order.
fn subscribers(channel: &InMemoryChannel, context: &Context) -> Vec<Value> {
    let all = context.caches.of::<Subscription>().read_all(namespace_of(&channel.metadata));
    let ours = all.iter().filter(|own| {
        own.metadata.deletion_timestamp.is_none()
            && backing(own, context).as_deref() == Some(name_of(&channel.metadata))
    });
    ours.filter_map(subscriber).collect()
}

/// What a channel is told of a subscription; `None` while it is not known where its events go.
fn subscriber(subscription: &Subscription) -> Option<Value> {
    let physical = &subscription.status["physicalSubscription"];
    let uri = |field: &str| physical[field].as_str().filter(|own| !own.is_empty());
    if uri("subscriberUri").is_none() && uri("replyUri").is_none() {
        return None;
    }
    let meta = &subscription.metadata;
    let mut own = json!({"uid": meta.uid, "generation": meta.generation});
    for field in ["subscriberUri", "replyUri"] {
        if let Some(uri) = uri(field) {
            own[field] = uri.into();
        }
    }
    let mut delivery = subscription.spec["delivery"].clone();
    if let Some(map) = delivery.as_object_mut() {
        map.remove("deadLetterSink");
        if let Some(uri) = uri("deadLetterSinkUri") {
            map.insert("deadLetterSink".to_owned(), json!({"uri": uri}));
        }
        own["delivery"] = delivery;
    }
    Some(own)
}

async fn sync(
    channel: &InMemoryChannel,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
    programmed: &Programmed,
) -> Result<(), Error> {
    let namespace = namespace_of(&channel.metadata);
    let is_there = programmed.has(channel.metadata.uid.as_deref().unwrap_or_default());
    marks::log(conditions, &["DispatcherReady", "ServiceReady", "EndpointsReady"], is_there);
    marks::policies(conditions);
    marks::dead_letter_sink(&channel.spec["delivery"], namespace, conditions, context, cluster_domain);
    let want = service(channel, cluster_domain);
    let name = name_of(&want.metadata).to_owned();
    match context.caches.of::<Service>().read(namespace, &name) {
        None => drop(write::create(context, &want).await?),
        Some(have) if !is_controlled_by(&have.metadata, &channel.metadata) => {
            let message = format!(
                "inmemorychannel: {namespace}/{} does not own Service: {name:?}",
                name_of(&channel.metadata)
            );
            conditions.mark("ChannelServiceReady", "False", "ChannelServiceFailed", &message);
            return Ok(());
        }
        Some(_) => {}
    }
    conditions.mark("ChannelServiceReady", "True", "", "");
    let url = format!("http://{name}.{namespace}.svc.{cluster_domain}");
    conditions.status()["address"] = json!({"name": "http", "url": url});
    conditions.mark("Addressable", "True", "", "");
    let subscribers = channel.spec["subscribers"].as_array().into_iter().flatten();
    let shown = subscribers.map(|own| {
        let uri = [text(own, "/subscriberUri"), text(own, "/replyUri")].into_iter().find(|uri| !uri.is_empty());
        let is_served = programmed.serves(text(own, "/uid"), uri.unwrap_or_default());
        json!({"uid": own["uid"], "observedGeneration": own["generation"], "ready": if is_served { "True" } else { "Unknown" }})
    });
    let shown: Vec<Value> = shown.collect();
    conditions.status()["subscribers"] = if shown.is_empty() { Value::Null } else { shown.into() };
    Ok(())
}

/// The name under which producers find the channel.
fn service(channel: &InMemoryChannel, cluster_domain: &str) -> Service {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: 80,
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    };
    Service {
        metadata: ObjectMeta {
            name: Some(duck::names::child(name_of(&channel.metadata), "-kn-channel")),
            namespace: channel.metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(
                "messaging.knative.dev/role".to_owned(),
                "in-memory-channel".to_owned(),
            )])),
            owner_references: Some(vec![controller_reference(channel)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(format!("imc-dispatcher.knative-eventing.svc.{cluster_domain}")),
            ports: Some(vec![port]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_told_where_events_go_once_that_is_known() {
        let check = |physical: Value, expect: Option<Value>| {
            let meta = json!({"name": "s", "uid": "u", "generation": 2});
            let spec = json!({"delivery": {"retry": 1, "deadLetterSink": {"ref": {"name": "x"}}}});
            let mut own = Subscription::new(serde_json::from_value(meta).unwrap(), spec);
            own.status = json!({"physicalSubscription": physical});
            assert_eq!(subscriber(&own), expect);
        };
        check(json!({}), None);
        let expect = json!({"uid": "u", "generation": 2, "subscriberUri": "http://a",
            "delivery": {"retry": 1, "deadLetterSink": {"uri": "http://d"}}});
        check(json!({"subscriberUri": "http://a", "deadLetterSinkUri": "http://d"}), Some(expect));
    }
}
