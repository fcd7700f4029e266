//! What is written down of sandboxes and containers, so that the next process finds them.

use crate::error::{Error, Result};
use crate::image::Image;
use crate::spec::{ContainerSpec, SandboxSpec};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A sandbox, as it was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) id: String,
    pub(super) created_at: Timestamp,
    pub(super) spec: SandboxSpec,
}

/// A container, as it was asked for and with what its image said then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) created_at: Timestamp,
    pub(super) spec: ContainerSpec,
    pub(super) image: Image,
}

/// Writes a record as a whole or not at all.
pub(super) fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(record)
        .map_err(|error| Error::io("encoding", path)(std::io::Error::from(error)))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(Error::io("writing", path))
}

/// Reads one; `None` where it is missing or damaged (a power cut while it was written).
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}
