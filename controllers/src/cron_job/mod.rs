//! Starts jobs at given times. Upstream: pkg/controller/cronjob.

mod plan;
mod schedule;
#[cfg(test)]
mod tests;

use crate::owner::{Owner, controller_uid, name_of};
use crate::pod::{is_namespace_terminating, wait_until};
use api::{Meta, ObjectName};
use client::{Context, Controller, DeleteParams, Error, Next};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use plan::Plan;
use std::sync::Arc;

/// Cron jobs reconciled at once. Upstream: `--concurrent-cron-job-syncs`.
const WORKERS: usize = 5;

pub(crate) fn controller() -> Controller {
    Controller::of::<CronJob>("cronjob-controller").owns::<Job>().workers(WORKERS).reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(cron_job) = context.caches.of::<CronJob>().read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let owner = Owner::of(&cron_job);
    let jobs = context.owned::<Job>(&owner.uid);
    let mut plan = plan::plan(&cron_job, &jobs, context.now());
    for (kind, reason, message) in &plan.events {
        context.events.record(&owner.about, *kind, reason, message.clone());
    }
    let result = carry_out(&context, &owner, &cron_job, &mut plan).await;
    if cron_job.status.clone().unwrap_or_default() != plan.status {
        let changed = CronJob { status: Some(plan.status.clone()), ..cron_job };
        let api = context.client.namespaced::<CronJob>(&key.namespace);
        let version = api.replace_status(&changed).await?.metadata.resource_version;
        context.expectations.wrote(&key, &context.caches.of::<CronJob>(), version.as_deref());
    }
    result?;
    let now = context.now();
    Ok(plan.next.map_or(Next::Done, |at| Next::After(wait_until(at, now))))
}

async fn carry_out(
    context: &Context,
    owner: &Owner,
    cron_job: &CronJob,
    plan: &mut Plan,
) -> Result<(), Error> {
    for job in std::mem::take(&mut plan.forget) {
        delete(context, owner, &client::reference(&job)).await?;
    }
    let Some(wanted) = plan.create.take() else { return Ok(()) };
    let before = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.clone());
    let started = start(context, owner, plan, &wanted).await;
    match started {
        Ok(Some(job)) => {
            plan.status.active.get_or_insert_default().push(client::reference(&job));
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => {
            plan.status.last_schedule_time = before;
            Err(error)
        }
    }
}

/// Makes the job, after those that it replaces are gone. `None` if it is not ours or known already.
async fn start(
    context: &Context,
    owner: &Owner,
    plan: &mut Plan,
    wanted: &Job,
) -> Result<Option<Job>, Error> {
    for replaced in std::mem::take(&mut plan.replace) {
        delete(context, owner, &replaced).await?;
        if let Some(active) = &mut plan.status.active {
            active.retain(|own| own.uid != replaced.uid);
        }
    }
    if plan.status.active.as_ref().is_some_and(Vec::is_empty) {
        plan.status.active = None;
    }
    let api = context.client.namespaced::<Job>(&owner.key.namespace);
    match api.create(wanted).await {
        Ok(job) => {
            let version = job.metadata.resource_version.as_deref();
            context.expectations.wrote(&owner.key, &context.caches.of::<Job>(), version);
            let message = format!("Created job {}", name_of(&job.metadata));
            context.events.normal(&owner.about, "SuccessfulCreate", message);
            Ok(Some(job))
        }
        Err(status) if status.is_already_exists() => {
            let job = api.get(name_of(&wanted.metadata)).await?;
            let is_known = plan.status.active.iter().flatten().any(|own| own.uid == job.metadata.uid);
            Ok((controller_uid(&job.metadata) == Some(&owner.uid) && !is_known).then_some(job))
        }
        Err(status) => {
            if !is_namespace_terminating(&status) {
                let message = format!("Error creating job: {status}");
                context.events.warning(&owner.about, "FailedCreate", message);
            }
            Err(status.into())
        }
    }
}

async fn delete(context: &Context, owner: &Owner, job: &ObjectReference) -> Result<(), Error> {
    let api = context.client.namespaced::<Job>(&owner.key.namespace);
    let name = job.name.as_deref().unwrap_or_default();
    let params = DeleteParams { uid: job.uid.clone(), ..DeleteParams::background() };
    match api.delete(name, &params).await {
        Err(status) if !status.is_not_found() => {
            context.events.warning(&owner.about, "FailedDelete", format!("Deleted job: {status}"));
            Err(status.into())
        }
        _ => {
            let uid = job.uid.as_deref().unwrap_or_default();
            let gone =
                Meta { key: ObjectName::new(&owner.key.namespace, name), uid: uid.into(), ..Meta::default() };
            context.expectations.deleted(&owner.key, &context.caches.of::<Job>(), &gone);
            context.events.normal(&owner.about, "SuccessfulDelete", format!("Deleted job {name}"));
            Ok(())
        }
    }
}
