//! Parallels: every branch gets every event that its filter lets through. Upstream: `pkg/reconciler/parallel`,
//! `pkg/apis/flows/v1/parallel_lifecycle.go`.

use super::{CONDITIONS, Found, Plan, channel_destination, channel_reference, destination};
use crate::kinds::{Parallel, name_of, namespace_of};
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::write;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn controller() -> Controller {
    super::controller::<Parallel>("parallel-controller").reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<Parallel>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |parallel, conditions| {
        let template = &parallel.spec["channelTemplate"];
        let found = super::sync(parallel, template, &plan(parallel), conditions, &context).await?;
        if let Some(found) = found {
            conditions.status()["ingressChannelStatus"] = found.channels[0].shown("channel");
            conditions.status()["branchStatuses"] = branches(&found);
        }
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}

/// What each branch shows: a channel and two subscriptions, in the order of [`plan`].
fn branches(found: &Found) -> Value {
    let of_branch = |(channel, subscriptions): (&super::Part, &[super::Part])| {
        json!({"filterChannelStatus": channel.shown("channel"),
            "filterSubscriptionStatus": subscriptions[0].shown("subscription"),
            "subscriberSubscriptionStatus": subscriptions[1].shown("subscription")})
    };
    found.channels[1..].iter().zip(found.subscriptions.chunks_exact(2)).map(of_branch).collect()
}

/// A channel where events come in, and one behind each branch's filter; two subscriptions a branch: to the filter, and from what it
/// lets through to the subscriber.
fn plan(parallel: &Parallel) -> Plan {
    let (spec, meta) = (&parallel.spec, &parallel.metadata);
    let (template, namespace) = (&spec["channelTemplate"], namespace_of(meta));
    let all = spec["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ingress = format!("{}-kn-parallel", name_of(meta));
    let of_branch = |index: usize| format!("{ingress}-{index}");
    let mut plan = Plan { channels: vec![ingress.clone()], subscriptions: Vec::new() };
    for (index, branch) in all.iter().enumerate() {
        let behind = channel_destination(template, &of_branch(index), namespace);
        let mut filter = json!({"channel": channel_reference(template, &ingress)});
        match branch["filter"].is_object() {
            false => filter["subscriber"] = behind,
            true => {
                filter["subscriber"] = destination(&branch["filter"]);
                filter["reply"] = behind;
            }
        }
        let mut own = json!({"channel": channel_reference(template, &of_branch(index)),
            "subscriber": destination(&branch["subscriber"])});
        if let Some(reply) = [&branch["reply"], &spec["reply"]].into_iter().find(|own| own.is_object()) {
            own["reply"] = destination(reply);
        }
        if branch["delivery"].is_object() {
            own["delivery"] = branch["delivery"].clone();
        }
        plan.channels.push(of_branch(index));
        plan.subscriptions.push((format!("{ingress}-filter-{index}"), filter));
        plan.subscriptions.push((of_branch(index), own));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_branch_has_a_filter_and_a_subscriber() {
        let to = |uri: &str| json!({"uri": uri});
        let spec = json!({"branches": [{"subscriber": to("http://one")},
                {"filter": to("http://filter"), "subscriber": to("http://two"), "reply": to("http://own")}],
            "reply": to("http://end"),
            "channelTemplate": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}});
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "p", "uid": "u"})).unwrap();
        let plan = plan(&Parallel::new(meta, spec));
        assert_eq!(plan.channels, ["p-kn-parallel", "p-kn-parallel-0", "p-kn-parallel-1"]);
        let names: Vec<&str> = plan.subscriptions.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["p-kn-parallel-filter-0", "p-kn-parallel-0", "p-kn-parallel-filter-1", "p-kn-parallel-1"]
        );
        let spec = |index: usize| &plan.subscriptions[index].1;
        assert_eq!(spec(0)["subscriber"]["ref"]["name"], "p-kn-parallel-0");
        assert_eq!(spec(0).get("reply"), None);
        assert_eq!(spec(1)["reply"], to("http://end"));
        assert_eq!(spec(2)["subscriber"], to("http://filter"));
        assert_eq!(spec(2)["reply"]["ref"]["name"], "p-kn-parallel-1");
        assert_eq!(spec(3)["reply"], to("http://own"));
    }
}
