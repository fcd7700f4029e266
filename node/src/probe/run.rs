//! The task of one probe of one instance of a container.

use super::{Outcome, ProbeKind, Thresholds, Timing, check};
use crate::spec::ContainerDef;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What is probed.
pub(crate) struct ProbeTarget {
    /// The pod, for named ports and host names.
    pub pod: Arc<Pod>,
    /// The container's spec.
    pub container: ContainerDef,
    /// Runtime id of the instance.
    pub id: String,
    /// The pod's address.
    pub address: String,
    /// How long its program has been running.
    pub running_for: Duration,
    /// What runs `exec` probes.
    pub runtime: Arc<dyn runtime::Runtime>,
}

/// What a probe tells the pod's worker.
#[derive(Debug)]
pub(crate) struct ProbeNews {
    /// Runtime id of the instance.
    pub id: String,
    /// Name of the container.
    pub container: String,
    /// Which probe.
    pub kind: ProbeKind,
    /// A result that holds now.
    pub result: Option<bool>,
    /// A failed attempt or a warning, for an event.
    pub complaint: Option<(&'static str, String)>,
}

/// The probes of one instance. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct ProbeHandle {
    tasks: Vec<(ProbeKind, AbortHandle)>,
    started: watch::Sender<bool>,
    hurry: watch::Sender<u64>,
}

impl ProbeHandle {
    /// Tells the probes that the program has finished starting.
    pub(crate) fn set_started(&self) {
        let was = self.started.send_replace(true);
        if !was {
            self.hurry.send_modify(|turn| *turn += 1);
        }
    }
}

impl ProbeHandle {
    /// Ends the probes that do not matter to a container that is to end anyway.
    pub(crate) fn keep_readiness(&mut self) {
        self.tasks.retain(|(kind, task)| {
            let keep = *kind == ProbeKind::Readiness;
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for ProbeHandle {
    fn drop(&mut self) {
        for (_, task) in &self.tasks {
            task.abort();
        }
    }
}

/// Starts the probes of an instance that runs. `started`: its startup probe has already succeeded, or there is none.
pub(crate) fn start(
    target: ProbeTarget,
    started: bool,
    news: &mpsc::Sender<ProbeNews>,
) -> Option<ProbeHandle> {
    let target = Arc::new(target);
    let started = watch::Sender::new(started);
    let hurry = watch::Sender::new(0);
    let kinds = ProbeKind::ALL.into_iter().filter(|kind| kind.of(&target.container.spec).is_some());
    let tasks: Vec<(ProbeKind, AbortHandle)> = kinds
        .map(|kind| {
            let task = run(target.clone(), kind, started.subscribe(), hurry.subscribe(), news.clone());
            (kind, tokio::spawn(task).abort_handle())
        })
        .collect();
    (!tasks.is_empty()).then_some(ProbeHandle { tasks, started, hurry })
}

async fn run(
    target: Arc<ProbeTarget>,
    kind: ProbeKind,
    mut started: watch::Receiver<bool>,
    mut hurry: watch::Receiver<u64>,
    news: mpsc::Sender<ProbeNews>,
) {
    let Some(probe) = kind.of(&target.container.spec).cloned() else { return };
    let timing = Timing::new(&probe);
    let mut thresholds = Thresholds::new(&probe);
    if kind == ProbeKind::Startup {
        if *started.borrow() {
            return;
        }
    } else if started.wait_for(|started| *started).await.is_err() {
        return;
    }
    tokio::time::sleep(timing.initial_delay.saturating_sub(target.running_for)).await;
    hurry.mark_unchanged();
    loop {
        let begun = Instant::now();
        let outcome = check::attempt(&target, &probe, timing.timeout).await;
        let complaint = complaint(kind, &outcome);
        let success = match outcome {
            Outcome::Success | Outcome::Warning(_) => Some(true),
            Outcome::Failure(_) => Some(false),
            Outcome::Unknown(_) => None,
        };
        let result = success.and_then(|success| thresholds.take(success));
        if result.is_some() || complaint.is_some() {
            let id = target.id.clone();
            let container = target.container.name().to_owned();
            if news.send(ProbeNews { id, container, kind, result, complaint }).await.is_err() {
                return;
            }
        }
        // A container that failed its liveness or startup probe is made anew; one that has started needs no startup probe.
        let decided =
            matches!((kind, result), (ProbeKind::Startup, Some(_)) | (ProbeKind::Liveness, Some(false)));
        if decided {
            thresholds.reset();
            return;
        }
        tokio::select! {
            () = tokio::time::sleep_until(begun + timing.period) => {}
            Ok(()) = hurry.changed() => {}
        }
    }
}

/// The event that an attempt deserves. Upstream: `pkg/kubelet/prober` `probe`.
fn complaint(kind: ProbeKind, outcome: &Outcome) -> Option<(&'static str, String)> {
    let name = kind.as_str();
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(text) => Some(("ProbeWarning", format!("{name} probe warning: {text}"))),
        Outcome::Failure(text) => Some(("Unhealthy", format!("{name} probe failed: {text}"))),
        Outcome::Unknown(text) => {
            Some(("Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}")))
        }
    }
}
