//! What a caller asks for: sandboxes, containers, limits, mounts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The network of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The machine's own.
    #[default]
    Host,
    /// The network namespace at this path. It belongs to the caller.
    Path(PathBuf),
}

/// Namespaces that containers share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The name that `uname -n` shows; `None` leaves the machine's own host name (and its UTS namespace).
    pub hostname: Option<String>,
    /// The network.
    pub network: Network,
    /// All containers see each other's processes.
    pub shared_pid: bool,
    /// Containers see the machine's processes. Overrules `shared_pid`.
    pub host_pid: bool,
    /// Containers see the machine's shared memory and message queues.
    pub host_ipc: bool,
    /// The sandbox's own control group, from the root of the hierarchy (`/clipper/burstable/x`). It is made, with missing ancestors, and removed
    /// with the sandbox; containers get groups below it.
    pub cgroup: String,
    /// Limits of the sandbox as a whole.
    pub limits: Limits,
    /// `net.…`, `kernel.shm…`, `kernel.msg…`, `kernel.sem`, `fs.mqueue.…`; only what belongs to namespaces that the sandbox owns.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm`, shared by all containers; `None` means 64 MiB.
    pub shm_bytes: Option<u64>,
    /// For the caller to find it again.
    pub labels: BTreeMap<String, String>,
    /// Made where missing; containers' logs are usually below.
    pub log_directory: Option<PathBuf>,
}

/// Bounds on what a control group may use. `None` means not set, or in an update: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight against siblings (2 to 262144, as in v1).
    pub cpu_shares: Option<u64>,
    /// Processor time per period in µs; -1 means no bound.
    pub cpu_quota_us: Option<i64>,
    /// The period in µs.
    pub cpu_period_us: Option<u64>,
    /// Processors, `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, `0-1`.
    pub cpuset_mems: Option<String>,
    /// Memory in bytes; -1 means no bound.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes (as in v1); -1 means no bound.
    pub memory_swap_bytes: Option<i64>,
    /// Memory that is not reclaimed (v2 `memory.min`).
    pub memory_min_bytes: Option<u64>,
    /// Memory above which the group is throttled (v2 `memory.high`).
    pub memory_high_bytes: Option<u64>,
    /// One process over the bound takes the whole group with it (v2 `memory.oom.group`).
    pub oom_kill_group: Option<bool>,
    /// Processes and threads; -1 means no bound.
    pub pids: Option<i64>,
    /// Bytes per page size, `2MB` or `1GB`.
    pub hugepages: BTreeMap<String, u64>,
}

/// Who the program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// As the image says, else root.
    #[default]
    Image,
    /// `name`, `uid`, `name:group`, `uid:gid`, …: names are looked up in the image's own `/etc/passwd` and `/etc/group`.
    Named(String),
    /// By number. Without a group: the image's `/etc/passwd` entry for it, else 0.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: Option<u32>,
    },
}

/// Changes to the default set of capabilities. Names with or without `CAP_`; `ALL` is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added to the default set.
    pub add: Vec<String>,
    /// Taken away, before adding.
    pub drop: Vec<String>,
}

/// Which system calls the program may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The built-in profile.
    #[default]
    RuntimeDefault,
    /// All.
    Unconfined,
    /// An OCI seccomp profile (JSON) at this path.
    Localhost(PathBuf),
}

/// Where a mount's files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the machine.
    Path(PathBuf),
    /// The (read-only) files of an image, by id or reference.
    Image(String),
}

/// How mounts made later travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// They do not.
    #[default]
    Private,
    /// What the machine mounts below appears in the container.
    HostToContainer,
    /// And what the container mounts below appears on the machine. Only for privileged containers.
    Bidirectional,
}

/// Files that come from elsewhere. `/etc/hosts`, `/etc/resolv.conf` and the like are ordinary mounts that the caller makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where they are.
    pub source: MountSource,
    /// A path below `source` (after resolving links, which may not lead out of it); made as a directory where missing. For images: must exist.
    pub subpath: Option<PathBuf>,
    /// Absolute, in the container. Made where missing.
    pub destination: PathBuf,
    /// No writing through this mount.
    pub read_only: bool,
    /// Nor through mounts below it.
    pub recursive_read_only: bool,
    /// How later mounts travel.
    pub propagation: Propagation,
}

/// A device of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the machine.
    pub host_path: PathBuf,
    /// In the container.
    pub container_path: PathBuf,
    /// Some of `rwm`.
    pub permissions: String,
}

/// A bound per process. What the machine does not allow us to raise is lowered to what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`.
    pub kind: String,
    /// What applies.
    pub soft: u64,
    /// What it may be raised to.
    pub hard: u64,
}

/// A program in an image, and how it is confined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image's id or a reference.
    pub image: String,
    /// Replaces the image's entrypoint (and drops its arguments).
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// On top of the image's environment.
    pub env: Vec<(String, String)>,
    /// Working directory; `None` means the image's, else `/`. Made where missing.
    pub cwd: Option<String>,
    /// Who it runs as.
    pub user: User,
    /// More groups.
    pub supplementary_groups: Vec<u32>,
    /// Do not add the groups that the image's `/etc/group` gives the user.
    pub supplementary_groups_strict: bool,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// All capabilities, all devices, `/sys` writable, no seccomp, nothing masked.
    pub privileged: bool,
    /// The root is not writable.
    pub read_only_root: bool,
    /// Set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// System calls.
    pub seccomp: Seccomp,
    /// Hidden; `None` means the usual list.
    pub masked_paths: Option<Vec<String>>,
    /// Not writable; `None` means the usual list.
    pub readonly_paths: Option<Vec<String>>,
    /// Files from elsewhere, in order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Bounds.
    pub limits: Limits,
    /// Per process bounds.
    pub rlimits: Vec<Rlimit>,
    /// How eagerly the kernel kills it (-1000 to 1000). Lower than our own is not always allowed; the nearest allowed is taken.
    pub oom_score_adj: Option<i32>,
    /// A terminal.
    pub tty: bool,
    /// An input that stays open for [`crate::Runtime::attach`].
    pub stdin: bool,
    /// The input ends when the first attached session ends.
    pub stdin_once: bool,
    /// Where its output goes, in the CRI log format; `None` discards.
    pub log_path: Option<PathBuf>,
    /// Overrules the image's stop signal.
    pub stop_signal: Option<String>,
    /// For the caller to find it again.
    pub labels: BTreeMap<String, String>,
}
