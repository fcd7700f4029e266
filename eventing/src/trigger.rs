//! Triggers. Upstream: `pkg/reconciler/broker/trigger/trigger.go`, `pkg/apis/eventing/v1/trigger_lifecycle.go`.

use crate::kinds::{Broker, PingSource, Trigger, annotation, namespace_of, text};
use crate::marks;
use crate::program::{Programmed, filter, is_ours, requeue};
use crate::resolve;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::conditions::{Conditions, parts};
use duck::write;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

/// The conditions of a trigger.
const CONDITIONS: &[&str] = &[
    "BrokerReady",
    "DeadLetterSinkResolved",
    "DependencyReady",
    "OIDCIdentityCreated",
    "SubscriberResolved",
    "SubscriptionReady",
];
const DEPENDENCY: &str = "knative.dev/dependency";

pub(crate) fn controller(cluster_domain: Arc<str>, programmed: watch::Receiver<Programmed>) -> Controller {
    let told = programmed.clone();
    let controller =
        Controller::of::<Trigger>("trigger-controller").watches::<PingSource>(|delta, context| {
            let depends = |own: &Trigger| annotation(&own.metadata, DEPENDENCY).is_some();
            let found =
                context.caches.of::<Trigger>().read_all(&delta.key.namespace).into_iter().filter(depends);
            found
                .map(|own| {
                    ObjectName::new(&delta.key.namespace, own.metadata.name.as_deref().unwrap_or_default())
                })
                .collect()
        });
    resolve::follows::<Trigger>(controller, |own| {
        let at = |pointer: &str| own.pointer(pointer).cloned().unwrap_or_default();
        let broker = json!({"kind": "Broker", "name": at("/spec/broker")});
        vec![at("/spec/subscriber"), at("/spec/delivery/deadLetterSink"), broker]
    })
    .beside(move |context| requeue::<Trigger>(context, told))
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone(), programmed.clone()))
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    cluster_domain: Arc<str>,
    programmed: watch::Receiver<Programmed>,
) -> Result<Next, Error> {
    let found = context.caches.of::<Trigger>().read(&key.namespace, &key.name);
    let broker = found
        .as_ref()
        .and_then(|own| context.caches.of::<Broker>().read(&key.namespace, text(&own.spec, "/broker")));
    // A broker of somebody else's class has triggers that are theirs too.
    let found = found.filter(|_| broker.as_ref().is_none_or(is_ours));
    write::observe(&context, found, CONDITIONS, async |trigger, conditions| {
        sync(trigger, broker.as_ref(), conditions, &context, &cluster_domain, &programmed.borrow());
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}

fn sync(
    trigger: &Trigger,
    broker: Option<&Broker>,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
    programmed: &Programmed,
) {
    marks::identity(conditions);
    take_broker(conditions, trigger, broker);
    take_dependency(conditions, trigger, context);
    let namespace = namespace_of(&trigger.metadata);
    let delivery = &trigger.spec["delivery"];
    match broker.filter(|_| !delivery.is_object()) {
        // A trigger without a delivery of its own has its broker's.
        Some(broker) => marks::dead_letter_uri(conditions, text(&broker.status, "/deadLetterSinkUri")),
        None => marks::dead_letter_sink(delivery, namespace, conditions, context, cluster_domain),
    }
    let subscriber = resolve::uri(&trigger.spec["subscriber"], namespace, context, cluster_domain);
    let uri = match &subscriber {
        Ok(uri) => {
            conditions.status()["subscriberUri"] = uri.as_str().into();
            conditions.mark("SubscriberResolved", "True", "", "");
            uri
        }
        Err(error) => {
            conditions.status()["subscriberUri"] = Value::Null;
            let reason = "Unable to get the Subscriber's URI";
            conditions.mark("SubscriberResolved", "False", reason, &error.to_string());
            ""
        }
    };
    if let Err(fault) = filter(trigger) {
        return conditions.mark("SubscriptionReady", "False", "FilterInvalid", &fault);
    }
    match programmed.serves(trigger.metadata.uid.as_deref().unwrap_or_default(), uri) {
        true => conditions.mark("SubscriptionReady", "True", "", ""),
        false => conditions.mark(
            "SubscriptionReady",
            "Unknown",
            "NotSubscribed",
            "The trigger gets no events yet.",
        ),
    }
}

fn take_broker(conditions: &mut Conditions<'_>, trigger: &Trigger, broker: Option<&Broker>) {
    let Some(broker) = broker else {
        let name = text(&trigger.spec, "/broker");
        let message = format!("Broker {name:?} does not exist or there is no matching BrokerClass for it");
        return conditions.mark("BrokerReady", "False", "BrokerDoesNotExist", &message);
    };
    match parts(&broker.status, "Ready") {
        Some(("True", ..)) => conditions.mark("BrokerReady", "True", "", ""),
        Some((status, reason, message)) => conditions.mark("BrokerReady", status, reason, message),
        None => conditions.mark(
            "BrokerReady",
            "Unknown",
            "BrokerNotConfigured",
            "Broker has not yet been reconciled.",
        ),
    }
}

/// A trigger may wait for the source of its events.
fn take_dependency(conditions: &mut Conditions<'_>, trigger: &Trigger, context: &Context) {
    let Some(own) = annotation(&trigger.metadata, DEPENDENCY) else {
        return conditions.mark("DependencyReady", "True", "", "");
    };
    let reference: Value = serde_json::from_str(own).unwrap_or_default();
    let (kind, name) = (text(&reference, "/kind"), text(&reference, "/name"));
    if kind != "PingSource" {
        let message = format!("Dependency is not a known source: {kind} {name:?}");
        return conditions.mark("DependencyReady", "False", "DependencyDoesNotExist", &message);
    }
    let found = context.caches.of::<PingSource>().read(namespace_of(&trigger.metadata), name);
    match found {
        None => {
            let message =
                format!("Dependency does not exist: pingsources.sources.knative.dev {name:?} not found");
            conditions.mark("DependencyReady", "False", "DependencyDoesNotExist", &message);
        }
        Some(source) => match parts(&source.status, "Ready") {
            Some(("True", ..)) => conditions.mark("DependencyReady", "True", "", ""),
            Some((status, reason, message)) => conditions.mark("DependencyReady", status, reason, message),
            None => conditions.mark(
                "DependencyReady",
                "Unknown",
                "DependencyNotConfigured",
                "The source is not ready yet.",
            ),
        },
    }
}
