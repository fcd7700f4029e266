//! Which volume fits a claim. Pure. Upstream: component-helpers `storage/volume`, and the index by access modes.

use api::LabelSelector;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;

/// On claims: they have been bound once. A claim that has lost its volume is not bound again.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On volumes and claims: the other side was chosen here, not by who made it.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On volumes and claims: the class, as it was named before the field.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub(super) fn is_bind_completed(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// The volume that a claim names.
pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a claim names a class, be it the empty one.
pub(super) fn has_class(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, OLD_CLASS).is_some()
        || claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some())
}

/// The class of a claim; empty for none.
pub(super) fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let own = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&claim.metadata, OLD_CLASS).or(own).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let own = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(&volume.metadata, OLD_CLASS).or(own).unwrap_or_default()
}

/// Whether a volume is meant for a claim, or bound to it: by name, and by UID where it says one.
pub(super) fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(named) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let meta = &claim.metadata;
    let is_uid = named.uid.as_deref().is_none_or(|uid| uid.is_empty() || meta.uid.as_deref() == Some(uid));
    named.name == meta.name && named.namespace == meta.namespace && is_uid
}

/// What a volume must have for a claim.
struct Wish<'a> {
    bytes: Quantity,
    modes: BTreeSet<&'a str>,
    volume_mode: &'a str,
    attributes_class: &'a str,
    class: &'a str,
    selector: Option<LabelSelector>,
}

fn size(quantity: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    quantity.and_then(|own| Quantity::parse(&own.0).ok()).unwrap_or_default()
}

impl<'a> Wish<'a> {
    /// `None` where the selector of the claim cannot be used: nothing fits it.
    fn of(claim: &'a PersistentVolumeClaim) -> Option<Self> {
        let spec = claim.spec.as_ref()?;
        let requests = spec.resources.as_ref().and_then(|own| own.requests.as_ref());
        Some(Self {
            bytes: size(requests.and_then(|own| own.get("storage"))),
            modes: spec.access_modes.iter().flatten().map(String::as_str).collect(),
            volume_mode: spec.volume_mode.as_deref().unwrap_or("Filesystem"),
            attributes_class: spec.volume_attributes_class_name.as_deref().unwrap_or_default(),
            class: class_of_claim(claim),
            selector: spec.selector.as_ref().map(LabelSelector::from_object).transpose().ok()?,
        })
    }
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    size(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage")))
}

fn modes(volume: &PersistentVolume) -> BTreeSet<&str> {
    volume.spec.iter().flat_map(|spec| spec.access_modes.iter().flatten()).map(String::as_str).collect()
}

/// Whether a volume is for another use of the device (`Filesystem`, `Block`) than a claim.
pub(super) fn differs_in_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of = |mode: Option<&str>| mode.unwrap_or("Filesystem") == "Block";
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    of(wanted) != of(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()))
}

fn attributes_class(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
}

fn volume_mode(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// Why a volume that a claim names cannot be bound to it.
pub(super) fn fault(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    let wish = Wish::of(claim)?;
    let text = if capacity(volume) < wish.bytes {
        "requested PV is too small"
    } else if class_of_volume(volume) != wish.class {
        "storageClassName does not match"
    } else if attributes_class(volume) != wish.attributes_class {
        "volumeAttributesClassName does not match"
    } else if volume_mode(volume) != wish.volume_mode {
        "incompatible volumeMode"
    } else if !wish.modes.is_subset(&modes(volume)) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// The volume that is meant for a claim, else the closest: the fewest access modes beyond what is asked for, then the least
/// capacity, then the first by name. Where binding `waits` for a pod, only one that is meant for it.
pub(super) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [PersistentVolume],
    waits: bool,
) -> Option<&'a PersistentVolume> {
    let wish = Wish::of(claim)?;
    let fits = |volume: &&PersistentVolume| {
        capacity(volume) >= wish.bytes
            && volume_mode(volume) == wish.volume_mode
            && attributes_class(volume) == wish.attributes_class
            && volume.metadata.deletion_timestamp.is_none()
            && wish.modes.is_subset(&modes(volume))
    };
    let is_free = |volume: &&PersistentVolume| {
        let labels = volume.metadata.labels.as_ref();
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
        !waits
            && volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_none())
            && volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available")
            && wish.selector.as_ref().is_none_or(|own| own.matches(label))
            && class_of_volume(volume) == wish.class
    };
    let mut meant = volumes.iter().filter(fits).filter(|volume| is_bound_to(volume, claim));
    if let Some(volume) = meant.next() {
        return Some(volume);
    }
    let free = volumes.iter().filter(fits).filter(is_free);
    free.min_by(|a, b| {
        let key = |own: &PersistentVolume| (modes(own).len(), own.metadata.name.clone());
        let ((modes_a, name_a), (modes_b, name_b)) = (key(a), key(b));
        modes_a.cmp(&modes_b).then(capacity(a).cmp(&capacity(b))).then(name_a.cmp(&name_b))
    })
}
