//! Our own runtime: images in a directory, a shim per sandbox, control groups, overlayfs.
//!
//! ```text
//! images/ layers/ tmp/           see image::store
//! sandboxes/<id>/sandbox.json    what was asked for
//!                sock            where its shim listens
//!                shm/            its /dev/shm, mounted
//! containers/<id>/container.json what was asked for
//!                 exit.json      how it ended, by the shim
//!                 upper/ work/   what it writes
//! seccomp/<digest>               compiled filters
//! runtime.lock                   held while open: two engines over one directory would undo each other
//! ```
//! Start at [`Engine::open`]; `sandbox`, `container` and `exec` hold the verbs, `plan` what specs mean, `link` the talk with shims.

mod adopt;
mod container;
mod exec;
mod files;
mod link;
mod plan;
mod record;
mod sandbox;
mod serve;
mod spawn;

use crate::cgroup::Cgroups;
use crate::error::{Error, Result, What};
use crate::image::{Registries, Store};
use crate::status::Event;
use container::Container;
use parking_lot::Mutex;
use sandbox::Sandbox;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast;

/// Events that a reader may fall behind: the bursts of a few hundred containers.
const EVENTS_MAX: usize = 4096;

/// What an engine is opened with.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Everything is kept below this directory.
    pub directory: PathBuf,
    /// Registries (`host:port`) that are spoken to without TLS; `localhost` always is.
    pub plain_http_registries: Vec<String>,
}

/// Our own runtime. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    cgroups: Cgroups,
    images: Arc<Store>,
    registries: Registries,
    shim: spawn::ShimProgram,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    events: broadcast::Sender<Event>,
    /// Held as long as this lives.
    _lock: std::fs::File,
}

impl Engine {
    /// Opens the directory, making it where missing, and takes over what runs from there.
    pub async fn open(config: EngineConfig) -> Result<Self> {
        let shared = blocking(move || Shared::open(config)).await?;
        let engine = Self { shared: Arc::new(shared) };
        engine.adopt().await?;
        Ok(engine)
    }
}

impl Shared {
    fn open(config: EngineConfig) -> Result<Self> {
        let directory = config.directory;
        for name in ["sandboxes", "containers", "seccomp"] {
            let path = directory.join(name);
            std::fs::create_dir_all(&path).map_err(Error::io("making", &path))?;
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::io("changing the mode of", &directory))?;
        // Mounts and shims need the real path, whatever links lead to it.
        let directory = directory.canonicalize().map_err(Error::io("resolving", &directory))?;
        let path = directory.join("runtime.lock");
        let lock = std::fs::File::create(&path).map_err(Error::io("making", &path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::io("locking (another runtime has it open)", &path))?;
        Ok(Self {
            cgroups: Cgroups::detect()?,
            images: Arc::new(Store::open(&directory)?),
            registries: Registries::new(config.plain_http_registries),
            shim: spawn::ShimProgram::load()?,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            _lock: lock,
            directory,
        })
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let found = self.sandboxes.lock().get(id).cloned();
        found.ok_or_else(|| Error::NotFound { what: What::Sandbox, id: id.to_owned() })
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let found = self.containers.lock().get(id).cloned();
        found.ok_or_else(|| Error::NotFound { what: What::Container, id: id.to_owned() })
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.lock().values().filter(|c| c.record.sandbox == sandbox).cloned().collect()
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only while the process shuts down.
        Err(_) => Err(Error::Unsupported { feature: "work during shutdown".to_owned() }),
    }
}

/// A new id: 64 hexadecimal digits, as other runtimes' are.
fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("reading", "random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Registers a descriptor to wait on.
#[allow(unsafe_code)]
fn watched(
    fd: std::os::fd::OwnedFd,
    interest: tokio::io::Interest,
) -> std::io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so it stays open and the same as long as it is registered.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(std::io::Error::from)
}
