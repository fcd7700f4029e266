//! Flows: channels and subscriptions that lead events through several destinations. What a kind of flow consists of is decided in
//! its own file, what is there is made so here. Upstream: `pkg/reconciler/{sequence,parallel}`.

pub(crate) mod parallel;
pub(crate) mod sequence;

use crate::kinds::{
    Channel, InMemoryChannel, Subscription, controller_reference, is_controlled_by, name_of, namespace_of,
    text,
};
use crate::marks;
use client::{Context, Controller, DeleteParams, Error, Kind, gone_is_fine};
use duck::conditions::{Conditions, find};
use duck::kinds::Observed;
use duck::write;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// The conditions of a flow.
const CONDITIONS: &[&str] = &["Addressable", "ChannelsReady", "EventPoliciesReady", "SubscriptionsReady"];

/// What a flow consists of. Pure.
#[derive(Debug, PartialEq)]
struct Plan {
    /// Names; events come in by the first.
    channels: Vec<String>,
    /// Names and specs.
    subscriptions: Vec<(String, Value)>,
}

/// What there is of a flow: references and whether each is ready, in the order of the plan.
struct Found {
    channels: Vec<Part>,
    subscriptions: Vec<Part>,
}

/// One of a flow's objects, as its status shows it.
struct Part {
    reference: Value,
    status: Value,
}

impl Part {
    fn of<K: Observed>(mut object: K) -> Self {
        let meta = object.metadata();
        let reference = json!({"apiVersion": K::API_VERSION, "kind": K::KIND, "name": name_of(meta),
            "namespace": namespace_of(meta)});
        Self { reference, status: object.parts().1.take() }
    }

    fn is_ready(&self) -> bool {
        duck::conditions::state(&self.status, "Ready") == "True"
    }

    /// Its own condition, or one that says that it has none.
    fn ready(&self) -> Value {
        let none = || {
            let message = format!("{} does not have Ready condition", text(&self.reference, "/kind"));
            json!({"type": "Ready", "status": "Unknown", "reason": "NoReady", "message": message})
        };
        find(&self.status, "Ready").cloned().unwrap_or_else(none)
    }

    /// An entry of a status: the reference under a name, and the condition.
    fn shown(&self, field: &str) -> Value {
        json!({field: self.reference, "ready": self.ready()})
    }
}

/// A loop whose flows own channels and subscriptions.
fn controller<K: Kind>(name: &'static str) -> Controller {
    Controller::of::<K>(name).owns::<Channel>().owns::<InMemoryChannel>().owns::<Subscription>()
}

/// Makes what is there what the plan says. `None` where the flow's kind of channel is none of this cluster; the conditions say so.
async fn sync<K: Kind>(
    flow: &K,
    template: &Value,
    plan: &Plan,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<Option<Found>, Error> {
    marks::policies(conditions);
    let (api_version, kind) = (text(template, "/apiVersion"), text(template, "/kind"));
    let channels = match (api_version, kind) {
        ("messaging.knative.dev/v1", "InMemoryChannel") => {
            channels(flow, &plan.channels, context, |meta| {
                InMemoryChannel::new(meta, template.get("spec").cloned().unwrap_or_else(|| json!({})))
            })
            .await?
        }
        ("messaging.knative.dev/v1", "Channel") => {
            channels(flow, &plan.channels, context, |meta| {
                Channel::new(meta, template.get("spec").cloned().unwrap_or_else(|| json!({})))
            })
            .await?
        }
        _ => {
            let message = format!(
                "This cluster has no channels of kind {kind:?} of {api_version:?}: Channel and InMemoryChannel of messaging.knative.dev/v1 are there."
            );
            conditions.mark("ChannelsReady", "False", "ChannelsNotReady", &message);
            return Ok(None);
        }
    };
    take_channels(conditions, &channels);
    let subscriptions = subscriptions(flow, &plan.subscriptions, context).await?;
    mark_all(conditions, "SubscriptionsReady", "Subscriptions", &subscriptions);
    Ok(Some(Found { channels, subscriptions }))
}

/// What the channels say, and where events come in.
fn take_channels(conditions: &mut Conditions<'_>, channels: &[Part]) {
    mark_all(conditions, "ChannelsReady", "Channels", channels);
    let address = channels.first().map(|own| own.status["address"].clone()).unwrap_or_default();
    match address["url"].is_string() {
        true => conditions.mark("Addressable", "True", "", ""),
        false => conditions.mark("Addressable", "Unknown", "emptyAddress", "addressable is nil"),
    }
    conditions.status()["address"] = address;
}

fn mark_all(conditions: &mut Conditions<'_>, condition: &str, what: &str, parts: &[Part]) {
    match !parts.is_empty() && parts.iter().all(Part::is_ready) {
        true => conditions.mark(condition, "True", "", ""),
        false => {
            let message = format!("{what} are not ready yet, or there are none");
            conditions.mark(condition, "Unknown", &format!("{what}NotReady"), &message);
        }
    }
}

/// Metadata of what a flow owns.
fn metadata(flow: &ObjectMeta, owner: &OwnerReference, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: flow.namespace.clone(),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// The channels with these names; those of the flow with others are deleted.
async fn channels<F: Kind, K: Observed>(
    flow: &F,
    names: &[String],
    context: &Context,
    make: impl Fn(ObjectMeta) -> K,
) -> Result<Vec<Part>, Error> {
    let (meta, owner) = (flow.metadata(), controller_reference(flow));
    let cache = context.caches.of::<K>();
    let mut parts = Vec::new();
    for name in names {
        let have = match cache.read(namespace_of(meta), name) {
            Some(have) => have,
            None => {
                let want = make(metadata(meta, &owner, name));
                write::create(context, &want).await?.unwrap_or(want)
            }
        };
        parts.push(Part::of(have));
    }
    remove_others::<K>(meta, |name| names.iter().any(|own| own == name), context).await?;
    Ok(parts)
}

/// The subscriptions of the plan; those of the flow with other names are deleted.
async fn subscriptions<F: Kind>(
    flow: &F,
    wanted: &[(String, Value)],
    context: &Context,
) -> Result<Vec<Part>, Error> {
    let (meta, owner) = (flow.metadata(), controller_reference(flow));
    let (cache, api) =
        (context.caches.of::<Subscription>(), context.client.namespaced::<Subscription>(namespace_of(meta)));
    let mut parts = Vec::new();
    for (name, spec) in wanted {
        let want = Subscription::new(metadata(meta, &owner, name), spec.clone());
        let have = match cache.read(namespace_of(meta), name) {
            None => write::create(context, &want).await?.unwrap_or(want),
            Some(have) if have.spec == *spec => have,
            // Which channel a subscription has never changes.
            Some(have) if have.spec["channel"] != spec["channel"] => {
                gone_is_fine(api.delete(name, &DeleteParams::default()).await)?;
                write::create(context, &want).await?.unwrap_or(want)
            }
            Some(mut have) => {
                have.spec = spec.clone();
                api.replace(&have).await?
            }
        };
        parts.push(Part::of(have));
    }
    remove_others::<Subscription>(meta, |name| wanted.iter().any(|(own, _)| own == name), context).await?;
    Ok(parts)
}

async fn remove_others<K: Kind>(
    flow: &ObjectMeta,
    is_wanted: impl Fn(&str) -> bool,
    context: &Context,
) -> Result<(), Error> {
    let api = context.client.namespaced::<K>(namespace_of(flow));
    for own in context.caches.of::<K>().controlled_by(flow.uid.as_deref().unwrap_or_default()) {
        let meta = own.metadata();
        if is_controlled_by(meta, flow) && meta.deletion_timestamp.is_none() && !is_wanted(name_of(meta)) {
            gone_is_fine(api.delete(name_of(meta), &DeleteParams::default()).await)?;
        }
    }
    Ok(())
}

/// The reference to a channel of the flow as a subscription's channel has it.
fn channel_reference(template: &Value, name: &str) -> Value {
    json!({"apiVersion": template["apiVersion"], "kind": template["kind"], "name": name})
}

/// The same as a destination.
fn channel_destination(template: &Value, name: &str, namespace: &str) -> Value {
    let mut reference = channel_reference(template, name);
    reference["namespace"] = namespace.into();
    json!({"ref": reference})
}

/// The parts of a value that make a destination.
fn destination(value: &Value) -> Value {
    let fields = ["ref", "uri", "CACerts", "audience"].into_iter();
    let all = fields
        .filter_map(|field| Some((field.to_owned(), value.get(field).filter(|own| !own.is_null())?.clone())));
    Value::Object(all.collect())
}
