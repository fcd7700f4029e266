//! What becomes of a claim. Pure.

use super::matching::{self, annotation, best, class_of_claim, fault, has_class, is_bound_to, volume_name};
use crate::pod;
use client::EventType;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

/// On claims: the scheduler has chosen a node for the first pod that uses it, so that a volume can be made for that node.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On claims: who is to make the volume.
const PROVISIONER: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// On classes: they are for claims that name none.
const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Names with this prefix were upstream's own provisioners; nobody else answers to them.
const BUILT_IN_PREFIX: &str = "kubernetes.io/";

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: EventType,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Told {
    Told { kind: EventType::Normal, reason, message: message.into() }
}

pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Told {
    Told { kind: EventType::Warning, reason, message: message.into() }
}

/// What to do about a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// It gets this volume, or what is missing of the binding is done.
    Bind(Box<PersistentVolume>),
    /// It is `Pending`.
    Wait(Option<Told>),
    /// It is `Lost` for good; told when it becomes so.
    Lost(Told),
    /// It gets the default class, which came after it.
    Class(String),
    /// Somebody else is asked to make a volume.
    Provision { provisioner: String, told: Told },
}

fn bind(volume: &PersistentVolume) -> Step {
    Step::Bind(Box::new(volume.clone()))
}

/// A claim that has never been bound. `waiting` tells the pods that use it and have no node.
pub(super) fn unbound(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    classes: &[StorageClass],
    waiting: impl Fn() -> Vec<String>,
) -> Step {
    if let Some(name) = volume_name(claim) {
        let named = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name));
        return named.map_or(Step::Wait(None), |volume| asked_for(claim, volume));
    }
    let name = class_of_claim(claim);
    let class = classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
    let waits =
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = best(claim, volumes, waits) {
        return bind(volume);
    }
    if let Some(default) = default_class(classes).filter(|_| !has_class(claim)) {
        return Step::Class(default);
    }
    if waits && annotation(&claim.metadata, SELECTED_NODE).is_none() {
        return Step::Wait(Some(told_of_pods(&waiting())));
    }
    match (name, class) {
        ("", _) => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            Step::Wait(Some(normal("FailedBinding", why)))
        }
        (name, None) => {
            let why = format!("storageclass.storage.k8s.io {name:?} not found");
            Step::Wait(Some(warning("ProvisioningFailed", why)))
        }
        (_, Some(class)) if class.provisioner.starts_with(BUILT_IN_PREFIX) => {
            let why = format!("no volume plugin matched name: {}", class.provisioner);
            Step::Wait(Some(warning("ProvisioningFailed", why)))
        }
        (_, Some(class)) => {
            let provisioner = class.provisioner.clone();
            let why = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
                 system administrator. If volume creation is delayed, please verify that the provisioner is running and \
                 correctly registered."
            );
            Step::Provision { provisioner, told: normal("ExternalProvisioning", why) }
        }
    }
}

/// A claim that names its volume.
fn asked_for(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Step {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if is_bound_to(volume, claim) {
        return bind(volume);
    }
    if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
        let why = format!("volume {name:?} already bound to a different claim.");
        return Step::Wait(Some(warning("FailedBinding", why)));
    }
    match fault(volume, claim) {
        None => bind(volume),
        Some(why) => {
            let why = format!("Cannot bind to requested volume {name:?}: {why}");
            Step::Wait(Some(warning("VolumeMismatch", why)))
        }
    }
}

fn told_of_pods(pods: &[String]) -> Told {
    match pods {
        [] => normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        [pod] => normal("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        pods => normal("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", pods.join(","))),
    }
}

/// A claim that has been bound. `volume` is the one that it names.
pub(super) fn bound(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Step {
    let lost = |reason, why: &str| Step::Lost(warning(reason, why));
    let Some(volume) = volume else {
        return match volume_name(claim) {
            None => lost(
                "ClaimLost",
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            ),
            Some(_) => {
                lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
            }
        };
    };
    match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
        Some(named) if named.uid != claim.metadata.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => bind(volume),
    }
}

/// The newest of the default classes, of equally new ones the first by name.
fn default_class(classes: &[StorageClass]) -> Option<String> {
    let is_default = |class: &&StorageClass| {
        DEFAULT_CLASS.iter().any(|key| annotation(&class.metadata, key) == Some("true"))
    };
    let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let defaults = classes.iter().filter(is_default);
    let newest = defaults
        .min_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
    newest.and_then(|class| class.metadata.name.clone())
}

/// The pods without a node that use a claim.
pub(super) fn waiting_pods(claim: &PersistentVolumeClaim, pods: &[Pod]) -> Vec<String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let uses = |own: &&Pod| {
        let mut claims = pod::claims_of(own).into_iter();
        pod::node_name(own).is_empty() && !pod::is_finished(own) && claims.any(|key| *key.name == *name)
    };
    pods.iter().filter(uses).filter_map(|own| own.metadata.name.clone()).collect()
}

/// The claim in a phase without a volume, if it is in another.
pub(super) fn with_phase(claim: &PersistentVolumeClaim, phase: &str) -> Option<PersistentVolumeClaim> {
    let before = claim.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.phase = Some(phase.to_owned());
    status.access_modes = None;
    status.capacity = None;
    status.current_volume_attributes_class_name = None;
    (status != before).then(|| PersistentVolumeClaim { status: Some(status), ..claim.clone() })
}

pub(super) fn with_class(claim: &PersistentVolumeClaim, class: String) -> PersistentVolumeClaim {
    let mut changed = claim.clone();
    changed.spec.get_or_insert_default().storage_class_name = Some(class);
    changed
}

/// The claim with the name of who is to make its volume, if it does not say so yet.
pub(super) fn with_provisioner(
    claim: &PersistentVolumeClaim,
    provisioner: &str,
) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    let annotations = changed.metadata.annotations.get_or_insert_default();
    for key in PROVISIONER {
        annotations.insert(key.to_owned(), provisioner.to_owned());
    }
    let is_known =
        PROVISIONER.iter().all(|key| matching::annotation(&claim.metadata, key) == Some(provisioner));
    (!is_known).then_some(changed)
}
