//! `clipper down`: stops what runs in a data directory.

use super::Down;
use crate::instance;
use anyhow::{Context as _, Result};
use std::time::Duration;

/// How long the process may take to end after SIGTERM before it is killed.
const TERM_MAX: Duration = Duration::from_secs(15);

/// Stops the process of the data directory, then removes the data if asked. Safe to repeat.
pub(super) fn run(down: &Down) -> Result<()> {
    if !down.data_dir.exists() {
        return Ok(());
    }
    instance::stop(&down.data_dir, TERM_MAX)?;
    if down.purge {
        let _guard = instance::Instance::claim(&down.data_dir)?;
        std::fs::remove_dir_all(&down.data_dir)
            .with_context(|| format!("cannot remove {}", down.data_dir.display()))?;
    }
    Ok(())
}
