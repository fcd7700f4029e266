//! Files that change as a whole: a new directory is written beside the old one, then one link is swapped.
//! Upstream: `pkg/volume/util/atomic_writer.go`, whose layout (`..data`) programs rely on.
//!
//! # Guarantees
//! A reader that opens files through the visible names sees all of one version. A crash leaves the old version or the new one.
//! Nothing is written where nothing changed.

use super::{VolumeError, ownership};
use api::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";
/// Longer paths do not fit the file system; upstream's bound.
const PATH_BYTES_MAX: usize = 4096;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// What it holds.
    pub data: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Its owner, where that is not root.
    pub user: Option<u32>,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, File>;

/// Writes payloads into one directory.
pub(crate) struct AtomicWriter<'a> {
    target: &'a Path,
    group: Option<u32>,
}

impl<'a> AtomicWriter<'a> {
    /// For an existing directory. `group` is the pod's `fsGroup`.
    pub(crate) fn new(target: &'a Path, group: Option<u32>) -> Self {
        Self { target, group }
    }

    /// Makes the directory show exactly `payload`.
    pub(crate) fn write(&self, payload: &Payload, now: Timestamp) -> Result<(), VolumeError> {
        for path in payload.keys() {
            check_path(path)?;
        }
        let current = fs::read_link(self.target.join(DATA)).ok();
        if let Some(current) = &current
            && self.is_current(&self.target.join(current), payload)
        {
            return self.link_names(payload);
        }
        let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
        let name = format!("{stamp}.{}", now.as_nanosecond().unsigned_abs() % 1_000_000_000);
        let fresh = self.target.join(&name);
        self.write_files(&fresh, payload)?;
        let new_link = self.target.join(DATA_NEW);
        let _ = fs::remove_file(&new_link);
        symlink(&name, &new_link).map_err(VolumeError::io("symlink", &new_link))?;
        fs::rename(&new_link, self.target.join(DATA)).map_err(VolumeError::io("rename", &new_link))?;
        self.link_names(payload)?;
        self.remove_stale(&name, payload);
        Ok(())
    }

    fn is_current(&self, directory: &Path, payload: &Payload) -> bool {
        let mut found = BTreeSet::new();
        if collect(directory, Path::new(""), &mut found).is_err() || found.len() != payload.len() {
            return false;
        }
        payload.iter().all(|(path, file)| {
            found.contains(Path::new(path))
                && fs::read(directory.join(path)).is_ok_and(|data| data == file.data)
        })
    }

    fn write_files(&self, directory: &Path, payload: &Payload) -> Result<(), VolumeError> {
        make_directory(directory)?;
        for (path, file) in payload {
            let full = directory.join(path);
            if let Some(parent) = full.parent() {
                fs::create_dir_all(parent).map_err(VolumeError::io("mkdir", parent))?;
            }
            let mut options = fs::OpenOptions::new();
            let mut handle = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&full)
                .map_err(VolumeError::io("open", &full))?;
            handle.write_all(&file.data).map_err(VolumeError::io("write", &full))?;
            // The mode is set apart from opening, where the process's mask would take bits away.
            handle
                .set_permissions(fs::Permissions::from_mode(file.mode))
                .map_err(VolumeError::io("chmod", &full))?;
            if let Some(user) = file.user {
                std::os::unix::fs::fchown(&handle, Some(user), None)
                    .map_err(VolumeError::io("chown", &full))?;
            }
        }
        match self.group {
            Some(group) => ownership::give(directory, group, true),
            None => Ok(()),
        }
    }

    /// Makes the visible names lead to the current version.
    fn link_names(&self, payload: &Payload) -> Result<(), VolumeError> {
        for name in names(payload) {
            let link = self.target.join(&name);
            let wanted = Path::new(DATA).join(&name);
            match fs::read_link(&link) {
                Ok(found) if found == wanted => continue,
                Ok(_) => fs::remove_file(&link).map_err(VolumeError::io("remove", &link))?,
                Err(_) => {}
            }
            symlink(&wanted, &link).map_err(VolumeError::io("symlink", &link))?;
        }
        Ok(())
    }

    /// Removes older versions and names that are no longer shown. What cannot be removed now is tried again with the next version.
    fn remove_stale(&self, current: &str, payload: &Payload) {
        let names = names(payload);
        let Ok(entries) = fs::read_dir(self.target) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().map(str::to_owned) else { continue };
            let path = entry.path();
            if name.starts_with("..") {
                if name != DATA && name != current {
                    let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
                }
            } else if !names.contains(&name) && path.is_symlink() {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn make_directory(path: &Path) -> Result<(), VolumeError> {
    fs::create_dir(path).map_err(VolumeError::io("mkdir", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(VolumeError::io("chmod", path))
}

/// The first part of each path.
fn names(payload: &Payload) -> BTreeSet<String> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    payload.keys().map(first).collect()
}

fn collect(directory: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(directory, &path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// Paths stay below the volume, and do not take the names that versions use.
fn check_path(path: &str) -> Result<(), VolumeError> {
    let invalid = |message: String| Err(VolumeError::invalid(message));
    if path.is_empty() {
        return invalid("invalid path: must not be empty: ".to_owned());
    }
    if path.len() > PATH_BYTES_MAX {
        return invalid(format!("invalid path: must be less than or equal to {PATH_BYTES_MAX} characters"));
    }
    if path.starts_with('/') {
        return invalid(format!("invalid path: must be relative path: {path}"));
    }
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain {
        return invalid(format!("invalid path: must not contain '..': {path}"));
    }
    if path.starts_with("..") {
        return invalid(format!("invalid path: must not start with '..': {path}"));
    }
    Ok(())
}
