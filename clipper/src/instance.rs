//! One process owns a data directory: a locked file that names it.

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Somebody else runs there.
    #[error("{} is in use by process {pid}: stop it with `clipper down --data-dir {}`", dir.display(), dir.display())]
    Owned {
        /// The data directory.
        dir: PathBuf,
        /// The process; 0 if it has not said its number yet.
        pid: i32,
    },
}

/// Ownership of a data directory, until dropped or the process ends however it ends.
#[derive(Debug)]
pub struct Instance {
    _lock: Flock<File>,
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn open(dir: &Path) -> Result<File> {
    let path = lock_path(dir);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn pid_in(file: &mut File) -> i32 {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

impl Instance {
    /// Makes the directory if need be and takes it.
    ///
    /// # Errors
    /// [`InstanceError::Owned`] if another process has it; what the file system says.
    pub fn claim(dir: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        match Flock::lock(open(dir)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)?;
                lock.rewind()?;
                writeln!(lock, "{}", std::process::id())?;
                Ok(Self { _lock: lock })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(InstanceError::Owned { dir: dir.to_owned(), pid: pid_in(&mut file) }.into())
            }
            Err((_, error)) => {
                Err(error).with_context(|| format!("cannot lock {}", lock_path(dir).display()))
            }
        }
    }
}

/// Ends the process that owns the directory, if one does: SIGTERM, then SIGKILL after `term_max`.
///
/// # Errors
/// It cannot be signalled or does not end.
pub fn stop(dir: &Path, term_max: Duration) -> Result<()> {
    if !lock_path(dir).exists() {
        return Ok(());
    }
    let mut file = match Flock::lock(open(dir)?, FlockArg::LockExclusiveNonblock) {
        Ok(_) => return Ok(()),
        Err((file, _)) => file,
    };
    let pid = pid_in(&mut file);
    if pid <= 1 {
        bail!("{} is locked by a process that does not say its number", dir.display());
    }
    // It holds the lock, so the number is still its own.
    let process = match Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(process)) => process,
        Some(Err(Errno::SRCH)) | None => return Ok(()),
        Some(Err(error)) => return Err(error).with_context(|| format!("cannot look at process {pid}")),
    };
    for signal in [Signal::TERM, Signal::KILL] {
        match pidfd_send_signal(&process, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot stop process {pid}")),
        }
        if has_ended(&process, term_max)? {
            return Ok(());
        }
    }
    bail!("process {pid} does not end")
}

/// Waits until a process is gone. Its lock is free a little earlier, but then other locks, sockets and listeners of it may not be.
fn has_ended(process: &OwnedFd, max: Duration) -> Result<bool> {
    let began = Instant::now();
    let mut polled = [PollFd::new(process, PollFlags::IN)];
    let timeout = Timespec::try_from(max).context("the wait is too long")?;
    let ended = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout)))? > 0;
    tracing::debug!(ended, waited = ?began.elapsed(), "waited for the other process");
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::claim(dir.path()).unwrap();
        let error = Instance::claim(dir.path()).unwrap_err();
        let Some(InstanceError::Owned { pid, .. }) = error.downcast_ref() else { panic!("{error:#}") };
        assert_eq!(u32::try_from(*pid).unwrap(), std::process::id());
        drop(first);
        Instance::claim(dir.path()).unwrap();
    }

    #[test]
    fn stopping_where_nobody_runs_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        stop(dir.path(), Duration::from_secs(1)).unwrap();
        drop(Instance::claim(dir.path()).unwrap());
        stop(dir.path(), Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn the_owner_is_ended_and_its_directory_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = lock_path(dir.path());
        // A process that owns the lock as we do: it inherits nothing from us, takes the lock and says its number.
        let script = "exec 9>>\"$0\"; flock -x 9; echo $$ > \"$0\"; echo locked; exec sleep 100";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(&path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut word).unwrap();
        assert_eq!(&word, b"locked");
        assert!(Instance::claim(dir.path()).is_err());
        let reaper = std::thread::spawn(move || child.wait());
        stop(dir.path(), Duration::from_secs(10)).unwrap();
        reaper.join().unwrap().unwrap();
        Instance::claim(dir.path()).unwrap();
    }
}
