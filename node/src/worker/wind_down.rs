//! Ending: stopping containers with their grace, giving up what the pod had, deleting the API object.

use super::{Outcome, Retry, Stage, Worker};
use crate::container_spec;
use crate::context::{NodeContext, PodView};
use crate::hook;
use crate::probe::ProbeKind;
use crate::spec::{ContainerDef, Kind, PodDef};
use crate::volume;
use api::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Nothing gets less time than this to end. Upstream: `minimumGracePeriodInSeconds`.
const GRACE_MIN: Duration = Duration::from_secs(2);
/// Waits between tries to give up what a pod had.
const RELEASE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

impl Worker {
    /// Brings the end of the pod one step further.
    pub(super) fn wind_down(&mut self, now: Timestamp) {
        self.ending_since.get_or_insert(now);
        self.waiting.clear();
        self.give_up_start();
        let ids: Vec<String> = self.observed.running().map(|seen| seen.id.clone()).collect();
        for id in &ids {
            self.stop(id, "", None, None, now);
        }
        self.shorten_grace(now);
        let flight = &self.flight;
        let busy = !ids.is_empty()
            || !flight.stops.is_empty()
            || flight.start.is_some()
            || flight.sandbox
            || flight.volumes;
        let wanted =
            if self.gone || self.def.deletion_at().is_some() { Stage::Removed } else { Stage::Released };
        if busy || flight.release || self.stage >= wanted {
            return;
        }
        if !self.release_retry.is_due(now) {
            return self.release_retry.at.into_iter().for_each(|at| self.wake_by(at));
        }
        self.flight.release = true;
        let (node, def) = (self.node.clone(), self.def.clone());
        let current = self.observed.sandbox.iter().map(|sandbox| sandbox.id.clone());
        let sandboxes = self.observed.old_sandboxes.iter().cloned().chain(current).collect();
        self.operations.spawn(async move {
            let result = match wanted {
                Stage::Removed => remove(&node, &def, sandboxes).await,
                _ => release(&node, &def, &sandboxes).await,
            };
            Outcome::Released(result.map(|()| wanted))
        });
    }

    /// A start whose container runs already only waits for a hook: that ends with the container.
    fn give_up_start(&mut self) {
        let Some(name) = &self.flight.start else { return };
        if self.observed.latest(name).is_some_and(|seen| seen.is_running()) {
            if let Some(task) = self.start_task.take() {
                task.abort();
            }
            self.flight.start = None;
        }
    }

    /// Stops an instance, once. `grace` overrules what the pod says.
    pub(super) fn stop(
        &mut self,
        id: &str,
        message: &str,
        probe: Option<ProbeKind>,
        grace: Option<Duration>,
        now: Timestamp,
    ) {
        if self.flight.stops.contains_key(id) {
            return;
        }
        let Some(seen) = self.observed.by_id(id).filter(|seen| seen.is_running()).cloned() else { return };
        let grace = grace.unwrap_or_else(|| grace_of(&self.def, self.def.container(&seen.name), probe));
        let container = self.def.container(&seen.name).cloned();
        if let Some(container) = &container {
            let text = match message {
                "" => format!("Stopping container {}", seen.name),
                text => text.to_owned(),
            };
            self.node.container_event(&self.def, container, false, "Killing", text);
        }
        let before = if self.is_ending() { self.stop_before(&seen.name) } else { Vec::new() };
        let (deadline, shorter) = watch::channel(now + grace.max(GRACE_MIN));
        self.flight.stops.insert(id.to_owned(), deadline);
        let stop = Stop {
            node: self.node.clone(),
            def: self.def.clone(),
            container,
            id: id.to_owned(),
            address: self.address(),
            grace,
            before,
            view: self.view.subscribe(),
            deadline: shorter,
        };
        self.operations.spawn(stop.run());
    }

    /// The containers that have to end before a sidecar may: ordinary ones, and sidecars that started after it.
    fn stop_before(&self, name: &str) -> Vec<String> {
        let Some(position) = self.def.containers.iter().position(|container| container.name() == name) else {
            return Vec::new();
        };
        if self.def.containers[position].kind != Kind::Sidecar {
            return Vec::new();
        }
        let later = self.def.containers.iter().skip(position + 1);
        later.filter(|one| one.kind != Kind::Ephemeral).map(|one| one.name().to_owned()).collect()
    }

    /// A deletion may ask for less time than is under way.
    fn shorten_grace(&mut self, now: Timestamp) {
        let Some(since) = self.ending_since else { return };
        let wanted = match (self.gone, self.def.deletion_at()) {
            (true, None) => since + GRACE_MIN,
            (_, Some(at)) => at.max(since + GRACE_MIN),
            (false, None) => return,
        };
        for deadline in self.flight.stops.values() {
            deadline.send_if_modified(|own| {
                let sooner = wanted < *own;
                if sooner {
                    *own = wanted.max(now);
                }
                sooner
            });
        }
    }

    pub(super) fn finish_release(&mut self, result: Result<Stage, String>, now: Timestamp) {
        self.flight.release = false;
        match result {
            Ok(stage) => {
                self.stage = stage;
                if let Some(sandbox) = &mut self.observed.sandbox {
                    sandbox.ready = false;
                    self.node.sandboxes.lock().remove(&sandbox.id);
                }
                self.volumes = None;
                self.release_retry = Retry::default();
            }
            Err(message) => {
                tracing::warn!(
                    pod = self.def.label(),
                    error = message,
                    "what a pod had cannot be given up yet"
                );
                self.release_retry.failed(now, RELEASE_RETRY.0, RELEASE_RETRY.1);
                self.node.pod_event(
                    &self.def,
                    true,
                    "FailedKillPod",
                    format!("error killing pod: {message}"),
                );
            }
        }
    }
}

/// How long a container may take to end.
fn grace_of(def: &PodDef, container: Option<&ContainerDef>, probe: Option<ProbeKind>) -> Duration {
    let own = probe
        .zip(container)
        .and_then(|(kind, container)| kind.of(&container.spec)?.termination_grace_period_seconds)
        .filter(|_| def.deletion_at().is_none());
    Duration::from_secs(u64::try_from(own.unwrap_or(def.grace_seconds())).unwrap_or(0))
}

/// All that stopping a container needs.
struct Stop {
    node: Arc<NodeContext>,
    def: PodDef,
    container: Option<ContainerDef>,
    id: String,
    address: Option<String>,
    grace: Duration,
    before: Vec<String>,
    view: watch::Receiver<Arc<PodView>>,
    deadline: watch::Receiver<Timestamp>,
}

impl Stop {
    async fn run(mut self) -> Outcome {
        if !self.grace.is_zero() {
            // The hook and the wait for others share the grace with the program's own end.
            let (deadline, mut view) = (self.deadline.clone(), self.view.clone());
            let clock = self.node.clock.clone();
            tokio::select! {
                () = self.prepare(&mut view) => {}
                () = passed(deadline, &clock) => {}
            }
        }
        let left = self.node.clock.until(*self.deadline.borrow_and_update()).max(GRACE_MIN);
        let (node, id) = (self.node.clone(), self.id.clone());
        let stopping = self.id.clone();
        let ended = node.runtime.stop_container(&stopping, None, left);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                result = &mut ended => {
                    if let Err(error) = result {
                        tracing::warn!(container = id, %error, "a container cannot be stopped");
                    }
                    return Outcome::Stopped { id };
                }
                Ok(()) = self.deadline.changed() => {
                    let until = *self.deadline.borrow_and_update();
                    node.clock.sleep_until(until).await;
                    // Already gone is as good as killed.
                    let _ = node.runtime.kill_container(&id, libc::SIGKILL).await;
                }
            }
        }
    }

    /// The preStop hook, then the containers that go first.
    async fn prepare(&self, view: &mut watch::Receiver<Arc<PodView>>) {
        let hook = self
            .container
            .as_ref()
            .and_then(|container| container.spec.lifecycle.as_ref()?.pre_stop.as_ref());
        if let (Some(hook), Some(container)) = (hook, &self.container) {
            let address = self.address.as_deref();
            let run = hook::run(&*self.node.runtime, &self.def, container, &self.id, address, hook);
            if run.await.is_err() {
                self.node.container_event(
                    &self.def,
                    container,
                    true,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
        }
        let before = &self.before;
        // An error means that the worker is gone: then there is nothing to wait for.
        let _ = view.wait_for(|view| !view.observed.running().any(|seen| before.contains(&seen.name))).await;
    }
}

/// Waits until a deadline, which may move, has passed.
async fn passed(mut deadline: watch::Receiver<Timestamp>, clock: &client::Clock) {
    loop {
        let until = *deadline.borrow_and_update();
        tokio::select! {
            () = clock.sleep_until(until) => return,
            changed = deadline.changed() => if changed.is_err() {
                return clock.sleep_until(until).await;
            },
        }
    }
}

/// Gives up network and volumes; ended containers stay for their logs.
async fn release(node: &NodeContext, def: &PodDef, sandboxes: &[String]) -> Result<(), String> {
    for sandbox in sandboxes {
        node.runtime.stop_sandbox(sandbox).await.map_err(|error| error.to_string())?;
    }
    if !def.host_network() {
        node.network.detach(def.uid()).await.map_err(|error| error.to_string())?;
    }
    node.tokens.forget(def.uid());
    volume::unmount_all(&node.directories, def.uid()).map_err(|error| error.to_string())
}

/// Gives up everything of a pod.
async fn remove(node: &NodeContext, def: &PodDef, sandboxes: Vec<String>) -> Result<(), String> {
    release(node, def, &sandboxes).await?;
    for sandbox in &sandboxes {
        node.runtime.remove_sandbox(sandbox).await.map_err(|error| error.to_string())?;
    }
    let logs = container_spec::log_directory(&node.options, def);
    match std::fs::remove_dir_all(&logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("remove {}: {error}", logs.display()))
        }
        _ => Ok(()),
    }
}
