//! Puts a copy in a store's place.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::core::{Core, guarded};
use super::record::{META, META_FLOOR, META_OLDEST, META_RESERVED, explain};
use super::{Embedded, Options, backup};
use crate::disk::{FileDisk, sync_parent};
use crate::{Error, Result, Revision, Store};

/// How many revisions are left out after those of the copy: more than the store that is replaced can have taken since.
/// Upstream: `etcdutl snapshot restore --bump-revision`, with the figure of its documentation.
const LEAP_LEN: u64 = 1_000_000_000;
/// Stores that were put aside, at one place.
const ASIDE_MAX: usize = 1000;

/// What [`Embedded::restore`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision of the copy.
    pub revision: Revision,
    /// Where the store that was there is now.
    pub aside: Option<PathBuf>,
}

/// See [`Embedded::restore`].
pub(super) async fn restore(copy: &Path, path: &Path) -> Result<Restored> {
    let unopened = |of: &Path| {
        let path = of.display().to_string();
        move |error: io::Error| match error.kind() {
            ErrorKind::StorageFull => Error::Full,
            _ => Error::Unopened { path: path.clone(), message: error.to_string() },
        }
    };
    // Nobody may have the present one open. The lock is kept until it is replaced.
    let present = match path.try_exists().map_err(unopened(path))? {
        true => Some(FileDisk::open(path)?),
        false => None,
    };
    let unfinished = path.with_extension("restoring");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(unopened(&unfinished)(error)),
        _ => {}
    }
    // The copy itself is only read: opening a store may repair it, and it may lie where nobody can write.
    fs::copy(copy, &unfinished).map_err(unopened(copy))?;
    let prepared = prepare(copy, &unfinished).await;
    let revision = prepared.inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })?;
    let aside = match present {
        Some(_) => Some(put_aside(path).map_err(unopened(path))?),
        None => None,
    };
    // Whatever happens, there is a whole store at `path`: the old one until this, then the new one.
    fs::rename(&unfinished, path).and_then(|()| sync_parent(path)).map_err(unopened(path))?;
    Ok(Restored { revision, aside })
}

/// Checks the copied file, forgets its past and lets its revisions leap.
async fn prepare(copy: &Path, unfinished: &Path) -> Result<Revision> {
    backup::validate(unfinished).map_err(|error| named(error, copy))?;
    let store = Embedded::open(unfinished, Options::default())?;
    let newest = store.revision().await?;
    let compacted = store.compact(newest).await;
    store.close().await;
    compacted?;
    let name = unfinished.display().to_string();
    let core = Core::open(
        name.clone(),
        Arc::new(FileDisk::open(unfinished)?),
        Options::default().cache_bytes,
        false,
    )?;
    let database = core.database()?;
    let first = newest + LEAP_LEN;
    guarded(&name, || {
        let set = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                for (name, number) in [(META_FLOOR, first), (META_OLDEST, first), (META_RESERVED, 0)] {
                    meta.insert(name, number)?;
                }
            }
            Ok(transaction.commit()?)
        };
        set().map_err(|error| explain(&name, error))
    })?;
    drop(database);
    core.close();
    Ok(newest)
}

/// The error of a file that stands for `copy`.
fn named(error: Error, copy: &Path) -> Error {
    let path = copy.display().to_string();
    match error {
        Error::Corrupt { message, .. } => Error::Corrupt { path, message },
        Error::Unopened { message, .. } => Error::Unopened { path, message },
        error => error,
    }
}

/// Gives the store a second name, which stays when the first is another file's.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=ASIDE_MAX {
        let aside = path.with_extension(format!("replaced-{number}"));
        match fs::hard_link(path, &aside) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return sync_parent(path).map(|()| aside),
        }
    }
    Err(io::Error::other(format!("{ASIDE_MAX} stores are put aside there already: remove some")))
}
