//! `emptyDir`: a directory that lives as long as the pod, on disk, in memory or in huge pages. Upstream: `pkg/volume/emptydir`.

use super::{Mounted, Mounting, VolumeError, VolumeType, ownership};
use crate::amount::Amount;
use crate::resources;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(super) struct EmptyDir;

const MODE: u32 = 0o777;

impl VolumeType for EmptyDir {
    fn directory(&self) -> &'static str {
        "kubernetes.io~empty-dir"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move { self.make(mounting) })
    }

    fn unmount(&self, directory: &Path) -> Result<(), VolumeError> {
        while is_mount_point(directory) {
            rustix::mount::unmount(directory, UnmountFlags::DETACH)
                .map_err(VolumeError::io("unmount", directory))?;
        }
        Ok(())
    }
}

impl EmptyDir {
    fn make(&self, mounting: &Mounting<'_>) -> Result<Mounted, VolumeError> {
        let Some(source) = &mounting.volume.empty_dir else {
            return Err(VolumeError::invalid("no volume plugin matched"));
        };
        let target =
            mounting.directories.on_disk(mounting.def.uid(), self.directory(), &mounting.volume.name);
        let existed = target.is_dir();
        fs::create_dir_all(&target).map_err(VolumeError::io("mkdir", &target))?;
        let medium = source.medium.as_deref().unwrap_or_default();
        if !medium.is_empty() && !is_mount_point(&target) {
            match medium {
                "Memory" => mount_memory(mounting, source, &target)?,
                medium if medium.starts_with("HugePages") => mount_huge_pages(mounting, medium, &target)?,
                medium => return Err(VolumeError::invalid(format!("unknown storage medium \"{medium}\""))),
            }
        } else if existed {
            return Ok(Mounted::at(target));
        }
        // Made by the node, so that no mask takes bits away; what a container changed later stays.
        let mode = source.mode.map_or(MODE, |own| own.unsigned_abs() & 0o7777);
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))
            .map_err(VolumeError::io("chmod", &target))?;
        if let Some(group) = mounting.fs_group() {
            ownership::give(&target, group, false)?;
        }
        Ok(Mounted::at(target))
    }
}

/// The bound of a volume in memory: the smallest of its own limit, the pod's memory limit and the machine's memory.
fn memory_bound(mounting: &Mounting<'_>, source: &EmptyDirVolumeSource) -> i64 {
    let own = source.size_limit.as_ref().map(Amount::of).unwrap_or_default().value();
    let pod = resources::pod_group(mounting.def).memory_bytes.unwrap_or(0);
    [own, pod, mounting.memory_capacity_bytes].into_iter().filter(|bytes| *bytes > 0).min().unwrap_or(0)
}

fn mount_memory(
    mounting: &Mounting<'_>,
    source: &EmptyDirVolumeSource,
    target: &Path,
) -> Result<(), VolumeError> {
    let bytes = memory_bound(mounting, source);
    let options = if bytes > 0 { format!("size={bytes}") } else { String::new() };
    mount("tmpfs", target, &options)
}

fn mount_huge_pages(mounting: &Mounting<'_>, medium: &str, target: &Path) -> Result<(), VolumeError> {
    let limits = resources::pod_limits(mounting.def);
    let asked: Vec<&str> = limits.keys().filter_map(|name| name.strip_prefix("hugepages-")).collect();
    let size = match (medium.strip_prefix("HugePages-"), asked.as_slice()) {
        (Some(size), _) => size,
        (None, [one]) => one,
        (None, _) => {
            return Err(VolumeError::invalid(
                "medium HugePages can be used only if the pod requests exactly one huge page size",
            ));
        }
    };
    let bytes = Amount::parse(size).unwrap_or_default().value();
    mount("hugetlbfs", target, &format!("pagesize={bytes}"))
}

fn mount(type_: &'static str, target: &Path, options: &str) -> Result<(), VolumeError> {
    let options =
        CString::new(options).map_err(|_| VolumeError::invalid("mount options hold a zero byte"))?;
    rustix::mount::mount(type_, target, type_, MountFlags::NOSUID | MountFlags::NODEV, &*options)
        .map_err(VolumeError::io("mount", target))
}

/// Whether something is mounted at a directory: it is on another device than its parent.
pub(crate) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.dev()).ok();
    match (device(path), path.parent().and_then(device)) {
        (Some(own), Some(parent)) => own != parent,
        _ => false,
    }
}
