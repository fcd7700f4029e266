//! What persistent volume claims count for. Upstream: `evaluator/core/persistent_volume_claims.go`.

use super::measure::{Measure, Traits, count};
use super::{Amounts, read};
use crate::Quantity;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use std::collections::BTreeSet;

/// The annotation that named the class before `storageClassName` did.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// `gold.storageclass.storage.k8s.io/requests.storage`.
const CLASS_INFIX: &str = ".storageclass.storage.k8s.io/";

pub(super) fn tracks(name: &str) -> bool {
    let by_class = |own: &str| name.strip_suffix(own).is_some_and(|rest| rest.ends_with(CLASS_INFIX));
    NAMES.iter().any(|own| name == *own || by_class(own))
}

/// Rounded up to whole bytes.
fn whole(amount: Quantity) -> Quantity {
    if amount.is_whole() { amount } else { Quantity::from_units(amount.units(), amount.format()) }
}

/// What a claim holds of its volume: what it asks for, or what is allocated to it if that is more.
fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let asked = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref();
    let asked = whole(*read(asked).get("storage")?);
    let allocated = claim.status.as_ref().and_then(|own| own.allocated_resources.as_ref());
    let allocated = read(allocated).get("storage").copied().map(whole);
    Some(allocated.filter(|allocated| *allocated > asked).unwrap_or(asked))
}

pub(super) fn measure(claim: &PersistentVolumeClaim) -> Measure {
    let spec = claim.spec.as_ref();
    let annotated = claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let class = annotated.or_else(|| spec.and_then(|own| own.storage_class_name.as_ref()));
    let class = class.filter(|class| !class.is_empty());
    let mut usage = Amounts::from([("count/persistentvolumeclaims".to_owned(), count(1))]);
    let amounts = [(NAMES[0], Some(count(1))), (NAMES[1], storage(claim))];
    for (name, amount) in amounts {
        let Some(amount) = amount else { continue };
        usage.insert(name.to_owned(), amount);
        if let Some(class) = class {
            usage.insert(format!("{class}{CLASS_INFIX}{name}"), amount);
        }
    }
    let status = claim.status.as_ref();
    let attributes = [
        spec.and_then(|own| own.volume_attributes_class_name.as_ref()),
        status.and_then(|own| own.current_volume_attributes_class_name.as_ref()),
        status
            .and_then(|own| own.modify_volume_status.as_ref())
            .and_then(|own| own.target_volume_attributes_class_name.as_ref()),
    ];
    let attributes: BTreeSet<String> =
        attributes.into_iter().flatten().filter(|name| !name.is_empty()).cloned().collect();
    Measure { usage, ends: None, traits: Traits::Claim(attributes) }
}
