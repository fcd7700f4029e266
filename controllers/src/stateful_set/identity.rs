//! What makes a pod of a stateful set the one it is: its name, its host name and its claims. Pure.
//!
//! Upstream: stateful_set_utils.go.

use crate::owner::{Owner, name_of};
use crate::pod;
use client::controller_reference;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(crate) const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The set's name and the number in a pod's name.
pub(crate) fn split(pod_name: &str) -> Option<(&str, i32)> {
    let (parent, number) = pod_name.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((parent, number.parse().ok().filter(|_| is_number)?))
}

/// The number of a pod.
pub(crate) fn ordinal(pod: &Pod) -> Option<i32> {
    split(name_of(&pod.metadata)).map(|(_, ordinal)| ordinal)
}

pub(crate) fn start(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

pub(crate) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

/// Whether a pod with this number is asked for.
pub(crate) fn is_wanted(set: &StatefulSet, ordinal: i32) -> bool {
    (start(set)..start(set) + replicas(set)).contains(&ordinal)
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", name_of(&template.metadata), name_of(&set.metadata))
}

/// The claims of a pod, by the name of their volume.
pub(crate) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let templates = set.spec.volume_claim_templates.iter().flatten();
    let made = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        (name_of(&template.metadata).to_owned(), claim)
    };
    templates.map(made).collect()
}

/// A new pod of the set.
pub(crate) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut made = pod::from_template(template, &Owner::of(set));
    let name = format!("{}-{ordinal}", name_of(&set.metadata));
    made.metadata.generate_name = None;
    made.metadata.name = Some(name.clone());
    made.metadata.labels.get_or_insert_default().insert(REVISION.to_owned(), revision.to_owned());
    set_identity(set, &mut made);
    if let Some(spec) = &mut made.spec {
        spec.hostname = Some(name);
        spec.subdomain = set.spec.service_name.clone().filter(|name| !name.is_empty());
    }
    made
}

/// Gives a pod the labels and volumes of its number.
pub(crate) fn set_identity(set: &StatefulSet, pod: &mut Pod) {
    let Some(ordinal) = ordinal(pod) else { return };
    let name = name_of(&pod.metadata).to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name);
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    let claims = claims(set, ordinal);
    let Some(spec) = &mut pod.spec else { return };
    let own = |volume: &Volume| claims.iter().any(|(name, _)| *name == volume.name);
    let others: Vec<_> = spec.volumes.iter().flatten().filter(|volume| !own(volume)).cloned().collect();
    let made = claims.iter().map(|(name, claim)| Volume {
        name: name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name_of(&claim.metadata).to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    });
    let volumes: Vec<_> = made.chain(others).collect();
    spec.volumes = (!volumes.is_empty()).then_some(volumes);
}

/// Whether a pod has the labels and volumes of its number.
pub(crate) fn has_identity(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(pod) else { return false };
    if pod::label(&pod.metadata, POD_NAME) != pod.metadata.name.as_deref() {
        return false;
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    claims(set, ordinal).iter().all(|(name, claim)| {
        volumes.iter().any(|volume| {
            let source = volume.persistent_volume_claim.as_ref();
            volume.name == *name
                && source.is_some_and(|own| Some(&own.claim_name) == claim.metadata.name.as_ref())
        })
    })
}

/// Whether claims are deleted when the set is, and when it is scaled down.
fn deletes_claims(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let deletes = |value: Option<&String>| value.is_some_and(|value| value == "Delete");
    (
        deletes(policy.and_then(|policy| policy.when_deleted.as_ref())),
        deletes(policy.and_then(|policy| policy.when_scaled.as_ref())),
    )
}

fn names(reference: &OwnerReference, kind: &str, meta: &ObjectMeta) -> bool {
    reference.kind == kind && Some(&reference.name) == meta.name.as_ref()
}

/// The owners a claim should have; `None` if they are right, or must not be touched because an older set or pod of the same
/// name still owns it.
pub(crate) fn claim_owners(
    set: &StatefulSet,
    pod: &Pod,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let owners = claim.metadata.owner_references.clone().unwrap_or_default();
    let of_set = |own: &OwnerReference| names(own, "StatefulSet", &set.metadata);
    let of_pod = |own: &OwnerReference| names(own, "Pod", &pod.metadata);
    let is_stale = |own: &&OwnerReference| {
        (of_set(own) && Some(&own.uid) != set.metadata.uid.as_ref())
            || (of_pod(own) && Some(&own.uid) != pod.metadata.uid.as_ref())
    };
    if owners.iter().any(|own| is_stale(&own)) {
        return None;
    }
    let (when_deleted, when_scaled) = deletes_claims(set);
    let is_other = |own: &OwnerReference| !of_set(own) && !of_pod(own);
    let has_other_controller = owners.iter().any(|own| is_other(own) && own.controller == Some(true));
    let mut wanted: Vec<_> = owners.iter().filter(|own| is_other(own)).cloned().collect();
    if !((when_deleted || when_scaled) && has_other_controller) {
        let is_scaled_down = ordinal(pod).is_none_or(|ordinal| !is_wanted(set, ordinal));
        if when_scaled && is_scaled_down {
            wanted.push(controller_reference(pod));
        } else if when_deleted {
            wanted.push(controller_reference(set));
        }
    }
    let mut sorted = [owners, wanted.clone()];
    sorted.iter_mut().for_each(|list| list.sort_by(|a, b| a.uid.cmp(&b.uid)));
    (sorted[0] != sorted[1]).then_some(wanted)
}

/// Whether a claim belongs to an earlier pod of the same name: the new one waits until it is gone.
pub(crate) fn is_claim_stale(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    let is_earlier = |own: &OwnerReference| {
        names(own, "Pod", &pod.metadata) && Some(&own.uid) != pod.metadata.uid.as_ref()
    };
    deletes_claims(set).1 && owners.into_iter().any(is_earlier)
}
