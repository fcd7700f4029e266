//! How long a pod may stay on a node with `NoExecute` taints. Pure.

use crate::node_fit::tolerates;
use crate::pod;
use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Pod, Taint};

/// What is to become of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    GoesAt(Timestamp),
    Goes,
}

/// A taint that nothing tolerates ends the pod at once; else the shortest time that a used toleration allows counts, from when the
/// youngest of the taints was added.
pub(super) fn fate(own: &Pod, taints: &[Taint], now: Timestamp) -> Fate {
    if taints.is_empty() || pod::is_deleting(own) {
        return Fate::Stays;
    }
    let tolerations = own.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    let mut seconds_min: Option<i64> = None;
    for taint in taints {
        let mut using = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if using.peek().is_none() {
            return Fate::Goes;
        }
        let bounded = using.filter_map(|toleration| toleration.toleration_seconds);
        seconds_min = seconds_min.into_iter().chain(bounded).min();
    }
    let Some(seconds) = seconds_min else { return Fate::Stays };
    let added = taints.iter().filter_map(|taint| Some(taint.time_added.as_ref()?.0)).max();
    let at = added.unwrap_or(now) + SignedDuration::from_secs(seconds.max(0));
    if at <= now { Fate::Goes } else { Fate::GoesAt(at) }
}
