//! The next steps of a stateful set. Pure. Upstream: stateful_set_control.go.

use super::identity::{
    REVISION, claim_owners, has_identity, is_claim_stale, is_wanted, new_pod, ordinal, replicas, start,
};
use crate::number::scaled;
use crate::pod;
use api::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};

/// One step. A set that keeps order does them one after the other and stops at the first failure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Make missing claims, then the pod.
    Create(Box<Pod>),
    Delete(Box<Pod>),
    /// Make missing claims of a pod that waits for them, and give claims their owners.
    Claims(Box<Pod>),
    /// Give a pod its labels and volumes.
    Fix(Box<Pod>),
}

/// A template and the name of its revision.
#[derive(Clone, Copy)]
pub(crate) struct Template<'a> {
    pub(crate) revision: &'a str,
    pub(crate) spec: &'a PodTemplateSpec,
}

/// What is known.
pub(crate) struct World<'a> {
    pub(crate) set: &'a StatefulSet,
    /// Pods of the set, in any order.
    pub(crate) pods: &'a [Pod],
    /// What pods had before the update that is going on, and what they shall have.
    pub(crate) current: Template<'a>,
    pub(crate) update: Template<'a>,
    pub(crate) collision_count: i32,
    pub(crate) claim: &'a (dyn Fn(&str) -> Option<PersistentVolumeClaim> + Sync),
    pub(crate) now: Timestamp,
}

pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) status: StatefulSetStatus,
}

fn is_created(pod: &Pod) -> bool {
    !pod::phase(pod).is_empty()
}

fn revision(pod: &Pod) -> &str {
    pod::label(&pod.metadata, REVISION).unwrap_or_default()
}

impl World<'_> {
    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    pub(crate) fn is_monotonic(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pod::is_deleting(pod)
    }

    fn partition(&self) -> Option<i32> {
        let strategy = self.set.spec.update_strategy.as_ref()?;
        strategy.rolling_update.as_ref().map(|rolling| rolling.partition.unwrap_or(0))
    }

    /// A pod that is missing: those below the partition keep the old template.
    fn missing(&self, ordinal: i32) -> Pod {
        let current_replicas =
            self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or(0);
        let is_rolling = self.strategy() == "RollingUpdate";
        let keeps_old = match self.partition() {
            None => is_rolling && ordinal < start(self.set) + current_replicas,
            Some(partition) => ordinal < start(self.set) + partition,
        };
        let template = if keeps_old { self.current } else { self.update };
        new_pod(self.set, template.spec, template.revision, ordinal)
    }

    fn strategy(&self) -> &str {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    /// Whether claims of a pod lack the owners they should have.
    fn needs_claim_owners(&self, pod: &Pod) -> bool {
        let Some(ordinal) = ordinal(pod) else { return false };
        super::identity::claims(self.set, ordinal).iter().any(|(_, claim)| {
            let known = claim.metadata.name.as_deref().and_then(|name| (self.claim)(name));
            known.is_some_and(|claim| claim_owners(self.set, pod, &claim).is_some())
        })
    }

    fn is_waiting_for_claim(&self, pod: &Pod) -> bool {
        let Some(ordinal) = ordinal(pod) else { return false };
        super::identity::claims(self.set, ordinal).iter().any(|(_, claim)| {
            let known = claim.metadata.name.as_deref().and_then(|name| (self.claim)(name));
            known.is_some_and(|claim| is_claim_stale(self.set, pod, &claim))
        })
    }
}

/// Decides.
pub(crate) fn plan(world: &World<'_>) -> Plan {
    let mut steps = Vec::new();
    let (mut wanted, mut condemned): (Vec<&Pod>, Vec<&Pod>) = (Vec::new(), Vec::new());
    for pod in world.pods {
        match ordinal(pod) {
            Some(number) if is_wanted(world.set, number) => wanted.push(pod),
            Some(_) => condemned.push(pod),
            None => {}
        }
    }
    condemned.sort_by_key(|pod| std::cmp::Reverse(ordinal(pod)));
    let first = start(world.set);
    let all: Vec<Pod> = (first..first + replicas(world.set))
        .map(|number| {
            let known = wanted.iter().find(|pod| ordinal(pod) == Some(number));
            known.map_or_else(|| world.missing(number), |pod| (*pod).clone())
        })
        .collect();
    let mut deleted_current = 0;
    if world.set.metadata.deletion_timestamp.is_none()
        && plan_wanted(world, &all, &mut steps)
        && plan_condemned(world, &all, &condemned, &mut steps)
        && world.strategy() == "RollingUpdate"
    {
        deleted_current = plan_update(world, &all, &mut steps);
    }
    Plan { steps, status: status(world, deleted_current) }
}

/// Makes and repairs the pods that are asked for. Answers whether the rest may go on.
fn plan_wanted(world: &World<'_>, all: &[Pod], steps: &mut Vec<Step>) -> bool {
    let is_monotonic = world.is_monotonic();
    for pod in all {
        let boxed = || Box::new(pod.clone());
        if pod::is_finished(pod) {
            if !pod::is_deleting(pod) {
                steps.push(Step::Delete(boxed()));
            }
            if is_monotonic {
                return false;
            }
            continue;
        }
        if !is_created(pod) {
            if pod.metadata.uid.is_none() && !world.is_waiting_for_claim(pod) {
                steps.push(Step::Create(boxed()));
            }
            if is_monotonic {
                return false;
            }
            continue;
        }
        if pod::phase(pod) == "Pending" {
            steps.push(Step::Claims(boxed()));
        }
        if is_monotonic && (pod::is_deleting(pod) || !is_running(pod) || !world.is_available(pod)) {
            return false;
        }
        if !has_identity(world.set, pod) || world.needs_claim_owners(pod) {
            steps.push(Step::Fix(boxed()));
        }
    }
    true
}

fn is_running(pod: &Pod) -> bool {
    pod::phase(pod) == "Running" && pod::is_ready(pod)
}

/// Removes the pods that are not asked for, the highest number first. Answers whether the rest may go on.
fn plan_condemned(world: &World<'_>, all: &[Pod], condemned: &[&Pod], steps: &mut Vec<Step>) -> bool {
    let is_monotonic = world.is_monotonic();
    for pod in condemned.iter().filter(|pod| world.needs_claim_owners(pod)) {
        steps.push(Step::Claims(Box::new((*pod).clone())));
    }
    let in_order = all.iter().chain(condemned.iter().rev().copied());
    let first_unavailable = in_order.into_iter().find(|pod| world.is_unavailable(pod));
    for pod in condemned {
        if pod::is_deleting(pod) {
            if is_monotonic {
                return false;
            }
            continue;
        }
        // The first that is not available may go: waiting for it would be for ever.
        let is_first = first_unavailable.is_some_and(|first| first.metadata.name == pod.metadata.name);
        if is_monotonic && !is_first && !(is_running(pod) && world.is_available(pod)) {
            return false;
        }
        steps.push(Step::Delete(Box::new((*pod).clone())));
        if is_monotonic {
            return false;
        }
    }
    true
}

/// Removes pods with an old template, the highest number first, as many as may be unavailable. Answers how many of the current
/// revision go.
fn plan_update(world: &World<'_>, all: &[Pod], steps: &mut Vec<Step>) -> i32 {
    let rolling =
        world.set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let most = most.and_then(|value| scaled(value, replicas(world.set), false)).unwrap_or(1).max(1);
    let most = usize::try_from(most).unwrap_or(1);
    let partition = usize::try_from(world.partition().unwrap_or(0)).unwrap_or(0);
    let is_old = |pod: &Pod| revision(pod) != world.update.revision && !pod::is_deleting(pod);
    let unavailable = all.iter().filter(|pod| world.is_unavailable(pod)).count();
    let to_update = all.iter().skip(partition).rev().filter(|pod| is_old(pod));
    let mut room = most.saturating_sub(unavailable);
    let mut deleted = 0;
    let mut delete = |pod: &Pod| {
        if is_created(pod) {
            steps.push(Step::Delete(Box::new(pod.clone())));
            deleted += 1;
        }
    };
    if world.is_monotonic() {
        to_update.take(room).for_each(&mut delete);
        return deleted;
    }
    // In parallel, what does not serve anyway is replaced at once.
    for pod in to_update {
        if !world.is_available(pod) {
            delete(pod);
        } else if room > 0 {
            room -= 1;
            delete(pod);
        }
    }
    deleted
}

fn status(world: &World<'_>, deleted_current: i32) -> StatefulSetStatus {
    let old = world.set.status.clone().unwrap_or_default();
    let count = |is: &dyn Fn(&Pod) -> bool| {
        i32::try_from(world.pods.iter().filter(|pod| is(pod)).count()).unwrap_or(i32::MAX)
    };
    let of = |name: &str| count(&|pod| is_created(pod) && !pod::is_deleting(pod) && revision(pod) == name);
    let (replicas, ready) = (count(&is_created), count(&is_running));
    let available = count(&|pod| is_running(pod) && world.is_available(pod));
    let updated = of(world.update.revision);
    let mut current = of(world.current.revision) - deleted_current;
    let mut current_revision = world.current.revision;
    let wanted = super::identity::replicas(world.set);
    if updated == wanted && ready == wanted && replicas == wanted {
        (current, current_revision) = (updated, world.update.revision);
    }
    let some = |count: i32| (count != 0).then_some(count);
    StatefulSetStatus {
        observed_generation: world.set.metadata.generation,
        replicas,
        ready_replicas: some(ready),
        available_replicas: Some(available),
        current_replicas: some(current.max(0)),
        updated_replicas: some(updated),
        current_revision: Some(current_revision.to_owned()),
        update_revision: Some(world.update.revision.to_owned()),
        collision_count: Some(world.collision_count),
        conditions: old.conditions,
    }
}
