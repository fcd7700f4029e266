//! `cargo xtask crash`: the server is killed under load, and must have lost nothing.

use crate::kit::{call, root};
use anyhow::Result;
use clap::Args;
use std::process::Command;

/// How often.
#[derive(Args)]
pub struct Options {
    /// How often it is killed.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 5 }
    }
}

/// Runs clipper's `crash` test.
///
/// # Errors
/// Something was lost, or did not start again.
pub fn run(options: &Options) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--package", "clipper", "--test", "crash", "--locked", "--", "--nocapture"])
        .env("CLIPPER_CRASH_ROUNDS", options.rounds.to_string())
        .current_dir(root());
    call(command)
}
