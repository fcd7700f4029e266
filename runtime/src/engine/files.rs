//! Looking at and making files of the machine for containers.

use crate::error::{Error, Result};
use crate::status::DiskUsage;
use shim::DeviceFile;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The device file at `host`, to be made at `inside`.
pub(super) fn device(host: &Path, inside: &Path) -> Result<DeviceFile> {
    let found = std::fs::metadata(host).map_err(Error::io("looking at the device", host))?;
    let kind = found.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return Err(Error::Invalid { field: "devices", reason: format!("{host:?} is not a device") });
    }
    Ok(DeviceFile {
        path: inside.to_string_lossy().into_owned(),
        mode: found.mode(),
        major: rustix::fs::major(found.rdev()),
        minor: rustix::fs::minor(found.rdev()),
        uid: found.uid(),
        gid: found.gid(),
    })
}

/// All devices of the machine, for a privileged container. Not what belongs to one user of it: terminals, shared memory.
pub(super) fn all_devices() -> Vec<DeviceFile> {
    const OTHERS: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    let mut found = Vec::new();
    let mut directories = vec![std::path::PathBuf::from("/dev")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if OTHERS.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_char_device() || kind.is_block_device() {
                // It may be unplugged between the two looks.
                found.extend(device(&entry.path(), &entry.path()).ok());
            }
        }
    }
    found
}

/// What a tree of files takes, hard links counted once.
pub(super) fn disk_usage(top: &Path) -> Result<DiskUsage> {
    let mut usage = DiskUsage::default();
    let mut linked = std::collections::BTreeSet::new();
    let mut directories = vec![top.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(&directory) {
            // Containers go on removing while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory != top => continue,
            other => other.map_err(Error::io("reading", &directory))?,
        };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.nlink() > 1 && !found.is_dir() && !linked.insert((found.dev(), found.ino())) {
                continue;
            }
            usage.bytes += found.blocks() * 512;
            usage.inodes += 1;
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(usage)
}

/// Removes a directory and what is in it; it need not exist.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("removing", path)),
    }
}

/// Takes every mount on `path` away.
pub(super) fn unmount(path: &Path) -> Result<()> {
    loop {
        match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io("unmounting", path)(error)),
        }
    }
}
