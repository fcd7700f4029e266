//! Where a job stands. Pure.

use super::indexes::Indexes;
use super::policy::{self, Backoff, is_failed};
use crate::pod::{self, annotation};
use api::Timestamp;
use client::time;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};

/// The finalizer by which a pod that has ended waits to be counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// The index of a pod, as annotation and as label.
pub(crate) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(crate) const FAILURE_TARGET: &str = "FailureTarget";
pub(crate) const SUCCESS_MET: &str = "SuccessCriteriaMet";

/// A job and its pods, and what follows from them.
pub(crate) struct Assessment<'a> {
    /// With what is decided so far in its status.
    pub(crate) job: Job,
    pub(crate) spec: &'a JobSpec,
    pub(crate) pods: &'a [Pod],
    pub(crate) active: Vec<&'a Pod>,
    pub(crate) active_count: i32,
    pub(crate) ready: i32,
    pub(crate) terminating: i32,
    pub(crate) succeeded: i32,
    /// A condition that ends the job.
    pub(crate) finished: Option<JobCondition>,
    pub(crate) backoff: Backoff,
    /// Indexes that succeeded, before and with what is new.
    pub(crate) succeeded_before: Indexes,
    pub(crate) succeeded_indexes: Indexes,
    pub(crate) failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that will be tried again.
    pub(crate) failed_pods: BTreeMap<i32, &'a Pod>,
    /// When the active deadline passes.
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) now: Timestamp,
}

pub(crate) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(crate) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

pub(crate) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|own| own == TRACKING)
}

/// The index of a pod.
pub(crate) fn index_of(pod: &Pod) -> Option<i32> {
    annotation(&pod.metadata, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The index of a pod if it is one of the job's.
pub(crate) fn valid_index(spec: &JobSpec, pod: &Pod) -> Option<i32> {
    index_of(pod).filter(|index| *index < spec.completions.unwrap_or(0))
}

pub(crate) fn condition<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    status?.conditions.as_deref()?.iter().find(|own| own.type_ == kind)
}

/// Whether a job has come to its end.
pub(crate) fn is_finished(job: &Job) -> bool {
    let holds = |kind| condition(job.status.as_ref(), kind).is_some_and(|own| own.status == "True");
    holds("Complete") || holds("Failed")
}

pub(crate) fn new_condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// UIDs in one of the lists of pods that are not counted yet.
pub(crate) fn uncounted(status: &JobStatus) -> (BTreeSet<&str>, BTreeSet<&str>) {
    fn set(list: Option<&Vec<String>>) -> BTreeSet<&str> {
        list.into_iter().flatten().map(String::as_str).collect()
    }
    let lists = status.uncounted_terminated_pods.as_ref();
    (
        set(lists.and_then(|lists| lists.succeeded.as_ref())),
        set(lists.and_then(|lists| lists.failed.as_ref())),
    )
}

/// Looks at a job and its pods.
pub(crate) fn assess<'a>(
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Pod],
    backoff: Backoff,
    now: Timestamp,
) -> Assessment<'a> {
    let mut own = job.clone();
    let status = own.status.get_or_insert_default();
    status.uncounted_terminated_pods.get_or_insert_default();
    if status.start_time.is_none() && !is_suspended(spec) {
        status.start_time = Some(time(now));
    }
    let before = job.status.clone().unwrap_or_default();
    let (old_succeeded, old_failed) = uncounted(&before);
    let new = |known: &BTreeSet<&str>, is: &dyn Fn(&Pod) -> bool| -> Vec<&'a Pod> {
        let counts = |pod: &&Pod| {
            is_tracked(pod)
                && !known.contains(pod.metadata.uid.as_deref().unwrap_or_default())
                && (!is_indexed(spec) || valid_index(spec, pod).is_some())
                && is(pod)
        };
        pods.iter().filter(counts).collect()
    };
    let newly_succeeded = new(&old_succeeded, &|pod| pod::phase(pod) == "Succeeded");
    let newly_failed = new(&old_failed, &|pod| is_failed(spec, pod));
    let counted_failures = newly_failed.iter().filter(|pod| !policy::ruling(spec, pod).ignored).count();
    let failed = before.failed.unwrap_or(0) + len(counted_failures) + len(old_failed.len());
    let succeeded = before.succeeded.unwrap_or(0) + len(newly_succeeded.len()) + len(old_succeeded.len());
    let active: Vec<_> = pods.iter().filter(|pod| pod::is_active(pod)).collect();
    let mut found = Assessment {
        spec,
        pods,
        active_count: len(active.len()),
        ready: len(active.iter().filter(|pod| pod::is_ready(pod)).count()),
        terminating: len(pods.iter().filter(|pod| pod::is_terminating(pod)).count()),
        active,
        succeeded,
        finished: None,
        backoff: backoff.after(&newly_succeeded, &newly_failed),
        succeeded_before: Indexes::default(),
        succeeded_indexes: Indexes::default(),
        failed_indexes: None,
        failed_pods: BTreeMap::new(),
        deadline: None,
        now,
        job: own,
    };
    found.finished = found.known_end().or_else(|| found.limit_end(failed));
    if is_indexed(spec) {
        found.assess_indexes(&before);
    }
    found
}

pub(crate) fn len(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl<'a> Assessment<'a> {
    fn failure(&self, reason: &str, message: &str) -> JobCondition {
        new_condition(FAILURE_TARGET, "True", reason, message, self.now)
    }

    /// An end that was decided before, or that a failed pod decides.
    fn known_end(&self) -> Option<JobCondition> {
        let holds = |kind| condition(self.job.status.as_ref(), kind).filter(|own| own.status == "True");
        if let Some(met) = holds(SUCCESS_MET) {
            return Some(met.clone());
        }
        if let Some(target) = holds(FAILURE_TARGET) {
            let (reason, message) = (target.reason.as_deref(), target.message.as_deref());
            return Some(new_condition(
                "Failed",
                "True",
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
                self.now,
            ));
        }
        let failed = self.pods.iter().filter(|pod| is_failed(self.spec, pod));
        let message = failed.filter_map(|pod| policy::ruling(self.spec, pod).fails_job).next()?;
        Some(self.failure("PodFailurePolicy", &message))
    }

    /// An end by a limit.
    fn limit_end(&mut self, failed: i32) -> Option<JobCondition> {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if failed > limit || policy::is_past_restarts(&self.job, self.pods) {
            return Some(self.failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        let seconds = self.spec.active_deadline_seconds.filter(|_| !is_suspended(self.spec))?;
        let start = self.job.status.as_ref()?.start_time.as_ref()?.0;
        let deadline = start.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        if deadline <= self.now {
            return Some(self.failure("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        self.deadline = Some(deadline);
        None
    }

    fn assess_indexes(&mut self, before: &JobStatus) {
        let completions = self.spec.completions.unwrap_or(0);
        self.succeeded_before =
            Indexes::parse(before.completed_indexes.as_deref().unwrap_or_default(), completions);
        let spec = self.spec;
        let indexes = |is: &dyn Fn(&Pod) -> bool| {
            let own = self.pods.iter().filter(|pod| is_tracked(pod) && is(pod));
            own.filter_map(|pod| valid_index(spec, pod)).collect::<BTreeSet<_>>()
        };
        self.succeeded_indexes = self.succeeded_before.with(indexes(&|pod| pod::phase(pod) == "Succeeded"));
        self.succeeded = self.succeeded_indexes.len();
        if let Some(limit) = spec.backoff_limit_per_index {
            let text = before.failed_indexes.as_deref().unwrap_or_default();
            let new = indexes(&|pod| is_index_failed(spec, pod, limit));
            let failed = Indexes::parse(text, completions).with(new);
            if self.finished.is_none() {
                if spec.max_failed_indexes.is_some_and(|max| failed.len() > max) {
                    let message = "Job has exceeded the specified maximal number of failed indexes";
                    self.finished = Some(self.failure("MaxFailedIndexesExceeded", message));
                } else if !failed.is_empty() && failed.len() + self.succeeded >= completions {
                    self.finished = Some(self.failure("FailedIndexes", "Job has failed indexes"));
                }
            }
            self.failed_indexes = Some(failed);
            self.failed_pods = self.last_failures();
        }
        if self.finished.is_none()
            && let Some(message) =
                policy::success(spec.success_policy.as_ref(), completions, &self.succeeded_indexes)
        {
            self.finished = Some(new_condition(SUCCESS_MET, "True", "SuccessPolicy", &message, self.now));
        }
    }

    /// The last failed pod of each index that has neither ended nor an active pod: its finalizer stays until it is replaced,
    /// because it remembers how often the index failed.
    fn last_failures(&self) -> BTreeMap<i32, &'a Pod> {
        let active: BTreeSet<_> = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        let is_settled = |index: i32| {
            self.succeeded_indexes.has(index)
                || self.failed_indexes.as_ref().is_some_and(|failed| failed.has(index))
                || active.contains(&index)
        };
        let failures = |pod: &Pod| {
            policy::count(pod, policy::INDEX_FAILURES) + policy::count(pod, policy::INDEX_IGNORED)
        };
        let mut last: BTreeMap<i32, &Pod> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && is_failed(self.spec, pod)) {
            let Some(index) = valid_index(self.spec, pod).filter(|index| !is_settled(*index)) else {
                continue;
            };
            let is_later = last.get(&index).is_none_or(|known| {
                failures(known) <= failures(pod) && policy::finished_at(pod) >= policy::finished_at(known)
            });
            if is_later {
                last.insert(index, pod);
            }
        }
        last
    }
}

fn is_index_failed(spec: &JobSpec, pod: &Pod, limit: i32) -> bool {
    if !is_failed(spec, pod) {
        return false;
    }
    let ruling = policy::ruling(spec, pod);
    ruling.fails_index || (!ruling.ignored && policy::count(pod, policy::INDEX_FAILURES) >= limit)
}
