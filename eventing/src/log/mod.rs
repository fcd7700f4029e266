//! A durable log of events with a cursor per subscriber.
//!
//! # Guarantees
//! An append that returned `Ok` survives any crash, and every subscriber that was there sees it, in order, at least once.
//! Cursors are written lazily: after a crash a subscriber may see again what it had already seen.
//!
//! # Assumptions
//! Those of [`store::disk::Disk`].
//!
//! # Flow
//! Writers queue; one of them commits for all who wait: one write and one sync. After an I/O error nothing is appended until
//! [`Log::reopen`] has cut off what was not durable and begun a new segment. A full disk refuses the group and breaks nothing.
//! Readers read what is durable from the files; segments that every cursor has passed are removed.

mod commit;
mod cursors;
mod directory;
pub mod measure;
mod read;
mod segment;
#[cfg(test)]
pub(crate) mod testing;

pub use directory::{Directory, Folder};
pub use read::{Position, READ_BYTES, Record};

use crate::log::cursors::Cursors;
use crate::log::segment::Segment;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::disk::Disk;
use tokio::sync::watch;

/// The most bytes of a record: an event with the most that its attributes and headers may be.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// The most bytes that wait to be written to one log; further writers wait for room.
pub const QUEUE_BYTES_MAX: usize = 16 << 20;

/// The most bytes that one sync makes durable.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// When a segment is left for the next one.
pub const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// A log does not grow beyond this; further events are refused as on a full disk.
pub const LOG_BYTES_MAX: u64 = 64 << 30;

/// The most subscribers of one log.
pub const SUBSCRIBERS_MAX: usize = 1000;

const _: () = assert!(RECORD_BYTES_MAX <= QUEUE_BYTES_MAX && RECORD_BYTES_MAX < SEGMENT_BYTES_MAX as usize);

/// Why a log does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full or the log is as large as it may be.
    #[error("no room for more events")]
    Full,
    /// An earlier error stopped it.
    #[error("the log stopped after an error and is not open again yet")]
    Stopped,
    /// A record or a number of subscribers beyond its bound.
    #[error("{what} is more than {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The file system failed.
    #[error("the log's files failed")]
    Io(#[from] io::Error),
}

/// An append-only file of records, in segments, and who has read how far.
#[derive(Debug)]
pub struct Log {
    directory: Arc<dyn Directory>,
    queue: commit::Queue,
    /// Held by whoever writes or changes which segments there are.
    writing: Mutex<Writing>,
    segments: Mutex<BTreeMap<u64, Arc<Segment>>>,
    cursors: Cursors,
    /// After an error of the disk.
    stopped: AtomicBool,
    /// The sequence number after the last durable record.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Writing {
    active: Arc<Segment>,
    /// The file of the active segment, kept open.
    disk: Arc<dyn Disk>,
    /// Bytes of the active segment that are durable records.
    used: u64,
    /// How long the file of the active segment is.
    len: u64,
    /// There may be parts of refused records after `used`.
    torn: bool,
    /// Bytes of all segments before the active one.
    older_bytes: u64,
}

impl Log {
    /// Opens the log of a directory, or begins one.
    ///
    /// # Errors
    /// `Io` where the directory cannot be read or written.
    pub fn open(directory: Arc<dyn Directory>) -> Result<Log, LogError> {
        let cursors = Cursors::open(directory.as_ref())?;
        let mut segments = segment::find(&directory)?;
        let last = segments.last_key_value().map(|(_, own)| own.clone());
        let mut tail = None;
        if let Some(last) = last {
            match last.recover()? {
                Some(found) => tail = Some((last, found)),
                // Its header was never durable, so no record of it was either.
                None => {
                    segments.remove(&last.first);
                    directory.remove(&last.name())?;
                }
            }
        }
        let (active, used, len, next) = match tail {
            Some((last, found)) => (last, found.end, found.end, found.next),
            None => {
                let next = match segments.last_key_value() {
                    Some((_, last)) => last.recover()?.map_or(last.first, |found| found.next),
                    None => 1,
                }
                .max(cursors.highest());
                let (made, len) = Segment::begin(&directory, next)?;
                segments.insert(next, made.clone());
                (made, segment::HEADER_BYTES, len, next)
            }
        };
        let older_bytes =
            segments.values().filter(|own| own.first != active.first).map(|own| own.bytes()).sum();
        Ok(Log {
            directory,
            queue: commit::Queue::new(),
            writing: Mutex::new(Writing {
                disk: active.disk()?,
                active,
                used,
                len,
                torn: false,
                older_bytes,
            }),
            segments: Mutex::new(segments),
            cursors,
            stopped: AtomicBool::new(false),
            next: watch::Sender::new(next),
        })
    }

    /// The sequence number that the next record gets, as it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Whether an error stopped it.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Works again after an error: what is not known to be durable is cut off, and a new segment begins. Blocks.
    ///
    /// # Errors
    /// `Io` where the disk still fails; the log stays stopped.
    pub fn reopen(&self) -> Result<(), LogError> {
        let mut writing = self.writing.lock();
        if !self.is_stopped() {
            return Ok(());
        }
        writing.active.cut(writing.used)?;
        writing.torn = false;
        writing.len = writing.used;
        if *self.next.borrow() > writing.active.first {
            self.roll(&mut writing)?;
        }
        self.stopped.store(false, Ordering::Release);
        Ok(())
    }

    /// Leaves the active segment for a new one.
    fn roll(&self, writing: &mut Writing) -> Result<(), LogError> {
        let next = *self.next.borrow();
        let (made, len) = Segment::begin(&self.directory, next)?;
        writing.disk = made.disk()?;
        writing.active.set_end(writing.used);
        self.segments.lock().insert(next, made.clone());
        writing.older_bytes += writing.used;
        (writing.active, writing.used, writing.len) = (made, segment::HEADER_BYTES, len);
        Ok(())
    }

    /// Makes these, and only these, the subscribers. New ones begin with the next record. Durable when it returns. Blocks.
    ///
    /// # Errors
    /// `Io` where the cursors could not be written: new subscribers have none then.
    pub fn set_subscribers(&self, names: &[String]) -> Result<(), LogError> {
        if names.len() > SUBSCRIBERS_MAX {
            return Err(LogError::TooLarge { what: "the number of subscribers", max: SUBSCRIBERS_MAX });
        }
        self.cursors.set_subscribers(names, *self.next.borrow())?;
        self.remove_passed()
    }

    /// Where a subscriber goes on reading; `None` for one that is unknown.
    pub fn cursor(&self, name: &str) -> Option<u64> {
        self.cursors.get(name)
    }

    /// A subscriber needs nothing before `sequence` any more. Durable after the next [`Log::save_cursors`].
    ///
    /// Says whether that is new.
    pub fn advance(&self, name: &str, sequence: u64) -> bool {
        self.cursors.advance(name, sequence)
    }

    /// Writes the cursors, if any has moved, and removes segments that all have passed. Blocks.
    ///
    /// # Errors
    /// `Io`; a later call writes again.
    pub fn save_cursors(&self) -> Result<(), LogError> {
        self.cursors.save()?;
        self.remove_passed()
    }

    fn remove_passed(&self) -> Result<(), LogError> {
        let mut writing = self.writing.lock();
        let lowest = self.cursors.lowest().unwrap_or_else(|| *self.next.borrow());
        loop {
            let first = {
                let segments = self.segments.lock();
                let mut order = segments.values();
                match (order.next(), order.next()) {
                    (Some(first), Some(second))
                        if second.first <= lowest && first.first != writing.active.first =>
                    {
                        first.clone()
                    }
                    _ => return Ok(()),
                }
            };
            let bytes = first.bytes();
            self.directory.remove(&first.name())?;
            self.segments.lock().remove(&first.first);
            writing.older_bytes = writing.older_bytes.saturating_sub(bytes);
        }
    }

    /// How many records wait for the slowest subscriber.
    pub fn backlog(&self) -> u64 {
        let next = *self.next.borrow();
        next.saturating_sub(self.cursors.lowest().unwrap_or(next))
    }
}

#[cfg(test)]
mod tests;
