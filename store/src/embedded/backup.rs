//! A copy of a running store, as one file that can be put in its place.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::core::{Core, guarded};
use super::record::{CURRENT, LOG, META, Record, explain};
use crate::disk::{Backend, FileDisk, sync_parent};
use crate::{Error, Result, Revision};

/// Memory of the copy's own database.
const CACHE_BYTES: usize = 4 << 20;
/// Entries copied in one transaction: with values of the usual size a few megabytes.
const COPY_LEN_MAX: usize = 2048;
/// Bytes copied in one transaction, give or take one entry.
const COPY_BYTES_MAX: usize = 8 << 20;

/// Copies one committed state to `path`, which must not exist; returns its revision.
pub(super) fn backup(core: &Core, path: &Path) -> Result<Revision> {
    let name = path.display().to_string();
    let unopened = |error: std::io::Error| Error::Unopened { path: name.clone(), message: error.to_string() };
    if path.try_exists().map_err(unopened)? {
        return Err(Error::Unopened { path: name, message: "a file is already there".to_owned() });
    }
    let unfinished = path.with_extension("unfinished");
    if unfinished.try_exists().map_err(unopened)? {
        std::fs::remove_file(&unfinished).map_err(unopened)?;
    }
    let from = core.database()?;
    let copied = guarded(&name, || {
        let transaction = from.begin_read().map_err(|error| explain(&core.path, error))?;
        let disk = FileDisk::open(&unfinished)?;
        let revision = copy_all(&transaction, disk).map_err(|error| explain(&name, error))?;
        Ok(revision)
    });
    let revision = copied.inspect_err(|_| {
        let _ = std::fs::remove_file(&unfinished);
    })?;
    std::fs::rename(&unfinished, path).and_then(|()| sync_parent(path)).map_err(unopened)?;
    Ok(revision)
}

fn copy_all(from: &ReadTransaction, disk: FileDisk) -> Result<Revision, redb::Error> {
    let to = redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(Backend(Arc::new(disk)))?;
    copy_table(from, &to, LOG, |value| value.len())?;
    copy_table(from, &to, CURRENT, |_| size_of::<u64>())?;
    // Last, and with it the format: a copy that was cut off is not taken for a store.
    copy_table(from, &to, META, |_| size_of::<u64>())?;
    let revision = from.open_table(LOG)?.last()?.map_or(0, |(revision, _)| revision.value());
    to.close()?;
    Ok(revision)
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    from: &ReadTransaction,
    to: &Database,
    table: TableDefinition<'static, K, V>,
    bytes_of: impl for<'v> Fn(V::SelfType<'v>) -> usize,
) -> Result<(), redb::Error> {
    let source = from.open_table(table)?;
    let mut entries = source.iter()?;
    let mut more = true;
    while more {
        let transaction = to.begin_write()?;
        {
            let mut target = transaction.open_table(table)?;
            let (mut len, mut bytes) = (0, 0);
            while more && len < COPY_LEN_MAX && bytes < COPY_BYTES_MAX {
                match entries.next().transpose()? {
                    Some((key, value)) => {
                        target.insert(key.value(), value.value())?;
                        len += 1;
                        bytes += bytes_of(value.value());
                    }
                    None => more = false,
                }
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

/// Checks a store that nobody has open: every page's checksum, and that what is current is in the log. Returns its revision.
pub(super) fn validate(path: &Path) -> Result<Revision> {
    let name = path.display().to_string();
    if !path.is_file() {
        return Err(Error::Unopened { path: name, message: "there is no file".to_owned() });
    }
    let disk = Arc::new(FileDisk::open(path)?);
    if crate::disk::Disk::is_empty(&*disk).unwrap_or(true) {
        return Err(Error::Corrupt { path: name, message: "the file is empty".to_owned() });
    }
    let core = Core::open(name.clone(), disk, CACHE_BYTES, true)?;
    let database = core.database()?;
    let corrupt = |message: String| Error::Corrupt { path: name.clone(), message };
    guarded(&name, || {
        let transaction = database.begin_read().map_err(|error| explain(&name, error))?;
        let log = transaction.open_table(LOG).map_err(|error| explain(&name, error))?;
        let current = transaction.open_table(CURRENT).map_err(|error| explain(&name, error))?;
        for item in current.iter().map_err(|error| explain(&name, error))? {
            let (key, revision) = item.map_err(|error| explain(&name, error))?;
            let bytes = log.get(revision.value()).map_err(|error| explain(&name, error))?;
            let record = bytes.as_ref().and_then(|bytes| Record::decode(bytes.value()));
            if record.is_none_or(|record| record.key != key.value() || record.value.is_none()) {
                return Err(corrupt(format!(
                    "the log has no write of the key at revision {}",
                    revision.value()
                )));
            }
        }
        let newest = log.last().map_err(|error| explain(&name, error))?;
        Ok(newest.map_or(0, |(revision, _)| revision.value()))
    })
}
