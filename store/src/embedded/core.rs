//! What the writer and the readers share: the open database and its health.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use redb::{Database, ReadableDatabase};

use super::hub::Hub;
use super::read::Snapshot;
use super::record::{CURRENT, FORMAT, LOG, META, META_FORMAT, META_OLDEST, explain};
use crate::disk::{Backend, Disk};
use crate::{Error, Result};

/// How long a reader that met the writer's failure waits for the writer to say what is next. The writer needs as long
/// as redb's repair: a second for each gigabyte.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Core {
    /// For messages.
    pub path: String,
    /// Gone once the store is closed, and its lock with it.
    disk: RwLock<Option<Arc<dyn Disk>>>,
    pub hub: Hub,
    cache_bytes: usize,
    database: RwLock<Option<Arc<Database>>>,
    health: Mutex<Health>,
    healed: Condvar,
}

#[derive(Debug, Default)]
struct Health {
    /// The first failure that cannot be healed.
    broken: Option<String>,
    /// How many failures were dealt with.
    failures: u64,
}

/// What everything says after the store was closed.
pub(super) fn closed() -> Error {
    Error::Unavailable { message: "the store is closed".to_owned() }
}

/// Runs `work`, which may find a damaged file in ways that redb answers with a panic.
pub(super) fn guarded<T>(path: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(message), _) => message.clone(),
            (None, Some(message)) => (*message).to_owned(),
            (None, None) => "the engine panicked".to_owned(),
        };
        Err(Error::Corrupt { path: path.to_owned(), message })
    })
}

impl Core {
    /// Opens what is on the disk, or makes a store on an empty one. With `check`, every page is verified.
    pub fn open(path: String, disk: Arc<dyn Disk>, cache_bytes: usize, check: bool) -> Result<Core> {
        let core = Core {
            path,
            disk: RwLock::new(Some(disk)),
            hub: Hub::default(),
            cache_bytes,
            database: RwLock::default(),
            health: Mutex::default(),
            healed: Condvar::new(),
        };
        let database = guarded(&core.path, || core.open_database(check))?;
        *core.database.write() = Some(Arc::new(database));
        Ok(core)
    }

    fn open_database(&self, check: bool) -> Result<Database> {
        let explain = |error: redb::Error| explain(&self.path, error);
        let disk = self.disk.read().clone().ok_or_else(closed)?;
        let database = redb::Builder::new()
            .set_cache_size(self.cache_bytes)
            .set_check_integrity_on_open(check)
            .create_with_backend(Backend(disk))
            .map_err(|error| explain(error.into()))?;
        let transaction = database.begin_read().map_err(|error| explain(error.into()))?;
        let is_new = transaction.list_tables().map_err(|error| explain(error.into()))?.next().is_none();
        if is_new {
            self.create_tables(&database)?;
            return Ok(database);
        }
        let meta = transaction.open_table(META).map_err(|error| explain(error.into()))?;
        let format =
            meta.get(META_FORMAT).map_err(|error| explain(error.into()))?.map(|format| format.value());
        if format != Some(FORMAT) {
            let message = format!("the layout is {format:?}, this engine reads {FORMAT}");
            return Err(Error::Corrupt { path: self.path.clone(), message });
        }
        Snapshot::open(&self.path, &transaction)?;
        Ok(database)
    }

    fn create_tables(&self, database: &Database) -> Result<()> {
        let create = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                transaction.open_table(LOG)?;
                transaction.open_table(CURRENT)?;
                let mut meta = transaction.open_table(META)?;
                meta.insert(META_FORMAT, FORMAT)?;
                meta.insert(META_OLDEST, 0)?;
            }
            Ok(transaction.commit()?)
        };
        create().map_err(|error| explain(&self.path, error))
    }

    /// The open database.
    pub fn database(&self) -> Result<Arc<Database>> {
        self.database.read().clone().ok_or_else(closed)
    }

    /// How many more bytes the medium takes, where it can tell.
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.read().as_ref()?.free_bytes()
    }

    /// What stops all writes, if anything does.
    pub fn broken(&self) -> Option<Error> {
        self.health.lock().broken.clone().map(|message| Error::Broken { message })
    }

    /// From now on nothing is written.
    pub fn set_broken(&self, message: &str) {
        let mut health = self.health.lock();
        health.broken.get_or_insert_with(|| message.to_owned());
        health.failures += 1;
        self.healed.notify_all();
    }

    /// Opens the disk anew, after redb has latched an error that left it whole.
    pub fn reopen(&self) -> Result<()> {
        let mut database = self.database.write();
        // Closing needs the last handle to go; readers hold one for the length of a read.
        *database = None;
        let opened = guarded(&self.path, || self.open_database(false));
        let result = opened.map(|opened| *database = Some(Arc::new(opened)));
        drop(database);
        self.health.lock().failures += 1;
        self.healed.notify_all();
        result
    }

    /// Lets go of the disk and ends every watch.
    pub fn close(&self) {
        self.hub.close();
        *self.database.write() = None;
        *self.disk.write() = None;
    }

    /// Reads from the newest committed state.
    ///
    /// redb refuses reads as well after a failed write. Where the store goes on (a full disk), the read is done once more.
    pub fn read<T>(&self, mut read: impl FnMut(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let failures = self.health.lock().failures;
        match self.read_once(&mut read) {
            Err(Error::Broken { .. } | Error::Unavailable { .. }) if self.healed_since(failures) => {
                self.read_once(&mut read)
            }
            result => result,
        }
    }

    fn read_once<T>(&self, read: &mut impl FnMut(&Snapshot<'_>) -> Result<T>) -> Result<T> {
        let database = self.database()?;
        guarded(&self.path, || {
            let transaction = database.begin_read().map_err(|error| explain(&self.path, error))?;
            read(&Snapshot::open(&self.path, &transaction)?)
        })
    }

    /// Waits until the writer has dealt with the failure that the reader met; whether the store goes on.
    fn healed_since(&self, failures: u64) -> bool {
        if self.database.read().is_none() {
            return false;
        }
        let mut health = self.health.lock();
        if health.failures == failures && health.broken.is_none() {
            self.healed.wait_for(&mut health, REOPEN_WAIT_MAX);
        }
        health.broken.is_none() && health.failures != failures
    }
}
