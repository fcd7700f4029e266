//! What a failed pod means, when success is enough, and how long to wait after failures. Pure.
//!
//! Upstream: pod_failure_policy.go, success_policy.go, backoff_utils.go.

use super::indexes::Indexes;
use crate::pod::{annotation, condition, phase};
use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// The first wait after a failure, and the longest. Upstream: `DefaultJobPodFailureBackOff`, `MaxJobPodFailureBackOff`.
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);
/// How often the pods of an index failed before this one, counted and ignored.
pub(crate) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(crate) const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What a policy says about a failed pod.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ruling {
    /// The whole job fails, with this message.
    pub(crate) fails_job: Option<String>,
    /// The failure does not count.
    pub(crate) ignored: bool,
    /// The pod's index fails for good.
    pub(crate) fails_index: bool,
}

/// Applies the failure policy of a job to a failed pod.
pub(crate) fn ruling(spec: &JobSpec, pod: &Pod) -> Ruling {
    let rules = spec.pod_failure_policy.as_ref().map(|policy| policy.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Ruling { ignored: true, ..Ruling::default() },
            "FailIndex" => Ruling { fails_index: true, ..Ruling::default() },
            "FailJob" => {
                let message = format!("{why} matching {} rule at index {index}", rule.action);
                Ruling { fails_job: Some(message), ..Ruling::default() }
            }
            _ => Ruling::default(),
        };
    }
    Ruling::default()
}

/// Why a rule applies.
fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    if let Some(codes) = &rule.on_exit_codes {
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let found =
            lists.into_iter().flatten().flatten().find_map(|container| failed_with(container, codes))?;
        return Some(format!("Container {} for pod {name} failed with exit code {}", found.0, found.1));
    }
    let patterns = rule.on_pod_conditions.as_deref()?;
    let conditions = status.conditions.as_deref()?;
    let found = conditions.iter().find(|own| {
        patterns.iter().any(|pattern| {
            pattern.type_ == own.type_ && pattern.status.as_deref().unwrap_or("True") == own.status
        })
    })?;
    Some(format!("Pod {name} has condition {}", found.type_))
}

fn failed_with(
    container: &ContainerStatus,
    codes: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(String, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let is_meant = codes.container_name.as_ref().is_none_or(|name| *name == container.name);
    let holds = match codes.operator.as_str() {
        "In" => codes.values.contains(&code),
        "NotIn" => !codes.values.contains(&code),
        _ => false,
    };
    (is_meant && code != 0 && holds).then(|| (container.name.clone(), code))
}

/// Whether the indexes that succeeded are enough; the message names the rule.
pub(crate) fn success(
    policy: Option<&SuccessPolicy>,
    completions: i32,
    succeeded: &Indexes,
) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let is_met = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let common = wanted.common(succeeded);
            !wanted.is_empty()
                && (common == wanted.len() || rule.succeeded_count.is_some_and(|count| common >= count))
        }
        None => rule.succeeded_count.is_some_and(|count| succeeded.len() >= count),
    };
    let rule = policy?.rules.iter().position(is_met)?;
    Some(format!("Matched rules at index {rule}"))
}

/// Whether a pod has failed in the eyes of its job: one that is being deleted counts, unless replacements wait for its end.
pub(crate) fn is_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_only_failed(spec),
    }
}

/// Whether a pod is replaced only after it has ended.
pub(crate) fn replaces_only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// Whether containers that are restarted in their pods have used up the limit.
pub(crate) fn is_past_restarts(job: &Job, pods: &[Pod]) -> bool {
    let Some(spec) = &job.spec else { return false };
    let restart = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if restart != Some("OnFailure") {
        return false;
    }
    let restarts = |pod: &Pod| -> i32 {
        let Some(status) = &pod.status else { return 0 };
        let lists = [&status.container_statuses, &status.init_container_statuses];
        lists.into_iter().flatten().flatten().map(|container| container.restart_count).sum()
    };
    let running = pods.iter().filter(|pod| matches!(phase(pod), "Running" | "Pending"));
    let total: i32 = running.map(restarts).sum();
    match spec.backoff_limit.unwrap_or(6) {
        0 => total > 0,
        limit => total >= limit,
    }
}

/// When a pod ended, as far as it can be known.
pub(crate) fn finished_at(pod: &Pod) -> Timestamp {
    let containers = || {
        let status = pod.status.as_ref()?;
        let spec = pod.spec.as_ref();
        let is_sidecar = |name: &str| {
            let inits = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
            inits.iter().any(|own| own.name == name && own.restart_policy.as_deref() == Some("Always"))
        };
        let inits = status.init_container_statuses.iter().flatten().filter(|own| is_sidecar(&own.name));
        let all = status.container_statuses.iter().flatten().chain(inits);
        let ends: Option<Vec<Timestamp>> = all
            .map(|container| {
                container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|at| at.0)
            })
            .collect();
        ends?.into_iter().max()
    };
    let unready = || {
        let ready = condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|at| at.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref().and_then(|at| at.0.checked_sub(grace).ok())
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
    containers().or_else(unready).or_else(deleted).or_else(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Failures since the last success. Lost at a restart, as upstream's: the wait then starts again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Backoff {
    failures: u32,
    last_failure: Option<Timestamp>,
}

impl Backoff {
    /// After pods have newly succeeded and failed.
    pub(crate) fn after(self, succeeded: &[&Pod], failed: &[&Pod]) -> Self {
        let last_success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let times = failed.iter().map(|pod| finished_at(pod));
        match last_success {
            None if failed.is_empty() => self,
            None => {
                let count = u32::try_from(failed.len()).unwrap_or(u32::MAX);
                Self { failures: self.failures.saturating_add(count), last_failure: times.max() }
            }
            Some(success) => {
                let later: Vec<_> = times.filter(|at| *at > success).collect();
                let failures = u32::try_from(later.len()).unwrap_or(u32::MAX);
                Self { failures, last_failure: later.into_iter().max() }
            }
        }
    }

    /// When the next pod may be made; `None` if at once.
    pub(crate) fn until(self, now: Timestamp) -> Option<Timestamp> {
        wait_until(self.failures, self.last_failure?, now)
    }
}

/// When the pod of an index may be replaced; `None` if at once.
pub(crate) fn index_wait_until(failed: &Pod, now: Timestamp) -> Option<Timestamp> {
    let failures = count(failed, INDEX_FAILURES) + count(failed, INDEX_IGNORED) + 1;
    wait_until(u32::try_from(failures).unwrap_or(0), finished_at(failed), now)
}

fn wait_until(failures: u32, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    if failures == 0 {
        return None;
    }
    // Six doublings of the first wait are beyond the longest.
    let wait = (BACKOFF_FIRST * (1 << (failures - 1).min(6))).min(BACKOFF_MAX);
    last.checked_add(wait).ok().filter(|at| *at > now)
}

/// A count in an annotation of a pod.
pub(crate) fn count(pod: &Pod, key: &str) -> i32 {
    annotation(&pod.metadata, key).and_then(|text| text.parse().ok()).filter(|count| *count >= 0).unwrap_or(0)
}
