//! What a deployment says about itself. Pure.

use super::plan::{self, Rollout, Set};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetCondition};

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";

/// A condition of the status.
pub(crate) fn condition<'a>(
    status: Option<&'a DeploymentStatus>,
    kind: &str,
) -> Option<&'a DeploymentCondition> {
    status?.conditions.as_deref()?.iter().find(|condition| condition.type_.as_deref() == Some(kind))
}

/// Puts a condition in. One with the same status and reason stays as it is; the time of transition changes with the status.
pub(crate) fn set_condition(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(old) = conditions.iter().find(|old| old.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    conditions.retain(|old| old.type_ != new.type_);
    conditions.push(new);
}

pub(crate) fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

/// Whether every pod is new and available.
pub(crate) fn is_complete(rollout: &Rollout, status: &DeploymentStatus) -> bool {
    let replicas = rollout.replicas();
    let is_all = |count: Option<i32>| count.unwrap_or(0) == replicas;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation.unwrap_or(0) >= rollout.deployment.metadata.generation.unwrap_or(0)
}

/// Says that the deployment is paused, or goes on.
pub(crate) fn note_pause(rollout: &mut Rollout) {
    if !has_deadline(&rollout.deployment) {
        return;
    }
    let reason = condition(rollout.deployment.status.as_ref(), PROGRESSING)
        .and_then(|condition| condition.reason.clone());
    let says_paused = reason.as_deref() == Some("DeploymentPaused");
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    match (rollout.deployment.spec.paused == Some(true), says_paused) {
        (true, false) => {
            let message = "Deployment is paused".to_owned();
            rollout.set_condition(PROGRESSING, "Unknown", "DeploymentPaused", message);
        }
        (false, true) => {
            let message = "Deployment is resumed".to_owned();
            rollout.set_condition(PROGRESSING, "Unknown", "DeploymentResumed", message);
        }
        _ => {}
    }
}

/// Zero is left out, as upstream leaves it out.
fn some(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

/// Pods that are going away; `None` if a set does not tell.
fn terminating<'a>(sets: impl Iterator<Item = &'a Set>) -> Option<i32> {
    let mut sum = 0;
    for set in sets {
        let Some(status) = &set.object.status else { continue };
        match (status.terminating_replicas, status.observed_generation.unwrap_or(0)) {
            (None, 0) => {}
            (None, _) => return None,
            (Some(count), _) => sum += count,
        }
    }
    Some(sum)
}

/// Counts, and whether enough pods are available.
pub(crate) fn of(rollout: &Rollout) -> DeploymentStatus {
    let ready = |set: &Set| set.object.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let available: i32 = rollout.sets().map(Set::available).sum();
    let total: i32 = rollout.sets().map(Set::replicas).sum();
    let old = rollout.deployment.status.as_ref();
    let mut conditions = old.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let (state, reason, message) = if available >= rollout.replicas() - rollout.max_unavailable() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set_condition(
        &mut conditions,
        plan::condition("Available", state, reason, message.to_owned(), rollout.now),
    );
    DeploymentStatus {
        observed_generation: rollout.deployment.metadata.generation,
        replicas: some(rollout.sets().map(Set::actual).sum()),
        updated_replicas: some(rollout.new.as_ref().map_or(0, Set::actual)),
        ready_replicas: some(rollout.sets().map(ready).sum()),
        available_replicas: some(available),
        unavailable_replicas: some((total - available).max(0)),
        terminating_replicas: terminating(rollout.sets()),
        collision_count: old.and_then(|status| status.collision_count),
        conditions: Some(conditions),
    }
}

/// The status during and after a rollout: counts, progress and failures of replica sets.
pub(crate) fn after_rollout(rollout: &mut Rollout) -> DeploymentStatus {
    let mut status = of(rollout);
    let mut conditions = status.conditions.take().unwrap_or_default();
    let is_deadline = has_deadline(&rollout.deployment);
    if !is_deadline {
        conditions.retain(|condition| condition.type_.as_deref() != Some(PROGRESSING));
    }
    let current = condition(rollout.deployment.status.as_ref(), PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(NEW_AVAILABLE));
    if is_deadline && !was_complete {
        let subject = match &rollout.new {
            Some(set) => format!("ReplicaSet \"{}\"", set.name()),
            None => format!("Deployment \"{}\"", rollout.name()),
        };
        let made = |state, reason, text: &str| {
            plan::condition(PROGRESSING, state, reason, format!("{subject} {text}"), rollout.now)
        };
        if is_complete(rollout, &status) {
            set_condition(&mut conditions, made("True", NEW_AVAILABLE, "has successfully progressed."));
        } else if is_progressing(rollout.deployment.status.as_ref(), &status) {
            let mut new = made("True", "ReplicaSetUpdated", "is progressing.");
            // Progress is news even if the reason is the same: the deadline counts from the last update.
            if let Some(current) = current {
                if current.status == new.status {
                    new.last_transition_time = current.last_transition_time;
                }
                conditions.retain(|condition| condition.type_.as_deref() != Some(PROGRESSING));
            }
            set_condition(&mut conditions, new);
        } else if is_timed_out(rollout, current.as_ref()) {
            set_condition(&mut conditions, made("False", TIMED_OUT, "has timed out progressing."));
        }
    }
    match replica_failure(rollout) {
        Some(failure) => set_condition(&mut conditions, failure),
        None => conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
    status.conditions = Some(conditions);
    status
}

fn is_progressing(old: Option<&DeploymentStatus>, new: &DeploymentStatus) -> bool {
    let count = |value: Option<i32>| value.unwrap_or(0);
    let empty = DeploymentStatus::default();
    let old = old.unwrap_or(&empty);
    let outdated = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn is_timed_out(rollout: &Rollout, current: Option<&DeploymentCondition>) -> bool {
    let Some(current) = current else { return false };
    match current.reason.as_deref() {
        Some(NEW_AVAILABLE) => return false,
        Some(TIMED_OUT) => return true,
        _ => {}
    }
    let seconds = rollout.deployment.spec.progress_deadline_seconds.unwrap_or(i32::MAX);
    let since = current.last_update_time.as_ref().map(|time| time.0);
    since
        .and_then(|since| since.checked_add(SignedDuration::from_secs(seconds.into())).ok())
        .is_some_and(|deadline| deadline < rollout.now)
}

fn replica_failure(rollout: &Rollout) -> Option<DeploymentCondition> {
    let failure = |set: &Set| -> Option<ReplicaSetCondition> {
        let conditions = set.object.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE)).cloned()
    };
    let found = rollout.new.as_ref().and_then(failure).or_else(|| rollout.old.iter().find_map(failure))?;
    Some(DeploymentCondition {
        type_: found.type_,
        status: found.status,
        reason: found.reason,
        message: found.message,
        last_update_time: found.last_transition_time.clone(),
        last_transition_time: found.last_transition_time,
    })
}
