//! `clipper down`: stops what runs in a data directory.

use super::Down;
use crate::instance;
use crate::local_node::{self, Place};
use anyhow::{Context as _, Result};
use std::time::Duration;

/// How long the process may take to end after SIGTERM before it is killed.
const TERM_MAX: Duration = Duration::from_secs(15);

/// Stops the process of the data directory, removes what its node made, then the data if asked. Safe to repeat.
pub(super) fn run(down: &Down) -> Result<()> {
    if !down.data_dir.exists() {
        return Ok(());
    }
    instance::stop(&down.data_dir, TERM_MAX)?;
    let _guard = instance::Instance::claim(&down.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(local_node::down(&Place::of(&down.data_dir)?))?;
    if down.purge {
        std::fs::remove_dir_all(&down.data_dir)
            .with_context(|| format!("cannot remove {}", down.data_dir.display()))?;
    }
    Ok(())
}
