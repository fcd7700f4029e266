//! Taking over what an earlier process left: records, running shims, and rubbish.

use super::container::{Container, Life};
use super::link::connect;
use super::record::{self, ContainerRecord, SandboxRecord};
use super::sandbox::Sandbox;
use super::{Engine, blocking, files};
use crate::error::{Error, Result};
use shim::{Answer, Call, Ended};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn directories(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(parent).map_err(Error::io("reading", parent))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

impl Engine {
    /// Reads the records and connects to the shims. Whatever has no whole record was being made when the process ended, and is removed.
    pub(super) async fn adopt(&self) -> Result<()> {
        let shared = self.shared.clone();
        let sandboxes = blocking(move || {
            let mut sandboxes = Vec::new();
            for directory in directories(&shared.directory.join("sandboxes"))? {
                match record::read::<SandboxRecord>(&directory.join("sandbox.json")) {
                    Some(record) => sandboxes.push(Arc::new(Sandbox::new(record, directory))),
                    None => {
                        files::unmount(&directory.join("shm"))?;
                        files::remove_tree(&directory)?;
                    }
                }
            }
            let known = |id: &str| sandboxes.iter().any(|sandbox: &Arc<Sandbox>| sandbox.record.id == id);
            for directory in directories(&shared.directory.join("containers"))? {
                let record = record::read::<ContainerRecord>(&directory.join("container.json"));
                let Some(record) = record.filter(|record| known(&record.sandbox)) else {
                    files::remove_tree(&directory)?;
                    continue;
                };
                let ended = record::read::<Ended>(&directory.join(shim::EXIT_FILE));
                let life = ended.map(|ended| Life::ended(&ended)).unwrap_or_default();
                let id = record.id.clone();
                shared.containers.lock().insert(id, Arc::new(Container::new(record, directory, life)));
            }
            Ok(sandboxes)
        })
        .await?;
        for sandbox in sandboxes {
            self.shared.sandboxes.lock().insert(sandbox.record.id.clone(), sandbox.clone());
            if self.reconnect(&sandbox).await.is_err() {
                // Stopped before, or lost with its machine.
                if let Err(error) = self.stop(&sandbox.record.id).await {
                    tracing::warn!(sandbox = sandbox.record.id, %error, "a sandbox without a shim could not be stopped");
                }
            }
        }
        let shared = self.shared.clone();
        let in_use = self.layers_in_use();
        blocking(move || shared.images.sweep(&in_use)).await
    }

    /// Connects to the sandbox's shim and learns what runs.
    pub(super) async fn reconnect(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let stream =
            connect(&sandbox.directory).await.map_err(Error::io("connecting to", &sandbox.directory))?;
        let link = self.start_link(sandbox, stream);
        let answer = link.call(Call::List, Vec::new()).await.map_err(|error| sandbox.error(error))?;
        let Answer::Running { pid, containers } = answer else {
            return Err(Error::Shim { message: format!("unexpected answer {answer:?}") });
        };
        sandbox.set_live(link, pid);
        for running in &containers {
            if let Ok(container) = self.shared.container(&running.container) {
                self.begin(&container, running);
            }
        }
        // What ended while nobody listened is in its file.
        let (engine, containers) = (self.clone(), self.shared.containers_of(&sandbox.record.id));
        blocking(move || {
            for container in containers.into_iter().filter(|container| container.life.borrow().exit.is_none())
            {
                if let Some(ended) = record::read::<Ended>(&container.directory.join(shim::EXIT_FILE)) {
                    engine.end(&container, Life::ended(&ended));
                }
            }
            Ok(())
        })
        .await
    }

    /// Chain ids of layers that containers stand on.
    pub(super) fn layers_in_use(&self) -> std::collections::BTreeSet<String> {
        let containers = self.shared.containers.lock();
        let images = containers.values().flat_map(|container| &container.record.image.layers);
        images.cloned().collect()
    }
}
