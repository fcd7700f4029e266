//! What a caller hears: states, exits, numbers, events.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A sandbox as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    /// Its id.
    pub id: String,
    /// Containers can be started in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What was asked for.
    pub spec: crate::SandboxSpec,
    /// The process that holds it, where ready.
    pub pid: Option<u32>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// No process yet.
    Created,
    /// Its program runs.
    Running,
    /// Its program ended, or could not be started.
    Exited,
}

impl std::fmt::Display for ContainerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
        })
    }
}

/// Why a container is `Exited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Another exit code.
    Error,
    /// The kernel killed one of its processes for memory.
    OOMKilled,
    /// It never ran.
    StartError,
    /// What became of it is not known: its shim was lost, or the machine was restarted.
    Unknown,
}

impl ExitReason {
    /// The word that goes into a status.
    pub fn as_str(self) -> &'static str {
        match self {
            ExitReason::Completed => "Completed",
            ExitReason::Error => "Error",
            ExitReason::OOMKilled => "OOMKilled",
            ExitReason::StartError => "StartError",
            ExitReason::Unknown => "ContainerStatusUnknown",
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code; 128 + n where signal n ended it.
    pub code: i32,
    /// Why.
    pub reason: ExitReason,
    /// More words, for people.
    pub message: String,
}

/// Who a container's program runs as, after all names were looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsAs {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// The id of its image (`spec.image` is what was asked for).
    pub image_id: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its program was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// The first process, on the machine.
    pub pid: Option<u32>,
    /// Who it runs as, once started.
    pub runs_as: Option<RunsAs>,
    /// What was asked for; `limits` are those of the last update.
    pub spec: crate::ContainerSpec,
    /// The signal that asks it to end.
    pub stop_signal: String,
    /// Where its writable layer is, for whoever measures.
    pub writable_layer: PathBuf,
}

/// What a control group uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// When it was measured.
    pub at: Timestamp,
    /// Processor time since the start, in ns.
    pub cpu_ns: u64,
    /// Memory in use, page cache included.
    pub memory_usage_bytes: u64,
    /// Memory in use that cannot be had back at once (usage less inactive file pages).
    pub memory_working_set_bytes: u64,
    /// Anonymous memory.
    pub memory_rss_bytes: u64,
    /// The bound, where one is set.
    pub memory_limit_bytes: Option<u64>,
    /// Swap in use.
    pub swap_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that needed the disk.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Pressure stall totals in µs (`cpu some`, `memory some`, …), where the kernel has them.
    pub pressure: BTreeMap<String, u64>,
}

/// What files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// Where images lie and what they take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUsage {
    /// The directory.
    pub path: PathBuf,
    /// What all layers take, each counted once.
    pub bytes: u64,
    /// Files and directories in all layers.
    pub inodes: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A container's program runs.
    Started {
        /// Its sandbox.
        sandbox: String,
        /// The container.
        container: String,
        /// When.
        at: Timestamp,
    },
    /// A container's program ended.
    Exited {
        /// Its sandbox.
        sandbox: String,
        /// The container.
        container: String,
        /// How.
        exit: Exit,
        /// When.
        at: Timestamp,
    },
    /// The kernel killed a process of the container for memory; the container may live on.
    OutOfMemory {
        /// Its sandbox.
        sandbox: String,
        /// The container.
        container: String,
        /// When.
        at: Timestamp,
    },
    /// A sandbox is no longer ready though nobody stopped it.
    SandboxLost {
        /// The sandbox.
        sandbox: String,
    },
    /// The reader fell behind; `count` events are missing.
    Lost {
        /// How many.
        count: u64,
    },
}
