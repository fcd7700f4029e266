//! The contract over the verbs.

use super::{Engine, blocking, files, record};
use crate::Runtime;
use crate::error::{Error, Result};
use crate::image::{self, Image, PullRequest, Pulled};
use crate::session::{ExecRequest, Session};
use crate::spec::{ContainerSpec, Limits, SandboxSpec};
use crate::status::{ContainerState, ContainerStatus, DiskUsage, Event, ImageUsage, SandboxStatus, Stats};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::path::Path;
use std::time::Duration;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

impl Runtime for Engine {
    fn pull_image(&self, request: PullRequest) -> BoxFuture<'_, Result<Pulled>> {
        Box::pin(async move { self.shared.registries.pull(&self.shared.images, request).await })
    }

    fn resolve_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move { self.shared.registries.digest(&self.shared.images, reference).await })
    }

    fn import_images<'a>(&'a self, archive: &'a Path) -> BoxFuture<'a, Result<Vec<Image>>> {
        let (images, archive) = (self.shared.images.clone(), archive.to_path_buf());
        Box::pin(blocking(move || image::import(&images, &archive)))
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move { Ok(self.shared.images.find(reference)) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        Box::pin(async move { Ok(self.shared.images.all()) })
    }

    fn remove_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(image) = self.shared.images.find(reference) else { return Ok(()) };
            let user = {
                let containers = self.shared.containers.lock();
                let runs = |c: &&std::sync::Arc<super::Container>| {
                    c.record.image.id == image.id && c.life.borrow().state() == ContainerState::Running
                };
                containers.values().find(runs).map(|container| container.record.id.clone())
            };
            if let Some(container) = user {
                return Err(Error::ImageInUse { id: image.id, container });
            }
            let (shared, reference, in_use) =
                (self.shared.clone(), reference.to_owned(), self.layers_in_use());
            blocking(move || {
                shared.images.remove(&reference)?;
                shared.images.sweep(&in_use)
            })
            .await
        })
    }

    fn image_usage(&self) -> BoxFuture<'_, Result<ImageUsage>> {
        let shared = self.shared.clone();
        Box::pin(blocking(move || {
            let (bytes, inodes) = shared.images.usage();
            Ok(ImageUsage { path: shared.directory.clone(), bytes, inodes })
        }))
    }

    fn create_sandbox(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<String>> {
        Box::pin(self.make_sandbox(spec))
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.stop(id))
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.remove(id))
    }

    fn sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<SandboxStatus>> {
        Box::pin(async move { Ok(self.shared.sandbox(id)?.status()) })
    }

    fn sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>> {
        Box::pin(async move {
            let mut all: Vec<_> =
                self.shared.sandboxes.lock().values().map(|sandbox| sandbox.status()).collect();
            all.sort_by_key(|sandbox| sandbox.created_at);
            Ok(all)
        })
    }

    fn update_sandbox<'a>(&'a self, id: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (shared, limits, sandbox) = (self.shared.clone(), limits.clone(), self.shared.sandbox(id)?);
            blocking(move || {
                shared.cgroups.apply(&sandbox.record.spec.cgroup, &limits)?;
                let mut changed = sandbox.record.clone();
                super::container::merge(&mut changed.spec.limits, &limits);
                record::write(&sandbox.directory.join("sandbox.json"), &changed)
            })
            .await
        })
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        spec: ContainerSpec,
    ) -> BoxFuture<'a, Result<String>> {
        Box::pin(self.make_container(sandbox, spec))
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.start(id))
    }

    fn stop_container<'a>(
        &'a self,
        id: &'a str,
        signal: Option<&'a str>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.stop_one(id, signal, grace))
    }

    fn kill_container<'a>(&'a self, id: &'a str, signal: i32) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let container = self.shared.container(id)?;
            self.kill(&container, signal).await
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.remove_container_by_id(id))
    }

    fn container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move { Ok(self.shared.container(id)?.status()) })
    }

    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        Box::pin(async move {
            let mut all: Vec<_> = self.shared.containers.lock().values().map(|c| c.status()).collect();
            all.sort_by_key(|container| container.created_at);
            Ok(all)
        })
    }

    fn update_container<'a>(&'a self, id: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.update(id, limits))
    }

    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>> {
        Box::pin(async move {
            let container = self.shared.container(id)?;
            if container.life.borrow().state() != ContainerState::Running {
                return Err(container.wrong_state());
            }
            let cgroup = container.cgroup(&*self.shared.sandbox(&container.record.sandbox)?);
            let shared = self.shared.clone();
            blocking(move || shared.cgroups.stats(&cgroup)).await
        })
    }

    fn sandbox_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>> {
        Box::pin(async move {
            let (shared, sandbox) = (self.shared.clone(), self.shared.sandbox(id)?);
            blocking(move || shared.cgroups.stats(&sandbox.record.spec.cgroup)).await
        })
    }

    fn container_disk<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DiskUsage>> {
        Box::pin(async move {
            let container = self.shared.container(id)?;
            blocking(move || files::disk_usage(&container.directory.join("upper"))).await
        })
    }

    fn exec<'a>(&'a self, id: &'a str, request: ExecRequest) -> BoxFuture<'a, Result<Session>> {
        Box::pin(self.exec_in(id, request))
    }

    fn attach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Session>> {
        Box::pin(self.attach_to(id))
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let container = self.shared.container(id)?;
            if container.life.borrow().state() != ContainerState::Running {
                return Err(container.wrong_state());
            }
            let sandbox = self.shared.sandbox(&container.record.sandbox)?;
            let call = shim::Call::ReopenLog { container: id.to_owned() };
            sandbox.link()?.call(call, Vec::new()).await.map(drop).map_err(|error| sandbox.error(error))
        })
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = BroadcastStream::new(self.shared.events.subscribe());
        let event = |event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(count)) => Event::Lost { count },
        };
        events.map(event).boxed()
    }

    fn remove_all(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let all: Vec<String> = self.shared.sandboxes.lock().keys().cloned().collect();
            let mut removals = futures::stream::FuturesUnordered::new();
            let mut result = Ok(());
            for id in &all {
                removals.push(self.remove(id));
                if removals.len() == REMOVALS_MAX {
                    result = result.and(removals.next().await.unwrap_or(Ok(())));
                }
            }
            // One that fails must not keep the others.
            while let Some(removed) = removals.next().await {
                result = result.and(removed);
            }
            result
        })
    }
}

/// So many sandboxes are removed at once: each waits for its processes more than it works.
const REMOVALS_MAX: usize = 16;
