//! Starting one container: its environment, files and spec, its creation, its start and hook.

use super::{Outcome, make};
use crate::container_spec::{self, Making, PodFiles, ResolvedImage};
use crate::context::NodeContext;
use crate::env;
use crate::hook;
use crate::log_file;
use crate::observed::{ContainerSeen, State, label};
use crate::spec::{ContainerDef, PodDef};
use crate::status::WaitReason;
use crate::volume::{Files, Mounted};
use k8s_openapi::api::core::v1::FileKeySelector;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The restart count after those that left logs behind.
pub(super) fn next_count_by_logs(directory: &Path) -> i32 {
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
pub(super) struct Start {
    pub(super) node: Arc<NodeContext>,
    pub(super) def: PodDef,
    pub(super) container: ContainerDef,
    pub(super) image: ResolvedImage,
    pub(super) volumes: HashMap<String, Mounted>,
    pub(super) sandbox: String,
    pub(super) addresses: Vec<String>,
    pub(super) restart_count: i32,
    /// The container whose processes an ephemeral one wants to see does not run.
    pub(super) target_missing: bool,
    pub(super) remove: Vec<(String, Option<PathBuf>)>,
}

impl Start {
    pub(super) async fn run(self) -> Outcome {
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
        Outcome::Started { container: self.container.spec.name, made: made.map(Box::new), removed, error }
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
        if let Some(target) = self.container.target.as_deref().filter(|_| self.target_missing) {
            return Err(config(format!("unable to find target container {target}")));
        }
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
            ..make::pod_files(&self.node, &self.def)
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
