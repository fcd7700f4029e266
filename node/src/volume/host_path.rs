//! `hostPath`: a file or directory of the machine. Upstream: `pkg/volume/hostpath`.

use super::{Mounted, Mounting, VolumeError, VolumeType};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(super) struct HostPath;

impl VolumeType for HostPath {
    fn directory(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let Some(source) = &mounting.volume.host_path else {
                return Err(VolumeError::invalid("no volume plugin matched"));
            };
            prepare(&source.path, source.type_.as_deref().unwrap_or_default()).map(Mounted::at)
        })
    }
}

/// Makes or checks the path, by its type.
pub(super) fn prepare(path: &str, type_: &str) -> Result<PathBuf, VolumeError> {
    let target = PathBuf::from(path);
    let found = fs::metadata(&target);
    match (type_, &found) {
        ("" | "DirectoryOrCreate", Err(_)) => {
            fs::create_dir_all(&target).map_err(VolumeError::io("mkdir", &target))?;
            set_mode(&target, 0o755)?;
        }
        ("FileOrCreate", Err(_)) => {
            fs::File::create(&target).map_err(VolumeError::io("create", &target))?;
            set_mode(&target, 0o644)?;
        }
        _ => {}
    }
    let kind = match found.or_else(|_| fs::metadata(&target)) {
        Ok(metadata) => metadata.file_type(),
        Err(_) => return wrong(path, noun(type_)),
    };
    let fits = match type_ {
        "" => true,
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        other => return Err(VolumeError::invalid(format!("{other} is an invalid volume type"))),
    };
    if fits { Ok(target) } else { wrong(path, noun(type_)) }
}

fn noun(type_: &str) -> &'static str {
    match type_ {
        "File" | "FileOrCreate" => "a file",
        "Socket" => "a socket file",
        "CharDevice" => "a character device",
        "BlockDevice" => "a block device",
        _ => "a directory",
    }
}

fn wrong(path: &str, noun: &str) -> Result<PathBuf, VolumeError> {
    Err(VolumeError::invalid(format!("hostPath type check failed: {path} is not {noun}")))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(VolumeError::io("chmod", path))
}
