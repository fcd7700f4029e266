//! Which pods a job makes or gives up now. Pure.

use super::assess::{Assessment, INDEX, TRACKING, index_of, is_indexed, is_suspended, len};
use super::indexes::Indexes;
use super::policy::{self, index_wait_until, replaces_only_failed};
use crate::owner::Owner;
use crate::pod;
use crate::replica_set::in_order_of_removal;
use api::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use std::collections::{BTreeMap, BTreeSet};

/// Pods made or removed in one go. Upstream: `MaxPodCreateDeletePerSync`.
const BURST_MAX: usize = 500;
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// The longest prefix of a generated name. Upstream: `names.MaxGeneratedNameLength`.
const PREFIX_LEN_MAX: usize = 58;

/// What to do with pods.
#[derive(Debug, Default)]
pub(crate) struct Action<'a> {
    pub(crate) delete: Vec<&'a Pod>,
    /// Whether what is deleted no longer has to be counted.
    pub(crate) untrack: bool,
    pub(crate) create: Vec<Pod>,
    /// When pods may be made, if not now.
    pub(crate) wait_until: Option<Timestamp>,
}

/// Decides for a job that has not ended.
pub(crate) fn act<'a>(found: &Assessment<'a>, owner: &Owner) -> Action<'a> {
    if is_suspended(found.spec) {
        return Action { delete: found.active.clone(), untrack: true, ..Action::default() };
    }
    let wanted = wanted_active(found);
    let surplus = usize::try_from(found.active_count - wanted).unwrap_or(0);
    let mut delete = for_removal(found, surplus);
    delete.truncate(BURST_MAX);
    if !delete.is_empty() {
        return Action { delete, untrack: true, ..Action::default() };
    }
    let still_there = if replaces_only_failed(found.spec) { found.terminating } else { 0 };
    let Ok(missing @ 1..) = usize::try_from(wanted - still_there - found.active_count) else {
        return Action::default();
    };
    let missing = missing.min(BURST_MAX);
    if found.spec.backoff_limit_per_index.is_none()
        && let Some(at) = found.backoff.until(found.now)
    {
        return Action { wait_until: Some(at), ..Action::default() };
    }
    if !is_indexed(found.spec) {
        let pod = new_pod(&found.job, found.spec, owner, None, None);
        return Action { create: vec![pod; missing], ..Action::default() };
    }
    let indexes = pending(found, missing);
    let waits: BTreeMap<i32, Timestamp> = indexes
        .iter()
        .filter_map(|index| Some((*index, index_wait_until(found.failed_pods.get(index)?, found.now)?)))
        .collect();
    let ready = indexes.iter().filter(|index| !waits.contains_key(index));
    let create: Vec<_> = ready
        .map(|index| {
            new_pod(&found.job, found.spec, owner, Some(*index), found.failed_pods.get(index).copied())
        })
        .collect();
    Action { create, wait_until: waits.into_values().min(), ..Action::default() }
}

fn wanted_active(found: &Assessment<'_>) -> i32 {
    let parallelism = found.spec.parallelism.unwrap_or(1);
    match found.spec.completions {
        // A work queue: when one pod has succeeded, no new ones are made.
        None if found.succeeded > 0 => found.active_count,
        None => parallelism,
        Some(completions) => (completions - found.succeeded).min(parallelism).max(0),
    }
}

/// Active pods to be given up: those too many for their index, then the least useful ones.
fn for_removal<'a>(found: &Assessment<'a>, at_least: usize) -> Vec<&'a Pod> {
    let (mut remove, mut left) = (Vec::new(), Vec::new());
    if is_indexed(found.spec) {
        let completions = found.spec.completions.unwrap_or(0);
        let mut by_index: BTreeMap<Option<i32>, Vec<&Pod>> = BTreeMap::new();
        for pod in &found.active {
            by_index.entry(index_of(pod).filter(|index| *index < completions)).or_default().push(pod);
        }
        for (index, mut pods) in by_index {
            in_order_of_removal(&mut pods, found.now);
            if index.is_some() {
                left.extend(pods.pop());
            }
            remove.extend(pods);
        }
    } else {
        left.clone_from(&found.active);
    }
    if remove.len() < at_least {
        in_order_of_removal(&mut left, found.now);
        let more = at_least - remove.len();
        remove.extend(left.into_iter().take(more));
    }
    remove
}

/// The first indexes that need a pod.
fn pending(found: &Assessment<'_>, count: usize) -> Vec<i32> {
    let mut busy: BTreeSet<i32> = found.active.iter().filter_map(|pod| index_of(pod)).collect();
    if replaces_only_failed(found.spec) {
        let ending = found.pods.iter().filter(|pod| pod::is_terminating(pod));
        busy.extend(ending.filter_map(index_of));
    }
    let mut taken = found.succeeded_indexes.union(&busy.into_iter().collect::<Indexes>());
    if let Some(failed) = &found.failed_indexes {
        taken = taken.union(failed);
    }
    taken.missing(count, found.spec.completions.unwrap_or(0))
}

/// A pod of the job, for an index if it is an indexed one, in place of a failed one.
fn new_pod(job: &Job, spec: &JobSpec, owner: &Owner, index: Option<i32>, replaces: Option<&Pod>) -> Pod {
    let mut made = pod::from_template(&spec.template, owner);
    let finalizers = made.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|own| own == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let Some(index) = index else { return made };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    made.metadata.generate_name = Some(prefix(name, index));
    made.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let annotations = made.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let (failures, ignored) = failures_of(spec, replaces);
        annotations.insert(policy::INDEX_FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(policy::INDEX_IGNORED.to_owned(), ignored.to_string());
        }
    }
    if let Some(pod_spec) = &mut made.spec {
        pod_spec.hostname = Some(format!("{name}-{index}"));
        pod_spec.containers.iter_mut().for_each(add_index_variable);
        pod_spec.init_containers.iter_mut().flatten().for_each(add_index_variable);
    }
    made
}

fn prefix(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let room = PREFIX_LEN_MAX.saturating_sub(end.len()).min(name.len());
    format!("{}{end}", name.get(..room).unwrap_or(name))
}

/// How often the pods of an index failed, with the one that is replaced.
fn failures_of(spec: &JobSpec, replaces: Option<&Pod>) -> (i32, i32) {
    let Some(failed) = replaces else { return (0, 0) };
    let failures = policy::count(failed, policy::INDEX_FAILURES);
    let ignored = policy::count(failed, policy::INDEX_IGNORED);
    match policy::ruling(spec, failed).ignored {
        true => (failures, ignored + 1),
        false => (failures + 1, ignored),
    }
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|own| own.name == INDEX_ENV) {
        return;
    }
    let field_path = format!("metadata.labels['{INDEX}']");
    variables.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path }),
            ..EnvVarSource::default()
        }),
    });
}

/// How many of these pods are ready.
pub(crate) fn ready_of(pods: &[&Pod]) -> i32 {
    len(pods.iter().filter(|pod| pod::is_ready(pod)).count())
}
