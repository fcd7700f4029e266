//! Reading what is durable, from the files, a bounded piece at a time.

use super::segment::{Found, HEADER_BYTES, Segment, read_record};
use super::{Log, LogError};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;
use store::disk::Disk;

/// How much a reader has in memory: this, or one record that is larger.
pub const READ_BYTES: usize = 256 << 10;

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// Where a reader is.
#[derive(Debug)]
pub struct Position {
    /// The number of the next record.
    pub sequence: u64,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    segment: Arc<Segment>,
    /// Kept open.
    disk: Arc<dyn Disk>,
    offset: u64,
    /// The number of the record at `offset`.
    sequence: u64,
}

impl Position {
    /// Before the record of that number.
    pub fn at(sequence: u64) -> Position {
        Position { sequence, place: None }
    }
}

impl Log {
    /// The next records after a position, which moves behind them; none where all that is durable has been read. Blocks.
    ///
    /// What is damaged is skipped, with an error in the program's log.
    ///
    /// # Errors
    /// `Io`; the position has not moved.
    pub fn read(&self, position: &mut Position) -> Result<Vec<Record>, LogError> {
        // Everything below is durable, and the file that has it is known, before `next` says so.
        let next = *self.next.borrow();
        while position.sequence < next {
            self.enter(position)?;
            let Some(place) = &mut position.place else { return Ok(Vec::new()) };
            let records = place.read(position.sequence, next)?;
            if let Some(last) = records.last() {
                position.sequence = last.sequence + 1;
                return Ok(records);
            }
            self.leave(position);
        }
        Ok(Vec::new())
    }

    /// Where to read on: the segment that has the record, or the first one after it.
    fn enter(&self, position: &mut Position) -> Result<(), LogError> {
        if position.place.is_none() {
            let segments = self.segments.lock();
            let found = segments
                .range(..=position.sequence)
                .next_back()
                .or_else(|| segments.range(position.sequence..).next())
                .map(|(_, own)| own.clone());
            drop(segments);
            let Some(segment) = found else { return Ok(()) };
            position.sequence = position.sequence.max(segment.first);
            let (disk, sequence) = (segment.disk()?, segment.first);
            position.place = Some(Place { segment, disk, offset: HEADER_BYTES, sequence });
        }
        Ok(())
    }

    /// Goes to the next segment.
    fn leave(&self, position: &mut Position) {
        let Some(place) = position.place.take() else { return };
        let after = (Bound::Excluded(place.segment.first), Bound::Unbounded);
        let next = self.segments.lock().range(after).next().map(|(first, _)| *first);
        let next = next.unwrap_or_else(|| *self.next.borrow());
        if next != position.sequence {
            tracing::error!(from = position.sequence, to = next, "damaged events of a log are skipped");
        }
        position.sequence = next.max(position.sequence);
    }
}

impl Place {
    /// Records from `wanted` up to, not including, `next`; none at the end of the segment.
    fn read(&mut self, wanted: u64, next: u64) -> Result<Vec<Record>, LogError> {
        let len = self.disk.len()?.min(self.segment.end());
        let mut records = Vec::new();
        let mut want = READ_BYTES;
        while records.is_empty() && self.sequence < next && self.offset < len {
            let room = usize::try_from(len - self.offset).unwrap_or(usize::MAX);
            let mut chunk = vec![0; want.min(room)];
            self.disk.read(self.offset, &mut chunk)?;
            let chunk = Bytes::from(chunk);
            let mut at = 0;
            while self.sequence < next {
                match read_record(&chunk[at..], self.sequence) {
                    Found::Record(payload, bytes) => {
                        if self.sequence >= wanted {
                            records
                                .push(Record { sequence: self.sequence, payload: chunk.slice_ref(payload) });
                        }
                        at += bytes;
                        self.sequence += 1;
                    }
                    Found::Part(bytes) if bytes <= room.saturating_sub(at) => {
                        want = bytes.max(READ_BYTES);
                        break;
                    }
                    Found::Part(_) | Found::End if at == 0 => return Ok(records),
                    Found::Part(_) | Found::End => break,
                }
            }
            self.offset += at as u64;
        }
        Ok(records)
    }
}
