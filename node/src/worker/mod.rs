//! The task of one pod. Everything that concerns the pod comes in as a message; what takes time runs as an operation beside it; after
//! each message the worker looks at all it knows and decides anew ([`crate::plan`], [`crate::status`]).
//!
//! **Flow**: message or finished operation or timer → remember it → `sync`: plan, launch operations, compute the status, write it if due.
//! **Guarantees**: one worker per uid, so nothing of a pod happens twice at once; the API object is deleted only after everything is gone.
//! **Assumptions**: the runtime's labels tell a new process all that must be known of containers that run.

mod bring_up;
mod make;
mod report;
mod start;
#[cfg(test)]
mod tests;
mod wind_down;

use crate::back_off::BackOff;
use crate::container_spec::ResolvedImage;
use crate::context::{NodeContext, PodView};
use crate::image::Tried;
use crate::observed::{ContainerSeen, Observed, SandboxSeen, State};
use crate::plan;
use crate::probe::{self, ProbeHandle, ProbeKind, ProbeNews, ProbeResults};
use crate::spec::{Kind, PodDef};
use crate::status::{self, Verdict, WaitReason};
use crate::volume::Mounted;
use api::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument;

/// Messages that wait for a worker. It takes them all at each turn; more than this only come from a broken sender.
pub(crate) const MESSAGES_MAX: usize = 256;
/// Waits between tries to change bounds.
const UPDATE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Probe results that wait for a worker.
const NEWS_MAX: usize = 64;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The API shows another version of the pod, of this revision.
    Update(Box<PodDef>, u64),
    /// The API object is gone.
    Gone,
    /// Something happened to a container.
    Runtime(runtime::Event),
    /// Events were lost: this is what is there.
    Relist(Box<Observed>),
    /// An object that the pod's volumes show has changed.
    Refresh,
    /// Another pod left: what was deferred may fit now.
    Room,
    /// The pod has to end, though nobody deleted it.
    Evict(Verdict, Option<Box<PodCondition>>),
}

/// What an operation came to.
#[allow(clippy::large_enum_variant)] // one at a time, moved once
enum Outcome {
    Volumes(Result<HashMap<String, Mounted>, String>),
    Sandbox(Result<SandboxSeen, String>),
    Pulled {
        container: String,
        tried: Box<Tried>,
    },
    Started {
        container: String,
        made: Option<Box<ContainerSeen>>,
        removed: Vec<String>,
        error: Option<WaitReason>,
    },
    Stopped {
        id: String,
    },
    Updated {
        id: String,
        limits: runtime::Limits,
        error: Option<String>,
    },
    Written(Result<(u64, Value), api::Status>),
    Released(Result<Stage, String>),
    Deleted(Result<(), api::Status>),
}

/// How far the end of a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It is to run, or its containers still end.
    Up,
    /// Network and volumes are given up; containers are kept for their logs.
    Released,
    /// Nothing is left.
    Removed,
    /// The API object is deleted too.
    Deleted,
}

/// A wait that doubles, for operations that are tried again.
#[derive(Debug, Default)]
struct Retry {
    at: Option<Timestamp>,
    wait: Duration,
}

impl Retry {
    fn failed(&mut self, now: Timestamp, first: Duration, max: Duration) {
        self.wait = if self.wait.is_zero() { first } else { (self.wait * 2).min(max) };
        self.at = Some(now + self.wait);
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }
}

/// What runs beside the worker.
#[derive(Default)]
struct InFlight {
    volumes: bool,
    sandbox: bool,
    pulls: HashSet<String>,
    start: Option<String>,
    stops: HashMap<String, watch::Sender<Timestamp>>,
    updates: HashSet<String>,
    write: bool,
    release: bool,
    delete: bool,
}

/// The task of one pod.
pub(crate) struct Worker {
    node: Arc<NodeContext>,
    def: PodDef,
    observed: Observed,
    probes: ProbeResults,
    probe_tasks: HashMap<String, ProbeHandle>,
    probe_news: mpsc::Sender<ProbeNews>,
    waiting: BTreeMap<String, WaitReason>,
    crashes: BackOff,
    pull_back_off: BackOff,
    pull_errors: HashMap<String, String>,
    told_back_off: HashMap<String, Timestamp>,
    images: HashMap<String, ResolvedImage>,
    volumes: Option<HashMap<String, Mounted>>,
    volumes_stale: bool,
    volumes_retry: Retry,
    sandbox_retry: Retry,
    release_retry: Retry,
    write_retry: Retry,
    delete_retry: Retry,
    /// Instances that ended before we knew that they were there.
    early_exits: HashSet<String>,
    verdict: Option<Verdict>,
    rejected: bool,
    disruption: Option<Box<PodCondition>>,
    /// Nothing will run again, though the API does not say so yet.
    over: bool,
    gone: bool,
    stage: Stage,
    ending_since: Option<Timestamp>,
    flight: InFlight,
    operations: JoinSet<Outcome>,
    status: PodStatus,
    /// The status that the API shows, and the revision it has it from.
    written: (u64, Value),
    dirty_since: Option<Timestamp>,
    view: watch::Sender<Arc<PodView>>,
    wake_at: Option<Timestamp>,
    resize: crate::resize::Resize,
    config_retries: HashMap<String, Retry>,
    update_retries: HashMap<String, Retry>,
    last_patch: Option<(u64, Value)>,
    start_task: Option<AbortHandle>,
}

/// A pod's worker, from outside.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    /// Where messages go.
    pub messages: mpsc::Sender<Message>,
    /// How the worker sees its pod.
    pub view: watch::Receiver<Arc<PodView>>,
}

/// Starts the worker of a pod. `observed` is what a former process left. `rejected`: the node does not take it.
/// `on_end` is told the uid when nothing is left of the pod.
pub(crate) fn start(
    node: Arc<NodeContext>,
    def: PodDef,
    revision: u64,
    observed: Observed,
    rejected: Option<Verdict>,
    on_end: mpsc::Sender<String>,
) -> WorkerHandle {
    let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
    let (probe_news, news) = mpsc::channel(NEWS_MAX);
    let status = def.pod.status.clone().unwrap_or_default();
    let view = PodView { def: def.clone(), observed: observed.clone(), status: status.clone() };
    let view = watch::Sender::new(Arc::new(view));
    let handle = WorkerHandle { messages, view: view.subscribe() };
    let written = (revision, serde_json::to_value(&status).unwrap_or_default());
    let worker = Worker {
        resize: crate::resize::Resize::new(&def),
        probes: adopted_results(&def, &observed),
        node,
        observed,
        probe_tasks: HashMap::new(),
        probe_news,
        waiting: BTreeMap::new(),
        crashes: BackOff::default(),
        pull_back_off: BackOff::default(),
        pull_errors: HashMap::new(),
        told_back_off: HashMap::new(),
        images: HashMap::new(),
        volumes: None,
        volumes_stale: false,
        volumes_retry: Retry::default(),
        sandbox_retry: Retry::default(),
        release_retry: Retry::default(),
        write_retry: Retry::default(),
        delete_retry: Retry::default(),
        early_exits: HashSet::new(),
        rejected: rejected.is_some(),
        verdict: rejected,
        disruption: None,
        over: false,
        gone: false,
        stage: Stage::Up,
        ending_since: None,
        flight: InFlight::default(),
        operations: JoinSet::new(),
        status,
        written,
        dirty_since: None,
        view,
        wake_at: None,
        config_retries: HashMap::new(),
        update_retries: HashMap::new(),
        last_patch: None,
        start_task: None,
        def,
    };
    let def = &worker.def;
    let span =
        tracing::info_span!("pod_sync", pod = def.name(), namespace = def.namespace(), uid = def.uid());
    tokio::spawn(worker.run(receiver, news, on_end).instrument(span));
    handle
}

/// Containers that run and were ready stay so while their probes start anew.
fn adopted_results(def: &PodDef, observed: &Observed) -> ProbeResults {
    let mut results = ProbeResults::default();
    let status = def.pod.status.clone().unwrap_or_default();
    let lists = [status.container_statuses, status.init_container_statuses];
    for old in lists.into_iter().flatten().flatten() {
        let Some(seen) = observed.running().find(|seen| old.container_id.as_deref() == Some(&seen.api_id()))
        else {
            continue;
        };
        if old.started == Some(true) {
            results.set(&seen.id, ProbeKind::Startup, true);
        }
        if old.ready {
            results.set(&seen.id, ProbeKind::Readiness, true);
        }
    }
    results
}

impl Worker {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut news: mpsc::Receiver<ProbeNews>,
        on_end: mpsc::Sender<String>,
    ) {
        self.collect_messages().await;
        loop {
            if self.sync() {
                break;
            }
            let sleep = self.wake_at.map(|at| self.node.clock.until(at));
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.take(message).await,
                    // The node shuts down: containers go on, the next process adopts them.
                    None => break,
                },
                Some(one) = news.recv() => self.take_news(one),
                Some(outcome) = self.operations.join_next(), if !self.operations.is_empty() => self.finish(outcome).await,
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            }
            // What came meanwhile belongs to the same turn.
            while let Ok(message) = messages.try_recv() {
                self.take(message).await;
            }
            while let Ok(one) = news.try_recv() {
                self.take_news(one);
            }
            while let Some(outcome) = self.operations.try_join_next() {
                self.finish(outcome).await;
            }
        }
        // Nobody is left to tell when the whole node ends.
        let _ = on_end.send(self.def.uid().to_owned()).await;
    }

    /// Decides anew. Answers whether the worker's work is done.
    fn sync(&mut self) -> bool {
        let now = self.node.clock.now();
        self.wake_at = None;
        self.check_deadline(now);
        if !self.is_ending() {
            let plan = plan::plan(&self.def, &self.observed, &self.probes);
            self.settle_resize(&plan, now);
            self.carry_out(plan, now);
        }
        if self.is_ending() {
            self.wind_down(now);
        }
        self.follow_probes(now);
        self.report(now);
        self.stage == Stage::Deleted || (self.gone && self.stage == Stage::Removed)
    }

    /// Nothing of the pod will be started again.
    fn is_ending(&self) -> bool {
        self.gone
            || self.over
            || self.verdict.is_some()
            || self.def.deletion_at().is_some()
            || self.def.has_ended()
    }

    fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |own| own.min(at)));
    }

    /// A pod that runs longer than it may has to end.
    fn check_deadline(&mut self, now: Timestamp) {
        let Some(seconds) = self.def.spec().active_deadline_seconds else { return };
        let Some(started) = self.status.start_time.as_ref().map(|time| time.0) else { return };
        if self.is_ending() {
            return;
        }
        let deadline = started + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        if deadline > now {
            return self.wake_by(deadline);
        }
        let (reason, message) = status::failed_message();
        self.node.pod_event(&self.def, false, reason, message);
        self.verdict = Some(Verdict { reason: reason.to_owned(), message: message.to_owned() });
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Update(def, revision) => self.take_update(*def, revision),
            Message::Gone => self.gone = true,
            Message::Runtime(event) => self.take_event(event).await,
            Message::Relist(observed) => {
                self.observed = *observed;
                self.collect_messages().await;
            }
            Message::Refresh => {
                self.volumes_stale = true;
                self.volumes_retry = Retry::default();
            }
            Message::Room => {
                let now = self.node.clock.now();
                if let Some(def) = self.resize.retry(&self.node, now) {
                    self.def = def;
                }
            }
            Message::Evict(verdict, disruption) => {
                if !self.is_ending() {
                    self.verdict = Some(verdict);
                    self.disruption = disruption;
                }
            }
        }
    }

    fn take_update(&mut self, def: PodDef, revision: u64) {
        let changed = |own: &Option<_>, new: &Option<_>| own != new;
        let (own, new) = (&self.def.pod.metadata, &def.pod.metadata);
        let shown = changed(&own.labels, &new.labels) || changed(&own.annotations, &new.annotations);
        let resized = own.generation != new.generation;
        if (shown || resized) && crate::volume::shows_pod(&def) {
            self.volumes_stale = true;
        }
        if revision > self.written.0 {
            let status = def.pod.status.as_ref().and_then(|status| serde_json::to_value(status).ok());
            self.written = (revision, status.unwrap_or_default());
        }
        self.config_retries.clear();
        let now = self.node.clock.now();
        self.def = self.resize.update(&self.node, def, now);
    }

    /// A resize is done when nothing is left to be changed for it.
    fn settle_resize(&mut self, plan: &plan::Plan, now: Timestamp) {
        let idle = plan.update.is_empty()
            && plan.stop.is_empty()
            && plan.start.is_empty()
            && self.flight.updates.is_empty();
        if idle && self.resize.is_in_progress() {
            self.resize.settled(&self.node, &self.def, None, now);
        }
    }

    async fn take_event(&mut self, event: runtime::Event) {
        match event {
            runtime::Event::Exited { container, .. } => match self.observed.by_id(&container) {
                Some(_) => self.refresh_container(&container).await,
                None => {
                    self.early_exits.insert(container);
                }
            },
            // Only of interest while a start waits for its hook: the container can be stopped by then.
            runtime::Event::Started { container, .. }
                if self.flight.start.is_some() && self.observed.by_id(&container).is_none() =>
            {
                self.refresh_container(&container).await;
            }
            runtime::Event::SandboxLost { sandbox } => {
                if let Some(own) = self.observed.sandbox.as_mut().filter(|own| own.id == sandbox) {
                    own.ready = false;
                }
                let ids: Vec<String> = self.observed.running().map(|seen| seen.id.clone()).collect();
                for id in ids {
                    self.refresh_container(&id).await;
                }
            }
            _ => {}
        }
    }

    /// Reads a container anew from the runtime.
    async fn refresh_container(&mut self, id: &str) {
        match self.node.runtime.container(id).await {
            Ok(status) => {
                if let Some(mut seen) = ContainerSeen::from_runtime(&status) {
                    start::add_message(&mut seen);
                    self.observed.put(seen);
                }
            }
            Err(runtime::Error::NotFound { .. }) => self.observed.containers.retain(|seen| seen.id != id),
            Err(error) => tracing::warn!(container = id, %error, "a container cannot be read"),
        }
    }

    /// Reads the termination messages of all containers that have ended.
    async fn collect_messages(&mut self) {
        for seen in &mut self.observed.containers {
            start::add_message(seen);
        }
        let uid = self.def.uid().to_owned();
        if let Some(sandbox) = &self.observed.sandbox {
            self.node.sandboxes.lock().insert(sandbox.id.clone(), uid);
        }
    }

    fn take_news(&mut self, news: ProbeNews) {
        let Some(seen) = self.observed.by_id(&news.id).filter(|seen| seen.is_running()) else { return };
        let id = seen.id.clone();
        if let (Some((reason, text)), Some(container)) =
            (&news.complaint, self.def.container(&news.container))
        {
            self.node.container_event(&self.def, container, true, reason, text.clone());
        }
        let Some(result) = news.result else { return };
        if self.is_ending() && news.kind != ProbeKind::Readiness {
            return;
        }
        self.probes.set(&id, news.kind, result);
        if news.kind == ProbeKind::Startup
            && result
            && let Some(handle) = self.probe_tasks.get(&id)
        {
            handle.set_started();
        }
    }

    /// Probes run exactly for the instances that run.
    fn follow_probes(&mut self, now: Timestamp) {
        let running: HashMap<String, ContainerSeen> =
            self.observed.running().map(|seen| (seen.id.clone(), seen.clone())).collect();
        let probes = &mut self.probes;
        self.probe_tasks.retain(|id, _| {
            let keep = running.contains_key(id);
            if !keep {
                probes.forget(id);
            }
            keep
        });
        let ending = self.is_ending();
        if ending {
            for handle in self.probe_tasks.values_mut() {
                handle.keep_readiness();
            }
            return;
        }
        for (id, seen) in running {
            let Some(container) = self.def.container(&seen.name) else { continue };
            let probed = matches!(container.kind, Kind::Regular | Kind::Sidecar)
                && ProbeKind::ALL.iter().any(|kind| kind.of(&container.spec).is_some());
            let starting = self.flight.start.as_deref() == Some(container.name());
            if !probed || starting || self.probe_tasks.contains_key(&id) {
                continue;
            }
            let started = container.spec.startup_probe.is_none() || self.probes.startup(&id) == Some(true);
            let target = probe::ProbeTarget {
                pod: self.def.pod.clone(),
                container: container.clone(),
                id: id.clone(),
                address: self.address().unwrap_or_default(),
                running_for: seen
                    .started_at
                    .and_then(|at| Duration::try_from(now.duration_since(at)).ok())
                    .unwrap_or_default(),
                runtime: self.node.runtime.clone(),
            };
            if let Some(handle) = probe::start(target, started, &self.probe_news) {
                self.probe_tasks.insert(id, handle);
            }
        }
    }

    /// The pod's primary address.
    fn address(&self) -> Option<String> {
        match self.def.host_network() {
            true => self.node.host_addresses.first().cloned(),
            false => self.observed.addresses().first().cloned(),
        }
    }

    async fn finish(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        let now = self.node.clock.now();
        match outcome {
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                // A panic in an operation: what it was doing is not known, so all that is in flight is planned anew.
                tracing::error!(%error, "an operation of a pod broke");
                if self.operations.is_empty() {
                    self.flight = InFlight::default();
                }
            }
            Ok(Outcome::Volumes(result)) => self.finish_volumes(result, now),
            Ok(Outcome::Sandbox(result)) => self.finish_sandbox(result, now),
            Ok(Outcome::Pulled { container, tried }) => self.finish_pull(&container, *tried, now),
            Ok(Outcome::Started { container, made, removed, error }) => {
                self.finish_start(&container, made.map(|seen| *seen), &removed, error).await;
            }
            Ok(Outcome::Stopped { id }) => {
                self.flight.stops.remove(&id);
                if self.observed.by_id(&id).is_some_and(|seen| !matches!(seen.state, State::Exited(_))) {
                    self.refresh_container(&id).await;
                }
            }
            Ok(Outcome::Updated { id, limits, error }) => {
                self.flight.updates.remove(&id);
                match error {
                    None => {
                        if let Some(seen) = self.observed.by_id_mut(&id) {
                            seen.limits = limits;
                        }
                    }
                    Some(error) => {
                        self.update_retries.entry(id).or_default().failed(
                            now,
                            UPDATE_RETRY.0,
                            UPDATE_RETRY.1,
                        );
                        self.resize.settled(&self.node, &self.def, Some(error), now);
                    }
                }
            }
            Ok(Outcome::Written(result)) => self.finish_write(result, now),
            Ok(Outcome::Released(result)) => self.finish_release(result, now),
            Ok(Outcome::Deleted(result)) => self.finish_delete(result, now),
        }
    }
}
