//! Reads: each sees one committed state.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::record::{CURRENT, LOG, META, META_FLOOR, META_OLDEST, META_RESERVED, Record, explain};
use crate::{Entry, Error, Event, Key, Listing, Page, Result, Revision};

/// Events that are read from the log at once.
const REPLAY_LEN_MAX: usize = 256;
/// Bytes that are read from the log at once, give or take one event.
const REPLAY_BYTES_MAX: usize = 4 << 20;

/// One committed state.
pub(super) struct Snapshot<'a> {
    path: &'a str,
    log: redb::ReadOnlyTable<u64, &'static [u8]>,
    current: redb::ReadOnlyTable<&'static [u8], u64>,
    /// The revision of this state.
    pub newest: Revision,
    /// The oldest revision that can still be shown.
    pub oldest: Revision,
    /// Revisions up to here may have been told without being durable.
    pub reserved: Revision,
}

/// A part of the log.
pub(super) struct Replay {
    /// The events under the prefix.
    pub events: VecDeque<Event>,
    /// Everything up to here was looked at.
    pub reached: Revision,
}

impl<'a> Snapshot<'a> {
    pub fn open(path: &'a str, transaction: &ReadTransaction) -> Result<Snapshot<'a>> {
        let log = transaction.open_table(LOG).map_err(|error| explain(path, error))?;
        let current = transaction.open_table(CURRENT).map_err(|error| explain(path, error))?;
        let meta = transaction.open_table(META).map_err(|error| explain(path, error))?;
        let last =
            log.last().map_err(|error| explain(path, error))?.map_or(0, |(revision, _)| revision.value());
        let number = |name| meta.get(name).map(|number| number.map_or(0, |number| number.value()));
        let number = |name| number(name).map_err(|error| explain(path, error));
        let (oldest, floor, reserved) = (number(META_OLDEST)?, number(META_FLOOR)?, number(META_RESERVED)?);
        Ok(Snapshot { path, log, current, newest: last.max(floor), oldest, reserved })
    }

    fn corrupt(&self, message: String) -> Error {
        Error::Corrupt { path: self.path.to_owned(), message }
    }

    /// What is at the key.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>> {
        match self.current.get(key.as_ref()).map_err(|error| explain(self.path, error))? {
            Some(revision) => self.entry(key.clone(), revision.value()).map(Some),
            None => Ok(None),
        }
    }

    /// The put of `key` at `revision`.
    fn entry(&self, key: Key, revision: Revision) -> Result<Entry> {
        let bytes = self.log.get(revision).map_err(|error| explain(self.path, error))?;
        match bytes.as_ref().and_then(|bytes| Record::decode(bytes.value())) {
            Some(Record { key: found, value: Some(value), .. }) if found == key => {
                Ok(Entry { key, value: Bytes::copy_from_slice(value), revision })
            }
            _ => Err(self.corrupt(format!("the log has no write of the key at revision {revision}"))),
        }
    }

    /// The records after `after` up to `upto`, while `visit` says to go on.
    fn records(
        &self,
        after: Revision,
        upto: Revision,
        mut visit: impl FnMut(Revision, Record<'_>) -> Result<bool>,
    ) -> Result<()> {
        if after >= upto {
            return Ok(());
        }
        for item in self.log.range(after + 1..=upto).map_err(|error| explain(self.path, error))? {
            let (revision, bytes) = item.map_err(|error| explain(self.path, error))?;
            let record = Record::decode(bytes.value()).ok_or_else(|| {
                self.corrupt(format!("the record of revision {} cannot be read", revision.value()))
            })?;
            if !visit(revision.value(), record)? {
                break;
            }
        }
        Ok(())
    }

    /// The writes under `prefix` after `after`, some of them.
    pub fn replay(&self, prefix: &Key, after: Revision, upto: Revision) -> Result<Replay> {
        if after < self.oldest {
            return Err(Error::Compacted { asked: after, oldest: self.oldest });
        }
        let mut replay = Replay { events: VecDeque::new(), reached: upto };
        let mut bytes = 0;
        self.records(after, upto, |revision, record| {
            if !record.key.starts_with(prefix) {
                return Ok(true);
            }
            let key = Bytes::copy_from_slice(record.key);
            let previous = match record.previous {
                0 => None,
                previous => Some(self.entry(key.clone(), previous)?.value),
            };
            bytes += record.value.map_or(0, <[u8]>::len) + previous.as_ref().map_or(0, Bytes::len);
            replay.events.push_back(Event {
                key,
                value: record.value.map(Bytes::copy_from_slice),
                previous,
                revision,
            });
            let more = replay.events.len() < REPLAY_LEN_MAX && bytes < REPLAY_BYTES_MAX;
            if !more {
                replay.reached = revision;
            }
            Ok(more)
        })?;
        Ok(replay)
    }

    /// The bytes of the records after `after`.
    pub fn history_bytes(&self, after: Revision) -> Result<u64> {
        let mut bytes = 0;
        self.records(after, self.newest, |_, record| {
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
            Ok(true)
        })?;
        Ok(bytes)
    }

    /// For each key under `prefix` that was written after `at`: its revision then, or 0 where it did not exist.
    fn undo(&self, prefix: &Key, at: Revision) -> Result<BTreeMap<Key, Revision>> {
        let mut undo = BTreeMap::new();
        self.records(at, self.newest, |_, record| {
            if record.key.starts_with(prefix) && !undo.contains_key(record.key) {
                undo.insert(Bytes::copy_from_slice(record.key), record.previous);
            }
            Ok(true)
        })?;
        Ok(undo)
    }

    /// A page of the keys under `prefix`.
    pub fn list(&self, prefix: &Key, page: &Page) -> Result<Listing> {
        let at = page.at.unwrap_or(self.newest);
        if at > self.newest {
            return Err(Error::Future { asked: at, newest: self.newest });
        }
        if at < self.oldest {
            return Err(Error::Compacted { asked: at, oldest: self.oldest });
        }
        let undo = self.undo(prefix, at)?;
        let mut listing = Listing { entries: Vec::new(), revision: at, more: false };
        let limit = if page.limit == 0 { usize::MAX } else { page.limit };
        self.merge(prefix, page.after.as_ref(), &undo, |key, revision| {
            if listing.entries.len() == limit {
                listing.more = true;
                return Ok(false);
            }
            listing.entries.push(self.entry(key, revision)?);
            Ok(true)
        })?;
        Ok(listing)
    }

    /// The keys as they are now, save where `undo` knows better, in order, while `visit` says to go on.
    fn merge(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        undo: &BTreeMap<Key, Revision>,
        mut visit: impl FnMut(Key, Revision) -> Result<bool>,
    ) -> Result<()> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.as_ref()),
            _ => Bound::Included(prefix.as_ref()),
        };
        let bounds = (start, Bound::Unbounded);
        let mut now = self.current.range::<&[u8]>(bounds).map_err(|error| explain(self.path, error))?;
        let mut next_now = || -> Result<Option<(Key, Revision)>> {
            match now.next().transpose().map_err(|error| explain(self.path, error))? {
                Some((key, revision)) if key.value().starts_with(prefix) => {
                    Ok(Some((Bytes::copy_from_slice(key.value()), revision.value())))
                }
                _ => Ok(None),
            }
        };
        let mut then =
            undo.range::<[u8], _>(bounds).map(|(key, revision)| (key.clone(), *revision)).peekable();
        let mut current = next_now()?;
        loop {
            let now_is_first = match (&current, then.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((now, _)), Some((then, _))) => now < then,
            };
            let (key, revision) = if now_is_first {
                let Some(entry) = std::mem::replace(&mut current, next_now()?) else { return Ok(()) };
                entry
            } else {
                let Some(entry) = then.next() else { return Ok(()) };
                if current.as_ref().is_some_and(|(key, _)| *key == entry.0) {
                    current = next_now()?;
                }
                entry
            };
            if revision != 0 && !visit(key, revision)? {
                return Ok(());
            }
        }
    }
}
