//! A copy of the store as a verb of the control socket, and the same on a data directory without a process.

use crate::control_socket::{Progress, Verb};
use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::embedded::Embedded;

/// The verb's name; its argument is the file.
pub const VERB: &str = "backup";

/// Where the embedded store is.
pub fn store_path(data_dir: &Path) -> PathBuf {
    data_dir.join("store/data.redb")
}

/// Copies a store to a file that must not exist; its revision.
///
/// # Errors
/// Says what to do where the file is there already.
pub async fn run(store: &Embedded, file: &Path) -> Result<Value> {
    if file.try_exists().with_context(|| format!("cannot look at {}", file.display()))? {
        bail!("{} is there already: choose another name", file.display());
    }
    let revision = store.backup(file).await.with_context(|| format!("cannot copy to {}", file.display()))?;
    Ok(json!({ "revision": revision }))
}

/// The verb of a process whose objects are here, or in etcd.
pub struct Backup(pub Option<Arc<Embedded>>);

impl Verb for Backup {
    fn name(&self) -> &'static str {
        VERB
    }

    fn run(&self, arguments: Vec<String>, _: Progress) -> BoxFuture<'_, Result<Value>> {
        Box::pin(async move {
            let [file] = arguments.as_slice() else { bail!("one file is needed") };
            match &self.0 {
                Some(store) => run(store, Path::new(file)).await,
                None => bail!("the objects are in etcd: copy them with `etcdctl snapshot save {file}`"),
            }
        })
    }
}
