//! Subscriptions. Upstream: `pkg/reconciler/subscription`, `pkg/apis/messaging/v1/subscription_lifecycle.go`.

use crate::in_memory_channel::backing;
use crate::kinds::{Channel, InMemoryChannel, Subscription, namespace_of, text};
use crate::marks;
use crate::resolve;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::conditions::{Conditions, state};
use duck::write;
use serde_json::{Value, json};
use std::sync::Arc;

/// The conditions of a subscription.
const CONDITIONS: &[&str] = &["AddedToChannel", "ChannelReady", "OIDCIdentityCreated", "ReferencesResolved"];

pub(crate) fn controller(cluster_domain: Arc<str>) -> Controller {
    let controller = Controller::of::<Subscription>("subscription-controller");
    resolve::follows::<Subscription>(controller, |own| {
        let at = |pointer: &str| own.pointer(pointer).cloned().unwrap_or_default();
        vec![
            at("/spec/channel"),
            at("/spec/subscriber"),
            at("/spec/reply"),
            at("/spec/delivery/deadLetterSink"),
        ]
    })
    .watches::<InMemoryChannel>(|delta, context| {
        // Those of a channel hear of the object behind it.
        let all = context.caches.of::<Subscription>().read_all(&delta.key.namespace);
        let is_meant = |own: &Subscription| backing(own, context).as_deref() == Some(&*delta.key.name);
        let name = |own: Subscription| {
            ObjectName::new(&delta.key.namespace, own.metadata.name.as_deref().unwrap_or_default())
        };
        all.into_iter().filter(is_meant).map(name).collect()
    })
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone()))
}

async fn reconcile(key: ObjectName, context: Arc<Context>, cluster_domain: Arc<str>) -> Result<Next, Error> {
    let found = context.caches.of::<Subscription>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |subscription, conditions| {
        sync(subscription, conditions, &context, &cluster_domain);
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}

fn sync(
    subscription: &Subscription,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) {
    marks::identity(conditions);
    let namespace = namespace_of(&subscription.metadata);
    let mut physical = json!({});
    let wanted = [
        ("/spec/subscriber", &subscription.spec["subscriber"], "subscriberUri", "SubscriberResolveFailed"),
        ("/spec/reply", &subscription.spec["reply"], "replyUri", "ReplyResolveFailed"),
        (
            "/spec/delivery/deadLetterSink",
            &subscription.spec["delivery"]["deadLetterSink"],
            "deadLetterSinkUri",
            "DeadLetterSinkResolveFailed",
        ),
    ];
    for (path, destination, field, reason) in wanted {
        if destination.as_object().is_none_or(serde_json::Map::is_empty) {
            continue;
        }
        match resolve::uri(destination, namespace, context, cluster_domain) {
            Ok(uri) => physical[field] = uri.into(),
            Err(error) => {
                conditions.status()["physicalSubscription"] = json!({});
                let message = format!("Failed to resolve {}: {error}", &path[1..].replace('/', "."));
                return conditions.mark("ReferencesResolved", "False", reason, &message);
            }
        }
    }
    conditions.status()["physicalSubscription"] = physical;
    conditions.mark("ReferencesResolved", "True", "", "");
    take_channel(subscription, conditions, context);
}

fn take_channel(subscription: &Subscription, conditions: &mut Conditions<'_>, context: &Context) {
    let namespace = namespace_of(&subscription.metadata);
    let (kind, name) = (text(&subscription.spec, "/channel/kind"), text(&subscription.spec, "/channel/name"));
    let status = match kind {
        "Channel" => context.caches.of::<Channel>().read(namespace, name).map(|own| own.status),
        _ => context.caches.of::<InMemoryChannel>().read(namespace, name).map(|own| own.status),
    };
    let Some(status) = status else {
        let message = format!("Failed to get referenced channel with error: {kind} {name:?} not found");
        conditions.mark("ReferencesResolved", "False", "ChannelReferenceFailed", &message);
        return;
    };
    let uid = subscription.metadata.uid.clone().unwrap_or_default();
    let found = backing(subscription, context)
        .and_then(|own| context.caches.of::<InMemoryChannel>().read(namespace, &own));
    let list = |value: &Value| value["subscribers"].as_array().cloned().unwrap_or_default();
    let of_us = |value: &Value| list(value).into_iter().find(|own| own["uid"] == *uid);
    let is_added = found.as_ref().is_some_and(|own| of_us(&own.spec).is_some());
    match is_added {
        true => conditions.mark("AddedToChannel", "True", "", ""),
        false => conditions.mark(
            "AddedToChannel",
            "Unknown",
            "NotAdded",
            "The channel does not know the subscription yet.",
        ),
    }
    let is_served =
        found.as_ref().and_then(|own| of_us(&own.status)).is_some_and(|own| own["ready"] == "True");
    match (state(&status, "Ready"), is_served) {
        ("True", true) => conditions.mark("ChannelReady", "True", "", ""),
        ("False", _) => {
            conditions.mark("ChannelReady", "False", "ChannelNotReady", "The channel is not ready.")
        }
        _ => {
            let message = "subscription is not yet ready in the channel";
            conditions.mark("ChannelReady", "Unknown", "SubscriptionNotMarkedReadyByChannel", message);
        }
    }
}
