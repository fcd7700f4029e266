//! Starting: volumes, sandbox, images, containers.

use super::{Outcome, Retry, Worker};
use crate::container_spec::{self, Making, PodFiles, ResolvedImage};
use crate::context::NodeContext;
use crate::env;
use crate::files;
use crate::hook;
use crate::image::{self, Tried};
use crate::log_file;
use crate::observed::{ContainerSeen, SandboxSeen, State, label};
use crate::plan::Plan;
use crate::spec::{ContainerDef, Kind, PodDef};
use crate::status::WaitReason;
use crate::volume::{self, Files, Mounted, Mounting};
use api::Timestamp;
use k8s_openapi::api::core::v1::{Container, FileKeySelector, Volume};
use runtime::Network;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
        self.operations.spawn(async move { Outcome::Volumes(make_volumes(&node, &def).await) });
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
        self.operations.spawn(async move { Outcome::Sandbox(make_sandbox(&node, &def, attempt, old).await) });
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
            let mut message = format!("Back-off pulling image \"{}\"", container.image());
            if self.told_back_off.insert(format!("pull {name}"), until) != Some(until) {
                self.node.container_event(&self.def, container, false, "BackOff", message.clone());
                self.node.container_event(&self.def, container, true, "Failed", "Error: ImagePullBackOff");
            }
            if let Some(error) = self.pull_errors.get(container.image()) {
                message = format!("{message}: {error}");
            }
            self.waiting.insert(name, WaitReason { reason: "ImagePullBackOff".to_owned(), message });
            return self.wake_by(until);
        }
        self.flight.pulls.insert(name);
        let (node, def, container) = (self.node.clone(), self.def.clone(), container.clone());
        self.operations.spawn(async move {
            // The semaphore is never closed.
            let _turn = node.pulls.acquire().await;
            let tried = image::ensure(&*node.runtime, &def, &container, &*node.objects).await;
            Outcome::Pulled { container: container.spec.name, tried }
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
                if !tried.failed_pull {
                    // What no registry can change is looked at again as seldom as a failed pull.
                    tracing::debug!(container = name, reason = reason.reason, "an image cannot be had");
                }
                self.pull_back_off.next(container.image(), now, now);
                self.pull_errors
                    .insert(container.image().to_owned(), format!("{}: {}", reason.reason, reason.message));
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
            self.observed.put(seen);
            if self.early_exits.remove(&id) {
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

/// Makes all volumes of a pod, one after the other: each is a few files.
async fn make_volumes(node: &NodeContext, def: &PodDef) -> Result<HashMap<String, Mounted>, String> {
    let mut made = HashMap::new();
    node.objects.settled(def).await;
    for volume in def.volumes() {
        let facts = node.facts(&[]);
        let mounting = Mounting {
            def,
            volume,
            directories: &node.directories,
            objects: &*node.objects,
            facts: &facts,
            tokens: &*node.tokens,
            memory_capacity_bytes: node.machine.memory_bytes,
            now: node.clock.now(),
        };
        let failed = |error: volume::VolumeError| {
            format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
        };
        let type_ = volume::type_of(volume).map_err(failed)?;
        let mut mounted = type_.mount(&mounting).await.map_err(failed)?;
        if let Files::Image(reference) = &mut mounted.files {
            *reference = pull_volume(node, def, volume).await?;
        }
        made.insert(volume.name.clone(), mounted);
    }
    Ok(made)
}

/// Brings the image of a volume here and answers its id.
async fn pull_volume(node: &NodeContext, def: &PodDef, volume: &Volume) -> Result<String, String> {
    let source = volume.image.clone().unwrap_or_default();
    // Pulling works on containers: the volume is one that never runs.
    let spec = Container {
        name: volume.name.clone(),
        image: source.reference,
        image_pull_policy: source.pull_policy,
        ..Container::default()
    };
    let container = ContainerDef { kind: Kind::Ephemeral, spec, target: None, hash: String::new() };
    // The semaphore is never closed.
    let _turn = node.pulls.acquire().await;
    let tried = image::ensure(&*node.runtime, def, &container, &*node.objects).await;
    for (warning, reason, message) in tried.events {
        node.pod_event(def, warning, reason, message);
    }
    let failed = |wait: WaitReason| format!("failed to pull image for volume \"{}\": {}", volume.name, wait.message);
    tried.outcome.map(|image| image.image.id).map_err(failed)
}

/// Makes the pod's network and sandbox, and the files that need its address.
async fn make_sandbox(
    node: &NodeContext,
    def: &PodDef,
    attempt: u32,
    old: Option<String>,
) -> Result<SandboxSeen, String> {
    check_runtime_class(node, def)?;
    if def.spec().host_users == Some(false) {
        return Err("user namespaces are not supported by this node".to_owned());
    }
    if let Some(old) = old {
        node.runtime.stop_sandbox(&old).await.map_err(|error| error.to_string())?;
    }
    let (network, addresses) = if def.host_network() {
        (Network::Host, Vec::new())
    } else {
        let annotations = def.pod.metadata.annotations.clone().unwrap_or_default();
        let bits = |name: &str| {
            let text = annotations.get(&format!("kubernetes.io/{name}-bandwidth"))?;
            u64::try_from(crate::amount::Amount::parse(text)?.value()).ok()
        };
        let attachment = crate::network::PodAttachment {
            namespace: def.namespace().to_owned(),
            name: def.name().to_owned(),
            uid: def.uid().to_owned(),
            host_ports: container_spec::host_ports(def),
            ingress_bits_per_second: bits("ingress"),
            egress_bits_per_second: bits("egress"),
        };
        let attached = node.network.attach(&attachment).await;
        let attached = attached.map_err(|error| format!("failed to setup network for sandbox: {error}"))?;
        let addresses = attached.addresses.iter().map(ToString::to_string).collect();
        (Network::Path(attached.namespace_path), addresses)
    };
    let host_network = network == Network::Host;
    write_pod_files(node, def, &addresses).map_err(|error| error.to_string())?;
    let spec = container_spec::sandbox(&node.options, def, attempt, network, &addresses);
    let id = node.runtime.create_sandbox(spec).await.map_err(|error| error.to_string())?;
    Ok(SandboxSeen { id, ready: true, addresses, attempt, host_network })
}

fn check_runtime_class(node: &NodeContext, def: &PodDef) -> Result<(), String> {
    let Some(name) = def.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let Some(class) = node.runtime_classes.read("", name) else {
        return Err(format!("failed to get sandbox runtime: RuntimeClass \"{name}\" not found"));
    };
    match node.options.runtime_handlers.contains(&class.handler) {
        true => Ok(()),
        false => {
            Err(format!("failed to get sandbox runtime: no runtime for \"{}\" is configured", class.handler))
        }
    }
}

/// Names of the files that all containers of a pod share.
fn pod_files(node: &NodeContext, def: &PodDef) -> PodFiles {
    let directory = node.directories.pod(def.uid());
    PodFiles {
        hosts: directory.join("etc-hosts"),
        resolv_conf: directory.join("etc-resolv.conf"),
        hostname: directory.join("etc-hostname"),
        ..PodFiles::default()
    }
}

fn write_pod_files(node: &NodeContext, def: &PodDef, addresses: &[String]) -> std::io::Result<()> {
    let paths = pod_files(node, def);
    fs::create_dir_all(node.directories.pod(def.uid()))?;
    let domain = &node.options.cluster_domain;
    let hosts = match def.host_network() {
        true => files::host_network_hosts(def, &fs::read_to_string("/etc/hosts").unwrap_or_default()),
        false => files::hosts(def, addresses, domain),
    };
    let cluster = files::ClusterDns {
        servers: node.options.cluster_dns.iter().map(ToString::to_string).collect(),
        domain: domain.clone(),
    };
    let machine = files::Dns::parse(&fs::read_to_string(&node.options.resolv_conf).unwrap_or_default());
    let name = files::node_name_in_pod(def, domain).unwrap_or_else(|| node.options.name.clone());
    for (path, text) in [
        (&paths.hosts, hosts),
        (&paths.resolv_conf, files::dns(def, &cluster, &machine).to_text()),
        (&paths.hostname, format!("{name}\n")),
    ] {
        // Written in place: containers that run have these very files mounted.
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// The restart count after those that left logs behind.
fn next_count_by_logs(directory: &Path) -> i32 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let counts = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.split('.').next()?.parse::<i32>().ok()
    });
    counts.max().map_or(0, |count| count + 1)
}

/// Adds to an ended container why it ended, in its own words.
pub(super) fn add_message(seen: &mut ContainerSeen) {
    let labels = &seen.labels;
    let fallback = labels.get(label::MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    let file = labels.get(label::MESSAGE_FILE).map(PathBuf::from);
    let log = seen.log_path.clone();
    let State::Exited(exit) = &mut seen.state else { return };
    let told = match file.as_deref().map(log_file::message_file) {
        Some(Ok(Some(text))) => text,
        Some(Err(error)) => error,
        Some(Ok(None)) | None => String::new(),
    };
    let told = match (told.is_empty() && fallback && exit.code != 0, log) {
        (true, Some(log)) => log_file::last_lines(&log)
            .unwrap_or_else(|error| format!("Error on reading termination message from logs: {error}")),
        _ => told,
    };
    if !told.is_empty() {
        exit.message = if exit.message.is_empty() { told } else { format!("{}: {told}", exit.message) };
    }
}

/// All that starting a container needs.
struct Start {
    node: Arc<NodeContext>,
    def: PodDef,
    container: ContainerDef,
    image: ResolvedImage,
    volumes: HashMap<String, Mounted>,
    sandbox: String,
    addresses: Vec<String>,
    restart_count: i32,
    remove: Vec<(String, Option<PathBuf>)>,
}

impl Start {
    async fn run(self) -> Outcome {
        let removed = self.remove_older().await;
        let (made, error) = match self.make().await {
            Err((reason, message)) => (None, Some(self.failed(reason, message))),
            Ok(id) => {
                let error = self
                    .start(&id)
                    .await
                    .err()
                    .map(|(reason, message)| WaitReason { reason: reason.to_owned(), message });
                (self.look(&id).await, error)
            }
        };
        Outcome::Started { container: self.container.spec.name, made, removed, error }
    }

    fn failed(&self, reason: &str, message: String) -> WaitReason {
        self.event(true, "Failed", format!("Error: {message}"));
        WaitReason { reason: reason.to_owned(), message }
    }

    fn event(&self, warning: bool, reason: &str, message: impl Into<String>) {
        self.node.container_event(&self.def, &self.container, warning, reason, message);
    }

    /// Keeps one ended instance (for its logs) and removes those before it.
    async fn remove_older(&self) -> Vec<String> {
        let mut removed = Vec::new();
        for (id, log) in &self.remove {
            if let Err(error) = self.node.runtime.remove_container(id).await {
                tracing::warn!(container = %id, %error, "an old container cannot be removed");
                continue;
            }
            if let Some(log) = log {
                let _ = fs::remove_file(log);
            }
            removed.push(id.clone());
        }
        removed
    }

    async fn make(&self) -> Result<String, (&'static str, String)> {
        let config = |message: String| ("CreateContainerConfigError", message);
        let facts = self.node.facts(&self.addresses);
        let file = |selector: &FileKeySelector| self.read_volume_file(selector);
        let env = env::environment(&self.def, &self.container, &*self.node.objects, &facts, &file)
            .map_err(config)?;
        let files = self.files().map_err(|error| config(error.to_string()))?;
        let spec = container_spec::container(&Making {
            options: &self.node.options,
            def: &self.def,
            container: &self.container,
            image: &self.image,
            env: &env,
            volumes: &self.volumes,
            files: &files,
            restart_count: self.restart_count,
            memory_capacity_bytes: self.node.machine.memory_bytes,
        })
        .map_err(config)?;
        let created = self.node.runtime.create_container(&self.sandbox, spec).await;
        let id = created.map_err(|error| ("CreateContainerError", error.to_string()))?;
        self.event(false, "Created", "Container created");
        Ok(id)
    }

    fn files(&self) -> std::io::Result<PodFiles> {
        let name = self.container.name();
        let directory = self.node.directories.pod(self.def.uid()).join("containers").join(name);
        fs::create_dir_all(&directory)?;
        let message = directory.join(format!("message-{}", self.restart_count));
        fs::write(&message, b"")?;
        // Whoever the program runs as may write it.
        fs::set_permissions(&message, fs::Permissions::from_mode(0o666))?;
        let logs = container_spec::log_directory(&self.node.options, &self.def).join(name);
        fs::create_dir_all(&logs)?;
        Ok(PodFiles {
            message,
            log: logs.join(format!("{}.log", self.restart_count)),
            ..pod_files(&self.node, &self.def)
        })
    }

    fn read_volume_file(&self, selector: &FileKeySelector) -> Result<String, String> {
        let volume = &selector.volume_name;
        let Some(Mounted { files: Files::Path(root), .. }) = self.volumes.get(volume) else {
            return Err(format!("cannot find the volume \"{volume}\" referenced by FileKeyRef"));
        };
        crate::volume::read_inside(root, &selector.path).map_err(|_| "couldn't parse env file".to_owned())
    }

    async fn start(&self, id: &str) -> Result<(), (&'static str, String)> {
        if let Err(error) = self.node.runtime.start_container(id).await {
            let message = error.to_string();
            self.event(true, "Failed", format!("Error: {message}"));
            return Err(("RunContainerError", message));
        }
        self.event(false, "Started", "Container started");
        let hook = self.container.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        let Some(hook) = hook else { return Ok(()) };
        let address = self.addresses.first().map(String::as_str);
        let Err(message) =
            hook::run(&*self.node.runtime, &self.def, &self.container, id, address, hook).await
        else {
            return Ok(());
        };
        self.event(true, "FailedPostStartHook", "PostStartHook failed");
        self.event(false, "Killing", "FailedPostStartHook");
        let grace = Duration::from_secs(u64::try_from(self.def.grace_seconds()).unwrap_or(0).max(2));
        if let Err(error) = self.node.runtime.stop_container(id, None, grace).await {
            tracing::warn!(container = id, %error, "a container whose hook failed cannot be stopped");
        }
        Err(("PostStartHookError", message))
    }

    async fn look(&self, id: &str) -> Option<ContainerSeen> {
        match self.node.runtime.container(id).await {
            Ok(status) => {
                let mut seen = ContainerSeen::from_runtime(&status)?;
                add_message(&mut seen);
                Some(seen)
            }
            Err(error) => {
                tracing::warn!(container = id, %error, "a new container cannot be read");
                None
            }
        }
    }
}
