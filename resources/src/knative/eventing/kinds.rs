//! The rules of brokers, triggers, channels and subscriptions. Upstream: `pkg/apis/eventing/v1`, `pkg/apis/messaging/v1`.

use super::destination;
use crate::knative::faults::{Faults, difference};
use crate::knative::native::Rules;
use api::{Context, Object};
use serde_json::{Value, json};
use std::sync::Arc;

const BROKER_CLASS: &str = "eventing.knative.dev/broker.class";
const BROKER: &str = "eventing.knative.dev/broker";
const SUBSCRIBABLE: &str = "messaging.knative.dev/subscribable";
const SCOPE: &str = "eventing.knative.dev/scope";
const NAMESPACE: &str = "knative-eventing";
/// How deep filters may be nested.
const FILTER_DEPTH_MAX: usize = 16;

/// A field's text; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn namespace(object: &Value) -> String {
    text(&object["metadata"], "namespace").to_owned()
}

fn annotate(object: &mut Value, key: &str, value: &str) {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    let own = &mut object["metadata"]["annotations"];
    if text(own, key).is_empty() {
        own[key] = value.into();
    }
}

/// What a ConfigMap of Eventing says for a namespace: the document under `key`, of which `namespaceDefaults` win.
fn settings(cx: &Context<'_>, map: &str, key: &str, section: &str, namespace: &str) -> Option<Value> {
    let object: Arc<Object> = cx.lookup.get("", "configmaps", NAMESPACE, map)?;
    let object: Value = object.decode().ok()?;
    let document: Value = serde_saphyr::from_str(text(&object["data"], key)).ok()?;
    let own = document[format!("namespace{section}")].get(namespace);
    own.or_else(|| document.get(format!("cluster{section}"))).cloned()
}

/// Says which fields of a part that never changes have.
pub(super) fn immutable(path: &[&str], old: &Value, new: &Value, faults: &mut Faults) {
    let mut lines = String::new();
    difference("", old, new, &mut lines);
    if !lines.is_empty() {
        faults.add("Immutable fields changed (-old +new)", path, lines);
    }
}

/// A value without some of its fields.
fn without(value: &Value, fields: &[&str]) -> Value {
    let mut own = value.clone();
    if let Some(map) = own.as_object_mut() {
        map.retain(|key, _| !fields.contains(&key.as_str()));
    }
    own
}

pub(super) struct Broker;

impl Rules for Broker {
    fn default(&self, object: &mut Value, _: Option<&Value>, cx: &Context<'_>) {
        let namespace = namespace(object);
        let found = settings(cx, "config-br-defaults", "default-br-config", "Default", &namespace)
            .unwrap_or_default();
        let class = text(&found, "brokerClass").to_owned();
        annotate(object, BROKER_CLASS, if class.is_empty() { "MTChannelBasedBroker" } else { &class });
        if !object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let spec = &mut object["spec"];
        if !spec["config"].is_object() && found["name"].is_string() {
            spec["config"] = json!({"apiVersion": found["apiVersion"], "kind": found["kind"], "name": found["name"],
                "namespace": found["namespace"]});
        }
        if !spec["delivery"].is_object() && found["delivery"].is_object() {
            spec["delivery"] = found["delivery"].clone();
        }
        if spec["config"].is_object() && text(&spec["config"], "namespace").is_empty() {
            spec["config"]["namespace"] = namespace.as_str().into();
        }
        if let Some(map) = spec.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
        if let Some(delivery) = spec.get_mut("delivery") {
            default_delivery(delivery, &namespace);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let class = |own: &Value| text(&own["metadata"]["annotations"], BROKER_CLASS).to_owned();
        if class(object).is_empty() {
            faults.missing(BROKER_CLASS);
        }
        faults.at("spec", |faults| {
            if object["spec"]["config"].is_object() {
                faults.at("config", |faults| destination::check_reference(&object["spec"]["config"], faults));
            }
            faults.at("delivery", |faults| destination::check_delivery(&object["spec"]["delivery"], faults));
        });
        let Some(old) = old else { return };
        immutable(
            &["spec"],
            &without(&old["spec"], &["delivery"]),
            &without(&object["spec"], &["delivery"]),
            faults,
        );
        if class(old) != class(object) {
            let details = format!("{{string}}:\n\t-: \"{}\"\n\t+: \"{}\"\n", class(old), class(object));
            faults.add("Immutable annotations changed (-old +new)", &["annotations"], details);
        }
    }
}

/// A dead letter sink without namespace is in the object's own.
pub(super) fn default_delivery(delivery: &mut Value, namespace: &str) {
    if let Some(sink) = delivery.get_mut("deadLetterSink") {
        destination::default_namespace(sink, namespace);
    }
}

pub(super) struct Trigger;

impl Rules for Trigger {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let namespace = namespace(object);
        let broker = text(&object["spec"], "broker").to_owned();
        if !broker.is_empty() {
            if !object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"] = json!({});
            }
            object["metadata"]["labels"][BROKER] = broker.into();
        }
        let Some(spec) = object.get_mut("spec").filter(|own| own.is_object()) else { return };
        if !spec["filter"].is_object() {
            spec["filter"] = json!({});
        }
        if let Some(subscriber) = spec.get_mut("subscriber") {
            destination::default_namespace(subscriber, &namespace);
        }
        if let Some(delivery) = spec.get_mut("delivery") {
            default_delivery(delivery, &namespace);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        faults.at("spec", |faults| {
            if text(spec, "broker").is_empty() {
                faults.missing("broker");
            }
            if spec["brokerRef"].is_object() {
                // Brokers of other namespaces are a feature that is off.
                faults.disallowed(&["brokerRef"]);
            }
            faults.at("filter.attributes", |faults| check_names(&spec["filter"]["attributes"], faults));
            faults.at("filters", |faults| check_filters(&spec["filters"], 0, faults));
            faults.at("subscriber", |faults| destination::check(&spec["subscriber"], faults));
            faults.at("delivery", |faults| destination::check_delivery(&spec["delivery"], faults));
        });
        check_dependency(object, faults);
        if let Some(old) = old {
            let (before, now) = (text(&old["spec"], "broker"), text(spec, "broker"));
            if before != now {
                let details = format!("{{string}}:\n\t-: \"{before}\"\n\t+: \"{now}\"\n");
                faults.add("Immutable fields changed (-old +new)", &["spec", "broker"], details);
            }
        }
    }
}

fn check_dependency(object: &Value, faults: &mut Faults) {
    const KEY: &str = "knative.dev/dependency";
    let annotations = &object["metadata"]["annotations"];
    let Some(own) = annotations.get(KEY).and_then(Value::as_str) else { return };
    faults.at(format!("metadata.annotations[{KEY}]"), |faults| match serde_json::from_str::<Value>(own) {
        Ok(reference) if reference.is_object() => {
            let namespace = text(&object["metadata"], "namespace");
            if ![namespace, ""].contains(&text(&reference, "namespace")) {
                let message =
                    format!("Namespace must be empty or equal to the trigger namespace {namespace:?}");
                faults.generic(message, "namespace");
            }
            destination::check_reference(&reference, faults);
        }
        _ => {
            let message = format!("The provided annotation was not a corev1.ObjectReference: {own:?}");
            faults.generic(message, "");
        }
    });
}

fn check_names(attributes: &Value, faults: &mut Faults) {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    for name in
        attributes.as_object().into_iter().flat_map(serde_json::Map::keys).filter(|name| !is_name(name))
    {
        let details = "Attribute name must start with a letter and can only contain lowercase alphanumeric";
        faults.at(format!("[{name}]"), |faults| faults.invalid_key(name, "", details));
    }
}

fn check_filters(filters: &Value, depth: usize, faults: &mut Faults) {
    for (index, filter) in filters.as_array().into_iter().flatten().enumerate() {
        faults.index(index, |faults| check_filter(filter, depth, faults));
    }
}

fn check_filter(filter: &Value, depth: usize, faults: &mut Faults) {
    const KINDS: [&str; 7] = ["exact", "prefix", "suffix", "all", "any", "not", "cesql"];
    if depth >= FILTER_DEPTH_MAX {
        return faults.generic(format!("filters are nested deeper than {FILTER_DEPTH_MAX}"), "");
    }
    let used: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| filter.get(kind).is_some_and(|own| !own.is_null() && *own != json!("")))
        .collect();
    if used.len() > 1 {
        faults.several_of(&used);
    }
    for kind in ["exact", "prefix", "suffix"] {
        faults.at(kind, |faults| check_names(&filter[kind], faults));
    }
    for kind in ["all", "any"] {
        faults.at(kind, |faults| check_filters(&filter[kind], depth + 1, faults));
    }
    if filter["not"].is_object() {
        faults.at("not", |faults| check_filter(&filter["not"], depth + 1, faults));
    }
}

/// The kind of channel that the namespace has where nothing is said.
pub(super) fn default_channel_template(spec: &mut Value, namespace: &str, cx: &Context<'_>) {
    if spec["channelTemplate"].is_object() {
        return;
    }
    match settings(cx, "default-ch-webhook", "default-ch-config", "Default", namespace) {
        Some(found) => spec["channelTemplate"] = found,
        None => drop(spec.as_object_mut().and_then(|map| map.remove("channelTemplate"))),
    }
}

/// The rules of which kind of channel is made.
pub(super) fn check_channel_template(template: &Value, faults: &mut Faults) {
    if !template.is_object() {
        return faults.missing("channelTemplate");
    }
    faults.at("channelTemplate", |faults| {
        for field in ["kind", "apiVersion"] {
            if text(template, field).is_empty() {
                faults.missing(field);
            }
        }
    });
}

pub(super) struct Channel;

impl Rules for Channel {
    fn default(&self, object: &mut Value, _: Option<&Value>, cx: &Context<'_>) {
        annotate(object, SUBSCRIBABLE, "v1");
        let namespace = namespace(object);
        if !object["spec"].is_object() {
            object["spec"] = json!({});
        }
        let spec = &mut object["spec"];
        default_channel_template(spec, &namespace, cx);
        if let Some(delivery) = spec.get_mut("delivery") {
            default_delivery(delivery, &namespace);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        faults.at("spec", |faults| {
            check_channel_template(&spec["channelTemplate"], faults);
            if spec["subscribers"].as_array().is_some_and(|own| !own.is_empty()) {
                faults.at("subscribable", |faults| faults.disallowed(&["subscribers"]));
            }
            faults.at("delivery", |faults| destination::check_delivery(&spec["delivery"], faults));
        });
        if let Some(old) = old {
            let ignored = ["subscribers", "delivery"];
            immutable(&["spec"], &without(&old["spec"], &ignored), &without(spec, &ignored), faults);
        }
    }
}

pub(super) struct InMemoryChannel;

impl Rules for InMemoryChannel {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        annotate(object, SUBSCRIBABLE, "v1");
        let namespace = namespace(object);
        if let Some(delivery) = object.pointer_mut("/spec/delivery") {
            default_delivery(delivery, &namespace);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, cx: &Context<'_>, faults: &mut Faults) {
        let scope = text(&object["metadata"]["annotations"], SCOPE);
        if !["", "cluster", "namespace"].contains(&scope) {
            faults.at(format!("metadata.annotations[{SCOPE}]"), |faults| {
                faults.invalid(scope, "", "expected either 'cluster' or 'namespace'");
            });
        }
        let subscribers = &object["spec"]["subscribers"];
        for (index, own) in subscribers.as_array().into_iter().flatten().enumerate() {
            if text(own, "replyUri").is_empty() && text(own, "subscriberUri").is_empty() {
                faults.at(format!("spec.subscribable.subscriber[{index}]"), |faults| {
                    faults.add(
                        "missing field(s)",
                        &["replyURI", "subscriberURI"],
                        "expected at least one of, got none",
                    );
                });
            }
        }
        // Who subscribes is said by subscriptions alone; the loops run as the controller manager here.
        let is_ours = cx.user.name == "system:kube-controller-manager";
        if let Some(old) = old.filter(|old| !is_ours && old["spec"]["subscribers"] != *subscribers) {
            let mut lines = String::new();
            difference("", &old["spec"]["subscribers"], subscribers, &mut lines);
            let message = format!(
                "Channel.Spec.Subscribers changed by user {} which was not the system:serviceaccount:knative-eventing:eventing-controller service account",
                cx.user.name
            );
            faults.add(message, &["spec.subscribers"], lines);
        }
    }
}

pub(super) struct Subscription;

impl Rules for Subscription {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let namespace = namespace(object);
        for field in ["/spec/subscriber", "/spec/reply"] {
            if let Some(own) = object.pointer_mut(field) {
                destination::default_namespace(own, &namespace);
            }
        }
        if let Some(delivery) = object.pointer_mut("/spec/delivery") {
            default_delivery(delivery, &namespace);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        if destination::is_empty(&spec["channel"]) {
            return faults.add(
                "missing field(s)",
                &["spec.channel"],
                "the Subscription must reference a channel",
            );
        }
        faults.at("spec", |faults| {
            faults.at("channel", |faults| destination::check_reference(&spec["channel"], faults));
            match destination::is_empty(&spec["subscriber"]) {
                true => faults.add(
                    "missing field(s)",
                    &["subscriber"],
                    "the Subscription must reference a subscriber",
                ),
                false => faults.at("subscriber", |faults| destination::check(&spec["subscriber"], faults)),
            }
            if !destination::is_empty(&spec["reply"]) {
                faults.at("reply", |faults| destination::check(&spec["reply"], faults));
            }
            faults.at("delivery", |faults| destination::check_delivery(&spec["delivery"], faults));
        });
        if let Some(old) = old {
            let ignored = ["subscriber", "reply", "delivery"];
            immutable(&["spec"], &without(&old["spec"], &ignored), &without(spec, &ignored), faults);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knative::faults::told;

    #[test]
    fn nothing_is_made_up_where_nothing_is_said() {
        for rules in [&InMemoryChannel as &dyn Rules, &Subscription] {
            let mut object = json!({"metadata": {"name": "x", "namespace": "a"}});
            let objects = crate::testing::Objects::default();
            crate::testing::with_context(&objects, |cx| rules.default(&mut object, None, cx));
            assert_eq!(object.get("spec"), None);
        }
    }

    #[test]
    fn filters_name_one_kind_each_and_attributes_well() {
        let check = |filters: Value, expect: &str| {
            assert_eq!(told(|faults| check_filters(&filters, 0, faults)), expect, "{filters}");
        };
        check(
            json!([{"exact": {"type": "a"}}, {"any": [{"prefix": {"source": "b"}}]}, {"not": {"suffix": {"id": "c"}}}]),
            "",
        );
        check(
            json!([{"exact": {"type": "a"}, "prefix": {"type": "a"}}]),
            "expected exactly one, got both: [0].exact, [0].prefix",
        );
        let wrong = told(|faults| check_filters(&json!([{"exact": {"Type": "a"}}]), 0, faults));
        assert!(wrong.starts_with("invalid key name \"Type\": [0].exact[Type]"), "{wrong}");
        let mut deep = json!({"exact": {"type": "a"}});
        for _ in 0..FILTER_DEPTH_MAX {
            deep = json!({"not": deep});
        }
        assert!(told(|faults| check_filter(&deep, 0, faults)).contains("nested deeper"));
    }
}
