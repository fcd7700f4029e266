//! Assigns pods to nodes. Upstream: `pkg/scheduler`.
//!
//! The deciding parts are pure: [`view`] (what a pod and a node look like to the scheduler), [`snapshot`], the
//! [`plugins`], [`cycle`] (one pod against one snapshot), [`preempt`] and [`queue`] (which takes `now`). Only the loop
//! talks to the API. It never runs anything on a node and keeps nothing that is not derived from the API.

pub mod cycle;
pub mod plugin;
pub mod plugins;
pub mod preempt;
pub mod queue;
mod run;
pub mod snapshot;
pub mod view;

pub use run::{Options, run};
