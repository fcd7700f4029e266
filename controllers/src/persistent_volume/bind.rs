//! Writes a binding, in steps of which each may be done already.

use super::matching::{BIND_COMPLETED, BOUND_BY_CONTROLLER, is_bound_to, volume_name};
use api::Status;
use client::{Context, reference};
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn annotate(meta: &mut ObjectMeta, key: &str) -> bool {
    let annotations = meta.annotations.get_or_insert_default();
    let is_new = !annotations.contains_key(key);
    if is_new {
        annotations.insert(key.to_owned(), "yes".to_owned());
    }
    is_new
}

/// The volume with its claim, if it does not name it yet. Pure.
pub(super) fn volume_bound(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<PersistentVolume> {
    let was_meant = is_bound_to(volume, claim);
    let spec = volume.spec.clone().unwrap_or_default();
    let mut changed = volume.clone();
    let has_uid = spec.claim_ref.as_ref().is_some_and(|own| own.uid == claim.metadata.uid);
    let mut dirty = !(was_meant && has_uid);
    if dirty {
        let named: ObjectReference = reference(claim);
        changed.spec.get_or_insert_default().claim_ref = Some(named);
    }
    if !was_meant {
        dirty |= annotate(&mut changed.metadata, BOUND_BY_CONTROLLER);
    }
    dirty.then_some(changed)
}

/// The claim with its volume, if it does not name it yet. Pure.
pub(super) fn claim_bound(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let mut dirty = false;
    if volume_name(claim) != volume.metadata.name.as_deref() {
        changed.spec.get_or_insert_default().volume_name.clone_from(&volume.metadata.name);
        annotate(&mut changed.metadata, BOUND_BY_CONTROLLER);
        dirty = true;
    }
    dirty |= annotate(&mut changed.metadata, BIND_COMPLETED);
    dirty.then_some(changed)
}

/// The claim with the status of one that has this volume, if it has another. Pure.
///
/// Its capacity is told when it becomes bound and not after that: it may differ from the volume's while one is being enlarged.
pub(super) fn claim_status(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let spec = volume.spec.clone().unwrap_or_default();
    let before = claim.status.clone().unwrap_or_default();
    let mut status = PersistentVolumeClaimStatus { access_modes: spec.access_modes, ..before.clone() };
    if before.phase.as_deref() != Some("Bound") {
        status.phase = Some("Bound".to_owned());
        status.capacity = spec.capacity;
        if before.phase.as_deref() == Some("Pending") {
            status.current_volume_attributes_class_name = spec.volume_attributes_class_name;
        }
    }
    (status != before).then(|| PersistentVolumeClaim { status: Some(status), ..claim.clone() })
}

/// Binds a claim and a volume, or completes what was begun.
///
/// # Errors
/// `Conflict` where either has changed since it was looked at.
pub(super) async fn bind(
    context: &Context,
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), Status> {
    let volumes = context.client.api::<PersistentVolume>();
    let mut volume = match volume_bound(volume, claim) {
        Some(changed) => volumes.replace(&changed).await?,
        None => volume.clone(),
    };
    let before = volume.status.clone().unwrap_or_default();
    if before.phase.as_deref() != Some("Bound") {
        let phase = Some("Bound".to_owned());
        volume.status = Some(PersistentVolumeStatus { phase, message: None, reason: None, ..before });
        volume = volumes.replace_status(&volume).await?;
    }
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let claims = context.client.namespaced::<PersistentVolumeClaim>(namespace);
    let claim = match claim_bound(claim, &volume) {
        Some(changed) => claims.replace(&changed).await?,
        None => claim.clone(),
    };
    match claim_status(&claim, &volume) {
        Some(changed) => claims.replace_status(&changed).await.map(drop),
        None => Ok(()),
    }
}
