//! Building a container's root, and making it impossible to leave.
//!
//! # Flow
//! 1. [`take_sources`] copies the machine's mounts that the container wants, while still in the machine's mount namespace (so that shared
//!    mounts stay shared).
//! 2. [`build`], in the container's own mount namespace: the overlay, then every mount below it.
//! 3. [`enter`] pivots; the machine's tree is gone.
//! 4. [`hide`] covers and write-protects kernel paths.
//!
//! # Guarantees
//! Destinations are resolved by the kernel with the container's root as `/` and without magic links, and mounts are attached to the descriptor
//! that this gave: a link in an image or a volume, also one swapped at the worst moment, cannot lead out.

use crate::sys;
use shim::{DeviceFile, Failure, Filesystem, Mount, Root, Start};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// An error number in upstream's words: `no such file or directory`.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Makes the closure that says what was tried.
pub fn failed(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::new(format!("{what}: {}", words(&error)))
}

/// Copies of the machine's mounts, in the order of `mounts`; `None` for those that are not of the machine.
pub fn take_sources(mounts: &[Mount]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    mounts
        .iter()
        .map(|mount| match &mount.what {
            Filesystem::Bind { source, subpath, .. } => {
                take_source(source, subpath.as_deref()).map(Some).map_err(failed(format_args!(
                    "error mounting {source:?} to rootfs at {:?}",
                    mount.destination
                )))
            }
            _ => Ok(None),
        })
        .collect()
}

fn take_source(source: &str, subpath: Option<&str>) -> io::Result<OwnedFd> {
    let Some(subpath) = subpath else { return sys::clone_tree(sys::cwd(), Path::new(source), true) };
    let base = sys::open_in(sys::cwd(), Path::new(source), libc::O_PATH, 0)?;
    let inside = place(base.as_fd(), Path::new(subpath), RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, true)?;
    sys::clone_tree(inside.as_fd(), Path::new(""), true)
}

/// Opens `path` below `root`, making what is missing: directories, or with `directory` false a file at the end.
fn place(root: BorrowedFd<'_>, path: &Path, resolve: u64, directory: bool) -> io::Result<OwnedFd> {
    let relative: PathBuf =
        path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir)).collect();
    if relative.as_os_str().is_empty() {
        return sys::open_in(root, Path::new("."), libc::O_PATH, resolve);
    }
    match sys::open_in(root, &relative, libc::O_PATH, resolve) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let mut so_far = PathBuf::new();
    let mut parent = sys::open_in(root, Path::new("."), libc::O_PATH, resolve)?;
    let last = relative.components().count() - 1;
    for (index, component) in relative.components().enumerate() {
        so_far.push(component);
        let flags = if index == last { libc::O_PATH } else { libc::O_PATH | libc::O_DIRECTORY };
        parent = match sys::open_in(root, &so_far, flags, resolve) {
            Ok(found) => found,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let name = sys::c(Path::new(component.as_os_str()))?;
                if index == last && !directory {
                    sys::make_file(parent.as_fd(), &name)?;
                } else {
                    sys::make_directory(parent.as_fd(), &name, 0o755)?;
                }
                sys::open_in(root, &so_far, flags, resolve)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(parent)
}

/// A place below the container's root.
fn inside(root: BorrowedFd<'_>, path: &str, directory: bool) -> io::Result<OwnedFd> {
    // The kernel's own file systems must be where the container looks for them, not where a link of the image says.
    let strict = if matches!(path, "/proc" | "/sys") { RESOLVE_NO_SYMLINKS } else { 0 };
    place(root, Path::new(path), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | strict, directory)
}

/// Mounts everything. Answers the root, not entered yet.
pub fn build(start: &Start, sources: Vec<Option<OwnedFd>>) -> Result<OwnedFd, Failure> {
    // Mounts and unmounts of the machine still arrive while we look; ours never leave.
    sys::mount(c"", c"/", c"", libc::MS_REC | libc::MS_SLAVE, c"")
        .map_err(failed("making the root private"))?;
    overlay(&start.root).map_err(failed("mounting the root"))?;
    let root = sys::open_in(sys::cwd(), Path::new(&start.root.target), libc::O_PATH | libc::O_DIRECTORY, 0)
        .map_err(failed("opening the root"))?;
    for (mount, source) in start.mounts.iter().zip(sources) {
        let destination = &mount.destination;
        let done = match (&mount.what, source) {
            (Filesystem::Bind { .. }, None) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            (_, source) => attach(root.as_fd(), mount, source, &start.root.target),
        };
        let origin = match &mount.what {
            Filesystem::Bind { source, .. } => source,
            Filesystem::New { kind, .. } => kind,
            Filesystem::Cgroup1 { .. } => "cgroup",
            Filesystem::Layers { .. } => "image",
        };
        done.map_err(failed(format_args!("error mounting {origin:?} to rootfs at {destination:?}")))?;
    }
    devices(root.as_fd(), &start.devices)?;
    let cwd = &start.process.cwd;
    inside(root.as_fd(), cwd, true).map_err(failed(format_args!("mkdir {cwd}")))?;
    Ok(root)
}

/// Backslash, colon and comma mean something in overlay's options.
fn escaped(path: &str) -> String {
    path.chars().flat_map(|c| if matches!(c, '\\' | ':' | ',') { vec!['\\', c] } else { vec![c] }).collect()
}

fn overlay(root: &Root) -> io::Result<()> {
    std::env::set_current_dir(&root.layers_directory)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        root.layers.join(":"),
        escaped(&root.upper),
        escaped(&root.work)
    );
    let target = sys::c(&root.target)?;
    // What a container writes outside its volumes does not outlive it, so it need not outlive a power cut either.
    let volatile = sys::c(format!("{options},volatile"))?;
    match sys::mount(c"overlay", &target, c"overlay", 0, &volatile) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            sys::mount(c"overlay", &target, c"overlay", 0, &sys::c(options)?)
        }
        other => other,
    }
}

fn attach(root: BorrowedFd<'_>, mount: &Mount, source: Option<OwnedFd>, staging: &str) -> io::Result<()> {
    match (&mount.what, source) {
        (Filesystem::Bind { read_only, recursive, propagation, .. }, Some(tree)) => {
            sys::set_mount_attributes(tree.as_fd(), 0, *propagation, true)?;
            if *read_only {
                sys::set_mount_attributes(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, *recursive)?;
            }
            let target = inside(root, &mount.destination, sys::is_directory(tree.as_fd())?)?;
            sys::attach(tree.as_fd(), target.as_fd())
        }
        (Filesystem::New { kind, options, attributes }, _) => {
            let target = inside(root, &mount.destination, true)?;
            let fresh = sys::new_filesystem(kind, options, *attributes)?;
            sys::attach(fresh.as_fd(), target.as_fd())
        }
        (Filesystem::Cgroup1 { hierarchies, read_only }, _) => {
            cgroup1(root, &mount.destination, hierarchies, *read_only)
        }
        (Filesystem::Layers { layers_directory, layers, subpath, empty }, _) => {
            let tree = image(layers_directory, layers, empty, subpath.as_deref(), staging)?;
            let target = inside(root, &mount.destination, sys::is_directory(tree.as_fd())?)?;
            sys::attach(tree.as_fd(), target.as_fd())
        }
        (Filesystem::Bind { .. }, None) => Err(io::Error::from_raw_os_error(libc::ENOENT)),
    }
}

const NOSUID_NODEV_NOEXEC: u64 = 0x2 | 0x4 | 0x8;

fn cgroup1(
    root: BorrowedFd<'_>,
    destination: &str,
    hierarchies: &[(String, Vec<String>)],
    read_only: bool,
) -> io::Result<()> {
    let target = inside(root, destination, true)?;
    let base = sys::new_filesystem("tmpfs", &[("mode".into(), "755".into())], NOSUID_NODEV_NOEXEC)?;
    sys::attach(base.as_fd(), target.as_fd())?;
    let attributes = NOSUID_NODEV_NOEXEC | if read_only { sys::MOUNT_ATTR_RDONLY } else { 0 };
    for (directory, options) in hierarchies {
        let options: Vec<(String, String)> = options
            .iter()
            .map(|option| {
                option.split_once('=').map_or((option.clone(), String::new()), |(k, v)| (k.into(), v.into()))
            })
            .collect();
        let place = inside(root, &format!("{destination}/{directory}"), true)?;
        let hierarchy = sys::new_filesystem("cgroup", &options, attributes)?;
        sys::attach(hierarchy.as_fd(), place.as_fd())?;
    }
    if read_only {
        let top = sys::open_in(root, Path::new(destination), libc::O_PATH, RESOLVE_IN_ROOT)?;
        sys::set_mount_attributes(top.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, false)?;
    }
    Ok(())
}

/// An image's files as a mount that is attached nowhere. It is made on top of the staging directory for a moment, where nobody looks.
fn image(
    directory: &str,
    layers: &[String],
    empty: &str,
    subpath: Option<&str>,
    staging: &str,
) -> io::Result<OwnedFd> {
    std::env::set_current_dir(directory)?;
    let options = sys::c(format!("lowerdir={}:{}", layers.join(":"), escaped(empty)))?;
    let staging = sys::c(format!("{staging}.image"))?;
    let staging_path = PathBuf::from(staging.to_string_lossy().into_owned());
    std::fs::create_dir_all(&staging_path)?;
    sys::mount(c"overlay", &staging, c"overlay", libc::MS_RDONLY, &options)?;
    let top = sys::open_in(sys::cwd(), &staging_path, libc::O_PATH, 0)?;
    let wanted = match subpath {
        Some(subpath) => {
            let relative = Path::new(subpath.trim_start_matches('/'));
            sys::open_in(top.as_fd(), relative, libc::O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)?
        }
        None => top,
    };
    let tree = sys::clone_tree(wanted.as_fd(), Path::new(""), false)?;
    drop(wanted);
    sys::set_mount_attributes(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, true)?;
    Ok(tree)
}

/// Device files and the links that programs expect. Nothing where the caller mounts a `/dev` of its own.
fn devices(root: BorrowedFd<'_>, devices: &[DeviceFile]) -> Result<(), Failure> {
    if devices.is_empty() {
        return Ok(());
    }
    for device in devices {
        make_device(root, device)
            .map_err(failed(format_args!("error creating device nodes: mknod {}", device.path)))?;
    }
    let dev = inside(root, "/dev", true).map_err(failed("opening /dev"))?;
    let links = [
        (c"fd", c"/proc/self/fd"),
        (c"stdin", c"/proc/self/fd/0"),
        (c"stdout", c"/proc/self/fd/1"),
        (c"stderr", c"/proc/self/fd/2"),
        (c"ptmx", c"pts/ptmx"),
        (c"core", c"/proc/kcore"),
    ];
    for (name, target) in links {
        match sys::make_link(dev.as_fd(), name, target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("linking in /dev")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn make_device(root: BorrowedFd<'_>, device: &DeviceFile) -> io::Result<()> {
    let path = Path::new(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let parent = place(root, parent, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, true)?;
    match sys::make_device(parent.as_fd(), &sys::c(Path::new(name))?, device) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes `root` the root of this process.
pub fn enter(root: OwnedFd) -> Result<(), Failure> {
    sys::change_directory(root.as_fd()).and_then(|()| sys::pivot_root_here()).map_err(failed("pivot_root"))
}

/// Covers `masked` and write-protects `readonly` paths, and the root itself if asked. Paths that do not exist need no care.
pub fn hide(masked: &[String], readonly: &[String], read_only_root: bool) -> Result<(), Failure> {
    let root =
        sys::open_in(sys::cwd(), Path::new("/"), libc::O_PATH, 0).map_err(failed("opening the root"))?;
    let find = |path: &str| {
        let relative = Path::new(path.trim_start_matches('/'));
        match sys::open_in(root.as_fd(), relative, libc::O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            other => other.map(Some),
        }
    };
    for path in readonly {
        let protect = |place: OwnedFd| {
            let tree = sys::clone_tree(place.as_fd(), Path::new(""), true)?;
            sys::set_mount_attributes(tree.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, true)?;
            sys::attach(tree.as_fd(), place.as_fd())
        };
        find(path)
            .and_then(|place| place.map_or(Ok(()), protect))
            .map_err(failed(format_args!("can't make {path:?} read-only")))?;
    }
    for path in masked {
        let mask = |place: OwnedFd| {
            let cover = match sys::is_directory(place.as_fd())? {
                true => {
                    sys::new_filesystem("tmpfs", &[("mode".into(), "755".into())], sys::MOUNT_ATTR_RDONLY)?
                }
                false => sys::clone_tree(sys::cwd(), Path::new("/dev/null"), false)?,
            };
            sys::attach(cover.as_fd(), place.as_fd())
        };
        find(path)
            .and_then(|place| place.map_or(Ok(()), mask))
            .map_err(failed(format_args!("can't mask path {path:?}")))?;
    }
    if read_only_root {
        sys::set_mount_attributes(root.as_fd(), sys::MOUNT_ATTR_RDONLY, 0, false)
            .map_err(failed("making the root read-only"))?;
    }
    Ok(())
}

/// Puts a terminal at `/dev/console` too, where `/dev` is ours.
pub fn console(slave: BorrowedFd<'_>) -> io::Result<()> {
    let root = sys::open_in(sys::cwd(), Path::new("/"), libc::O_PATH, 0)?;
    let place = inside(root.as_fd(), "/dev/console", false)?;
    let number = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&slave)))?;
    let tree = sys::clone_tree(sys::cwd(), &number, false)?;
    sys::attach(tree.as_fd(), place.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_options_are_escaped() {
        fn check(path: &str, expect: &str) {
            assert_eq!(escaped(path), expect);
        }
        check("/a/b", "/a/b");
        check("/a:b,c", "/a\\:b\\,c");
    }

    #[test]
    fn errors_speak_upstreams_words() {
        fn check(number: i32, expect: &str) {
            assert_eq!(words(&io::Error::from_raw_os_error(number)), expect);
        }
        check(libc::ENOENT, "no such file or directory");
        check(libc::EACCES, "permission denied");
        check(libc::ENOEXEC, "exec format error");
    }

    #[test]
    fn links_do_not_lead_out() {
        let base = std::env::temp_dir().join(format!("shim-place-{}", std::process::id()));
        std::fs::create_dir_all(base.join("root/etc")).unwrap();
        std::fs::create_dir_all(base.join("outside")).unwrap();
        std::os::unix::fs::symlink("/outside", base.join("root/absolute")).unwrap();
        std::os::unix::fs::symlink("../../outside", base.join("root/etc/up")).unwrap();
        let root = sys::open_in(sys::cwd(), &base.join("root"), libc::O_PATH, 0).unwrap();
        std::fs::create_dir_all(base.join("root/outside")).unwrap();

        for path in ["/absolute/x", "/etc/up/y", "/../z"] {
            inside(root.as_fd(), path, true).unwrap();
        }
        let beneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
        assert!(place(root.as_fd(), Path::new("etc/up/y"), beneath, true).is_err());

        assert_eq!(std::fs::read_dir(base.join("outside")).unwrap().count(), 0);
        assert!(base.join("root/outside/x").is_dir() && base.join("root/z").is_dir());
        std::fs::remove_dir_all(base).unwrap();
    }
}
