//! Which claims a pod brings along. Pure.

use crate::owner::controller_uid;
use crate::pod;
use api::Object;
use client::controller_reference;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Whether a pod has an ephemeral volume, decoded without the rest.
pub(super) fn has_ephemeral(pod: &Object) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Narrow {
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        volumes: Vec<Volume>,
    }
    #[derive(Deserialize)]
    struct Volume {
        #[serde(default)]
        ephemeral: Option<IgnoredAny>,
    }
    let volumes = pod.decode::<Narrow>().unwrap_or_default().spec.volumes;
    volumes.iter().any(|volume| volume.ephemeral.is_some())
}

/// The names of a pod's ephemeral volumes and the claim of each.
pub(super) fn wanted(own: &Pod) -> Vec<(String, PersistentVolumeClaim)> {
    if pod::is_deleting(own) {
        return Vec::new();
    }
    let pod_name = own.metadata.name.as_deref().unwrap_or_default();
    let volumes = own.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claims = volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let meta = template.metadata.clone().unwrap_or_default();
        let metadata = ObjectMeta {
            name: Some(format!("{pod_name}-{}", volume.name)),
            namespace: own.metadata.namespace.clone(),
            annotations: meta.annotations,
            labels: meta.labels,
            owner_references: Some(vec![controller_reference(own)]),
            ..ObjectMeta::default()
        };
        let claim = PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None };
        Some((volume.name.clone(), claim))
    });
    claims.collect()
}

/// Why a claim that is there is not the one of the pod.
pub(super) fn not_ours(own: &Pod, claim: &PersistentVolumeClaim) -> Option<String> {
    if controller_uid(&claim.metadata) == own.metadata.uid.as_deref() {
        return None;
    }
    let name = |meta: &ObjectMeta| {
        format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    };
    let (claim, own) = (name(&claim.metadata), name(&own.metadata));
    Some(format!("PVC {claim} was not created for pod {own} (pod is not owner)"))
}
