//! Brokers. Upstream: `pkg/reconciler/broker/broker.go`, `pkg/apis/eventing/v1/broker_lifecycle.go`.

use crate::kinds::Broker;
use crate::marks;
use crate::program::{Programmed, is_ours, requeue};
use crate::resolve;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::write;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::watch;

/// The conditions of a broker.
const CONDITIONS: &[&str] = &[
    "Addressable",
    "DeadLetterSinkResolved",
    "EventPoliciesReady",
    "FilterReady",
    "IngressReady",
    "TriggerChannelReady",
];

pub(crate) fn controller(cluster_domain: Arc<str>, programmed: watch::Receiver<Programmed>) -> Controller {
    let told = programmed.clone();
    let controller = Controller::of::<Broker>("broker-controller");
    resolve::follows::<Broker>(controller, |own| {
        vec![own.pointer("/spec/delivery/deadLetterSink").cloned().unwrap_or_default()]
    })
    .beside(move |context| requeue::<Broker>(context, told))
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone(), programmed.clone()))
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    cluster_domain: Arc<str>,
    programmed: watch::Receiver<Programmed>,
) -> Result<Next, Error> {
    let found = context.caches.of::<Broker>().read(&key.namespace, &key.name).filter(is_ours);
    write::observe(&context, found, CONDITIONS, async |broker, conditions| {
        let is_open = programmed.borrow().has(broker.metadata.uid.as_deref().unwrap_or_default());
        marks::log(conditions, &["IngressReady", "FilterReady", "TriggerChannelReady"], is_open);
        marks::policies(conditions);
        marks::dead_letter_sink(
            &broker.spec["delivery"],
            &key.namespace,
            conditions,
            &context,
            &cluster_domain,
        );
        let url = format!(
            "http://broker-ingress.knative-eventing.svc.{cluster_domain}/{}/{}",
            key.namespace, key.name
        );
        conditions.status()["address"] = json!({"name": "http", "url": url});
        conditions.mark("Addressable", "True", "", "");
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}
