//! `clipper backup` and `clipper restore`: copies of the store.

use crate::backup::{self, store_path};
use crate::control_socket;
use crate::instance::{Instance, InstanceError};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;
use std::path::{Path, PathBuf};
use store::embedded::{Embedded, Options};

#[derive(Args)]
pub(crate) struct Copy {
    /// The copy.
    file: PathBuf,
    /// Everything the process keeps lies below it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/clipper")]
    data_dir: PathBuf,
}

/// What a copy is worth nothing without.
fn keys(data_dir: &Path) -> String {
    format!("secrets in it are encrypted under {}", data_dir.join("pki/encryption.key").display())
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Makes a copy, by way of the running process if there is one.
pub(super) fn backup(copy: &Copy) -> Result<()> {
    let Copy { file, data_dir } = copy;
    // The process that is asked has another working directory.
    let file = std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
    let done = block_on(make(data_dir, &file))?;
    println!("{} holds revision {}; {}", file.display(), done["revision"], keys(data_dir));
    Ok(())
}

async fn make(data_dir: &Path, file: &Path) -> Result<Value> {
    let Some(name) = file.to_str() else { bail!("{} is not valid UTF-8", file.display()) };
    if let Some(done) = control_socket::call(data_dir, backup::VERB, vec![name.to_owned()], |_| ()).await? {
        return Ok(done);
    }
    let path = store_path(data_dir);
    if !path.exists() {
        bail!("there is no store at {}: say where with --data-dir", path.display());
    }
    let _instance = Instance::claim(data_dir)?;
    let store = Embedded::open(&path, Options::default())?;
    let done = backup::run(&store, file).await;
    store.close().await;
    done
}

/// Puts a copy in the store's place. Nothing may run there.
pub(super) fn restore(copy: &Copy) -> Result<()> {
    let Copy { file, data_dir } = copy;
    if !file.is_file() {
        bail!("there is no file {}", file.display());
    }
    let instance = Instance::claim(data_dir);
    let _instance = instance.map_err(|error| match error.downcast_ref::<InstanceError>() {
        Some(InstanceError::Owned { .. }) => error.context("a store is restored while nothing runs on it"),
        None => error,
    })?;
    let path = store_path(data_dir);
    let folder = path.parent().unwrap_or(data_dir);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let done = block_on(async { Ok(Embedded::restore(file, &path).await?) })
        .with_context(|| format!("{} was not restored, and nothing was changed", file.display()))?;
    println!("restored revision {}; {}", done.revision, keys(data_dir));
    if let Some(aside) = done.aside {
        println!("the store that was there is now {}", aside.display());
    }
    Ok(())
}
