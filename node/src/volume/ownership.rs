//! Files that a group owns (`fsGroup`). Upstream: `pkg/volume/volume_linux.go`.

use super::VolumeError;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

const READ_ONLY: u32 = 0o440;
const READ_WRITE: u32 = 0o660;
const SEARCH: u32 = 0o110;
const SET_GROUP_ID: u32 = 0o2000;

/// Gives everything below `root`, and `root` itself, to `group`. Links are not followed.
pub(crate) fn give(root: &Path, group: u32, read_only: bool) -> Result<(), VolumeError> {
    let metadata = fs::symlink_metadata(root).map_err(VolumeError::io("stat", root))?;
    lchown(root, None, Some(group)).map_err(VolumeError::io("lchown", root))?;
    if metadata.file_type().is_symlink() {
        return Ok(());
    }
    let mut mode = metadata.permissions().mode() & 0o7777;
    mode |= if read_only { READ_ONLY } else { READ_WRITE };
    if metadata.is_dir() {
        mode |= SET_GROUP_ID | SEARCH;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", root))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(root).map_err(VolumeError::io("readdir", root))? {
            let entry = entry.map_err(VolumeError::io("readdir", root))?;
            give(&entry.path(), group, read_only)?;
        }
    }
    Ok(())
}

/// Whether `root` already belongs to `group` as [`give`] leaves it (`fsGroupChangePolicy: OnRootMismatch`).
pub(crate) fn is_given(root: &Path, group: u32) -> bool {
    fs::metadata(root).is_ok_and(|metadata| {
        let wanted = READ_WRITE | SEARCH | SET_GROUP_ID;
        metadata.gid() == group && metadata.permissions().mode() & wanted == wanted
    })
}
