//! The namespace of Knative Serving and its settings, with upstream's keys and defaults. Upstream: `config/core/configmaps`.

use crate::knative::Settings;
use serde_json::Value;

const NAMESPACE: &str = "knative-serving";

/// By name of the ConfigMap, its keys and what they are until somebody says otherwise.
const SETTINGS: Settings = &[
    (
        "config-autoscaler",
        &[
            ("container-concurrency-target-percentage", "70"),
            ("container-concurrency-target-default", "100"),
            ("requests-per-second-target-default", "200"),
            ("target-burst-capacity", "211"),
            ("stable-window", "60s"),
            ("panic-window-percentage", "10.0"),
            ("panic-threshold-percentage", "200.0"),
            ("max-scale-up-rate", "1000.0"),
            ("max-scale-down-rate", "2.0"),
            ("enable-scale-to-zero", "true"),
            ("scale-to-zero-grace-period", "30s"),
            ("scale-to-zero-pod-retention-period", "0s"),
            ("pod-autoscaler-class", "kpa.autoscaling.knative.dev"),
            ("activator-capacity", "100.0"),
            ("initial-scale", "1"),
            ("allow-zero-initial-scale", "false"),
            ("min-scale", "0"),
            ("max-scale", "0"),
            ("scale-down-delay", "0s"),
            ("max-scale-limit", "0"),
        ],
    ),
    (
        "config-defaults",
        &[
            ("revision-timeout-seconds", "300"),
            ("max-revision-timeout-seconds", "600"),
            ("revision-response-start-timeout-seconds", "300"),
            ("revision-idle-timeout-seconds", "0"),
            ("container-name-template", "user-container"),
            ("init-container-name-template", "init-container"),
            ("container-concurrency", "0"),
            ("container-concurrency-max-limit", "1000"),
            ("allow-container-concurrency-zero", "true"),
            ("enable-service-links", "false"),
        ],
    ),
    (
        "config-deployment",
        &[
            ("digest-resolution-timeout", "10s"),
            ("progress-deadline", "600s"),
            ("registries-skipping-tag-resolving", "kind.local,ko.local,dev.local"),
            ("queue-sidecar-cpu-request", "25m"),
        ],
    ),
    ("config-domain", &[]),
    (
        "config-features",
        &[
            ("multi-container", "enabled"),
            ("multi-container-probing", "disabled"),
            ("kubernetes.podspec-affinity", "disabled"),
            ("kubernetes.podspec-topologyspreadconstraints", "disabled"),
            ("kubernetes.podspec-hostaliases", "disabled"),
            ("kubernetes.podspec-nodeselector", "disabled"),
            ("kubernetes.podspec-tolerations", "disabled"),
            ("kubernetes.podspec-fieldref", "disabled"),
            ("kubernetes.podspec-runtimeclassname", "disabled"),
            ("kubernetes.podspec-dnspolicy", "disabled"),
            ("kubernetes.podspec-dnsconfig", "disabled"),
            ("kubernetes.podspec-dryrun", "allowed"),
            ("kubernetes.podspec-securitycontext", "disabled"),
            ("kubernetes.podspec-priorityclassname", "disabled"),
            ("kubernetes.podspec-schedulername", "disabled"),
            ("kubernetes.podspec-init-containers", "disabled"),
            ("kubernetes.podspec-volumes-emptydir", "enabled"),
            ("kubernetes.podspec-volumes-hostpath", "disabled"),
            ("kubernetes.podspec-volumes-csi", "disabled"),
            ("kubernetes.podspec-volumes-image", "disabled"),
            ("kubernetes.podspec-volumes-mount-propagation", "disabled"),
            ("kubernetes.podspec-persistent-volume-claim", "disabled"),
            ("kubernetes.podspec-persistent-volume-write", "disabled"),
            ("kubernetes.podspec-shareprocessnamespace", "disabled"),
            ("kubernetes.podspec-hostipc", "disabled"),
            ("kubernetes.podspec-hostpid", "disabled"),
            ("kubernetes.podspec-hostnetwork", "disabled"),
            ("kubernetes.containerspec-addcapabilities", "disabled"),
            ("tag-header-based-routing", "disabled"),
            ("autodetect-http2", "disabled"),
            ("queueproxy.resource-defaults", "disabled"),
            ("secure-pod-defaults", "disabled"),
        ],
    ),
    (
        "config-gc",
        &[
            ("retain-since-create-time", "48h"),
            ("retain-since-last-active-time", "15h"),
            ("min-non-active-revisions", "20"),
            ("max-non-active-revisions", "1000"),
        ],
    ),
    ("config-leader-election", &[]),
    ("config-logging", &[]),
    (
        "config-network",
        &[
            ("ingress-class", "clipper.ingress.networking.knative.dev"),
            ("domain-template", "{{.Name}}.{{.Namespace}}.{{.Domain}}"),
            ("tag-template", "{{.Tag}}-{{.Name}}"),
            ("autocreate-cluster-domain-claims", "false"),
            ("default-external-scheme", "http"),
            ("external-domain-tls", "Disabled"),
            ("cluster-local-domain-tls", "Disabled"),
            ("system-internal-tls", "Disabled"),
            ("http-protocol", "Enabled"),
            ("rollout-duration", "0"),
            ("enable-mesh-pod-addressability", "false"),
            ("mesh-compatibility-mode", "auto"),
        ],
    ),
    (
        "config-observability",
        &[("logging.enable-request-log", "false"), ("logging.enable-probe-request-log", "false")],
    ),
];

/// The namespace and its ConfigMaps.
pub(crate) fn objects() -> Vec<Value> {
    crate::knative::settings(NAMESPACE, SETTINGS)
}
