//! Control groups: making, bounding, measuring, emptying and removing them, on v1 and v2.
//!
//! A group is named by its path from the root of the hierarchies, `/clipper/burstable/x`; on v1 the same path is used in each. Start at
//! [`Cgroups::detect`].
//!
//! It never touches a group that is not at or below a path that a caller named, except that v2 needs controllers switched on in the
//! ancestors of a new group.

mod bpf;
mod v1;
mod v2;

use crate::error::{Error, Result};
use crate::spec::Limits;
use crate::status::Stats;
use std::path::{Path, PathBuf};

/// Which devices processes of a group may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `c` or `b`.
    pub kind: char,
    /// `None` means all.
    pub major: Option<u32>,
    /// `None` means all.
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// The machine's control groups.
#[derive(Clone, Debug)]
pub struct Cgroups {
    version: Version,
}

#[derive(Clone, Debug)]
enum Version {
    V1(v1::Hierarchies),
    V2(v2::Unified),
}

/// No more tries to remove a group whose processes have just been killed; with [`REMOVE_PAUSE`] between them that is 2 s.
const REMOVE_TRIES_MAX: u32 = 400;
const REMOVE_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

impl Cgroups {
    /// Looks at what is mounted.
    pub fn detect() -> Result<Self> {
        let path = "/proc/self/mountinfo";
        let mounts = std::fs::read_to_string(path).map_err(Error::io("reading", path))?;
        Self::from_mounts(&mounts)
            .ok_or_else(|| Error::Unsupported { feature: "no control group hierarchy is mounted".to_owned() })
    }

    /// `mounts` as in `/proc/self/mountinfo`. Where controllers of both versions are mounted, v1 is used for its own, and v2 beside it for the rest.
    fn from_mounts(mounts: &str) -> Option<Self> {
        let mut v1 = Vec::new();
        let mut unified = None;
        for line in mounts.lines() {
            let (before, after) = line.split_once(" - ")?;
            let at = PathBuf::from(before.split(' ').nth(4)?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            match kind {
                "cgroup2" => unified = unified.or(Some(at)),
                "cgroup" => {
                    let names = options
                        .split(',')
                        .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "noprefix" | "clone_children"));
                    let names: Vec<String> =
                        names.filter(|o| !o.starts_with("release_agent")).map(str::to_owned).collect();
                    v1.push(v1::Hierarchy { at, names });
                }
                _ => {}
            }
        }
        let version = match (v1.iter().any(|h| h.names.iter().any(|n| n == "memory")), unified) {
            (true, unified) => {
                Version::V1(v1::Hierarchies { all: v1, unified: unified.map(|at| v2::Unified { at }) })
            }
            (false, Some(at)) => Version::V2(v2::Unified { at }),
            (false, None) => return None,
        };
        Some(Self { version })
    }

    /// Whether this is v2 alone.
    pub fn is_v2(&self) -> bool {
        matches!(self.version, Version::V2(_))
    }

    /// Makes a group, and missing ancestors. It may exist.
    pub fn create(&self, path: &str) -> Result<()> {
        let path = checked(path)?;
        match &self.version {
            Version::V1(all) => all.create(path),
            Version::V2(unified) => unified.create(path),
        }
    }

    /// Whether the group exists.
    pub fn exists(&self, path: &str) -> bool {
        checked(path).is_ok_and(|path| self.directories().iter().any(|at| at.join(path).is_dir()))
    }

    /// Sets bounds; `None` leaves what is.
    pub fn apply(&self, path: &str, limits: &Limits) -> Result<()> {
        let path = checked(path)?;
        match &self.version {
            Version::V1(all) => all.apply(path, limits),
            Version::V2(unified) => unified.apply(path, limits),
        }
    }

    /// Allows exactly these devices to the group's processes.
    pub fn allow_devices(&self, path: &str, rules: &[DeviceRule]) -> Result<()> {
        let path = checked(path)?;
        match &self.version {
            Version::V1(all) => all.allow_devices(path, rules),
            Version::V2(unified) => unified.allow_devices(path, rules),
        }
    }

    /// What the group, with those below it, uses.
    pub fn stats(&self, path: &str) -> Result<Stats> {
        let path = checked(path)?;
        match &self.version {
            Version::V1(all) => all.stats(path),
            Version::V2(unified) => unified.stats(path),
        }
    }

    /// Processes of the group and of those below it.
    pub fn processes(&self, path: &str) -> Result<Vec<i32>> {
        let path = checked(path)?;
        let mut all = std::collections::BTreeSet::new();
        for at in self.directories() {
            for group in tree(&at.join(path)) {
                let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            }
        }
        Ok(all.into_iter().collect())
    }

    /// Kills every process of the group and of those below it. They may take a moment to be gone.
    pub fn kill_all(&self, path: &str) -> Result<()> {
        let relative = checked(path)?;
        for at in self.directories() {
            if std::fs::write(at.join(relative).join("cgroup.kill"), "1").is_ok() {
                break;
            }
        }
        // v1 alone has no such file. What is found twice is dying already; a killed process makes no more children.
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let fresh: Vec<i32> = self.processes(path)?.into_iter().filter(|pid| seen.insert(*pid)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for pid in fresh.into_iter().filter_map(rustix::process::Pid::from_raw) {
                // It may be gone by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Kills what is in the group and removes it and those below it. It need not exist. Blocks until the processes are gone.
    pub fn remove(&self, path: &str) -> Result<()> {
        let relative = checked(path)?;
        for at in self.directories() {
            for group in tree(&at.join(relative)).iter().rev() {
                self.remove_one(path, group)?;
            }
        }
        Ok(())
    }

    fn remove_one(&self, path: &str, group: &Path) -> Result<()> {
        for attempt in 0.. {
            match std::fs::remove_dir(group) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_TRIES_MAX => {
                    if attempt > 0 {
                        self.kill_all(path)?;
                    }
                    std::thread::sleep(REMOVE_PAUSE);
                }
                other => {
                    other.map_err(Error::io("removing the control group", group))?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the shim must know of a container's group.
    pub(crate) fn for_shim(&self, path: &str) -> Result<shim::Cgroup> {
        let path = checked(path)?;
        let file = |at: &Path, name: &str| at.join(path).join(name).to_string_lossy().into_owned();
        Ok(match &self.version {
            Version::V1(all) => shim::Cgroup {
                tasks: all.all.iter().map(|hierarchy| file(&hierarchy.at, "tasks")).collect(),
                born_in: all.unified.as_ref().map(|unified| file(&unified.at, "")),
                procs: all.of("memory").map(|at| file(at, "cgroup.procs")).unwrap_or_default(),
                memory_events: all.of("memory").map(|at| file(at, "memory.oom_control")),
                event_control: all.of("memory").map(|at| file(at, "cgroup.event_control")),
                kill: all.unified.as_ref().map(|unified| file(&unified.at, "cgroup.kill")),
            },
            Version::V2(unified) => shim::Cgroup {
                tasks: Vec::new(),
                born_in: Some(file(&unified.at, "")),
                procs: file(&unified.at, "cgroup.procs"),
                memory_events: Some(file(&unified.at, "memory.events")),
                event_control: None,
                kill: Some(file(&unified.at, "cgroup.kill")),
            },
        })
    }

    /// What a container sees at `/sys/fs/cgroup`.
    pub(crate) fn filesystem(&self, read_only: bool) -> shim::Filesystem {
        const NOSUID_NODEV_NOEXEC: u64 = 0x2 | 0x4 | 0x8;
        match &self.version {
            Version::V1(all) => shim::Filesystem::Cgroup1 { hierarchies: all.mounts(), read_only },
            Version::V2(_) => shim::Filesystem::New {
                kind: "cgroup2".to_owned(),
                options: Vec::new(),
                attributes: NOSUID_NODEV_NOEXEC | u64::from(read_only),
            },
        }
    }

    fn directories(&self) -> Vec<PathBuf> {
        match &self.version {
            Version::V1(all) => {
                let unified = all.unified.iter().map(|unified| unified.at.clone());
                all.all.iter().map(|hierarchy| hierarchy.at.clone()).chain(unified).collect()
            }
            Version::V2(unified) => vec![unified.at.clone()],
        }
    }
}

/// A group's path without its leading slash. The root itself is nobody's to change, and no path leads upwards.
fn checked(path: &str) -> Result<&Path> {
    let relative = Path::new(path.trim_start_matches('/'));
    let normal = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    match normal && !relative.as_os_str().is_empty() {
        true => Ok(relative),
        false => {
            Err(Error::Invalid { field: "cgroup", reason: format!("{path:?} is not the path of a group") })
        }
    }
}

/// A group and all below it, parents first; nothing if it does not exist.
fn tree(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_path_buf()];
    let mut next = 0;
    while next < all.len() {
        let entries = std::fs::read_dir(&all[next]).into_iter().flatten().flatten();
        let below: Vec<PathBuf> =
            entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect();
        all.extend(below);
        next += 1;
    }
    all
}

/// Writes a file of a group.
fn write(group: &Path, file: &str, value: impl ToString) -> Result<()> {
    let path = group.join(file);
    std::fs::write(&path, value.to_string()).map_err(Error::io("writing", &path))
}

/// A number in a file of a group; `max` and absence are `None`.
fn number(group: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// A file of lines `key value`.
fn keyed(group: &Path, file: &str) -> std::collections::BTreeMap<String, u64> {
    let text = std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found() {
        fn check(mounts: &str, v2: Option<bool>) {
            assert_eq!(Cgroups::from_mounts(mounts).map(|c| c.is_v2()), v2);
        }
        check("31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate", Some(true));
        let memory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        check(memory, Some(false));
        check(&format!("{unified}{memory}"), Some(false));
        check("22 1 8:1 / / rw - ext4 /dev/root rw", None);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        fn check(path: &str, good: bool) {
            assert_eq!(checked(path).is_ok(), good, "{path}");
        }
        check("/a/b", true);
        check("a", true);
        check("/", false);
        check("", false);
        check("/a/../b", false);
        check("/..", false);
    }
}
