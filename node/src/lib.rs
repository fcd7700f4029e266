//! The kubelet: drives a [`runtime::Runtime`] until this machine runs the pods that the API assigns to it, and tells the API how they are.
//!
//! Start at [`run`]; what it needs is in [`NodeOptions`], what gives pods their network is a [`PodNetwork`]. Inside: `pod_worker` is the
//! task of one pod, which asks `plan` (pure: what to do next) and `status` (pure: what to show), `volume` makes files, `probe` asks
//! containers how they are, `server` is the HTTPS API on port 10250.
//!
//! It never talks to other components than through the API and these two traits, never polls (exits, changes and timers wake it), and
//! keeps nothing of its own that the runtime's labels and the API do not hold: a restart adopts what runs.

mod admission;
mod amount;
mod back_off;
mod container_spec;
mod context;
mod downward;
mod env;
mod eviction;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hook;
mod image;
mod kubelet;
mod log_file;
mod log_rotation;
mod network;
mod node_object;
mod objects;
mod observed;
mod options;
mod plan;
mod pods;
mod probe;
mod resize;
mod resources;
mod server;
mod spec;
mod status;
mod volume;
mod worker;

pub use kubelet::{Error, remove_volumes, run};
pub use network::{Attached, HostPort, NetworkError, PodAttachment, PodNetwork};
pub use options::{EvictionThresholds, NodeOptions, ServerOptions, Taint};
