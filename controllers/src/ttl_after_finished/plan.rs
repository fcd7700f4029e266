//! When a job's time is over. Pure.

use crate::pod::is_being_deleted;
use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;

/// When a job that has ended is to be deleted; `None` if it is not (yet).
pub(super) fn expires_at(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if is_being_deleted(&job.metadata) {
        return None;
    }
    let mut conditions = job.status.as_ref()?.conditions.as_deref()?.iter();
    let end =
        conditions.find(|own| matches!(own.type_.as_str(), "Complete" | "Failed") && own.status == "True")?;
    end.last_transition_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}
