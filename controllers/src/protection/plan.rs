//! Who uses a claim, a volume, a class; and what to do about the finalizer. Pure.

use crate::pod::claims_of;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(super) const CLAIM: &str = "kubernetes.io/pvc-protection";
pub(super) const VOLUME: &str = "kubernetes.io/pv-protection";
pub(super) const CLASS: &str = "kubernetes.io/vac-protection";

/// What to do about a finalizer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// These are the finalizers from now on.
    Set(Vec<String>),
}

/// Whether the finalizer has to come or to go. `is_used` is asked only about what is being deleted.
pub(super) fn step(meta: &ObjectMeta, finalizer: &str, deleting: bool, is_used: impl Fn() -> bool) -> Step {
    let own = meta.finalizers.as_deref().unwrap_or_default();
    let has = own.iter().any(|name| name == finalizer);
    match (deleting, has) {
        (false, false) => Step::Set(own.iter().cloned().chain([finalizer.to_owned()]).collect()),
        (true, true) if !is_used() => {
            Step::Set(own.iter().filter(|name| *name != finalizer).cloned().collect())
        }
        _ => Step::Nothing,
    }
}

/// Whether a pod keeps a claim: one without a node cannot, since no node starts a pod with a claim that is being deleted.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let has_node =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|name| !name.is_empty());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    has_node && claims_of(pod).iter().any(|own| own.name.as_ref() == name)
}

pub(super) fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// The classes that a claim has, wants or is on its way to.
pub(super) fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.clone());
    [wanted, current, target].into_iter().flatten().collect()
}

pub(super) fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.volume_attributes_class_name.clone()
}
