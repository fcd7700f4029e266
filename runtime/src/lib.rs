//! Runs OCI images on this machine: images, sandboxes (namespaces that containers share), containers, their logs and exit codes.
//!
//! Start at [`Runtime`], the contract; [`Engine`] is our own implementation of it. What callers say is in [`spec`], what they
//! hear in [`status`]; [`cgroup`] is public because whoever owns a tree of sandboxes also owns the groups above them.
//!
//! It never knows a Kubernetes word, never makes network interfaces (a sandbox is given a network namespace) and never polls:
//! exits, memory kills and readiness are pushed.

mod capability;
pub mod cgroup;
mod clock;
mod engine;
pub mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod image;
mod seccomp;
pub mod session;
pub mod spec;
pub mod status;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::time::Duration;

pub use engine::{Engine, EngineConfig};
pub use error::{Error, Result};
pub use image::{Auth, Image, ImageConfig, PullProgress, PullRequest, Pulled, PulledFrom};
pub use session::{ExecOutput, ExecRequest, Session, TerminalSize};
pub use spec::*;
pub use status::*;

/// What runs containers.
///
/// # Guarantees
/// 1. What `create_*`, `start_container` and `import_images` answered with success survives a `kill -9` of this process: the
///    next one that opens the same directory finds it, running or with its exit code. Only a lost shim or a reboot loses
///    an exit code; the container is then `Exited` with [`ExitReason::Unknown`].
/// 2. No line that a container writes is lost while nobody has the runtime open.
/// 3. `stop_sandbox`, `remove_sandbox`, `kill_container`, `stop_container` and `remove_container` may be repeated; removing what does not
///    exist succeeds.
/// 4. After `remove_sandbox` no process, mount, or control group of it is left.
/// 5. Nothing in an image, however hostile, reaches a path outside the container's own root.
pub trait Runtime: Send + Sync + 'static {
    /// Brings an image here, always asking its registry first. Where the registry cannot be reached, an image of that name that was
    /// imported satisfies the pull; [`Pulled::from`] says so.
    fn pull_image(&self, request: PullRequest) -> BoxFuture<'_, Result<Pulled>>;

    /// The name with a digest (`REPOSITORY@sha256:…`) that a reference means now: that of an imported image, else what its registry says,
    /// else, where the registry cannot be reached, that of the image of this name that is here. An image that came without a digest
    /// keeps its name.
    fn resolve_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<String>>;

    /// Imports every image of an archive: an OCI layout or a `docker save` archive, plain or compressed, or an OCI layout directory.
    /// Either all of them are there afterwards or, after an error, none of those that were new.
    fn import_images<'a>(&'a self, archive: &'a std::path::Path) -> BoxFuture<'a, Result<Vec<Image>>>;

    /// The image that a reference (`busybox`, `registry.k8s.io/pause:3.10`, `name@sha256:…`) or an image id names, if it is here.
    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>>;

    /// All images that are here, by id.
    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>>>;

    /// Removes an image (by id) or one of its names (by reference). Layers that no image and no container uses are removed with it.
    fn remove_image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Where images and writable layers lie (for the size of that file system) and how many bytes they take.
    fn image_usage(&self) -> BoxFuture<'_, Result<ImageUsage>>;

    /// Makes a sandbox and answers its id once it is ready for containers.
    fn create_sandbox(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<String>>;

    /// Kills what is left in the sandbox and gives its namespaces up. It stays listed, as not ready.
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Stops the sandbox, removes its containers, its control group and its record.
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The sandbox as it is.
    fn sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<SandboxStatus>>;

    /// All sandboxes, oldest first.
    fn sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>>;

    /// Changes the limits of the whole sandbox, in place. Fields that are `None` stay as they are.
    fn update_sandbox<'a>(&'a self, id: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<()>>;

    /// Makes a container in a ready sandbox and answers its id. No process exists yet.
    fn create_container<'a>(&'a self, sandbox: &'a str, spec: ContainerSpec)
    -> BoxFuture<'a, Result<String>>;

    /// Starts a created container; answers once its program runs. A container that could not be started is `Exited`
    /// with [`ExitReason::StartError`] and the message that [`Error::Start`] carries.
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Sends the stop signal, waits up to `grace` for the exit, then kills. `signal` overrules the container's own (`SIGTERM`, `15`).
    /// Answers when the container has exited.
    fn stop_container<'a>(
        &'a self,
        id: &'a str,
        signal: Option<&'a str>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<()>>;

    /// Sends a signal to the container's first process; with [`SIGKILL`](libc::SIGKILL) to all of them.
    fn kill_container<'a>(&'a self, id: &'a str, signal: i32) -> BoxFuture<'a, Result<()>>;

    /// Removes a container and what it wrote, killing it first if it runs. Its log stays.
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// The container as it is.
    fn container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>>;

    /// All containers, oldest first.
    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>>;

    /// Changes a container's limits in place. Fields that are `None` stay as they are.
    fn update_container<'a>(&'a self, id: &'a str, limits: &'a Limits) -> BoxFuture<'a, Result<()>>;

    /// What a running container uses now.
    fn container_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>>;

    /// What all containers of a sandbox together use now.
    fn sandbox_stats<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Stats>>;

    /// What a container has written to its own layer: a walk over the files, so dearer than [`Runtime::container_stats`].
    fn container_disk<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DiskUsage>>;

    /// Runs one more program in a running container.
    fn exec<'a>(&'a self, id: &'a str, request: ExecRequest) -> BoxFuture<'a, Result<Session>>;

    /// Connects to the streams of a container's own program, from now on. `stdin` is given where the container has one.
    fn attach<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Session>>;

    /// Closes the container's log file and opens its path anew: the second half of a rotation, after the caller renamed the file.
    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>>;

    /// What happens to containers from now on. A reader that falls too far behind hears [`Event::Lost`] and must list.
    fn events(&self) -> BoxStream<'static, Event>;

    /// Removes every sandbox and container. Images stay.
    fn remove_all(&self) -> BoxFuture<'_, Result<()>>;

    /// Runs one more program to its end and collects what it printed, each stream up to [`ExecOutput::STREAM_BYTES_MAX`].
    fn exec_output<'a>(
        &'a self,
        id: &'a str,
        argv: Vec<String>,
        timeout: Option<Duration>,
    ) -> BoxFuture<'a, Result<ExecOutput>> {
        Box::pin(async move {
            let request = ExecRequest { argv, timeout, stdout: true, stderr: true, ..ExecRequest::default() };
            session::collect(self.exec(id, request).await?).await
        })
    }
}
