//! The one writer.
//!
//! # Flow
//! Callers queue. The writer takes what waits, tries each in order within one redb transaction, makes that durable with one sync,
//! publishes the events, and only then answers everybody, those in conflict too: what they are told they found may have
//! been written in the same batch.
//!
//! A batch of deferred writes only is committed without a sync; the next batch with another write, or [`FLUSH_WAIT_MAX`],
//! makes it durable. So that its revisions are not used again after a crash, they come from a range that was reserved durably.
//!
//! # Guarantees
//! Revisions have no gap, also after a crash: a revision is the largest key of the log plus one, in the same transaction. What was
//! answered with `Ok` is durable, save what was deferred. After an error other than a full disk nothing more is written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redb::{Durability, ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::{Core, guarded};
use super::read::Snapshot;
use super::record::{CURRENT, LOG, META, META_FLOOR, META_OLDEST, META_RESERVED, Record, explain};
use super::{HISTORY_SLACK, Options};
use crate::{Change, Entry, Error, Event, Expect, KEY_BYTES_MAX, Key, Result, Revision, VALUE_BYTES_MAX};

/// Writes that wait. More callers wait to get in.
pub(super) const QUEUE_LEN_MAX: usize = 1024;
/// Writes that one sync acknowledges: more would only delay the first of them.
const BATCH_LEN_MAX: usize = 512;
/// Bytes of one transaction, give or take one write: they are in memory until the commit.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Revisions forgotten in one transaction: how long a write may have to wait for it.
const COMPACT_LEN_MAX: u64 = HISTORY_SLACK;
/// How long a deferred write may stay undurable.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(3);
/// Revisions reserved for deferred writes at once: one sync for many, and the largest gap after a crash.
const RESERVED_LEN: u64 = 1 << 14;
/// What must be free for a put. Below, only removals and compaction may write, so that a full disk can be emptied.
const FREE_BYTES_MIN: u64 = 4 << 20;

const _: () = assert!(BATCH_BYTES_MAX > KEY_BYTES_MAX + VALUE_BYTES_MAX);

/// What callers ask.
pub(super) enum Request {
    Write(Pending),
    Compact {
        before: Revision,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Makes deferred writes durable.
    Flush,
    Close,
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Request::Write(pending) => pending.key.len() + value_of(&pending.change).map_or(0, Bytes::len),
            Request::Compact { .. } | Request::Flush | Request::Close => 0,
        }
    }
}

/// The writer's own numbers.
pub(super) struct Writer {
    core: Arc<Core>,
    options: Options,
    newest: Revision,
    oldest: Revision,
    /// The bytes of the values written after `oldest`.
    history_bytes: u64,
    /// Revisions up to here may be told before they are durable.
    reserved: Revision,
    /// Since when something is committed that is not durable.
    deferred_since: Option<Instant>,
    scratch: Vec<u8>,
}

/// One queued write, and what became of it.
pub(super) struct Pending {
    key: Key,
    expect: Expect,
    change: Change,
    durable: bool,
    reply: oneshot::Sender<Result<Revision>>,
    result: Result<Revision>,
}

impl Pending {
    pub fn new(
        key: &Key,
        expect: Expect,
        change: Change,
        durable: bool,
        reply: oneshot::Sender<Result<Revision>>,
    ) -> Pending {
        Pending { key: key.clone(), expect, change, durable, reply, result: Ok(0) }
    }
}

/// What one transaction did.
#[derive(Default)]
struct Done {
    newest: Revision,
    bytes: u64,
    events: Vec<Event>,
}

/// Serves the queue until it is closed. Commits block, so they run where blocking is allowed.
pub(super) async fn run(mut writer: Writer, mut queue: mpsc::Receiver<Request>) {
    let core = writer.core.clone();
    loop {
        let first = match writer.deferred_since {
            Some(since) => tokio::time::timeout_at(since + FLUSH_WAIT_MAX, queue.recv())
                .await
                .unwrap_or(Some(Request::Flush)),
            None => queue.recv().await,
        };
        // A closed queue is a store that was dropped.
        let first = first.unwrap_or(Request::Close);
        let work = tokio::task::spawn_blocking(move || {
            let go_on = writer.work(first, &mut queue);
            (writer, queue, go_on)
        });
        match work.await {
            Ok((back, receiver, true)) => (writer, queue) = (back, receiver),
            Ok((_, _, false)) => break,
            Err(error) => {
                core.set_broken(&error.to_string());
                break;
            }
        }
    }
    core.close();
}

impl Writer {
    pub fn new(core: Arc<Core>, options: Options) -> Result<Writer> {
        let read = |state: &Snapshot<'_>| {
            Ok((state.newest, state.oldest, state.reserved, state.history_bytes(state.oldest)?))
        };
        let (last, oldest, reserved, history_bytes) = core.read(read)?;
        let newest = last.max(reserved);
        let writer = Writer {
            core,
            options,
            newest,
            oldest,
            history_bytes,
            reserved: 0,
            deferred_since: None,
            scratch: Vec::new(),
        };
        if reserved > 0 {
            // It was not closed: revisions up to there may have been told and lost.
            writer.set_meta(&[(META_FLOOR, newest), (META_RESERVED, 0)])?;
        }
        writer.core.hub.start(newest);
        Ok(writer)
    }

    /// Works until nothing waits; false when the store is to be closed.
    fn work(&mut self, first: Request, queue: &mut mpsc::Receiver<Request>) -> bool {
        let mut next = Some(first);
        while let Some(request) = next.take().or_else(|| queue.try_recv().ok()) {
            match request {
                Request::Close => {
                    self.flush(&[(META_FLOOR, self.newest), (META_RESERVED, 0)]);
                    return false;
                }
                Request::Flush => self.flush(&[]),
                Request::Compact { before, reply } => {
                    let _ = reply.send(self.compact(before));
                }
                Request::Write(first) => {
                    let (batch, rest) = gather(first, queue);
                    self.write(batch);
                    next = rest;
                    self.bound_history();
                }
            }
        }
        true
    }

    /// Writes a batch and answers it.
    fn write(&mut self, mut batch: Vec<Pending>) {
        let result = match self.core.broken() {
            Some(error) => Err(error),
            None => self.prepare(&mut batch).and_then(|()| self.commit(&mut batch)),
        };
        match result {
            Ok(done) => {
                if done.newest > self.newest {
                    self.deferred_since = match batch.iter().any(|pending| pending.durable) {
                        true => None,
                        false => self.deferred_since.or_else(|| Some(Instant::now())),
                    };
                }
                self.newest = done.newest;
                self.history_bytes += done.bytes;
                self.core.hub.publish(&done.events, done.newest);
                for pending in batch {
                    let _ = pending.reply.send(pending.result);
                }
            }
            Err(error) => {
                self.heal(&error);
                for pending in batch {
                    let _ = pending.reply.send(Err(repeat(&error)));
                }
            }
        }
    }

    /// Reserves revisions for a batch that is not to be synced, and refuses puts on a full disk.
    ///
    /// Full is noticed before redb notices it: redb would have to be opened anew.
    fn prepare(&mut self, batch: &mut [Pending]) -> Result<()> {
        let last = self.newest + batch.len() as u64;
        if batch.iter().all(|pending| !pending.durable) && last > self.reserved {
            let reserved = last + RESERVED_LEN;
            self.set_meta(&[(META_RESERVED, reserved)])?;
            self.reserved = reserved;
        }
        let bytes: usize = batch
            .iter()
            .map(|pending| pending.key.len() + value_of(&pending.change).map_or(0, Bytes::len))
            .sum();
        // The log's page, its path, and the old pages that are free only after the commit.
        let needed = FREE_BYTES_MIN + 2 * bytes as u64;
        if self.core.free_bytes().is_some_and(|free| free < needed) {
            for pending in batch.iter_mut().filter(|pending| value_of(&pending.change).is_some()) {
                pending.result = Err(Error::Full);
            }
        }
        Ok(())
    }

    /// One transaction.
    fn commit(&mut self, batch: &mut [Pending]) -> Result<Done> {
        let core = self.core.clone();
        let watched = core.hub.is_watched();
        let durable = batch.iter().any(|pending| pending.durable);
        guarded(&core.path, || {
            let database = core.database()?;
            let mut transaction = database.begin_write().map_err(|error| explain(&core.path, error))?;
            if !durable {
                transaction
                    .set_durability(Durability::None)
                    .map_err(|error| explain(&core.path, redb::Error::from(error)))?;
            }
            let mut done = Done { newest: self.newest, ..Done::default() };
            {
                let mut tables = Tables::open(&core.path, &transaction)?;
                for pending in batch.iter_mut().filter(|pending| pending.result.is_ok()) {
                    pending.result = tables.write(pending, watched, &mut done, &mut self.scratch)?;
                }
            }
            match done.newest == self.newest {
                true => transaction.abort().map_err(|error| explain(&core.path, error))?,
                false => transaction.commit().map_err(|error| explain(&core.path, error))?,
            }
            Ok(done)
        })
    }

    /// Makes durable what was deferred, and these numbers with it.
    fn flush(&mut self, numbers: &[(&str, u64)]) {
        if self.core.broken().is_some() || (self.deferred_since.is_none() && self.reserved == 0) {
            return;
        }
        match self.set_meta(numbers) {
            Ok(()) => self.deferred_since = None,
            Err(error) => self.heal(&error),
        }
    }

    /// Commits these numbers durably, and so everything before.
    fn set_meta(&self, numbers: &[(&str, u64)]) -> Result<()> {
        let core = &self.core;
        guarded(&core.path, || {
            let database = core.database()?;
            let set = || -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                {
                    let mut meta = transaction.open_table(META)?;
                    for (name, number) in numbers {
                        meta.insert(*name, *number)?;
                    }
                }
                Ok(transaction.commit()?)
            };
            set().map_err(|error| explain(&core.path, error))
        })
    }

    /// After a full disk the store goes on as it was before the batch; after anything else it stops, and also where
    /// going on would take back what was deferred and told.
    fn heal(&self, error: &Error) {
        let failure = match error {
            Error::Full if self.deferred_since.is_none() => self.core.reopen().err(),
            error => Some(repeat(error)),
        };
        if let Some(error) = failure {
            tracing::error!(path = %self.core.path, error = %error, "the store takes no more writes");
            self.core.set_broken(&error.to_string());
        }
    }

    /// Forgets what is over the bounds, a step at a time.
    fn bound_history(&mut self) {
        let len = self.newest - self.oldest;
        let over = len > self.options.history_len_max + HISTORY_SLACK
            || self.history_bytes > self.options.history_bytes_max;
        if !over || len == 0 || self.core.broken().is_some() {
            return;
        }
        let surplus = len.saturating_sub(self.options.history_len_max).clamp(1, COMPACT_LEN_MAX);
        let step = if self.history_bytes > self.options.history_bytes_max {
            COMPACT_LEN_MAX.min(len)
        } else {
            surplus
        };
        if let Err(error) = self.compact_to(self.oldest + step) {
            tracing::warn!(path = %self.core.path, error = %error, "history could not be compacted");
            self.heal(&error);
        }
    }

    /// Forgets revisions before `before`.
    fn compact(&mut self, before: Revision) -> Result<()> {
        if let Some(error) = self.core.broken() {
            return Err(error);
        }
        if before > self.newest {
            return Err(Error::Future { asked: before, newest: self.newest });
        }
        while self.oldest < before {
            let step = before.min(self.oldest + COMPACT_LEN_MAX);
            self.compact_to(step).inspect_err(|error| self.heal(error))?;
        }
        Ok(())
    }

    /// Makes `oldest` the oldest revision: what was overwritten up to it goes, and removals before it.
    fn compact_to(&mut self, oldest: Revision) -> Result<()> {
        let core = self.core.clone();
        let freed = guarded(&core.path, || {
            let database = core.database()?;
            let compact = || -> Result<u64, redb::Error> {
                let transaction = database.begin_write()?;
                let freed;
                {
                    let mut log = transaction.open_table(LOG)?;
                    let (gone, bytes) = forgettable(&log, self.oldest, oldest)?;
                    freed = bytes;
                    for revision in gone {
                        log.remove(revision)?;
                    }
                    transaction.open_table(META)?.insert(META_OLDEST, oldest)?;
                }
                transaction.commit()?;
                Ok(freed)
            };
            compact().map_err(|error| explain(&core.path, error))
        })?;
        self.oldest = oldest;
        self.history_bytes = self.history_bytes.saturating_sub(freed);
        Ok(())
    }
}

/// The revisions that go when the oldest becomes `to` instead of `from`, and the bytes that leave the history.
fn forgettable(
    log: &Table<'_, u64, &'static [u8]>,
    from: Revision,
    to: Revision,
) -> Result<(Vec<Revision>, u64), redb::Error> {
    let mut gone = Vec::new();
    let mut bytes = 0;
    for item in log.range(from..=to)? {
        let (revision, record) = item?;
        let revision = revision.value();
        let Some(record) = Record::decode(record.value()) else { continue };
        if record.value.is_none() && revision < to {
            gone.push(revision);
        }
        if revision > from {
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
            if record.previous != 0 {
                gone.push(record.previous);
            }
        }
    }
    Ok((gone, bytes))
}

/// The first write and what else waits, up to a batch; and the request that does not belong into it.
fn gather(first: Pending, queue: &mut mpsc::Receiver<Request>) -> (Vec<Pending>, Option<Request>) {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut next = Some(Request::Write(first));
    while let Some(request) = next.take() {
        bytes += request.bytes();
        match request {
            Request::Write(pending) => batch.push(pending),
            other => return (batch, Some(other)),
        }
        if batch.len() < BATCH_LEN_MAX && bytes < BATCH_BYTES_MAX {
            next = queue.try_recv().ok();
        }
    }
    (batch, None)
}

fn value_of(change: &Change) -> Option<&Bytes> {
    match change {
        Change::Put(value) => Some(value),
        Change::Delete => None,
    }
}

/// The same error for one more caller of a failed batch.
fn repeat(error: &Error) -> Error {
    match error {
        Error::Full => Error::Full,
        Error::Corrupt { path, message } => Error::Corrupt { path: path.clone(), message: message.clone() },
        Error::Unavailable { message } => Error::Unavailable { message: message.clone() },
        Error::Broken { message } => Error::Broken { message: message.clone() },
        error => Error::Broken { message: error.to_string() },
    }
}

/// The tables of one write transaction.
struct Tables<'a> {
    path: &'a str,
    log: Table<'a, u64, &'static [u8]>,
    current: Table<'a, &'static [u8], u64>,
}

impl<'a> Tables<'a> {
    fn open(path: &'a str, transaction: &'a WriteTransaction) -> Result<Tables<'a>> {
        let log = transaction.open_table(LOG).map_err(|error| explain(path, error))?;
        let current = transaction.open_table(CURRENT).map_err(|error| explain(path, error))?;
        Ok(Tables { path, log, current })
    }

    /// The write's own result is the inner one; the outer one ends the batch.
    fn write(
        &mut self,
        pending: &Pending,
        watched: bool,
        done: &mut Done,
        scratch: &mut Vec<u8>,
    ) -> Result<Result<Revision>> {
        let key = &pending.key;
        let found = self
            .current
            .get(key.as_ref())
            .map_err(|error| explain(self.path, error))?
            .map(|revision| revision.value());
        let holds = match pending.expect {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
        };
        if !holds {
            let found = found.map(|revision| self.entry(key, revision)).transpose()?;
            return Ok(Err(Error::Conflict { found }));
        }
        if found.is_none() && pending.change == Change::Delete {
            // `Absent` and `Delete`: there is nothing to write, and nothing was.
            return Ok(Ok(done.newest));
        }
        let value = value_of(&pending.change);
        let previous = match found {
            Some(revision) if watched => Some(self.entry(key, revision)?.value),
            _ => None,
        };
        let revision = done.newest + 1;
        Record { previous: found.unwrap_or(0), key, value: value.map(AsRef::as_ref) }.encode(scratch);
        let written =
            self.log.insert(revision, scratch.as_slice()).map_err(|error| explain(self.path, error))?;
        assert!(written.is_none(), "revision {revision} is used twice");
        drop(written);
        match value {
            Some(_) => self.current.insert(key.as_ref(), revision),
            None => self.current.remove(key.as_ref()),
        }
        .map_err(|error| explain(self.path, error))?;
        done.newest = revision;
        done.bytes += value.map_or(0, Bytes::len) as u64;
        if watched {
            done.events.push(Event { key: key.clone(), value: value.cloned(), previous, revision });
        }
        Ok(Ok(revision))
    }

    fn entry(&self, key: &Key, revision: Revision) -> Result<Entry> {
        let bytes = self.log.get(revision).map_err(|error| explain(self.path, error))?;
        match bytes.as_ref().and_then(|bytes| Record::decode(bytes.value())) {
            Some(Record { key: found, value: Some(value), .. }) if found == key => {
                Ok(Entry { key: key.clone(), value: Bytes::copy_from_slice(value), revision })
            }
            _ => {
                let message = format!("the log has no write of the key at revision {revision}");
                Err(Error::Corrupt { path: self.path.to_owned(), message })
            }
        }
    }
}
