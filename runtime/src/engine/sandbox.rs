//! Sandboxes: made, stopped, removed.

use super::link::{CallError, Link, connect};
use super::record::{self, SandboxRecord};
use super::{Engine, Shared, blocking, files, new_id, spawn};
use crate::error::{Error, Result, What};
use crate::spec::{Network, SandboxSpec};
use crate::status::{Event, SandboxStatus};
use shim::Call;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a shim may take to kill what it holds, before it is killed itself.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Shared memory of a sandbox, unless told otherwise.
const SHM_BYTES: u64 = 64 << 20;

/// A sandbox.
pub(super) struct Sandbox {
    pub(super) record: SandboxRecord,
    pub(super) directory: PathBuf,
    /// Its shim, while it has one.
    live: parking_lot::Mutex<Option<Live>>,
    /// It was stopped, so a shim that goes away is no surprise.
    pub(super) stopping: AtomicBool,
    /// Stopping and removing take turns.
    turn: tokio::sync::Mutex<()>,
}

struct Live {
    link: Arc<Link>,
    pid: u32,
}

impl Sandbox {
    pub(super) fn new(record: SandboxRecord, directory: PathBuf) -> Self {
        let stopping = AtomicBool::new(false);
        Self { record, directory, live: Default::default(), stopping, turn: Default::default() }
    }

    /// The way to its shim.
    pub(super) fn link(&self) -> Result<Arc<Link>> {
        self.live.lock().as_ref().map(|live| live.link.clone()).ok_or_else(|| Error::WrongState {
            what: What::Sandbox,
            id: self.record.id.clone(),
            state: "not ready".to_owned(),
        })
    }

    pub(super) fn set_live(&self, link: Arc<Link>, pid: u32) {
        *self.live.lock() = Some(Live { link, pid });
    }

    pub(super) fn set_dead(&self) {
        *self.live.lock() = None;
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let pid = self.live.lock().as_ref().map(|live| live.pid);
        let stopping = self.stopping.load(Ordering::Acquire);
        SandboxStatus {
            id: self.record.id.clone(),
            ready: pid.is_some() && !stopping,
            created_at: self.record.created_at,
            spec: self.record.spec.clone(),
            pid,
        }
    }

    pub(super) fn shm(&self) -> PathBuf {
        if self.record.spec.host_ipc { PathBuf::from("/dev/shm") } else { self.directory.join("shm") }
    }

    /// What the shim said, or did not, as an error of ours.
    pub(super) fn error(&self, error: CallError) -> Error {
        match error {
            CallError::Gone => Error::ShimGone { sandbox: self.record.id.clone() },
            CallError::Failed(failure) => Error::Shim { message: failure.message },
        }
    }
}

/// A sysctl's path below `/proc/sys`; only what belongs to a namespace that the sandbox owns.
fn sysctl(spec: &SandboxSpec, name: &str) -> Result<String> {
    let path = name.replace('.', "/");
    let ipc =
        ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"].iter().any(|own| path.starts_with(own));
    let network = path.starts_with("net/");
    let allowed = match (ipc, network) {
        (true, _) => !spec.host_ipc,
        (_, true) => spec.network != Network::Host,
        _ => false,
    };
    match allowed && !path.contains("..") && !path.contains("//") {
        true => Ok(path),
        false => Err(Error::Invalid {
            field: "sysctls",
            reason: format!("sysctl {name:?} is not in a separate kernel namespace"),
        }),
    }
}

fn for_shim(spec: &SandboxSpec) -> Result<shim::Sandbox> {
    let sysctls = spec.sysctls.iter().map(|(name, value)| Ok((sysctl(spec, name)?, value.clone())));
    Ok(shim::Sandbox {
        hostname: spec.hostname.clone(),
        network: match &spec.network {
            Network::Host => None,
            Network::Path(path) => Some(path.to_string_lossy().into_owned()),
        },
        host_ipc: spec.host_ipc,
        host_pid: spec.host_pid,
        shared_pid: spec.shared_pid,
        sysctls: sysctls.collect::<Result<_>>()?,
    })
}

impl Shared {
    /// The part that is files, control groups and a process. Undone by [`Self::clear_sandbox`].
    fn make_sandbox(&self, record: &SandboxRecord, directory: &Path) -> Result<spawn::Spawned> {
        let spec = &record.spec;
        std::fs::create_dir(directory).map_err(Error::io("making", directory))?;
        record::write(&directory.join("sandbox.json"), record)?;
        self.cgroups.create(&spec.cgroup)?;
        self.cgroups.apply(&spec.cgroup, &spec.limits)?;
        if let Some(logs) = &spec.log_directory {
            std::fs::create_dir_all(logs).map_err(Error::io("making", logs))?;
        }
        if !spec.host_ipc {
            let shm = directory.join("shm");
            std::fs::create_dir(&shm).map_err(Error::io("making", &shm))?;
            let options = format!("mode=1777,size={}", spec.shm_bytes.unwrap_or(SHM_BYTES));
            let options = std::ffi::CString::new(options).unwrap_or_default();
            let flags = rustix::mount::MountFlags::NOSUID
                | rustix::mount::MountFlags::NODEV
                | rustix::mount::MountFlags::NOEXEC;
            rustix::mount::mount("shm", &shm, "tmpfs", flags, options.as_c_str())
                .map_err(Error::io("mounting", &shm))?;
        }
        self.shim.spawn(directory)
    }

    /// Takes away what [`Self::make_sandbox`] made but the record. Its shim is gone.
    fn clear_sandbox(&self, sandbox: &SandboxRecord, directory: &Path) -> Result<()> {
        if !sandbox.spec.host_ipc {
            files::unmount(&directory.join("shm"))?;
        }
        match std::fs::remove_file(directory.join("sock")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("removing the socket in", directory)(error));
            }
            _ => {}
        }
        self.cgroups.kill_all(&sandbox.spec.cgroup)
    }
}

impl Engine {
    pub(super) async fn make_sandbox(&self, spec: SandboxSpec) -> Result<String> {
        let for_shim = for_shim(&spec)?;
        let id = new_id()?;
        let record = SandboxRecord { id: id.clone(), created_at: crate::clock::now(), spec };
        let directory = self.shared.directory.join("sandboxes").join(&id);
        let sandbox = Arc::new(Sandbox::new(record, directory));
        let (shared, making) = (self.shared.clone(), sandbox.clone());
        // Detached: who gives up waiting must not leave half a sandbox.
        let engine = self.clone();
        let made = tokio::spawn(async move {
            let made = blocking(move || shared.make_sandbox(&making.record, &making.directory)).await;
            let result = match made {
                Ok(spawned) => engine.take_up(&sandbox, spawned, for_shim).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                engine.discard(&sandbox).await;
                return Err(error);
            }
            engine.shared.sandboxes.lock().insert(sandbox.record.id.clone(), sandbox.clone());
            Ok(())
        });
        made.await.map_err(|_| Error::ShimGone { sandbox: id.clone() })??;
        Ok(id)
    }

    /// Connects to a fresh shim and has it enter the namespaces.
    async fn take_up(
        &self,
        sandbox: &Arc<Sandbox>,
        spawned: spawn::Spawned,
        namespaces: shim::Sandbox,
    ) -> Result<()> {
        tokio::spawn(spawn::reap(spawned.pidfd));
        let stream =
            connect(&sandbox.directory).await.map_err(Error::io("connecting to", &sandbox.directory))?;
        let link = self.start_link(sandbox, stream);
        sandbox.set_live(link.clone(), spawned.pid);
        let entered = link.call(Call::Sandbox(Box::new(namespaces)), Vec::new()).await;
        entered.map(drop).map_err(|error| sandbox.error(error))
    }

    pub(super) fn start_link(&self, sandbox: &Arc<Sandbox>, stream: tokio::net::UnixStream) -> Arc<Link> {
        let (shared, sandbox) = (Arc::downgrade(&self.shared), sandbox.clone());
        Link::start(stream, move |notice| {
            let Some(shared) = shared.upgrade() else { return };
            let engine = Engine { shared };
            match notice {
                Some(notice) => engine.hear(&sandbox.record.id, notice),
                None => engine.link_ended(&sandbox),
            }
        })
    }

    /// Takes back what a failed creation made. What cannot be taken back now is found and removed at the next start.
    async fn discard(&self, sandbox: &Arc<Sandbox>) {
        if let Err(error) = self.shut_down(sandbox).await {
            tracing::warn!(sandbox = sandbox.record.id, %error, "a sandbox that could not be made could not be stopped");
        }
        let (shared, sandbox) = (self.shared.clone(), sandbox.clone());
        let removed = blocking(move || {
            shared.cgroups.remove(&sandbox.record.spec.cgroup)?;
            files::remove_tree(&sandbox.directory)
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "a sandbox that could not be made could not be removed");
        }
    }

    /// Makes the shim kill everything and leave; whatever is left is killed.
    async fn shut_down(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        sandbox.stopping.store(true, Ordering::Release);
        if let Ok(link) = sandbox.link() {
            let pid = sandbox.status().pid;
            let left = tokio::time::timeout(SHUTDOWN_TIMEOUT, link.call(Call::Shutdown, Vec::new())).await;
            if !matches!(left, Ok(Ok(_) | Err(CallError::Gone))) {
                tracing::warn!(sandbox = sandbox.record.id, ?left, "a shim did not leave and is killed");
                let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
                if let Some(pidfd) = pid.and_then(|pid| {
                    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
                }) {
                    // It may have left in between.
                    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                }
            }
            sandbox.set_dead();
        }
        let (shared, stopped) = (self.shared.clone(), sandbox.clone());
        blocking(move || shared.clear_sandbox(&stopped.record, &stopped.directory)).await?;
        // What the shim told on its way out has been heard; what it could not tell is not known.
        self.lose_containers(&sandbox.record.id).await
    }

    pub(super) async fn stop(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.shared.sandbox(id) else { return Ok(()) };
        let engine = self.clone();
        detached(async move {
            let _turn = sandbox.turn.lock().await;
            engine.shut_down(&sandbox).await
        })
        .await
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.shared.sandbox(id) else { return Ok(()) };
        let engine = self.clone();
        detached(async move {
            let _turn = sandbox.turn.lock().await;
            engine.shut_down(&sandbox).await?;
            for container in engine.shared.containers_of(&sandbox.record.id) {
                engine.remove_one(&container).await?;
            }
            let (shared, removed) = (engine.shared.clone(), sandbox.clone());
            blocking(move || {
                shared.cgroups.remove(&removed.record.spec.cgroup)?;
                files::remove_tree(&removed.directory)
            })
            .await?;
            engine.shared.sandboxes.lock().remove(&sandbox.record.id);
            Ok(())
        })
        .await
    }

    /// The connection to a shim ended. If nobody meant it to, it is looked for once more before the sandbox is given up.
    fn link_ended(&self, sandbox: &Arc<Sandbox>) {
        if sandbox.stopping.load(Ordering::Acquire) {
            return;
        }
        let (engine, sandbox) = (self.clone(), sandbox.clone());
        tokio::spawn(async move {
            let _turn = sandbox.turn.lock().await;
            if sandbox.stopping.load(Ordering::Acquire) || engine.reconnect(&sandbox).await.is_ok() {
                return;
            }
            tracing::warn!(sandbox = sandbox.record.id, "a shim is gone");
            sandbox.set_dead();
            if let Err(error) = engine.shut_down(&sandbox).await {
                tracing::warn!(sandbox = sandbox.record.id, %error, "a sandbox whose shim is gone could not be stopped");
            }
            engine.shared.tell(Event::SandboxLost { sandbox: sandbox.record.id.clone() });
        });
    }
}

/// Runs to its end even if nobody waits for it any more: half a removal is worse than a late one.
pub(super) async fn detached<T: Send + 'static>(
    work: impl std::future::Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Unsupported { feature: "work during shutdown".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_sysctls() {
        fn check(network: Network, host_ipc: bool, name: &str, expect: Option<&str>) {
            let spec = SandboxSpec { network, host_ipc, ..SandboxSpec::default() };
            assert_eq!(sysctl(&spec, name).ok().as_deref(), expect, "{name}");
        }
        let own = || Network::Path("/run/netns/x".into());
        check(own(), false, "net.ipv4.ip_forward", Some("net/ipv4/ip_forward"));
        check(own(), false, "kernel.shm_rmid_forced", Some("kernel/shm_rmid_forced"));
        check(own(), false, "fs.mqueue.msg_max", Some("fs/mqueue/msg_max"));
        check(Network::Host, false, "net.ipv4.ip_forward", None);
        check(own(), true, "kernel.msgmax", None);
        check(own(), false, "kernel.panic", None);
        check(own(), false, "net/../kernel/panic", None);
        check(own(), false, "vm.swappiness", None);
    }
}
