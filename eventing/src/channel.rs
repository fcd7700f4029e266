//! Channels: each stands for an object of the kind that its template names. Upstream: `pkg/reconciler/channel`,
//! `pkg/apis/messaging/v1/channel_lifecycle.go`.

use crate::kinds::{
    Channel, InMemoryChannel, controller_reference, is_controlled_by, name_of, namespace_of, text,
};
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::conditions::{Conditions, parts};
use duck::write;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::sync::Arc;

/// The conditions of a channel.
const CONDITIONS: &[&str] =
    &["Addressable", "BackingChannelReady", "DeadLetterSinkResolved", "EventPoliciesReady"];

pub(crate) fn controller() -> Controller {
    Controller::of::<Channel>("channel-controller").owns::<InMemoryChannel>().reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<Channel>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |channel, conditions| {
        sync(channel, conditions, &context).await
    })
    .await?;
    Ok(Next::Done)
}

async fn sync(channel: &Channel, conditions: &mut Conditions<'_>, context: &Context) -> Result<(), Error> {
    let (api_version, kind) =
        (text(&channel.spec, "/channelTemplate/apiVersion"), text(&channel.spec, "/channelTemplate/kind"));
    if (api_version, kind) != ("messaging.knative.dev/v1", "InMemoryChannel") {
        let message = format!(
            "This cluster has no channels of kind {kind:?} of {api_version:?}: InMemoryChannel of messaging.knative.dev/v1 is there."
        );
        conditions.mark("BackingChannelReady", "False", "BackingChannelNotConfigured", &message);
        return Ok(());
    }
    let (namespace, name) = (namespace_of(&channel.metadata), name_of(&channel.metadata));
    let want = backing(channel);
    let have = match context.caches.of::<InMemoryChannel>().read(namespace, name) {
        None => match write::create(context, &want).await? {
            Some(made) => made,
            None => want,
        },
        Some(have) if !is_controlled_by(&have.metadata, &channel.metadata) => {
            let message = format!("there is an InMemoryChannel {name:?} that this Channel does not own");
            conditions.mark("BackingChannelReady", "False", "BackingChannelNotOwned", &message);
            return Ok(());
        }
        Some(mut have) if have.spec["delivery"] != want.spec["delivery"] => {
            have.spec["delivery"] = want.spec["delivery"].clone();
            context.client.namespaced::<InMemoryChannel>(namespace).replace(&have).await?
        }
        Some(have) => have,
    };
    conditions.status()["channel"] =
        json!({"apiVersion": api_version, "kind": kind, "name": name, "namespace": namespace});
    take_backing(conditions, &have.status);
    Ok(())
}

/// What the object behind the channel says.
fn take_backing(conditions: &mut Conditions<'_>, status: &Value) {
    match parts(status, "Ready") {
        Some(("True", ..)) => conditions.mark("BackingChannelReady", "True", "", ""),
        Some((state, reason, message)) => conditions.mark("BackingChannelReady", state, reason, message),
        None => {
            let message = "The status of the backing channel is not known yet.";
            conditions.mark("BackingChannelReady", "Unknown", "BackingChannelNotConfigured", message);
        }
    }
    for kind in ["DeadLetterSinkResolved", "EventPoliciesReady"] {
        if let Some((state, reason, message)) = parts(status, kind) {
            conditions.mark(kind, state, reason, message);
        }
    }
    for field in ["address", "subscribers", "deadLetterSinkUri"] {
        conditions.status()[field] = status[field].clone();
    }
    match status["address"]["url"].is_string() {
        true => conditions.mark("Addressable", "True", "", ""),
        false => conditions.mark("Addressable", "False", "EmptyHostname", "hostname is the empty string"),
    }
}

fn backing(channel: &Channel) -> InMemoryChannel {
    let metadata = ObjectMeta {
        name: channel.metadata.name.clone(),
        namespace: channel.metadata.namespace.clone(),
        labels: channel.metadata.labels.clone(),
        annotations: channel.metadata.annotations.clone().map(|mut own| {
            own.remove("kubectl.kubernetes.io/last-applied-configuration");
            own
        }),
        owner_references: Some(vec![controller_reference(channel)]),
        ..ObjectMeta::default()
    };
    let mut spec = channel.spec.pointer("/channelTemplate/spec").cloned().unwrap_or_default();
    if !spec.is_object() {
        spec = json!({});
    }
    if channel.spec["delivery"].is_object() {
        spec["delivery"] = channel.spec["delivery"].clone();
    }
    InMemoryChannel::new(metadata, spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_says_what_is_behind_it() {
        let mut status = Value::Null;
        let mut conditions = Conditions::of(&mut status, CONDITIONS, api::Timestamp::UNIX_EPOCH);
        let ready = |kind: &str| json!({"type": kind, "status": "True"});
        take_backing(
            &mut conditions,
            &json!({"address": {"url": "http://x"}, "subscribers": [{"uid": "u"}],
                "conditions": [ready("Ready"), ready("DeadLetterSinkResolved"), ready("EventPoliciesReady")]}),
        );
        assert_eq!(duck::conditions::state(&status, "Ready"), "True");
        assert_eq!(status["subscribers"][0]["uid"], "u");
    }
}
