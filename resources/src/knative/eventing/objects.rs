//! The namespace of Knative Eventing, its settings and roles. Upstream: `config/core/{configmaps,roles}`,
//! `config/brokers`, `config/channels`.

use crate::knative::Settings;
use serde_json::{Value, json};

const NAMESPACE: &str = "knative-eventing";
const CHANNEL: &str = "apiVersion: messaging.knative.dev/v1\nkind: InMemoryChannel\n";
const BROKERS: &str = "clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: config-br-default-channel
  namespace: knative-eventing
  delivery:
    retry: 10
    backoffPolicy: exponential
    backoffDelay: PT0.2S
";

/// By name of the ConfigMap, its keys and what they are until somebody says otherwise.
const SETTINGS: Settings = &[
    ("config-br-default-channel", &[("channel-template-spec", CHANNEL)]),
    ("config-br-defaults", &[("default-br-config", BROKERS)]),
    (
        "config-features",
        &[
            ("authentication-oidc", "disabled"),
            ("cross-namespace-event-links", "disabled"),
            ("default-authorization-mode", "allow-same-namespace"),
            ("delivery-retryafter", "disabled"),
            ("delivery-timeout", "enabled"),
            ("eventtype-auto-create", "disabled"),
            ("kreference-group", "disabled"),
            ("new-apiserversource-filters", "disabled"),
            ("new-trigger-filters", "enabled"),
            ("transport-encryption", "disabled"),
        ],
    ),
    ("config-leader-election", &[]),
    ("config-logging", &[]),
    ("config-observability", &[]),
    ("config-ping-defaults", &[("data-max-size", "-1")]),
    ("config-tracing", &[]),
    (
        "default-ch-webhook",
        &[(
            "default-ch-config",
            "clusterDefault:\n  apiVersion: messaging.knative.dev/v1\n  kind: InMemoryChannel\n",
        )],
    ),
];

/// A role that others add to: name, and the label by which they do.
const AGGREGATED: &[(&str, &str)] = &[
    ("addressable-resolver", "duck.knative.dev/addressable"),
    ("channelable-manipulator", "duck.knative.dev/channelable"),
    ("source-observer", "duck.knative.dev/source"),
];

/// What is added: name of the role, the label, API group, resources, verbs.
const PARTS: &[(&str, &str, &str, &[&str], &[&str])] = &[
    ("service-addressable-resolver", "duck.knative.dev/addressable", "", &["services"], READ),
    (
        "serving-addressable-resolver",
        "duck.knative.dev/addressable",
        "serving.knative.dev",
        &["routes", "routes/status", "services", "services/status"],
        READ,
    ),
    (
        "broker-addressable-resolver",
        "duck.knative.dev/addressable",
        "eventing.knative.dev",
        &["brokers", "brokers/status"],
        READ,
    ),
    (
        "channel-addressable-resolver",
        "duck.knative.dev/addressable",
        "messaging.knative.dev",
        &["channels", "channels/status"],
        READ,
    ),
    (
        "imc-addressable-resolver",
        "duck.knative.dev/addressable",
        "messaging.knative.dev",
        &["inmemorychannels", "inmemorychannels/status"],
        READ,
    ),
    (
        "meta-channelable-manipulator",
        "duck.knative.dev/channelable",
        "messaging.knative.dev",
        &["channels", "channels/status"],
        ALL,
    ),
    (
        "imc-channelable-manipulator",
        "duck.knative.dev/channelable",
        "messaging.knative.dev",
        &["inmemorychannels", "inmemorychannels/status"],
        ALL,
    ),
    (
        "eventing-sources-source-observer",
        "duck.knative.dev/source",
        "sources.knative.dev",
        &["apiserversources", "containersources", "pingsources", "sinkbindings"],
        READ,
    ),
    (
        "flows-addressable-resolver",
        "duck.knative.dev/addressable",
        "flows.knative.dev",
        &["sequences", "sequences/status", "parallels", "parallels/status"],
        READ,
    ),
];
const READ: &[&str] = &["get", "list", "watch"];
const ALL: &[&str] = &["create", "get", "list", "watch", "update", "patch", "delete"];

/// The namespace, its ConfigMaps and roles.
pub(crate) fn objects() -> Vec<Value> {
    let labels = json!({"app.kubernetes.io/name": NAMESPACE});
    let mut objects = crate::knative::settings(NAMESPACE, SETTINGS);
    for (name, label) in AGGREGATED {
        objects.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {*label: "true"}}]}}));
    }
    for (name, label, group, resources, verbs) in PARTS {
        let mut labels = labels.clone();
        labels[*label] = "true".into();
        objects.push(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels},
            "rules": [{"apiGroups": [group], "resources": resources, "verbs": verbs}]}));
    }
    objects
}
