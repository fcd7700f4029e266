//! The engine of one machine: redb under one writer that commits in groups.
//!
//! Start at [`Embedded`]. Within: `writer` decides and commits, `read` shows one committed state, `hub` and `watch` tell
//! what was committed, `record` is the layout, `core` what they share, `backup` copies.

mod backup;
mod core;
mod hub;
mod read;
pub(crate) mod record;
mod restore;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use self::core::Core;
pub use self::restore::Restored;
use self::writer::{Pending, Request, Writer};
use crate::disk::{Disk, FileDisk, sync_parent};
use crate::testing::FaultDisk;
use crate::{
    Change, Entry, Error, Event, Expect, Key, Listing, Page, Result, Revision, Store, Told, check_bytes,
};

/// Lists that are read at the same time. When a server starts it lists every kind at once, and more threads than this would only
/// leave memory behind.
const LISTS_AT_ONCE_MAX: usize = 8;

/// Revisions that gather over the bound before they are forgotten together: one transaction for many.
const HISTORY_SLACK: u64 = 1024;

/// The bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for pages of the file. The API server reads from its own cache, so little is enough.
    pub cache_bytes: usize,
    /// Revisions kept for older listings and watches, give or take a thousand.
    pub history_len_max: u64,
    /// Bytes of the values written in those revisions; over it, history is forgotten sooner.
    pub history_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_bytes: 8 << 20, history_len_max: 10_000, history_bytes_max: 64 << 20 }
    }
}

/// A store in one file, or in memory for tests.
///
/// # Guarantees
/// The invariants of [`Store`], on any [`Disk`] that keeps its assumptions. A full disk refuses puts and goes on reading; any other
/// failure of the disk ends writing until the store is opened anew.
///
/// # Assumptions
/// It lives within a tokio runtime. When it is dropped, queued writes are finished and the file is closed soon after; [`Embedded::close`] waits for it.
#[derive(Debug)]
pub struct Embedded {
    core: Arc<Core>,
    /// Lists that are being read: each has a thread.
    lists: Arc<Semaphore>,
    queue: mpsc::Sender<Request>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the store at `path`, or makes one there.
    ///
    /// # Errors
    /// `Corrupt` where the file is something else or damaged, `Locked` where it is open already, `Unopened` for what the system refuses.
    pub fn open(path: &Path, options: Options) -> Result<Arc<Embedded>> {
        create(path)?;
        Embedded::on_named(path.display().to_string(), Arc::new(FileDisk::open(path)?), options)
    }

    /// A new store in memory.
    ///
    /// # Errors
    /// `Unopened` outside a tokio runtime.
    pub fn memory() -> Result<Arc<Embedded>> {
        Embedded::on(Arc::new(FaultDisk::default()), Options::default())
    }

    /// Opens what is on `disk`, or makes a store there.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn on(disk: Arc<dyn Disk>, options: Options) -> Result<Arc<Embedded>> {
        Embedded::on_named("memory".to_owned(), disk, options)
    }

    fn on_named(path: String, disk: Arc<dyn Disk>, options: Options) -> Result<Arc<Embedded>> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| Error::Unopened { path: path.clone(), message: error.to_string() })?;
        let core = Arc::new(Core::open(path, disk, options.cache_bytes, false)?);
        let writer = Writer::new(core.clone(), options)?;
        let (queue, requests) = mpsc::channel(writer::QUEUE_LEN_MAX);
        let writer = Mutex::new(Some(runtime.spawn(writer::run(writer, requests))));
        let lists = Arc::new(Semaphore::new(LISTS_AT_ONCE_MAX));
        Ok(Arc::new(Embedded { core, lists, queue, writer }))
    }

    /// Finishes queued writes, ends watches and lets go of the file. Everything after says `Unavailable`.
    pub async fn close(&self) {
        let _ = self.queue.send(Request::Close).await;
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }

    /// Copies one committed state to `path` while writes go on; returns its revision. To restore, put the file where
    /// the store was and open it.
    ///
    /// # Errors
    /// `Unopened` where `path` exists or cannot be written, `Full`, `Broken`.
    pub async fn backup(&self, path: &Path) -> Result<Revision> {
        let (core, path) = (self.core.clone(), path.to_owned());
        blocking(move || backup::backup(&core, &path)).await
    }

    /// Reads all of a store that nobody has open, and checks it; returns its revision.
    ///
    /// # Errors
    /// `Corrupt` where it is damaged, `Locked`, `Unopened`.
    pub fn validate(path: &Path) -> Result<Revision> {
        backup::validate(path)
    }

    /// Puts a copy that [`Embedded::backup`] made where a store is, or will be, that nobody has open. The copy is checked before
    /// anything is replaced, and what was there stays beside it.
    ///
    /// Revisions go on far after those of the copy, and its past is forgotten: whoever watched the store that is replaced is told
    /// `Compacted` rather than that nothing happened.
    ///
    /// # Errors
    /// `Corrupt` where the copy is damaged or none, `Locked` where the store is open, `Unopened`, `Full`.
    pub async fn restore(copy: &Path, path: &Path) -> Result<Restored> {
        restore::restore(copy, path).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(request(reply)).await.map_err(|_| core::closed())?;
        answer.await.map_err(|_| core::closed())?
    }
}

/// Makes an empty store at `path` if nothing is there: under another name first, so that a crash leaves no half of one.
fn create(path: &Path) -> Result<()> {
    let unopened = |error: std::io::Error| Error::Unopened {
        path: path.display().to_string(),
        message: error.to_string(),
    };
    if path.try_exists().map_err(unopened)? {
        return Ok(());
    }
    let unfinished = path.with_extension("unfinished");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(unopened(error)),
        _ => {}
    }
    let disk = Arc::new(FileDisk::open(&unfinished)?);
    Core::open(unfinished.display().to_string(), disk, Options::default().cache_bytes, false)?.close();
    std::fs::rename(&unfinished, path).and_then(|()| sync_parent(path)).map_err(unopened)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::Unavailable { message: error.to_string() }))
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        // A few microseconds from the cache or the system's; not worth another thread.
        async move { self.core.read(|state| state.get(key)) }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a Key, page: Page) -> BoxFuture<'a, Result<Listing>> {
        let (core, lists, prefix) = (self.core.clone(), self.lists.clone(), prefix.clone());
        async move {
            // Never closed: there is a place, sooner or later. The thread has it, also when nobody waits for it any more.
            let place = lists.acquire_owned().await;
            let list = move || {
                let found = core.read(|state| state.list(&prefix, &page));
                drop(place);
                found
            };
            blocking(list).await
        }
        .boxed()
    }

    fn write<'a>(&'a self, key: &'a Key, expect: Expect, change: Change) -> BoxFuture<'a, Result<Revision>> {
        async move {
            check_bytes(key, &change)?;
            self.ask(|reply| Request::Write(Pending::new(key, expect, change, true, reply))).await
        }
        .boxed()
    }

    fn write_deferred<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
        change: Change,
    ) -> BoxFuture<'a, Result<Revision>> {
        async move {
            check_bytes(key, &change)?;
            self.ask(|reply| Request::Write(Pending::new(key, expect, change, false, reply))).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &Key, after: Revision) -> BoxStream<'static, Result<Event>> {
        watch::watch(self.core.clone(), prefix.clone(), after)
    }

    fn follow(&self, prefix: &Key, after: Revision) -> BoxStream<'static, Result<Told>> {
        self.watch(prefix, after).map_ok(Told::Write).boxed()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>> {
        self.ask(move |reply| Request::Compact { before, reply }).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        async move { Ok(self.core.hub.published()) }.boxed()
    }
}
