//! Probes: whether a container has started, lives, and takes traffic.
//!
//! [`Thresholds`] decides purely; [`run`] is the task of one probe of one instance of a container, which sleeps on tokio's timer
//! wheel between attempts; [`check`] makes one attempt. Upstream: `pkg/kubelet/prober`, `pkg/probe`.

pub(crate) mod check;
mod run;

pub(crate) use run::{ProbeHandle, ProbeNews, ProbeTarget, start};

use k8s_openapi::api::core::v1::{Container, Probe};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ProbeKind {
    /// Has the program finished starting? The others wait for it.
    Startup,
    /// Does it take traffic?
    Readiness,
    /// Does it live?
    Liveness,
}

impl ProbeKind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// As events name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// The probe of this kind that a container has.
    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// What is known of the probes of a pod's containers, by runtime id. A result that is not known yet is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeResults(BTreeMap<(String, ProbeKind), bool>);

impl ProbeResults {
    /// Remembers a result. Answers whether it is news.
    pub(crate) fn set(&mut self, id: &str, kind: ProbeKind, success: bool) -> bool {
        self.0.insert((id.to_owned(), kind), success) != Some(success)
    }

    /// Forgets an instance.
    pub(crate) fn forget(&mut self, id: &str) {
        self.0.retain(|(own, _), _| own != id);
    }

    fn get(&self, id: &str, kind: ProbeKind) -> Option<bool> {
        self.0.get(&(id.to_owned(), kind)).copied()
    }

    /// The startup probe's result.
    pub(crate) fn startup(&self, id: &str) -> Option<bool> {
        self.get(id, ProbeKind::Startup)
    }

    /// The readiness probe's result.
    pub(crate) fn readiness(&self, id: &str) -> Option<bool> {
        self.get(id, ProbeKind::Readiness)
    }

    /// The liveness probe's result.
    pub(crate) fn liveness(&self, id: &str) -> Option<bool> {
        self.get(id, ProbeKind::Liveness)
    }
}

/// What one attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Success,
    /// A success that people should look at (a redirect to another host).
    Warning(String),
    /// It is not.
    Failure(String),
    /// The attempt itself could not be made; counts as nothing.
    Unknown(String),
}

/// Counts attempts: a result holds once it was seen often enough in a row.
#[derive(Clone, Debug)]
pub(crate) struct Thresholds {
    failures: u32,
    successes: u32,
    last: Option<bool>,
    in_a_row: u32,
}

impl Thresholds {
    /// Of a probe, with the API's defaults where it says nothing.
    pub(crate) fn new(probe: &Probe) -> Self {
        let count = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            failures: count(probe.failure_threshold, 3),
            successes: count(probe.success_threshold, 1),
            last: None,
            in_a_row: 0,
        }
    }

    /// Takes one more attempt. Answers the result that holds now, if this attempt confirms one.
    pub(crate) fn take(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            (self.last, self.in_a_row) = (Some(success), 1);
        }
        let needed = if success { self.successes } else { self.failures };
        (self.in_a_row >= needed).then_some(success)
    }

    /// Counts from nothing again: the container will be made anew.
    pub(crate) fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

/// When attempts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// After the program's start.
    pub initial_delay: Duration,
    /// Between attempts.
    pub period: Duration,
    /// For one attempt.
    pub timeout: Duration,
}

impl Timing {
    /// Of a probe, with the API's defaults where it says nothing.
    pub(crate) fn new(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let at_least = |duration: Duration| duration.max(Duration::from_secs(1));
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: at_least(seconds(probe.period_seconds, 10)),
            timeout: at_least(seconds(probe.timeout_seconds, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: i32, successes: i32, attempts: &[bool], expect: &[Option<bool>]) {
        let probe = Probe {
            failure_threshold: Some(failures),
            success_threshold: Some(successes),
            ..Default::default()
        };
        let mut thresholds = Thresholds::new(&probe);
        let found: Vec<_> = attempts.iter().map(|attempt| thresholds.take(*attempt)).collect();
        assert_eq!(found, expect, "{failures} {successes} {attempts:?}");
    }

    #[test]
    fn results_hold_after_enough_attempts_in_a_row() {
        let (t, f) = (Some(true), Some(false));
        check(3, 1, &[true, false, false, false, false, true], &[t, None, None, f, f, t]);
        check(1, 2, &[true, true, false, true, true], &[None, t, f, None, t]);
        check(3, 1, &[false, false, true, false, false, false], &[None, None, t, None, None, f]);
    }

    #[test]
    fn timing_defaults_are_the_api_s() {
        let timing = Timing::new(&Probe::default());
        assert_eq!(timing.period, Duration::from_secs(10));
        assert_eq!((timing.initial_delay, timing.timeout), (Duration::ZERO, Duration::from_secs(1)));
    }
}
