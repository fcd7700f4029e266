//! What becomes of an object whose owners are looked at. Pure.

use api::object::Owner;
use client::Propagation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// The finalizer that keeps an object until what it owns is gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that keeps an object until what it owns is released.
pub(crate) const ORPHAN: &str = "orphan";

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It exists and stays.
    Solid,
    /// It does not exist.
    Dangling,
    /// It is being deleted and waits for what it owns.
    Waiting,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    pub(crate) deleting: bool,
    /// It has the finalizer [`FOREGROUND`].
    pub(crate) waits_for_dependents: bool,
    /// It has the finalizer [`ORPHAN`].
    pub(crate) orphans_dependents: bool,
    pub(crate) has_dependents: bool,
    /// One of its dependents is itself being deleted and waits for its own.
    pub(crate) has_waiting_dependent: bool,
    /// A dependent exists that its deletion must wait for.
    pub(crate) is_blocked: bool,
}

/// What must be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    /// Take the foreground finalizer away: nothing is waited for any more.
    Finish,
    /// Try the dependents that are waited for.
    TryDependents,
    /// Remove these owner references; another owner keeps the object.
    DropOwners(Vec<usize>),
    Delete {
        propagation: Propagation,
        /// First stop blocking the owners: this object and one of its dependents wait for each other.
        unblock: bool,
    },
}

/// Decides. `owners` is how the owners stand, in their order.
pub(crate) fn decide(state: State, owners: &[Standing]) -> Verdict {
    if state.deleting && state.waits_for_dependents {
        return if state.is_blocked { Verdict::TryDependents } else { Verdict::Finish };
    }
    if state.deleting || owners.is_empty() {
        return Verdict::Nothing;
    }
    let not_solid: Vec<_> = (0..owners.len()).filter(|index| owners[*index] != Standing::Solid).collect();
    if not_solid.len() < owners.len() {
        return if not_solid.is_empty() { Verdict::Nothing } else { Verdict::DropOwners(not_solid) };
    }
    if owners.contains(&Standing::Waiting) && state.has_dependents {
        return Verdict::Delete {
            propagation: Propagation::Foreground,
            unblock: state.has_waiting_dependent,
        };
    }
    let propagation = match (state.orphans_dependents, state.waits_for_dependents) {
        (true, _) => Propagation::Orphan,
        (false, true) => Propagation::Foreground,
        (false, false) => Propagation::Background,
    };
    Verdict::Delete { propagation, unblock: false }
}

/// Owners that no longer are what they were: gone from the list, or no longer blocked. Who waits for this object must look again.
pub(crate) fn released(old: &[Owner], new: &[Owner]) -> Vec<Owner> {
    let still = |own: &&Owner| {
        let now = new.iter().find(|other| other.uid == own.uid);
        now.is_none_or(|now| own.block_owner_deletion && !now.block_owner_deletion)
    };
    old.iter().filter(still).cloned().collect()
}

/// The references without those at `positions`.
pub(crate) fn without(owners: &[OwnerReference], positions: &[usize]) -> Vec<OwnerReference> {
    let keep =
        |(index, owner): (usize, &OwnerReference)| (!positions.contains(&index)).then(|| owner.clone());
    owners.iter().enumerate().filter_map(keep).collect()
}

/// The references, none of which blocks.
pub(crate) fn unblocked(owners: &[OwnerReference]) -> Vec<OwnerReference> {
    let unblock = |owner: &OwnerReference| OwnerReference {
        block_owner_deletion: owner.block_owner_deletion.map(|_| false),
        ..owner.clone()
    };
    owners.iter().map(unblock).collect()
}
