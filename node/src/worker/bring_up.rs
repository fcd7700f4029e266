//! Starting: volumes, sandbox, images, containers, each as far as it is due.

use super::start::{Start, next_count_by_logs};
use super::{Outcome, Retry, Worker, make};
use crate::container_spec;
use crate::image::{self, Tried};
use crate::observed::{ContainerSeen, SandboxSeen};
use crate::plan::Plan;
use crate::spec::ContainerDef;
use crate::status::WaitReason;
use crate::volume::Mounted;
use api::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// Waits between tries to make volumes. Upstream: `goroutinemap/exponentialbackoff`.
const VOLUMES_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
/// Waits between tries to make a sandbox.
const SANDBOX_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the error of a pull is shown before its back-off.
const ERROR_SHOWN: Duration = Duration::from_secs(2);

impl Worker {
    /// Launches what the plan asks for, as far as it is due and not under way.
    pub(super) fn carry_out(&mut self, plan: Plan, now: Timestamp) {
        self.launch_volumes(now);
        for stop in &plan.stop {
            self.stop(&stop.id, &stop.message, stop.probe, None, now);
        }
        if plan.stop_all {
            let ids: Vec<String> = self.observed.running().map(|seen| seen.id.clone()).collect();
            if plan.create_sandbox.is_none() {
                self.over = true;
                return;
            }
            for id in ids {
                self.stop(&id, "", None, None, now);
            }
        }
        if let Some(attempt) = plan.create_sandbox {
            self.launch_sandbox(attempt, now);
        }
        for update in plan.update {
            match self.update_retries.get(&update.id).and_then(|retry| retry.at).filter(|at| *at > now) {
                Some(at) => self.wake_by(at),
                None if self.flight.updates.insert(update.id.clone()) => self.launch_update(update),
                None => {}
            }
        }
        for name in plan.start {
            self.launch_container(&name, now);
        }
    }

    fn launch_update(&mut self, update: crate::plan::Update) {
        let node = self.node.clone();
        let sandbox = self.observed.sandbox.as_ref().map(|sandbox| sandbox.id.clone());
        let pod_limits = crate::resources::pod_group(&self.def);
        self.operations.spawn(async move {
            let result = async {
                // The pod's own bounds grow before the container's and shrink after it; setting them on both sides covers each case.
                if let Some(sandbox) = &sandbox {
                    let _ = node.runtime.update_sandbox(sandbox, &pod_limits).await;
                }
                node.runtime.update_container(&update.id, &update.limits).await?;
                match &sandbox {
                    Some(sandbox) => node.runtime.update_sandbox(sandbox, &pod_limits).await,
                    None => Ok(()),
                }
            };
            let error = result.await.err().map(|error| error.to_string());
            Outcome::Updated { id: update.id, limits: update.limits, error }
        });
    }

    fn launch_volumes(&mut self, now: Timestamp) {
        let refresh =
            self.volumes.iter().flat_map(HashMap::values).filter_map(|mounted| mounted.refresh_at).min();
        if refresh.is_some_and(|at| at <= now) {
            self.volumes_stale = true;
        } else if let Some(at) = refresh {
            self.wake_by(at);
        }
        let needed = self.volumes.is_none() || self.volumes_stale;
        if !needed || self.flight.volumes {
            return;
        }
        if let Some(at) = self.volumes_retry.at.filter(|at| *at > now) {
            return self.wake_by(at);
        }
        self.volumes_stale = false;
        self.flight.volumes = true;
        let (node, def) = (self.node.clone(), self.def.clone());
        self.operations.spawn(async move { Outcome::Volumes(make::volumes(&node, &def).await) });
    }

    pub(super) fn finish_volumes(
        &mut self,
        result: Result<HashMap<String, Mounted>, String>,
        now: Timestamp,
    ) {
        self.flight.volumes = false;
        match result {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                self.volumes_retry = Retry::default();
            }
            Err(message) => {
                self.volumes_stale = true;
                self.volumes_retry.failed(now, VOLUMES_RETRY.0, VOLUMES_RETRY.1);
                self.node.pod_event(&self.def, true, "FailedMount", message);
            }
        }
    }

    fn launch_sandbox(&mut self, attempt: u32, now: Timestamp) {
        let busy = self.observed.running().next().is_some()
            || !self.flight.stops.is_empty()
            || self.flight.start.is_some();
        if self.flight.sandbox || busy {
            return;
        }
        if let Some(at) = self.sandbox_retry.at.filter(|at| *at > now) {
            return self.wake_by(at);
        }
        if attempt > 0 && self.observed.sandbox.is_some() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.node.pod_event(&self.def, false, "SandboxChanged", message);
        }
        self.flight.sandbox = true;
        let (node, def) = (self.node.clone(), self.def.clone());
        let old = self.observed.sandbox.as_ref().map(|sandbox| sandbox.id.clone());
        self.operations
            .spawn(async move { Outcome::Sandbox(make::sandbox(&node, &def, attempt, old).await) });
    }

    pub(super) fn finish_sandbox(&mut self, result: Result<SandboxSeen, String>, now: Timestamp) {
        self.flight.sandbox = false;
        match result {
            Ok(sandbox) => {
                self.node.sandboxes.lock().insert(sandbox.id.clone(), self.def.uid().to_owned());
                if let Some(old) = self.observed.sandbox.replace(sandbox) {
                    self.observed.old_sandboxes.push(old.id);
                }
                self.sandbox_retry = Retry::default();
            }
            Err(message) => {
                self.sandbox_retry.failed(now, SANDBOX_RETRY.0, SANDBOX_RETRY.1);
                let text = format!("Failed to create pod sandbox: {message}");
                self.node.pod_event(&self.def, true, "FailedCreatePodSandBox", text);
            }
        }
    }

    /// Brings a container one step further: waits out its back-off, has its image, starts.
    fn launch_container(&mut self, name: &str, now: Timestamp) {
        let stopping = self.observed.latest(name).is_some_and(|seen| seen.is_running());
        if stopping || self.flight.start.as_deref() == Some(name) || self.flight.pulls.contains(name) {
            return;
        }
        if self.waits_after_crash(name, now) {
            return;
        }
        if let Some(at) = self.config_retries.get(name).and_then(|retry| retry.at).filter(|at| *at > now) {
            return self.wake_by(at);
        }
        let Some(container) = self.def.container(name).cloned() else { return };
        if !self.images.contains_key(name) {
            return self.launch_pull(&container, now);
        }
        let ready =
            self.observed.sandbox.as_ref().is_some_and(|sandbox| sandbox.ready) && !self.flight.sandbox;
        if ready && self.volumes.is_some() && self.flight.start.is_none() {
            self.launch_start(&container, now);
        }
    }

    fn waits_after_crash(&mut self, name: &str, now: Timestamp) -> bool {
        let Some(exit) = self.observed.latest(name).and_then(ContainerSeen::exit) else { return false };
        let Some(until) = self.crashes.until(&self.crash_key(name), exit.finished_at, now) else {
            return false;
        };
        let wait = crate::back_off::go_duration(self.crashes.wait(&self.crash_key(name)));
        let label = self.def.label();
        let message = format!("back-off {wait} restarting failed container={name} pod={label}");
        self.waiting.insert(name.to_owned(), WaitReason { reason: "CrashLoopBackOff".to_owned(), message });
        if self.told_back_off.insert(name.to_owned(), until) != Some(until)
            && let Some(container) = self.def.container(name)
        {
            let text = format!("Back-off restarting failed container {name} in pod {label}");
            self.node.container_event(&self.def, container, true, "BackOff", text);
        }
        self.wake_by(until);
        true
    }

    fn crash_key(&self, name: &str) -> String {
        let hash = self.def.container(name).map(|container| container.hash.as_str()).unwrap_or_default();
        format!("{name}_{hash}")
    }

    fn launch_pull(&mut self, container: &ContainerDef, now: Timestamp) {
        let name = container.name().to_owned();
        if let Some(until) = self.pull_back_off.until_since_update(container.image(), now) {
            // What went wrong is shown for a moment before the wait for the next try is.
            let shown_until = until - self.pull_back_off.wait(container.image()) + ERROR_SHOWN;
            if shown_until > now {
                return self.wake_by(shown_until);
            }
            let Some(error) = self.pull_errors.get(container.image()) else {
                // No registry was asked: what stands there stays until the next look.
                return self.wake_by(until);
            };
            let message = format!("Back-off pulling image \"{}\"", container.image());
            if self.told_back_off.insert(format!("pull {name}"), until) != Some(until) {
                self.node.container_event(&self.def, container, false, "BackOff", message.clone());
                self.node.container_event(&self.def, container, true, "Failed", "Error: ImagePullBackOff");
            }
            let message = format!("{message}: {error}");
            self.waiting.insert(name, WaitReason { reason: "ImagePullBackOff".to_owned(), message });
            return self.wake_by(until);
        }
        self.flight.pulls.insert(name);
        let (node, def, container) = (self.node.clone(), self.def.clone(), container.clone());
        self.operations.spawn(async move {
            // The semaphore is never closed.
            let _turn = node.pulls.acquire().await;
            let tried = image::ensure(&*node.runtime, &def, &container, &*node.objects).await;
            Outcome::Pulled { container: container.spec.name, tried: Box::new(tried) }
        });
    }

    pub(super) fn finish_pull(&mut self, name: &str, tried: Tried, now: Timestamp) {
        self.flight.pulls.remove(name);
        let Some(container) = self.def.container(name).cloned() else { return };
        for (warning, reason, message) in tried.events {
            self.node.container_event(&self.def, &container, warning, reason, message);
        }
        match tried.outcome {
            Ok(image) => {
                self.images.insert(name.to_owned(), image);
                self.pull_errors.remove(container.image());
                let of_image = |wait: &WaitReason| wait.reason.contains("Image");
                if self.waiting.get(name).is_some_and(of_image) {
                    self.waiting.remove(name);
                }
            }
            Err(reason) => {
                let text = format!("Error: {}", reason.reason);
                self.node.container_event(&self.def, &container, true, "Failed", text);
                // What no registry can change is looked at again as seldom as a failed pull, but keeps its reason.
                self.pull_back_off.next(container.image(), now, now);
                match tried.failed_pull {
                    true => self.pull_errors.insert(
                        container.image().to_owned(),
                        format!("{}: {}", reason.reason, reason.message),
                    ),
                    false => self.pull_errors.remove(container.image()),
                };
                self.waiting.insert(name.to_owned(), reason);
            }
        }
    }

    fn launch_start(&mut self, container: &ContainerDef, now: Timestamp) {
        let name = container.name().to_owned();
        let (Some(image), Some(volumes)) = (self.images.remove(&name), self.volumes.clone()) else { return };
        let Some(sandbox) = self.observed.sandbox.clone() else { return };
        let last = self.observed.latest(&name);
        if let Some(exit) = last.and_then(ContainerSeen::exit) {
            let key = self.crash_key(&name);
            self.crashes.next(&key, exit.finished_at, now);
        }
        let restart_count = match last {
            Some(last) => last.restart_count + 1,
            None => {
                next_count_by_logs(&container_spec::log_directory(&self.node.options, &self.def).join(&name))
            }
        };
        let older =
            self.observed.containers.iter().filter(|seen| seen.name == name && !seen.is_running()).skip(1);
        let start = Start {
            node: self.node.clone(),
            def: self.def.clone(),
            container: container.clone(),
            image,
            volumes,
            sandbox: sandbox.id,
            addresses: match self.def.host_network() {
                true => self.node.host_addresses.clone(),
                false => sandbox.addresses,
            },
            restart_count,
            target_missing: container
                .target
                .as_deref()
                .is_some_and(|target| !self.observed.latest(target).is_some_and(ContainerSeen::is_running)),
            remove: older.map(|seen| (seen.id.clone(), seen.log_path.clone())).collect(),
        };
        self.flight.start = Some(name);
        self.start_task = Some(self.operations.spawn(start.run()));
    }

    pub(super) async fn finish_start(
        &mut self,
        name: &str,
        made: Option<ContainerSeen>,
        removed: &[String],
        error: Option<WaitReason>,
    ) {
        self.flight.start = None;
        self.observed.containers.retain(|seen| !removed.contains(&seen.id));
        if let Some(seen) = made {
            let id = seen.id.clone();
            // What events have told meanwhile is newer than what the start has seen at its end: a container that ended in between must
            // not be taken for one that runs.
            let is_known = self.observed.by_id(&id).is_some();
            self.observed.put(seen);
            if self.early_exits.remove(&id) || is_known {
                self.refresh_container(&id).await;
            }
        }
        match error {
            None => {
                self.waiting.remove(name);
                self.config_retries.remove(name);
            }
            Some(reason) => {
                // A container that could not be made is tried again like one that crashed.
                let now = self.node.clock.now();
                if self.observed.latest(name).is_none_or(|seen| seen.exit().is_none()) {
                    self.retry_config(name, now);
                }
                self.waiting.insert(name.to_owned(), reason);
            }
        }
    }

    /// A container whose configuration is wrong has no instance that ended: it waits a little, then everything is looked up anew.
    fn retry_config(&mut self, name: &str, now: Timestamp) {
        let retry = self.config_retries.entry(name.to_owned()).or_default();
        retry.failed(now, Duration::from_secs(1), Duration::from_secs(15));
    }
}
