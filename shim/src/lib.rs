//! What the daemon and the shim of a sandbox say to each other.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON; file descriptors travel with a frame's first byte. The daemon sends
//! [`Request`]s, the shim answers each with one [`Reply`] of the same number and pushes [`Notice`]s in between.
//! The program itself is `main.rs`; this library holds only the words, so that both sides mean the same.

use serde::{Deserialize, Serialize};

/// No frame is larger: a start request carries a whole environment and mount list, and no more.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// No frame carries more descriptors: three streams.
pub const FRAME_FDS_MAX: usize = 4;

/// The file in a container's directory that tells how it ended, written by the shim as an [`Ended`].
pub const EXIT_FILE: &str = "exit.json";

/// What the daemon sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The reply carries the same.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// What the shim is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Enter the sandbox's namespaces. First, and once.
    Sandbox(Box<Sandbox>),
    /// Start a container. Answered with [`Answer::Started`] when its program runs.
    Start(Box<Start>),
    /// Run a program in a container. Carries up to three descriptors (stdin, stdout, stderr) as `streams` says; with a terminal the
    /// answer carries its controlling side. Answered with [`Answer::Executing`] when the program runs.
    Exec(Box<Exec>),
    /// Send a signal to a container's first process, or to every process of it.
    Kill {
        /// The container.
        container: String,
        /// The signal's number.
        signal: i32,
        /// Every process.
        all: bool,
    },
    /// Kill a program that [`Call::Exec`] started.
    KillExec {
        /// The number of the request that started it.
        exec: u64,
    },
    /// Join a container's streams. Carries the descriptors that `streams` says.
    Attach {
        /// The container.
        container: String,
        /// Which descriptors come with it.
        streams: Streams,
    },
    /// Tell a container's terminal its size.
    Resize {
        /// The container.
        container: String,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Close the log file and open its path anew.
    ReopenLog {
        /// The container.
        container: String,
    },
    /// What containers run here.
    List,
    /// Kill everything and leave. Answered when nothing is left.
    Shutdown,
}

/// Which of the three streams descriptors are given for, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The end that the program reads from.
    pub stdin: bool,
    /// The end that the program writes to.
    pub stdout: bool,
    /// The end that the program complains to.
    pub stderr: bool,
}

/// The namespaces that all containers of a sandbox share.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sandbox {
    /// Host name in a namespace of its own; `None` stays in the machine's.
    pub hostname: Option<String>,
    /// Network namespace to join; `None` stays in the machine's.
    pub network: Option<String>,
    /// Stay in the machine's IPC namespace.
    pub host_ipc: bool,
    /// Stay in the machine's PID namespace.
    pub host_pid: bool,
    /// One PID namespace for all containers, with a small init of its own.
    pub shared_pid: bool,
    /// `a/b/c` below `/proc/sys`, and the value.
    pub sysctls: Vec<(String, String)>,
}

/// What may go wrong with a process that does not exist yet, in words for people, and the exit code it then shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Upstream's words.
    pub message: String,
    /// 126, 127 or 128 where a program could not be run; else 0.
    pub exit_code: i32,
}

impl Failure {
    /// A failure that is not about a program.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 0 }
    }

    /// A failure to run a program.
    pub fn program(exit_code: i32, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code }
    }
}

/// What the shim sends.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// To a request.
    Reply(Reply),
    /// Unasked.
    Notice(Notice),
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The request's number.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// What came of a request that worked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// A container's program runs.
    Started(Running),
    /// A program runs in a container. Its end comes as [`Notice::ExecEnded`].
    Executing,
    /// What runs here.
    Running {
        /// The shim itself.
        pid: u32,
        /// Containers whose programs run.
        containers: Vec<Running>,
    },
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The container.
    pub container: String,
    /// Its first process, on the machine.
    pub pid: i32,
    /// When it was started, ns since 1970.
    pub started_ns: i64,
    /// Who it runs as.
    pub runs_as: RunsAs,
}

/// Who a program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsAs {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, from the image's `/etc/passwd`.
    pub home: String,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The container.
    pub container: String,
    /// Exit code; 128 + n where signal n ended it.
    pub exit_code: i32,
    /// The kernel killed a process of it for memory.
    pub out_of_memory: bool,
    /// Why it could not be started, where it could not.
    pub start_error: Option<String>,
    /// When it was started, ns since 1970; 0 if never.
    pub started_ns: i64,
    /// When it ended, ns since 1970.
    pub finished_ns: i64,
    /// Who it ran as.
    pub runs_as: Option<RunsAs>,
}

/// What the shim tells unasked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Notice {
    /// A container's program runs.
    Started(Running),
    /// A container ended.
    Ended(Ended),
    /// A program that [`Call::Exec`] started ended.
    ExecEnded {
        /// The number of the request that started it.
        exec: u64,
        /// Exit code; 128 + n where signal n ended it.
        exit_code: i32,
    },
    /// The kernel killed a process of the container for memory.
    OutOfMemory {
        /// The container.
        container: String,
    },
}

/// A container to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// Its id.
    pub container: String,
    /// Where its [`EXIT_FILE`] goes.
    pub directory: String,
    /// Its control groups.
    pub cgroup: Cgroup,
    /// Its root.
    pub root: Root,
    /// On top of the root, in this order.
    pub mounts: Vec<Mount>,
    /// Device files in `/dev`, unless a mount of the caller covers it.
    pub devices: Vec<DeviceFile>,
    /// Paths to hide.
    pub masked_paths: Vec<String>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<String>,
    /// Who it runs as.
    pub user: User,
    /// What to run.
    pub process: Process,
    /// An input that stays open.
    pub stdin: bool,
    /// Close the input when the first attached session's ends.
    pub stdin_once: bool,
    /// Where its output goes, in the CRI log format.
    pub log_path: Option<String>,
}

/// A container's control groups: absolute paths on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// v1: every `tasks` file that a process of the container must enter. Not `cgroup.procs`: entering by that makes the kernel stop all forks
    /// of the machine for a grace period, some milliseconds.
    pub tasks: Vec<String>,
    /// v2: the directory that processes are born in, which costs nothing.
    pub born_in: Option<String>,
    /// One `cgroup.procs`, to find what is in the group.
    pub procs: String,
    /// The file that counts memory kills: v2's `memory.events` or v1's `memory.oom_control`.
    pub memory_events: Option<String>,
    /// v1's `cgroup.event_control`, to hear of memory kills.
    pub event_control: Option<String>,
    /// v2's `cgroup.kill`.
    pub kill: Option<String>,
}

/// The root of a container: an overlay.
#[derive(Debug, Serialize, Deserialize)]
pub struct Root {
    /// Layers are relative to here: the kernel bounds the length of the whole list.
    pub layers_directory: String,
    /// The topmost first.
    pub layers: Vec<String>,
    /// What the container writes.
    pub upper: String,
    /// Needed by overlay.
    pub work: String,
    /// An empty directory to mount on.
    pub target: String,
    /// Not writable in the end.
    pub read_only: bool,
}

/// Something to mount below the root. Destinations are resolved inside it, whatever links an image contains.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, in the container.
    pub destination: String,
    /// What.
    pub what: Filesystem,
}

/// What to mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Filesystem {
    /// A new instance of a kernel file system.
    New {
        /// `proc`, `tmpfs`, `sysfs`, `devpts`, `mqueue`, `cgroup2`.
        kind: String,
        /// Keys and values.
        options: Vec<(String, String)>,
        /// `MOUNT_ATTR_*` bits.
        attributes: u64,
    },
    /// One directory with all v1 hierarchies below it.
    Cgroup1 {
        /// Directory and options (`cpu`, `name=systemd`) of each.
        hierarchies: Vec<(String, Vec<String>)>,
        /// Not writable.
        read_only: bool,
    },
    /// Files of the machine.
    Bind {
        /// Where they are.
        source: String,
        /// Below `source`, resolved without leaving it; made as a directory where missing.
        subpath: Option<String>,
        /// Not writable.
        read_only: bool,
        /// Nor what is mounted below.
        recursive: bool,
        /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`.
        propagation: u64,
    },
    /// The files of an image, read-only.
    Layers {
        /// As [`Root::layers_directory`].
        layers_directory: String,
        /// The topmost first.
        layers: Vec<String>,
        /// Below it; must exist.
        subpath: Option<String>,
        /// An empty directory, so that a single layer can be an overlay too.
        empty: String,
    },
}

/// A device file to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeviceFile {
    /// Absolute, in the container.
    pub path: String,
    /// Type and permissions, as `mknod` takes them.
    pub mode: u32,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Who to run as, names not looked up yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `user[:group]`, each a name or a number; empty means root.
    pub name: String,
    /// More groups.
    pub groups: Vec<u32>,
    /// Add the groups that the image's `/etc/group` lists the user in.
    pub groups_of_image: bool,
}

/// A program and what confines it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// A terminal.
    pub tty: bool,
    /// Capabilities as bits.
    pub capabilities: u64,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// A file of BPF programs: each a `u32` count and that many 8-byte instructions.
    pub seccomp: Option<String>,
    /// `RLIMIT_*` number, soft, hard.
    pub rlimits: Vec<(i32, u64, u64)>,
    /// What `/proc/self/oom_score_adj` should be.
    pub oom_score_adj: Option<i32>,
}

/// A program to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The container.
    pub container: String,
    /// What to run. It runs as whom the container runs.
    pub process: Process,
    /// The container's control groups.
    pub cgroup: Cgroup,
    /// Which descriptors come with the request.
    pub streams: Streams,
}
