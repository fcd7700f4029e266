//! What a pod needs other objects for: the edges of the Node authorizer's graph. Pure.
//! Upstream: `plugin/pkg/auth/authorizer/node/graph.go`, `pkg/api/v1/pod` (`VisitPodSecretNames`).

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, Volume};
use serde_json::Value;

/// The annotation of a pod that only mirrors what a node runs by itself.
pub const ANNOTATION_MIRROR: &str = "kubernetes.io/config.mirror";

/// What kind of object something refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `secrets`.
    Secret,
    /// `configmaps`.
    ConfigMap,
    /// `persistentvolumeclaims`.
    Claim,
    /// `resourceclaims`.
    ResourceClaim,
    /// `serviceaccounts`.
    ServiceAccount,
}

/// What one pod refers to in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// The node it is assigned to; empty if none.
    pub node: Box<str>,
    /// What it refers to, sorted.
    pub names: Box<[(Kind, Box<str>)]>,
}

impl References {
    /// Of a pod. A mirror pod refers to nothing: a node that made it must not gain by it.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let node = spec.node_name.as_deref().unwrap_or_default().into();
        let annotations = pod.metadata.annotations.as_ref();
        if annotations.is_some_and(|own| own.contains_key(ANNOTATION_MIRROR)) {
            return Self { node, names: Box::default() };
        }
        let mut names = Names(Vec::new());
        names.add(Kind::ServiceAccount, spec.service_account_name.as_deref());
        for secret in spec.image_pull_secrets.iter().flatten() {
            names.add(Kind::Secret, Some(&secret.name));
        }
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            names.container(container);
        }
        for container in spec.ephemeral_containers.iter().flatten() {
            names.ephemeral(container);
        }
        for volume in spec.volumes.iter().flatten() {
            names.volume(volume, pod.metadata.name.as_deref().unwrap_or_default());
        }
        for claim in spec.resource_claims.iter().flatten() {
            names.add(Kind::ResourceClaim, claim.resource_claim_name.as_deref());
        }
        let status = pod.status.as_ref();
        for claim in status.and_then(|status| status.resource_claim_statuses.as_ref()).into_iter().flatten() {
            names.add(Kind::ResourceClaim, claim.resource_claim_name.as_deref());
        }
        if let Some(claim) = status.and_then(|status| status.extended_resource_claim_status.as_ref()) {
            names.add(Kind::ResourceClaim, Some(&claim.resource_claim_name));
        }
        let mut names = names.0;
        names.sort();
        names.dedup();
        Self { node, names: names.into() }
    }

    /// Whether it refers to this.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.names.binary_search_by(|(own, text)| own.cmp(&kind).then_with(|| (**text).cmp(name))).is_ok()
    }
}

struct Names(Vec<(Kind, Box<str>)>);

impl Names {
    fn add(&mut self, kind: Kind, name: Option<&str>) {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            self.0.push((kind, name.into()));
        }
    }

    fn container(&mut self, container: &Container) {
        self.environment(&container.env, &container.env_from);
    }

    fn ephemeral(&mut self, container: &EphemeralContainer) {
        self.environment(&container.env, &container.env_from);
    }

    fn environment(
        &mut self,
        env: &Option<Vec<k8s_openapi::api::core::v1::EnvVar>>,
        env_from: &Option<Vec<k8s_openapi::api::core::v1::EnvFromSource>>,
    ) {
        for source in env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            self.add(Kind::Secret, source.secret_key_ref.as_ref().map(|own| own.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map_key_ref.as_ref().map(|own| own.name.as_str()));
        }
        for source in env_from.iter().flatten() {
            self.add(Kind::Secret, source.secret_ref.as_ref().map(|own| own.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map_ref.as_ref().map(|own| own.name.as_str()));
        }
    }

    fn volume(&mut self, volume: &Volume, pod_name: &str) {
        let secret = |own: &Option<k8s_openapi::api::core::v1::LocalObjectReference>| {
            own.as_ref().map(|own| own.name.clone())
        };
        if let Some(own) = &volume.secret {
            self.add(Kind::Secret, own.secret_name.as_deref());
        }
        if let Some(own) = &volume.config_map {
            self.add(Kind::ConfigMap, Some(&own.name));
        }
        for source in volume.projected.iter().flat_map(|own| own.sources.iter().flatten()) {
            self.add(Kind::Secret, source.secret.as_ref().map(|own| own.name.as_str()));
            self.add(Kind::ConfigMap, source.config_map.as_ref().map(|own| own.name.as_str()));
        }
        if let Some(own) = &volume.persistent_volume_claim {
            self.add(Kind::Claim, Some(&own.claim_name));
        }
        if volume.ephemeral.is_some() {
            self.add(Kind::Claim, Some(&format!("{pod_name}-{}", volume.name)));
        }
        let secrets = [
            volume.csi.as_ref().and_then(|own| secret(&own.node_publish_secret_ref)),
            volume.azure_file.as_ref().map(|own| own.secret_name.clone()),
            volume.cephfs.as_ref().and_then(|own| secret(&own.secret_ref)),
            volume.cinder.as_ref().and_then(|own| secret(&own.secret_ref)),
            volume.flex_volume.as_ref().and_then(|own| secret(&own.secret_ref)),
            volume.iscsi.as_ref().and_then(|own| secret(&own.secret_ref)),
            volume.rbd.as_ref().and_then(|own| secret(&own.secret_ref)),
            volume.scale_io.as_ref().map(|own| own.secret_ref.name.clone()),
            volume.storageos.as_ref().and_then(|own| secret(&own.secret_ref)),
        ];
        for name in secrets.into_iter().flatten() {
            self.add(Kind::Secret, Some(&name));
        }
    }
}

/// Where a persistent volume names secrets that the node's side of a driver needs. Upstream:
/// `pkg/api/v1/persistentvolume` (`VisitPVSecretNames`, `kubeletVisible`).
const VOLUME_SECRETS: &[&str] = &[
    "/spec/csi/nodePublishSecretRef",
    "/spec/csi/nodeStageSecretRef",
    "/spec/csi/nodeExpandSecretRef",
    "/spec/cephfs/secretRef",
    "/spec/cinder/secretRef",
    "/spec/flexVolume/secretRef",
    "/spec/iscsi/secretRef",
    "/spec/rbd/secretRef",
    "/spec/scaleIO/secretRef",
    "/spec/storageos/secretRef",
];

/// Whether a persistent volume needs this secret on its node. A reference without a namespace means that of the claim.
pub fn volume_needs_secret(volume: &Value, namespace: &str, name: &str) -> bool {
    let claim_namespace = volume["spec"]["claimRef"]["namespace"].as_str().unwrap_or_default();
    let is = |found_namespace: &Value, found_name: &Value| {
        let found = found_namespace.as_str().filter(|text| !text.is_empty()).unwrap_or(claim_namespace);
        found == namespace && found_name == name
    };
    let azure = &volume["spec"]["azureFile"];
    is(&azure["secretNamespace"], &azure["secretName"])
        || VOLUME_SECRETS
            .iter()
            .filter_map(|pointer| volume.pointer(pointer))
            .any(|reference| is(&reference["namespace"], &reference["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, expect: &[(Kind, &str)]) {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        let found = References::of(&pod);
        let names: Vec<_> = found.names.iter().map(|(kind, name)| (*kind, &**name)).collect();
        assert_eq!(names, expect);
        assert!(expect.iter().all(|(kind, name)| found.has(*kind, name)));
        assert!(!found.has(Kind::Secret, "none"));
    }

    #[test]
    fn what_a_pod_refers_to() {
        use Kind::{Claim, ConfigMap, ResourceClaim, Secret, ServiceAccount};
        check(json!({"containers": []}), &[]);
        check(
            json!({"containers": [{"name": "c",
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "c1"}}]}],
                "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s2"}}]}],
                "imagePullSecrets": [{"name": "s3"}], "serviceAccountName": "bot",
                "resourceClaims": [{"name": "r", "resourceClaimName": "rc"}],
                "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s4"}}, {"configMap": {"name": "c2"}}]}},
                    {"name": "w", "persistentVolumeClaim": {"claimName": "pvc"}}, {"name": "e", "ephemeral": {}},
                    {"name": "x", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s5"}}}]}),
            &[
                (Secret, "s1"),
                (Secret, "s2"),
                (Secret, "s3"),
                (Secret, "s4"),
                (Secret, "s5"),
                (ConfigMap, "c1"),
                (ConfigMap, "c2"),
                (Claim, "p-e"),
                (Claim, "pvc"),
                (ResourceClaim, "rc"),
                (ServiceAccount, "bot"),
            ],
        );
    }

    #[test]
    fn a_mirror_pod_opens_nothing() {
        let pod = json!({"metadata": {"name": "p", "annotations": {ANNOTATION_MIRROR: "x"}},
            "spec": {"nodeName": "n", "containers": [], "imagePullSecrets": [{"name": "s"}]}});
        let found = References::of(&serde_json::from_value(pod).unwrap());
        assert_eq!((&*found.node, found.names.len()), ("n", 0));
    }

    #[test]
    fn secrets_of_volumes() {
        let volume = json!({"spec": {"claimRef": {"namespace": "a", "name": "c"},
            "csi": {"nodeStageSecretRef": {"name": "s", "namespace": "b"}}, "iscsi": {"secretRef": {"name": "t"}},
            "azureFile": {"secretName": "u"}}});
        assert!(volume_needs_secret(&volume, "b", "s"));
        assert!(!volume_needs_secret(&volume, "a", "s"));
        assert!(volume_needs_secret(&volume, "a", "t"));
        assert!(volume_needs_secret(&volume, "a", "u"));
    }
}
