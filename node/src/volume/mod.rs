//! Volumes: making the files of a pod's volumes, keeping them current, and removing them.
//!
//! A volume type is one file and one line in [`VOLUMES`]. Making a volume may be repeated: after a restart, and whenever what it shows
//! has changed. Upstream: `pkg/volume`.

pub(crate) mod atomic_writer;
mod claim;
mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod image;
pub(crate) mod ownership;
mod projected;
mod secret;
#[cfg(test)]
mod tests;
pub(crate) mod token;

use crate::downward::Facts;
use crate::objects::{Followed, Objects, Reference};
use crate::spec::PodDef;
use api::Timestamp;
use atomic_writer::{AtomicWriter, Payload};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;
use std::path::{Path, PathBuf};

/// Why a volume cannot be made, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// An object that it shows is not there.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap`, `secret`, …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object that it shows has no such key.
    #[error("{kind} references non-existent {noun} key: {key}", noun = if *kind == "configmap" { "config" } else { "secret" })]
    NoKey {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// The volume itself makes no sense here.
    #[error("{message}")]
    Invalid {
        /// In upstream's words.
        message: String,
    },
    /// The API did not give what is needed.
    #[error("failed to fetch token: {0}")]
    Token(#[source] api::Status),
    /// The file system refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io<'a, E: Into<std::io::Error>>(
        operation: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(E) -> Self + use<'a, E> {
        move |source| Self::Io { operation, path: path.to_owned(), source: source.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }
}

/// Where the volumes of pods lie.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    /// On disk: `<disk>/<pod uid>/volumes/<type>/<name>`.
    pub disk: PathBuf,
    /// In memory, for what must not reach a disk: `<memory>/<pod uid>/<type>/<name>`.
    pub memory: PathBuf,
}

impl Directories {
    /// The directory of a pod.
    pub(crate) fn pod(&self, uid: &str) -> PathBuf {
        self.disk.join(uid)
    }

    /// The directory of a volume on disk.
    pub(crate) fn on_disk(&self, uid: &str, type_: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(type_).join(volume)
    }

    /// The directory of a volume in memory.
    pub(crate) fn in_memory(&self, uid: &str, type_: &str, volume: &str) -> PathBuf {
        self.memory.join(uid).join(type_).join(volume)
    }
}

/// What a volume is made from.
pub(crate) struct Mounting<'a> {
    /// The pod.
    pub def: &'a PodDef,
    /// The volume.
    pub volume: &'a Volume,
    /// Where volumes lie.
    pub directories: &'a Directories,
    /// Config maps, secrets, claims.
    pub objects: &'a dyn Objects,
    /// What the downward API knows besides the pod.
    pub facts: &'a Facts<'a>,
    /// Where service account tokens come from.
    pub tokens: &'a dyn token::Tokens,
    /// The memory of the machine in bytes, which bounds volumes in memory.
    pub memory_capacity_bytes: i64,
    /// The time.
    pub now: Timestamp,
}

impl Mounting<'_> {
    /// The group that owns the files, if the pod names one.
    fn fs_group(&self) -> Option<u32> {
        let group = self.def.spec().security_context.as_ref()?.fs_group?;
        u32::try_from(group).ok()
    }

    /// Writes files that change as a whole, below the volume's directory in memory.
    fn write(&self, type_: &'static str, payload: Payload) -> Result<PathBuf, VolumeError> {
        let target = self.directories.in_memory(self.def.uid(), type_, &self.volume.name);
        std::fs::create_dir_all(&target).map_err(VolumeError::io("mkdir", &target))?;
        AtomicWriter::new(&target, self.fs_group()).write(&payload, self.now)?;
        Ok(target)
    }
}

/// Where a made volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// On the machine.
    Path(PathBuf),
    /// In an image.
    Image(String),
}

/// A volume that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Its files.
    pub files: Files,
    /// Whether containers may only read, whatever they ask for.
    pub read_only: bool,
    /// When it must be made again though nothing changed (a token ends).
    pub refresh_at: Option<Timestamp>,
}

impl Mounted {
    fn at(path: PathBuf) -> Self {
        Self { files: Files::Path(path), read_only: false, refresh_at: None }
    }

    fn read_only_at(path: PathBuf) -> Self {
        Self { read_only: true, ..Self::at(path) }
    }
}

/// A kind of volume.
pub(crate) trait VolumeType: Sync {
    /// The name of its directories; upstream's plugin name with `~` for `/`.
    fn directory(&self) -> &'static str;

    /// Whether a volume is of this type.
    fn is(&self, volume: &Volume) -> bool;

    /// Makes it, or brings it up to date.
    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>>;

    /// Objects whose changes must reach it.
    fn references(&self, _def: &PodDef, _volume: &Volume) -> Vec<Reference> {
        Vec::new()
    }

    /// Whether it shows the pod's own labels and annotations.
    fn shows_pod(&self, _volume: &Volume) -> bool {
        false
    }

    /// Gives up what does not go away with the pod's directories (mounts).
    fn unmount(&self, _directory: &Path) -> Result<(), VolumeError> {
        Ok(())
    }
}

/// All types of volumes that this node has.
pub(crate) static VOLUMES: &[&dyn VolumeType] = &[
    &empty_dir::EmptyDir,
    &host_path::HostPath,
    &config_map::ConfigMapVolume,
    &secret::SecretVolume,
    &downward_api::DownwardApi,
    &projected::Projected,
    &claim::Claim,
    &image::ImageVolume,
];

/// The type of a volume.
pub(crate) fn type_of(volume: &Volume) -> Result<&'static dyn VolumeType, VolumeError> {
    let found = VOLUMES.iter().find(|type_| type_.is(volume)).copied();
    found.ok_or_else(|| VolumeError::invalid("no volume plugin matched"))
}

/// Objects whose changes must reach the pod's volumes.
pub(crate) fn references(def: &PodDef) -> Vec<Reference> {
    let of = |volume| type_of(volume).map(|type_| type_.references(def, volume)).unwrap_or_default();
    def.volumes().iter().flat_map(of).collect()
}

/// Whether a volume shows the pod's own labels and annotations.
pub(crate) fn shows_pod(def: &PodDef) -> bool {
    def.volumes().iter().any(|volume| type_of(volume).is_ok_and(|type_| type_.shows_pod(volume)))
}

/// Mounts the memory that holds what must not reach a disk, unless it is mounted already. Without the right to mount, as in tests,
/// the directory itself serves.
pub(crate) fn mount_memory_root(path: &Path) -> std::io::Result<()> {
    use rustix::mount::MountFlags;
    if empty_dir::is_mount_point(path) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    match rustix::mount::mount("tmpfs", path, "tmpfs", flags, c"mode=0755") {
        Err(error) if error != rustix::io::Errno::PERM => Err(error.into()),
        _ => Ok(()),
    }
}

/// Unmounts what [`mount_memory_root`] mounted. May be repeated.
pub(crate) fn unmount_memory_root(path: &Path) -> std::io::Result<()> {
    while empty_dir::is_mount_point(path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// The largest file that is read out of a volume for a variable.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Reads a file of a volume. Links do not lead out of the volume.
pub(crate) fn read_inside(root: &Path, path: &str) -> std::io::Result<String> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
    use std::io::Read;
    let root =
        rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), inside)?;
    let mut text = String::new();
    std::fs::File::from(file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Removes everything of a pod: mounts first, then its directories on disk and in memory. May be repeated.
pub(crate) fn unmount_all(directories: &Directories, uid: &str) -> Result<(), VolumeError> {
    let pod = directories.pod(uid);
    for type_ in VOLUMES {
        let parent = pod.join("volumes").join(type_.directory());
        let Ok(entries) = std::fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            type_.unmount(&entry.path())?;
        }
    }
    for path in [pod, directories.memory.join(uid)] {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(VolumeError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn reference(kind: Followed, def: &PodDef, name: &str) -> Reference {
    Reference { kind, namespace: def.namespace().to_owned(), name: name.to_owned() }
}

/// A file mode of the API, which says them in decimal numbers.
fn mode(own: Option<i32>, default: u32) -> u32 {
    own.and_then(|own| u32::try_from(own).ok()).unwrap_or(default) & 0o777
}

/// A user id of the API.
fn user(own: Option<i64>) -> Option<u32> {
    own.and_then(|own| u32::try_from(own).ok())
}

/// The mode of files whose volume says nothing.
const MODE_DEFAULT: u32 = 0o644;
