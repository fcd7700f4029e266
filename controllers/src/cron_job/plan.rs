//! Whether a cron job starts a job now. Pure. Upstream: cronjob_controllerv2.go, utils.go.

use super::schedule::Schedule;
use crate::job::is_finished;
use crate::owner::name_of;
use api::Timestamp;
use client::controller_reference;
use client::{EventType, time};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are told.
const MISSED_MAX: usize = 100;
/// How much later than its time a job is looked at, so that the time has passed.
const LATER: SignedDuration = SignedDuration::from_millis(100);

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) status: CronJobStatus,
    /// Running jobs that make way for the new one.
    pub(crate) replace: Vec<ObjectReference>,
    pub(crate) create: Option<Box<Job>>,
    /// Finished jobs beyond the history.
    pub(crate) forget: Vec<Job>,
    pub(crate) events: Vec<(EventType, &'static str, String)>,
    pub(crate) next: Option<Timestamp>,
}

/// Decides. `jobs` are those that the cron job controls.
pub(crate) fn plan(cron_job: &CronJob, jobs: &[Job], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron_job.status.clone().unwrap_or_default(), ..Plan::default() };
    note_jobs(&mut plan, jobs);
    let spec = &cron_job.spec;
    let (good, bad): (Vec<_>, Vec<_>) =
        jobs.iter().filter(|job| is_finished(job)).partition(|job| is_complete(job));
    forget(&mut plan, good, spec.successful_jobs_history_limit);
    forget(&mut plan, bad, spec.failed_jobs_history_limit);
    start(cron_job, &mut plan, now);
    plan
}

fn is_complete(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|own| own.type_ == "Complete" && own.status == "True")
}

/// Brings the list of running jobs up to date.
fn note_jobs(plan: &mut Plan, jobs: &[Job]) {
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in jobs {
        let is_known = active.iter().any(|own| own.uid == job.metadata.uid);
        let name = name_of(&job.metadata);
        if !is_finished(job) {
            if !is_known {
                let text = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.events.push((EventType::Warning, "UnexpectedJob", text));
            }
            continue;
        }
        if is_known {
            active.retain(|own| own.uid != job.metadata.uid);
            let end = if is_complete(job) { "Complete" } else { "Failed" };
            let text = format!("Saw completed job: {name}, condition: {end}");
            plan.events.push((EventType::Normal, "SawCompletedJob", text));
        }
        let completed = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if is_complete(job) && completed > plan.status.last_successful_time {
            plan.status.last_successful_time = completed;
        }
    }
    active.retain(|own| {
        let is_there = jobs.iter().any(|job| job.metadata.uid == own.uid);
        if !is_there {
            let name = own.name.as_deref().unwrap_or_default();
            plan.events.push((EventType::Normal, "MissingJob", format!("Active job went missing: {name}")));
        }
        is_there
    });
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Finished jobs beyond `limit`, oldest first.
fn forget(plan: &mut Plan, mut jobs: Vec<&Job>, limit: Option<i32>) {
    let Some(limit) = limit else { return };
    jobs.sort_by_key(|job| {
        let start = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        (start.is_none(), start, job.metadata.name.clone())
    });
    let surplus = jobs.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    plan.forget.extend(
        jobs.into_iter().take(surplus).filter(|job| job.metadata.deletion_timestamp.is_none()).cloned(),
    );
}

fn start(cron_job: &CronJob, plan: &mut Plan, now: Timestamp) {
    let spec = &cron_job.spec;
    if cron_job.metadata.deletion_timestamp.is_some() || spec.suspend == Some(true) {
        return;
    }
    let warn = |reason, text: String| (EventType::Warning, reason, text);
    if let Some(zone) = spec.time_zone.as_deref().filter(|zone| !zone.is_empty())
        && let Err(error) = TimeZone::get(zone)
    {
        return plan.events.push(warn("UnknownTimeZone", format!("invalid timeZone: \"{zone}\": {error}")));
    }
    let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
        Ok(schedule) => schedule,
        Err(error) => {
            let text = format!("unparseable schedule: \"{}\" : {error}", spec.schedule);
            return plan.events.push(warn("UnparseableSchedule", text));
        }
    };
    plan.next = schedule.next(now).and_then(|at| at.checked_add(LATER).ok());
    let created = cron_job.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let mut earliest = plan.status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    if let Some(start) = deadline.and_then(|deadline| now.checked_sub(deadline).ok()) {
        earliest = earliest.max(start);
    }
    let Some(at) = schedule.last(earliest, now) else { return };
    if is_many(&schedule, earliest, now) {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.events.push(warn("TooManyMissedTimes", text.to_owned()));
    }
    let name = format!("{}-{}", name_of(&cron_job.metadata), at.as_second().div_euclid(60));
    let active = plan.status.active.clone().unwrap_or_default();
    let is_started = active.iter().any(|own| own.name.as_deref() == Some(&name));
    if is_started || plan.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.events.push((EventType::Normal, "JobAlreadyActive", text.to_owned()));
        }
        Some("Replace") => plan.replace = active,
        _ => {}
    }
    plan.create = Some(Box::new(job(cron_job, name, at)));
    plan.status.last_schedule_time = Some(time(at));
}

fn is_many(schedule: &Schedule, earliest: Timestamp, now: Timestamp) -> bool {
    let times = std::iter::successors(schedule.next(earliest), |at| schedule.next(*at));
    times.take_while(|at| *at <= now).take(MISSED_MAX + 1).count() > MISSED_MAX
}

fn job(cron_job: &CronJob, name: String, at: Timestamp) -> Job {
    let template = cron_job.spec.job_template.clone();
    let meta = template.metadata.unwrap_or_default();
    let zone = cron_job.spec.time_zone.as_deref();
    let zone = zone.and_then(|zone| TimeZone::get(zone).ok()).unwrap_or(TimeZone::UTC);
    let mut annotations = meta.annotations.unwrap_or_default();
    let zoned = at.to_zoned(zone.clone());
    let text = if zone == TimeZone::UTC {
        at.to_string()
    } else {
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED_AT.to_owned(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron_job)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
