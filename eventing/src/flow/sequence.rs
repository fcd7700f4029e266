//! Sequences: each step gets what the one before has answered. Upstream: `pkg/reconciler/sequence`,
//! `pkg/apis/flows/v1/sequence_lifecycle.go`.

use super::{CONDITIONS, Plan, channel_destination, channel_reference, destination};
use crate::kinds::{Sequence, name_of, namespace_of};
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::write;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn controller() -> Controller {
    super::controller::<Sequence>("sequence-controller").reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<Sequence>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |sequence, conditions| {
        let template = &sequence.spec["channelTemplate"];
        let found = super::sync(sequence, template, &plan(sequence), conditions, &context).await?;
        if let Some(found) = found {
            let shown = |parts: &[super::Part], field: &str| -> Value {
                parts.iter().map(|own| own.shown(field)).collect()
            };
            conditions.status()["channelStatuses"] = shown(&found.channels, "channel");
            conditions.status()["subscriptionStatuses"] = shown(&found.subscriptions, "subscription");
        }
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}

/// A channel before each step, and a subscription that leads through the step to the next one's.
fn plan(sequence: &Sequence) -> Plan {
    let (spec, meta) = (&sequence.spec, &sequence.metadata);
    let template = &spec["channelTemplate"];
    let steps = spec["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |step: usize| format!("{}-kn-sequence-{step}", name_of(meta));
    let subscription = |(index, step): (usize, &Value)| {
        let mut own =
            json!({"channel": channel_reference(template, &name(index)), "subscriber": destination(step)});
        if step["delivery"].is_object() {
            own["delivery"] = step["delivery"].clone();
        }
        if index + 1 < steps.len() {
            own["reply"] = channel_destination(template, &name(index + 1), namespace_of(meta));
        } else if spec["reply"].is_object() {
            own["reply"] = destination(&spec["reply"]);
        }
        (name(index), own)
    };
    Plan {
        channels: (0..steps.len()).map(name).collect(),
        subscriptions: steps.iter().enumerate().map(subscription).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_leads_to_the_next() {
        let to = |name: &str| json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": name, "namespace": "a"}});
        let mut second = to("two");
        second["delivery"] = json!({"retry": 3});
        let spec = json!({"steps": [to("one"), second], "reply": to("end"),
            "channelTemplate": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}});
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "s", "uid": "u"})).unwrap();
        let plan = plan(&Sequence::new(meta, spec));
        assert_eq!(plan.channels, ["s-kn-sequence-0", "s-kn-sequence-1"]);
        let (name, first) = &plan.subscriptions[0];
        assert_eq!((name.as_str(), &first["subscriber"]), ("s-kn-sequence-0", &to("one")));
        assert_eq!(first["channel"]["name"], "s-kn-sequence-0");
        assert_eq!(first["reply"]["ref"]["name"], "s-kn-sequence-1");
        let (_, last) = &plan.subscriptions[1];
        assert_eq!((&last["subscriber"], &last["reply"]), (&to("two"), &to("end")));
        assert_eq!(last["delivery"], json!({"retry": 3}));
    }
}
