//! Counting each pod that has ended exactly once. Pure.
//!
//! # Flow
//! A pod that has ended is first written into the status (its UID, or its index), then it loses its finalizer, then its UID is
//! turned into a count. At any point a crash leaves either the finalizer or the UID, and never counts twice.

use super::assess::{
    Assessment, FAILURE_TARGET, SUCCESS_MET, condition, is_indexed, is_tracked, new_condition, uncounted,
    valid_index,
};
use super::policy::{self, is_failed};
use crate::pod;
use api::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;

/// UIDs in a status at once. Upstream: `MaxUncountedPods`.
const UNCOUNTED_LEN_MAX: usize = 500;

/// What must be written.
pub(crate) struct Tracking<'a> {
    /// With the status of the first write.
    pub(crate) job: Job,
    /// Whether the first write is needed.
    pub(crate) is_changed: bool,
    /// Pods that lose their finalizer after it.
    pub(crate) untrack: Vec<&'a Pod>,
    /// The end of the job, to be written last.
    pub(crate) finished: Option<JobCondition>,
    /// Whether more pods wait to be counted than fit.
    pub(crate) is_full: bool,
}

/// Notes what has ended.
pub(crate) fn track<'a>(found: Assessment<'a>, is_changed: bool) -> Tracking<'a> {
    let mut tracking = Tracking {
        job: found.job.clone(),
        is_changed,
        untrack: Vec::new(),
        finished: found.finished.clone(),
        is_full: false,
    };
    let tracked = tracked_uids(found.pods);
    tracking.is_changed |= count_untracked(tracking.job.status.get_or_insert_default(), &tracked);
    let new_indexes = note_pods(&found, &mut tracking);
    let status = tracking.job.status.get_or_insert_default();
    if is_indexed(found.spec) {
        let indexes = found.succeeded_before.with(new_indexes);
        let text = indexes.to_string();
        tracking.is_changed |= status.completed_indexes.as_deref().unwrap_or_default() != text;
        status.succeeded = Some(indexes.len());
        status.completed_indexes = (!text.is_empty()).then_some(text);
        let failed = found.failed_indexes.as_ref().map(ToString::to_string);
        tracking.is_changed |= status.failed_indexes != failed;
        status.failed_indexes = failed;
    }
    announce_end(&mut tracking, found.now);
    tracking
}

/// UIDs of pods that still have their finalizer.
pub(crate) fn tracked_uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect()
}

/// Notes pods that have ended, and answers the indexes that newly succeeded.
fn note_pods<'a>(found: &Assessment<'a>, tracking: &mut Tracking<'a>) -> Vec<i32> {
    let before = found.job.status.clone().unwrap_or_default();
    let (old_succeeded, old_failed) = uncounted(&before);
    let ends_badly = found.finished.as_ref().is_some_and(|end| end.type_ != SUCCESS_MET);
    let mut new_indexes = Vec::new();
    let mut pods: Vec<_> = found.pods.iter().filter(|pod| is_tracked(pod)).collect();
    pods.sort_by_key(|pod| valid_index(found.spec, pod));
    let status = tracking.job.status.get_or_insert_default();
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    for pod in pods {
        let has_failed = is_failed(found.spec, pod);
        if !may_untrack(found, pod, has_failed) {
            continue;
        }
        tracking.untrack.push(pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let index = valid_index(found.spec, pod);
        let is_valid = !is_indexed(found.spec) || index.is_some();
        if pod::phase(pod) == "Succeeded" && !old_failed.contains(uid.as_str()) {
            if is_indexed(found.spec) {
                if let Some(index) = index.filter(|index| !found.succeeded_before.has(*index)) {
                    new_indexes.push(index);
                    tracking.is_changed = true;
                }
            } else if !old_succeeded.contains(uid.as_str()) {
                lists.succeeded.get_or_insert_default().push(uid);
                tracking.is_changed = true;
            }
        } else if (has_failed || ends_badly)
            && is_valid
            && !old_failed.contains(uid.as_str())
            && !policy::ruling(found.spec, pod).ignored
        {
            lists.failed.get_or_insert_default().push(uid);
            tracking.is_changed = true;
        }
        let count = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        if new_indexes.len() + count(&lists.succeeded) + count(&lists.failed) >= UNCOUNTED_LEN_MAX {
            tracking.is_full = true;
            break;
        }
    }
    new_indexes
}

/// Whether a pod may lose its finalizer.
fn may_untrack(found: &Assessment<'_>, pod: &Pod, has_failed: bool) -> bool {
    if found.job.metadata.deletion_timestamp.is_some()
        || found.finished.is_some()
        || pod::phase(pod) == "Succeeded"
    {
        return true;
    }
    let remembers = valid_index(found.spec, pod)
        .and_then(|index| found.failed_pods.get(&index))
        .is_some_and(|last| last.metadata.uid == pod.metadata.uid);
    has_failed && !remembers
}

/// Turns UIDs of pods without finalizer into counts. Answers whether something has changed.
pub(crate) fn count_untracked(status: &mut JobStatus, tracked: &BTreeSet<String>) -> bool {
    let Some(lists) = &mut status.uncounted_terminated_pods else { return false };
    let settle = |list: &mut Option<Vec<String>>, count: &mut Option<i32>| {
        let Some(uids) = list else { return false };
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid));
        let settled = super::assess::len(before - uids.len());
        if uids.is_empty() {
            *list = None;
        }
        if settled > 0 {
            *count = Some(count.unwrap_or(0) + settled);
        }
        settled > 0
    };
    settle(&mut lists.succeeded, &mut status.succeeded) | settle(&mut lists.failed, &mut status.failed)
}

/// The first half of an end is written at once; the second when all pods are counted.
fn announce_end(tracking: &mut Tracking<'_>, now: Timestamp) {
    let Some(end) = &tracking.finished else { return };
    let (reason, message) = (end.reason.clone().unwrap_or_default(), end.message.clone().unwrap_or_default());
    let status = tracking.job.status.get_or_insert_default();
    let last = match end.type_.as_str() {
        FAILURE_TARGET => "Failed",
        SUCCESS_MET => "Complete",
        _ => return,
    };
    let is_known = condition(Some(status), &end.type_).is_some_and(|own| own.status == "True");
    if !is_known {
        status.conditions.get_or_insert_default().push(end.clone());
        tracking.is_changed = true;
    }
    tracking.finished = Some(new_condition(last, "True", &reason, &message, now));
}

/// Writes the end into the status if every pod is gone and counted. Answers whether it did.
pub(crate) fn finish(status: &mut JobStatus, end: Option<&JobCondition>, terminating: i32) -> bool {
    let Some(end) = end else { return false };
    let (succeeded, failed) = uncounted(status);
    if !succeeded.is_empty() || !failed.is_empty() || terminating > 0 {
        return false;
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|own| own.type_ != end.type_);
    conditions.push(end.clone());
    if end.type_ == "Complete" {
        status.completion_time = end.last_transition_time.clone();
    }
    true
}
