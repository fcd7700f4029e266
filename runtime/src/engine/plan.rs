//! What a container's spec, its image and the machine together mean for the shim. Pure: tables below are its tests.

use super::record::ContainerRecord;
use crate::capability;
use crate::cgroup::DeviceRule;
use crate::error::{Error, Result};
use crate::spec::{ContainerSpec, MountSource, Propagation, SandboxSpec, Seccomp, User};
use shim::{DeviceFile, Filesystem, Process, Root};
use std::path::{Path, PathBuf};

const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const READ_ONLY: u64 = 0x1;
const STRICTATIME: u64 = 0x20;

const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Hidden unless told otherwise: they tell of, or reach, the machine. Upstream: kubernetes pkg/securitycontext, runc.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Open files per process, unless told otherwise or the machine allows less.
const OPEN_FILES: u64 = 1 << 20;

/// What of the machine a plan depends on.
pub(super) struct Host {
    /// The container's own directory.
    pub(super) directory: PathBuf,
    pub(super) layers_directory: PathBuf,
    /// The image's layers, the topmost first.
    pub(super) layers: Vec<String>,
    /// Layers of images that are mounted, in the order of the spec's mounts.
    pub(super) mounted_layers: Vec<Option<Vec<String>>>,
    /// `/dev/shm` of the sandbox.
    pub(super) shm: PathBuf,
    pub(super) cgroup: shim::Cgroup,
    pub(super) cgroup_mount: Filesystem,
    /// The container's devices: its own, or all of the machine for a privileged one.
    pub(super) devices: Vec<DeviceFile>,
    /// The compiled filter.
    pub(super) seccomp: Option<PathBuf>,
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The capabilities that the container's program has.
pub(super) fn capabilities(spec: &ContainerSpec) -> Result<u64> {
    if spec.privileged { Ok(capability::ALL) } else { capability::set(&spec.capabilities) }
}

/// Which filter applies: none for privileged containers.
pub(super) fn seccomp(spec: &ContainerSpec) -> &Seccomp {
    if spec.privileged { &Seccomp::Unconfined } else { &spec.seccomp }
}

/// Everything the shim needs to start the container.
pub(super) fn start(record: &ContainerRecord, sandbox: &SandboxSpec, host: Host) -> Result<shim::Start> {
    let spec = &record.spec;
    let covers_dev = spec.mounts.iter().any(|mount| mount.destination == Path::new("/dev"));
    let paths = |given: &Option<Vec<String>>, usual: &[&str]| match (spec.privileged, given) {
        (true, _) => Vec::new(),
        (false, Some(given)) => given.clone(),
        (false, None) => usual.iter().map(|path| (*path).to_owned()).collect(),
    };
    let directory = |name: &str| text(&host.directory.join(name));
    Ok(shim::Start {
        container: record.id.clone(),
        directory: text(&host.directory),
        mounts: mounts(spec, &host)?,
        process: process(record, sandbox, host.seccomp.as_deref())?,
        cgroup: host.cgroup,
        root: Root {
            layers_directory: text(&host.layers_directory),
            layers: host.layers,
            upper: directory("upper"),
            work: directory("work"),
            target: directory("root"),
            read_only: spec.read_only_root,
        },
        devices: if covers_dev {
            Vec::new()
        } else {
            standard_devices().into_iter().chain(host.devices).collect()
        },
        masked_paths: paths(&spec.masked_paths, MASKED),
        readonly_paths: paths(&spec.readonly_paths, READONLY),
        user: user(record),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        log_path: spec.log_path.as_deref().map(text),
    })
}

/// The container's program, or with other arguments one more in it.
pub(super) fn process(
    record: &ContainerRecord,
    sandbox: &SandboxSpec,
    seccomp: Option<&Path>,
) -> Result<Process> {
    let (spec, image) = (&record.spec, &record.image.config);
    let argv: Vec<String> = match (spec.command.is_empty(), spec.args.is_empty()) {
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        (true, false) => image.entrypoint.iter().chain(&spec.args).cloned().collect(),
        (false, _) => spec.command.iter().chain(&spec.args).cloned().collect(),
    };
    if argv.is_empty() {
        return Err(Error::Invalid { field: "command", reason: "no command specified".to_owned() });
    }
    let cwd = spec.cwd.clone().filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| image.working_dir.clone());
    Ok(Process {
        argv,
        env: environment(record, sandbox),
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
        tty: spec.tty,
        capabilities: capabilities(spec)?,
        no_new_privileges: spec.no_new_privileges,
        seccomp: seccomp.map(text),
        rlimits: rlimits(spec)?,
        oom_score_adj: Some(spec.oom_score_adj.unwrap_or(0)),
    })
}

fn user(record: &ContainerRecord) -> shim::User {
    let name = match &record.spec.user {
        User::Image => record.image.config.user.clone(),
        User::Named(name) => name.clone(),
        User::Ids { uid, gid: Some(gid) } => format!("{uid}:{gid}"),
        User::Ids { uid, gid: None } => uid.to_string(),
    };
    let groups_of_image = !record.spec.supplementary_groups_strict;
    shim::User { name, groups: record.spec.supplementary_groups.clone(), groups_of_image }
}

/// Defaults, then the image's, then the caller's; a later value takes the place of an earlier one.
fn environment(record: &ContainerRecord, sandbox: &SandboxSpec) -> Vec<String> {
    let mut all: Vec<String> = vec![PATH_DEFAULT.to_owned()];
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match all.iter_mut().find(|there| there.split('=').next() == Some(&name)) {
            Some(there) => *there = entry,
            None => all.push(entry),
        }
    };
    if record.spec.tty {
        set("TERM=xterm".to_owned());
    }
    record.image.config.env.iter().cloned().for_each(&mut set);
    if let Some(hostname) = &sandbox.hostname {
        set(format!("HOSTNAME={hostname}"));
    }
    record.spec.env.iter().for_each(|(name, value)| set(format!("{name}={value}")));
    all
}

fn rlimits(spec: &ContainerSpec) -> Result<Vec<(i32, u64, u64)>> {
    let mut all = Vec::new();
    for limit in &spec.rlimits {
        let kind = match limit.kind.trim_start_matches("RLIMIT_").to_uppercase().as_str() {
            "CPU" => 0,
            "FSIZE" => 1,
            "DATA" => 2,
            "STACK" => 3,
            "CORE" => 4,
            "RSS" => 5,
            "NPROC" => 6,
            "NOFILE" => 7,
            "MEMLOCK" => 8,
            "AS" => 9,
            "LOCKS" => 10,
            "SIGPENDING" => 11,
            "MSGQUEUE" => 12,
            "NICE" => 13,
            "RTPRIO" => 14,
            "RTTIME" => 15,
            _ => {
                return Err(Error::Invalid {
                    field: "rlimits",
                    reason: format!("unknown limit {:?}", limit.kind),
                });
            }
        };
        all.push((kind, limit.soft, limit.hard));
    }
    if !all.iter().any(|(kind, ..)| *kind == 7) {
        all.push((7, OPEN_FILES, OPEN_FILES));
    }
    Ok(all)
}

/// A new file system; the table of mounts shows its kind as the device, as other runtimes do.
fn filesystem(destination: &str, kind: &str, options: &[(&str, &str)], attributes: u64) -> shim::Mount {
    let source = [("source", kind)];
    let options =
        options.iter().chain(&source).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let what = Filesystem::New { kind: kind.to_owned(), options, attributes };
    shim::Mount { destination: destination.to_owned(), what }
}

/// The usual mounts, less those that the caller replaces, and the caller's; a directory before what is below it.
fn mounts(spec: &ContainerSpec, host: &Host) -> Result<Vec<shim::Mount>> {
    let sys = if spec.privileged { 0 } else { READ_ONLY };
    let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let bind_shm = Filesystem::Bind {
        source: text(&host.shm),
        subpath: None,
        read_only: false,
        recursive: false,
        propagation: libc::MS_PRIVATE,
    };
    let mut all = vec![
        filesystem("/proc", "proc", &[], NOSUID | NOEXEC | NODEV),
        filesystem("/dev", "tmpfs", &[("mode", "755"), ("size", "65536k")], NOSUID | STRICTATIME),
        filesystem("/dev/pts", "devpts", &pts, NOSUID | NOEXEC),
        filesystem("/dev/mqueue", "mqueue", &[], NOSUID | NOEXEC | NODEV),
        filesystem("/sys", "sysfs", &[], NOSUID | NOEXEC | NODEV | sys),
        shim::Mount { destination: "/sys/fs/cgroup".to_owned(), what: host.cgroup_mount.clone() },
        shim::Mount { destination: "/dev/shm".to_owned(), what: bind_shm },
    ];
    let replaced =
        |mount: &shim::Mount| spec.mounts.iter().any(|own| own.destination == Path::new(&mount.destination));
    all.retain(|mount| !replaced(mount));
    for (mount, layers) in spec.mounts.iter().zip(&host.mounted_layers) {
        let clean: PathBuf = mount.destination.components().collect();
        if !clean.is_absolute() {
            let reason = format!("destination {:?} is not absolute", mount.destination);
            return Err(Error::Invalid { field: "mounts", reason });
        }
        let what = match (&mount.source, layers) {
            (MountSource::Path(source), _) => Filesystem::Bind {
                source: text(source),
                subpath: mount.subpath.as_deref().map(text),
                read_only: mount.read_only,
                recursive: mount.recursive_read_only,
                propagation: match mount.propagation {
                    Propagation::Private => libc::MS_PRIVATE,
                    Propagation::HostToContainer => libc::MS_SLAVE,
                    Propagation::Bidirectional => libc::MS_SHARED,
                },
            },
            (MountSource::Image(_), Some(layers)) => Filesystem::Layers {
                layers_directory: text(&host.layers_directory),
                layers: layers.clone(),
                subpath: mount.subpath.as_deref().map(text),
                empty: text(&host.directory.join("empty")),
            },
            (MountSource::Image(image), None) => {
                return Err(Error::NotFound { what: crate::error::What::Image, id: image.clone() });
            }
        };
        all.push(shim::Mount { destination: text(&clean), what });
    }
    all.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    Ok(all)
}

/// In every container.
fn standard_devices() -> Vec<DeviceFile> {
    let all =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    all.map(|(name, major, minor)| DeviceFile {
        path: format!("/dev/{name}"),
        mode: libc::S_IFCHR | 0o666,
        major,
        minor,
        uid: 0,
        gid: 0,
    })
    .into()
}

/// Which devices may be used: the usual ones, terminals, and `more`. Making device files is harmless where using them is not allowed.
pub(super) fn device_rules(more: &[(DeviceFile, String)]) -> Vec<DeviceRule> {
    let rule =
        |kind, major, minor, access: &str| DeviceRule { kind, major, minor, access: access.to_owned() };
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    rules.extend(standard_devices().iter().map(|d| rule('c', Some(d.major), Some(d.minor), "rwm")));
    rules.push(rule('c', Some(5), Some(2), "rwm")); // ptmx
    rules.push(rule('c', Some(136), None, "rwm")); // terminals
    rules.extend(more.iter().map(|(device, access)| {
        let kind = if device.mode & libc::S_IFMT == libc::S_IFBLK { 'b' } else { 'c' };
        rule(kind, Some(device.major), Some(device.minor), access)
    }));
    rules
}

/// A signal by name (`SIGTERM`, `term`, `SIGRTMIN+3`) or number.
pub(super) fn signal(name: &str) -> Result<i32> {
    const NAMES: &[&str] = &[
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    const REALTIME_MIN: i32 = 34;
    const REALTIME_MAX: i32 = 64;
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    let number = short
        .parse::<i32>()
        .ok()
        .or_else(|| NAMES.iter().position(|known| *known == short).map(|at| at as i32 + 1))
        .or_else(|| short.strip_prefix("RTMIN").and_then(offset).map(|offset| REALTIME_MIN + offset))
        .or_else(|| short.strip_prefix("RTMAX").and_then(offset).map(|offset| REALTIME_MAX + offset));
    match number {
        Some(number @ 1..=REALTIME_MAX) => Ok(number),
        _ => Err(Error::Invalid { field: "signal", reason: format!("unknown signal {name:?}") }),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
