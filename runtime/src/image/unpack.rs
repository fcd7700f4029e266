//! A layer becomes a directory that overlayfs can use.
//!
//! # Guarantees
//! Whatever the archive says, nothing outside the layer's own directory is made, changed or read: every path is resolved by the kernel with
//! that directory as `/` and without magic links, and the last component is never followed. Device nodes are left out (a container's
//! devices are given to it, not shipped), as are attributes that overlayfs itself reads.

use super::tarball::{Kind, Member, Tarball};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// No layer unpacks to more: the largest published images have some tens of GB, a bomb has thousands.
const LAYER_BYTES_MAX: u64 = 256 << 30;

/// No layer has more members; each costs an inode.
const LAYER_MEMBERS_MAX: u64 = 8 << 20;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a layer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

struct Layer<'a> {
    root: OwnedFd,
    /// Directories of the layers below, the nearest first: a directory that the archive only implies looks as it does there.
    below: &'a [PathBuf],
    /// The directory of the last member: members of one directory mostly follow each other.
    last: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set when nothing is added to them any more.
    directories: Vec<(PathBuf, (i64, u32))>,
    took: Unpacked,
}

/// Unpacks `archive` into the empty directory `into`, and reads it to its very end.
pub(crate) fn unpack(archive: impl Read, into: &Path, below: &[PathBuf]) -> Result<Unpacked> {
    let root = rustix::fs::open(into, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut layer = Layer { root, below, last: None, directories: Vec::new(), took: Unpacked::default() };
    let mut tarball = Tarball::new(archive);
    while let Some(member) = tarball.next()? {
        let said = |error: Error| {
            Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(&member.path)))
        };
        layer.took.inodes += 1;
        layer.took.bytes = layer.took.bytes.saturating_add(member.bytes);
        if layer.took.bytes > LAYER_BYTES_MAX || layer.took.inodes > LAYER_MEMBERS_MAX {
            return Err(Error::new(ErrorKind::FileTooLarge, "the layer is too large"));
        }
        layer.add(&member, &mut tarball).map_err(said)?;
    }
    tarball.finish()?;
    for (path, modified) in layer.directories.iter().rev() {
        // It may have been replaced by a later member.
        if let Ok(fd) = layer.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            rustix::fs::futimens(fd, &times(*modified))?;
        }
    }
    Ok(layer.took)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds).min(999_999_999) };
    Timestamps { last_access: time, last_modification: time }
}

/// The path without `.`, leading `/` and with `..` refused: no honest archive climbs.
fn cleaned(path: &[u8]) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::new(ErrorKind::InvalidData, "the path leads out of the layer"));
            }
        }
    }
    Ok(clean)
}

impl Layer<'_> {
    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// The directory at `path`, made where the archive only implies it.
    fn parent(&mut self, path: &Path) -> Result<OwnedFd> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return fd.try_clone();
        }
        let fd = match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.imply(path)?,
            other => other?,
        };
        self.last = Some((path.to_path_buf(), fd.try_clone()?));
        Ok(fd)
    }

    fn imply(&mut self, path: &Path) -> Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        let mut parent = self.open(Path::new(""), OFlags::PATH | OFlags::DIRECTORY)?;
        for component in path.components() {
            so_far.push(component);
            parent = match self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let name = component.as_os_str();
                    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                        Err(rustix::io::Errno::EXIST) => {
                            let message = format!("{} is a link that leads nowhere", so_far.display());
                            return Err(Error::new(ErrorKind::InvalidData, message));
                        }
                        other => other?,
                    }
                    self.look_as_below(&so_far, parent.as_fd(), name)?;
                    self.took.inodes += 1;
                    self.open(&so_far, OFlags::PATH | OFlags::DIRECTORY)?
                }
                other => other?,
            };
        }
        Ok(parent)
    }

    fn look_as_below(&self, path: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let below = self.below.iter().find_map(|layer| {
            let root = rustix::fs::open(layer, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let found = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()?;
            rustix::fs::fstat(found).ok()
        });
        if let Some(stat) = below {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        Ok(())
    }

    fn add(&mut self, member: &Member, content: &mut impl Read) -> Result<()> {
        let path = cleaned(&member.path)?;
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return self.add_root(member);
        };
        let parent_fd = self.parent(parent)?;
        if name.as_bytes() == OPAQUE {
            let directory = self.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
            return Ok(rustix::fs::fsetxattr(
                directory,
                "trusted.overlay.opaque",
                b"y",
                XattrFlags::empty(),
            )?);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.hide(parent_fd.as_fd(), hidden);
        }
        self.make_room(parent_fd.as_fd(), name, member.kind)?;
        match member.kind {
            Kind::Directory => self.add_directory(&path, parent_fd.as_fd(), name, member),
            Kind::File => add_file(parent_fd.as_fd(), name, member, content),
            Kind::Symlink => {
                // What follows may resolve differently now.
                self.last = None;
                rustix::fs::symlinkat(OsStr::from_bytes(&member.target), &parent_fd, name)?;
                self.set_owner_and_times(parent_fd.as_fd(), name, member)
            }
            Kind::HardLink => {
                let target = cleaned(&member.target)?;
                let (Some(target_name), Some(target_parent)) = (target.file_name(), target.parent()) else {
                    return Err(Error::new(ErrorKind::InvalidData, "a link to the root"));
                };
                let from = self.open(target_parent, OFlags::PATH | OFlags::DIRECTORY)?;
                Ok(rustix::fs::linkat(from, target_name, parent_fd, name, AtFlags::empty())?)
            }
            Kind::Fifo => {
                rustix::fs::mknodat(&parent_fd, name, FileType::Fifo, Mode::from_raw_mode(member.mode), 0)?;
                rustix::fs::chmodat(&parent_fd, name, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
                self.set_owner_and_times(parent_fd.as_fd(), name, member)
            }
            Kind::Device => Ok(()),
        }
    }

    /// The root's own member only says what it looks like.
    fn add_root(&mut self, member: &Member) -> Result<()> {
        if member.kind != Kind::Directory {
            return Err(Error::new(ErrorKind::InvalidData, "the root is not a directory"));
        }
        let root = self.open(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fchown(&root, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(member.mode))?;
        self.directories.push((PathBuf::new(), member.modified));
        Ok(())
    }

    /// Hides what layers below have: overlayfs takes a character device 0:0 for that.
    fn hide(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Error::new(ErrorKind::InvalidData, "a whiteout of nothing"));
        }
        let name = OsStr::from_bytes(name);
        self.make_room(parent, name, Kind::Device)?;
        Ok(rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?)
    }

    /// Removes what an earlier member of the same name made; a directory stays for a directory.
    fn make_room(&mut self, parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        match (is_directory, kind) {
            (true, Kind::Directory) => return Ok(()),
            (true, _) => remove_tree(parent, name)?,
            (false, _) => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        self.last = None;
        Ok(())
    }

    fn add_directory(
        &mut self,
        path: &Path,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        member: &Member,
    ) -> Result<()> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        rustix::fs::fchown(&directory, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(member.mode))?;
        set_attributes(directory.as_fd(), member)?;
        self.directories.push((path.to_path_buf(), member.modified));
        Ok(())
    }

    fn set_owner_and_times(&self, parent: BorrowedFd<'_>, name: &OsStr, member: &Member) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::utimensat(parent, name, &times(member.modified), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn add_file(parent: BorrowedFd<'_>, name: &OsStr, member: &Member, content: &mut impl Read) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
    let mut writer = std::io::BufWriter::with_capacity(256 * 1024, &file);
    std::io::copy(content, &mut writer)?;
    writer.flush()?;
    drop(writer);
    rustix::fs::fchown(&file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
    // After the owner: changing that clears the set-user-id bit and capabilities.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(member.mode))?;
    set_attributes(file.as_fd(), member)?;
    Ok(rustix::fs::futimens(&file, &times(member.modified))?)
}

/// File capabilities and users' own; never those by which overlayfs redirects or hides.
fn set_attributes(fd: BorrowedFd<'_>, member: &Member) -> Result<()> {
    for (name, value) in &member.attributes {
        if name != "security.capability" && !name.starts_with("user.") || name.starts_with("user.overlay.") {
            continue;
        }
        match rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes a directory of the layer, following no link.
fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child == "." || child == ".." {
            continue;
        }
        let stat = rustix::fs::statat(&directory, child, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => remove_tree(directory.as_fd(), child)?,
            _ => rustix::fs::unlinkat(&directory, child, AtFlags::empty())?,
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
