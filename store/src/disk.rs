//! What the embedded engine stands on: a file of bytes that may be cut off at any moment.
//!
//! [`FileDisk`] is the real one; [`crate::testing::FaultDisk`] lives in memory and fails on demand.

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::{Error, Result};

/// A file of bytes.
///
/// # Assumptions the engine makes
/// 1. What was written before a `sync` that returned `Ok` survives; what came after may survive in part, in any order.
/// 2. A single byte is written whole or not at all.
/// 3. New bytes of a grown disk read as zero.
pub trait Disk: Debug + Send + Sync + 'static {
    /// How many bytes the disk has.
    fn len(&self) -> io::Result<u64>;
    /// Whether nothing was ever written.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` from `offset`; past the end is `UnexpectedEof`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Grows with zeros or cuts off.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Returns once everything written so far is durable.
    fn sync(&self) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// How many more bytes the medium takes; `None` where it cannot tell.
    fn free_bytes(&self) -> Option<u64>;
}

/// A file, locked for as long as it is open.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
}

impl FileDisk {
    /// Opens or makes the file at `path`.
    ///
    /// # Errors
    /// `Locked` where somebody has it open as a store, `Unopened` for what the system refuses.
    pub fn open(path: &Path) -> Result<FileDisk> {
        let unopened = |error: io::Error| Error::Unopened {
            path: path.display().to_string(),
            message: error.to_string(),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // What is in it is nobody else's.
            .mode(0o600)
            .open(path)
            .map_err(unopened)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.display().to_string() }),
            Err(TryLockError::Error(error)) => return Err(unopened(error)),
        }
        sync_parent(path).map_err(unopened)?;
        Ok(FileDisk { file })
    }
}

/// Makes the name of `path` as durable as its content.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// A [`Disk`] as redb wants it.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn Disk>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
