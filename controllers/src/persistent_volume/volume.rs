//! What becomes of a volume. Pure.

use super::claim::{Told, warning};
use super::matching::{BOUND_BY_CONTROLLER, annotation, differs_in_mode, volume_name};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};

/// On volumes: who has made them on demand.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On volumes: another driver has taken over from the one that it names.
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
const BUILT_IN_PREFIX: &str = "kubernetes.io/";

/// What to do about a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// It is in this phase from now on; what is told is its message, too.
    Phase(&'static str, Option<Told>),
    /// It can never be bound to the claim that it names.
    Mismatch {
        volume: Told,
        claim: Told,
    },
    /// Its claim has another volume: this one is free again.
    Unbind(Box<PersistentVolume>),
}

/// The claim that a volume names.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a volume is known to have lost its claim.
pub(super) fn is_given_up(volume: &PersistentVolume) -> bool {
    matches!(phase(volume), "Released" | "Failed")
}

fn to_phase(volume: &PersistentVolume, wanted: &'static str, told: Option<Told>) -> Step {
    if phase(volume) == wanted { Step::Nothing } else { Step::Phase(wanted, told) }
}

/// `claim` is the one that the volume is bound to, if it is there.
pub(super) fn step(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Step {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    // One that is meant for a claim is available to that one.
    if claim_ref(volume).is_none_or(|named| named.uid.as_deref().unwrap_or_default().is_empty()) {
        return to_phase(volume, "Available", None);
    }
    let Some(claim) = claim else { return release(volume) };
    match volume_name(claim) {
        None if differs_in_mode(volume, claim) => {
            let own = claim.metadata.name.as_deref().unwrap_or_default();
            let because = "due to incompatible volumeMode.";
            let volume =
                format!("Cannot bind PersistentVolume to requested PersistentVolumeClaim {own:?} {because}");
            let claim =
                format!("Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim {because}");
            Step::Mismatch {
                volume: warning("VolumeMismatch", volume),
                claim: warning("VolumeMismatch", claim),
            }
        }
        // The claim's own loop completes it.
        None => Step::Nothing,
        Some(other) if other == name => to_phase(volume, "Bound", None),
        Some(_) if annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete" => {
            release(volume)
        }
        Some(_) => unbind(volume),
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let own = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    own.unwrap_or("Retain")
}

/// First it is released; then its policy says what comes.
fn release(volume: &PersistentVolume) -> Step {
    if !is_given_up(volume) {
        return Step::Phase("Released", None);
    }
    if annotation(&volume.metadata, MIGRATED_TO).is_some() {
        return Step::Nothing;
    }
    match policy(volume) {
        "Retain" => Step::Nothing,
        "Recycle" => {
            let why = "No recycler plugin found for the volume!";
            to_phase(volume, "Failed", Some(warning("VolumeFailedRecycle", why)))
        }
        "Delete" => match no_deleter(volume) {
            None => Step::Nothing,
            Some(why) => to_phase(volume, "Failed", Some(warning("VolumeFailedDelete", why))),
        },
        _ => {
            let why = "Volume has unrecognized PersistentVolumeReclaimPolicy";
            to_phase(volume, "Failed", Some(warning("VolumeUnknownReclaimPolicy", why)))
        }
    }
}

/// Why nobody will delete what is behind a volume; `None` where a provisioner of others does.
fn no_deleter(volume: &PersistentVolume) -> Option<String> {
    let is_csi = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    match annotation(&volume.metadata, PROVISIONED_BY).filter(|name| !name.is_empty()) {
        Some(provisioner) if !provisioner.starts_with(BUILT_IN_PREFIX) => None,
        Some(provisioner) => Some(format!("no volume plugin matched name: {provisioner}")),
        None if is_csi => None,
        None => {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let why = "no deletable volume plugin matched";
            Some(format!("error getting deleter volume plugin for volume {name:?}: {why}"))
        }
    }
}

/// One that was chosen here is free for anybody; one that its maker meant for the claim stays meant for it.
fn unbind(volume: &PersistentVolume) -> Step {
    let mut changed = volume.clone();
    let spec = changed.spec.get_or_insert_default();
    if annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some() {
        spec.claim_ref = None;
        if let Some(annotations) = &mut changed.metadata.annotations {
            annotations.remove(BOUND_BY_CONTROLLER);
        }
    } else if let Some(named) = &mut spec.claim_ref {
        named.uid = None;
    }
    Step::Unbind(Box::new(changed))
}
