//! Starting a shim, from memory.

use crate::error::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The shim, as `build.rs` made it.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/shim"));

/// A shim must outlive its containers when memory is short.
const OOM_SCORE: &str = "-998";

/// The shim's program in memory: sealed, so that no container that gets hold of it (`/proc/self/exe`) can change it, and shared by all shims.
pub(super) struct ShimProgram {
    memory: OwnedFd,
}

/// A shim that was started.
pub(super) struct Spawned {
    pub(super) pid: u32,
    /// Becomes readable when it ends.
    pub(super) pidfd: OwnedFd,
}

impl ShimProgram {
    pub(super) fn load() -> Result<Self> {
        let place = "the shim's memory file";
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("clipper-shim", flags).map_err(Error::io("making", place))?;
        let mut file = std::fs::File::from(memory);
        file.write_all(PROGRAM).map_err(Error::io("writing", place))?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(Error::io("sealing", place))?;
        Ok(Self { memory: file.into() })
    }

    /// Starts a shim that listens in `directory`. Connecting works at once: what is asked before it runs waits in the socket.
    pub(super) fn spawn(&self, directory: &Path) -> Result<Spawned> {
        let listener = listen(directory).map_err(Error::io("listening in", directory))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", self.memory.as_raw_fd()));
        command.arg0("clipper-shim").arg(directory).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(Error::io("starting the shim in", directory))?;
        let pid = child.id();
        // Not all machines allow it, and then it stays as it is.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
        let number = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::NONBLOCK)
            .map_err(Error::io("watching the shim in", directory))?;
        Ok(Spawned { pid, pidfd })
    }
}

/// Binds by way of the directory's descriptor: its path may be longer than a socket's address.
fn listen(directory: &Path) -> std::io::Result<UnixListener> {
    let handle = std::fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/sock", handle.as_raw_fd()))
}

/// Waits until the shim has ended and takes its exit code, which nobody else would.
pub(super) async fn reap(pidfd: OwnedFd) {
    if let Ok(pidfd) = super::watched(pidfd, tokio::io::Interest::READABLE) {
        let _ = pidfd.readable().await;
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG;
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(pidfd.get_ref())),
            options,
        );
    }
}
