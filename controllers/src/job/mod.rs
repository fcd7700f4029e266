//! Runs pods until enough have succeeded. Upstream: pkg/controller/job.
//!
//! # Flow
//! Assess (`assess.rs`) → make or give up pods (`act.rs`) → count what has ended (`track.rs`): write it down, take the
//! finalizers off, turn it into counts, and write the end when nothing is left to count.

mod act;
mod assess;
mod indexes;
mod policy;
#[cfg(test)]
mod tests;
mod track;

pub(crate) use assess::is_finished;

use crate::owner::{self, BY_CONTROLLER, Owner, Selects, controller_key, name_of};
use crate::pod;
use act::Action;
use api::{LabelSelector, ObjectName, Status};
use assess::{Assessment, SUCCESS_MET, TRACKING, new_condition};
use client::{Api, Context, Controller, Error, Next, Patch};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use policy::Backoff;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Jobs reconciled at once. Upstream: `--concurrent-job-syncs`.
const WORKERS: usize = 5;
/// Who manages jobs that do not say otherwise.
const MANAGER: &str = "kubernetes.io/job-controller";

/// How the pods of each job failed lately. One entry for each unfinished job that had a failure.
type Backoffs = Arc<Mutex<HashMap<ObjectName, Backoff>>>;

pub(crate) fn controller() -> Controller {
    let backoffs = Backoffs::default();
    Controller::of::<Job>("job-controller")
        .owns::<Pod>()
        .watches::<Pod>(owner::might_adopt::<Job>)
        .workers(WORKERS)
        .reconcile(move |key, context| reconcile(key, context, backoffs.clone()))
}

impl Selects for Job {
    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_object(self.spec.as_ref()?.selector.as_ref()?).ok()
    }
}

async fn reconcile(key: ObjectName, context: Arc<Context>, backoffs: Backoffs) -> Result<Next, Error> {
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let job = context.caches.of::<Job>().read(&key.namespace, &key.name);
    let uid = job.as_ref().and_then(|job| job.metadata.uid.as_deref()).unwrap_or_default();
    untrack_leftovers(&context, &key, uid).await?;
    let Some(job) = job.filter(|job| !is_finished(job)) else {
        backoffs.lock().remove(&key);
        return Ok(Next::Done);
    };
    let (Some(spec), Some(selector)) = (&job.spec, job.selector()) else { return Ok(Next::Done) };
    if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
        return Ok(Next::Done);
    }
    let owner = Owner::of(&job);
    let pods = owner::claim_with::<Job, Pod>(&context, &owner, &selector, Some(TRACKING), |_| true).await?;
    if !context.expectations.met(&key) {
        // Something was adopted or released: the cache is to show it first.
        return Ok(Next::Done);
    }
    let backoff = backoffs.lock().get(&key).copied().unwrap_or_default();
    let found = assess::assess(&job, spec, &pods, backoff, context.now());
    let worker = Worker { context: &context, owner: &owner, api: context.client.namespaced(&key.namespace) };
    let outcome = worker.run(&job, found, &backoffs).await?;
    outcome.error.map_or(Ok(outcome.next), |status| Err(status.into()))
}

/// Pods of a job that is gone (or was made again) are counted by nobody: they lose their finalizer.
async fn untrack_leftovers(context: &Context, key: &ObjectName, uid: &str) -> Result<(), Error> {
    let pods = context.caches.of::<Pod>();
    let of_name = pods.by(BY_CONTROLLER, &controller_key(&key.namespace, "Job", &key.name));
    let is_left = |pod: &&Arc<api::Object>| pod.meta.controller().is_some_and(|owner| *owner.uid != *uid);
    for left in of_name.iter().filter(is_left) {
        let pod: Pod = left.decode()?;
        if assess::is_tracked(&pod) {
            untrack(context, key, &pod).await?;
        }
    }
    Ok(())
}

/// Takes the finalizer off. A pod that is gone is fine.
async fn untrack(context: &Context, key: &ObjectName, pod: &Pod) -> Result<(), Status> {
    let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|own| own != TRACKING);
    let patch = Patch::Merge(serde_json::json!({"metadata": {
        "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "finalizers": finalizers}}));
    let name = name_of(&pod.metadata);
    match context.client.namespaced::<Pod>(&key.namespace).patch(name, patch).await {
        Ok(patched) => {
            let object = ObjectName::new(&key.namespace, name);
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let version = patched.metadata.resource_version.as_deref();
            context.expectations.changed(key, &context.caches.of::<Pod>(), &object, uid, version);
            Ok(())
        }
        Err(status) if status.is_not_found() => Ok(()),
        Err(status) => Err(status),
    }
}

struct Outcome {
    next: Next,
    error: Option<Status>,
}

/// What was done with pods.
#[derive(Default)]
struct Done {
    deleted: i32,
    created: i32,
    error: Option<Status>,
}

struct Worker<'a> {
    context: &'a Context,
    owner: &'a Owner,
    api: Api<Job>,
}

impl Worker<'_> {
    async fn run(
        &self,
        before: &Job,
        mut found: Assessment<'_>,
        backoffs: &Backoffs,
    ) -> Result<Outcome, Error> {
        let mut next = found.deadline.map_or(Next::Done, |at| Next::After(pod::wait_until(at, found.now)));
        let mut is_changed = false;
        let error;
        if found.finished.is_some() {
            let delete = Action { delete: found.active.clone(), ..Action::default() };
            let done = self.carry_out(&delete).await;
            if done.deleted != found.active_count {
                found.finished = None;
            }
            note_deleted(&mut found, &delete, done.deleted);
            error = done.error;
        } else {
            let may_act = before.metadata.deletion_timestamp.is_none();
            let action = if may_act { act::act(&found, self.owner) } else { Action::default() };
            let done = self.carry_out(&action).await;
            note_deleted(&mut found, &action, done.deleted);
            found.active_count += done.created;
            error = done.error;
            if let Some(at) = action.wait_until {
                next = next.or(Next::After(pod::wait_until(at, found.now)));
            }
            let is_complete = match found.spec.completions {
                None => found.succeeded > 0,
                Some(completions) => found.succeeded >= completions,
            };
            if is_complete && found.active_count == 0 {
                let message = "Reached expected number of succeeded pods";
                found.finished =
                    Some(new_condition(SUCCESS_MET, "True", "CompletionsReached", message, found.now));
            } else if may_act {
                is_changed |= self.note_suspension(&mut found);
            }
        }
        is_changed |= note_counts(before, &mut found);
        backoffs.lock().insert(self.owner.key.clone(), found.backoff);
        self.write(found, is_changed).await?;
        Ok(Outcome { next, error })
    }

    async fn carry_out(&self, action: &Action<'_>) -> Done {
        let deletions = action.delete.iter().map(async |pod| {
            if action.untrack && assess::is_tracked(pod) {
                untrack(self.context, &self.owner.key, pod).await?;
            }
            pod::delete(self.context, self.owner, pod).await
        });
        let mut done = Done::default();
        for result in join_all(deletions).await {
            match result {
                Ok(()) => done.deleted += 1,
                Err(status) => _ = done.error.get_or_insert(status),
            }
        }
        if !action.create.is_empty() {
            let create = |pod| async move { pod::create(self.context, self.owner, &pod).await };
            let (made, error) = pod::in_growing_batches(action.create.clone(), create).await;
            done.created = assess::len(made.len());
            done.error = done.error.or(error.filter(|status| !pod::is_namespace_terminating(status)));
        }
        done
    }

    /// Says that the job is suspended, or goes on. Answers whether that is news.
    fn note_suspension(&self, found: &mut Assessment<'_>) -> bool {
        let (is_suspended, now) = (assess::is_suspended(found.spec), found.now);
        let status = found.job.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        let known = conditions.iter().find(|own| own.type_ == "Suspended").map(|own| own.status == "True");
        if known.unwrap_or(false) == is_suspended {
            return false;
        }
        let (state, reason, message, event) = match is_suspended {
            true => ("True", "JobSuspended", "Job suspended", "Suspended"),
            false => ("False", "JobResumed", "Job resumed", "Resumed"),
        };
        conditions.retain(|own| own.type_ != "Suspended");
        conditions.push(new_condition("Suspended", state, reason, message, now));
        status.start_time = (!is_suspended).then(|| client::time(now));
        self.context.events.normal(&self.owner.about, event, message);
        true
    }

    /// Writes what has ended, takes the finalizers off, and writes the counts.
    async fn write(&self, found: Assessment<'_>, is_changed: bool) -> Result<(), Error> {
        let (pods, terminating) = (found.pods, found.terminating);
        let track::Tracking { mut job, is_changed, untrack, finished, is_full } =
            track::track(found, is_changed);
        if is_changed {
            job = self.put(&job).await?;
        }
        let mut tracked: BTreeSet<String> = track::tracked_uids(pods);
        let mut error = None;
        let removals = untrack.iter().map(async |pod| {
            let result = self::untrack(self.context, &self.owner.key, pod).await;
            (pod.metadata.uid.clone().unwrap_or_default(), result)
        });
        for (uid, result) in join_all(removals).await {
            match result {
                Ok(()) => _ = tracked.remove(&uid),
                Err(status) => error = Some(status),
            }
        }
        let status = job.status.get_or_insert_default();
        let mut is_changed = track::count_untracked(status, &tracked);
        let is_finished =
            error.is_none() && !is_full && track::finish(status, finished.as_ref(), terminating);
        is_changed |= is_finished;
        if is_changed {
            self.put(&job).await?;
        }
        if let Some(end) = finished.filter(|_| is_finished) {
            self.tell_end(&job, &end);
        }
        error.map_or(Ok(()), |status| Err(status.into()))
    }

    async fn put(&self, job: &Job) -> Result<Job, Error> {
        let written = self.api.replace_status(job).await?;
        let version = written.metadata.resource_version.as_deref();
        self.context.expectations.wrote(&self.owner.key, &self.context.caches.of::<Job>(), version);
        Ok(written)
    }

    fn tell_end(&self, job: &Job, end: &k8s_openapi::api::batch::v1::JobCondition) {
        let events = &self.context.events;
        if end.type_ != "Complete" {
            let (reason, message) = (end.reason.as_deref(), end.message.as_deref());
            return events.warning(
                &self.owner.about,
                reason.unwrap_or_default(),
                message.unwrap_or_default(),
            );
        }
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded).unwrap_or(0);
        let completions = job.spec.as_ref().and_then(|spec: &JobSpec| spec.completions);
        if completions.is_some_and(|completions| succeeded > completions) {
            let message = "Too many succeeded pods running after completion count reached";
            events.warning(&self.owner.about, "TooManySucceededPods", message);
        }
        events.normal(&self.owner.about, "Completed", "Job completed");
    }
}

fn note_deleted(found: &mut Assessment<'_>, action: &Action<'_>, deleted: i32) {
    found.active_count -= deleted;
    found.terminating += deleted;
    if deleted > 0 {
        found.ready -= act::ready_of(&action.delete);
    }
}

/// Puts the counts into the status. Answers whether they differ.
fn note_counts(before: &Job, found: &mut Assessment<'_>) -> bool {
    let (active, ready, terminating) = (found.active_count, found.ready.max(0), found.terminating);
    let status = found.job.status.get_or_insert_default();
    status.active = (active != 0).then_some(active);
    status.ready = Some(ready);
    status.terminating = Some(terminating);
    let old = before.status.clone().unwrap_or_default();
    old.active.unwrap_or(0) != active
        || old.ready != Some(ready)
        || old.terminating != Some(terminating)
        || old.start_time != status.start_time
}
