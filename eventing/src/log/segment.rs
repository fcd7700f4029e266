//! One file of records.
//!
//! A header (magic, first sequence number, checksum), then records: length of the payload, checksum of everything else, sequence
//! number, payload. Numbers are little-endian. Bytes after the last record are zero.

use super::{Directory, RECORD_BYTES_MAX};
use crc32fast::Hasher;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use store::disk::Disk;

const MAGIC: &[u8; 8] = b"CLPEVT\0\x01";
pub(super) const HEADER_BYTES: u64 = 20;
pub(super) const RECORD_HEADER_BYTES: usize = 16;

/// Files grow by this much at a time, so that most syncs need not write a new length.
pub(super) const GROW_BYTES: u64 = 1 << 20;

/// How much recovery reads at a time.
const SCAN_BYTES: usize = 1 << 20;

const SUFFIX: &str = ".events";

#[derive(Debug)]
pub(super) struct Segment {
    /// The sequence number of its first record.
    pub(super) first: u64,
    directory: Arc<dyn Directory>,
    /// Open for as long as somebody writes or reads it: a file is locked by whoever has it open.
    open: Mutex<Weak<dyn Disk>>,
    /// Where its records end; `u64::MAX` until that is known.
    end: AtomicU64,
}

/// What recovery finds.
pub(super) struct Recovered {
    /// Where the records end.
    pub(super) end: u64,
    /// The sequence number after the last one.
    pub(super) next: u64,
}

/// The segments of a directory by their first sequence number.
pub(super) fn find(directory: &Arc<dyn Directory>) -> io::Result<BTreeMap<u64, Arc<Segment>>> {
    let names = directory.list()?;
    let firsts = names.iter().filter_map(|own| own.strip_suffix(SUFFIX)?.parse::<u64>().ok());
    Ok(firsts.map(|first| (first, Arc::new(Segment::new(directory, first)))).collect())
}

fn header(first: u64) -> [u8; HEADER_BYTES as usize] {
    let mut bytes = [0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&first.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn checksum(len: &[u8], sequence: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    for part in [len, sequence, payload] {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Adds a record to a buffer.
pub(super) fn put_record(out: &mut Vec<u8>, sequence: u64, payload: &[u8]) {
    assert!(
        !payload.is_empty() && payload.len() <= RECORD_BYTES_MAX,
        "the size of a record is checked before"
    );
    let (len, sequence) = ((payload.len() as u32).to_le_bytes(), sequence.to_le_bytes());
    out.extend_from_slice(&len);
    out.extend_from_slice(&checksum(&len, &sequence, payload).to_le_bytes());
    out.extend_from_slice(&sequence);
    out.extend_from_slice(payload);
}

/// What is at the start of some bytes.
pub(super) enum Found<'a> {
    /// This record; it has so many bytes.
    Record(&'a [u8], usize),
    /// The beginning of a record of so many bytes.
    Part(usize),
    /// No record.
    End,
}

/// Reads the record with this sequence number at the start of `bytes`.
pub(super) fn read_record(bytes: &[u8], sequence: u64) -> Found<'_> {
    let Some((head, rest)) = bytes.split_at_checked(RECORD_HEADER_BYTES) else {
        return Found::Part(RECORD_HEADER_BYTES);
    };
    let mut len = [0; 4];
    len.copy_from_slice(&head[..4]);
    let payload_len = u32::from_le_bytes(len) as usize;
    if payload_len == 0 || payload_len > RECORD_BYTES_MAX || head[8..16] != sequence.to_le_bytes() {
        return Found::End;
    }
    match rest.get(..payload_len) {
        None => Found::Part(RECORD_HEADER_BYTES + payload_len),
        Some(payload) if head[4..8] == checksum(&len, &head[8..16], payload).to_le_bytes() => {
            Found::Record(payload, RECORD_HEADER_BYTES + payload_len)
        }
        Some(_) => Found::End,
    }
}

impl Segment {
    fn new(directory: &Arc<dyn Directory>, first: u64) -> Segment {
        let open: Weak<dyn Disk> = Weak::<store::disk::FileDisk>::new();
        Segment { first, directory: directory.clone(), open: Mutex::new(open), end: AtomicU64::new(u64::MAX) }
    }

    /// Makes a segment; it is durable together with its first records. Also says how long the file is.
    pub(super) fn begin(directory: &Arc<dyn Directory>, first: u64) -> io::Result<(Arc<Segment>, u64)> {
        let segment = Segment::new(directory, first);
        let disk = segment.disk()?;
        // Something may be left of an attempt that failed.
        disk.set_len(0)?;
        disk.set_len(HEADER_BYTES)?;
        disk.write(0, &header(first))?;
        disk.sync()?;
        Ok((Arc::new(segment), HEADER_BYTES))
    }

    pub(super) fn name(&self) -> String {
        format!("{:020}{SUFFIX}", self.first)
    }

    /// The file, shared by all who have it open.
    pub(super) fn disk(&self) -> io::Result<Arc<dyn Disk>> {
        let mut open = self.open.lock();
        if let Some(disk) = open.upgrade() {
            return Ok(disk);
        }
        let disk = self.directory.open(&self.name())?;
        *open = Arc::downgrade(&disk);
        Ok(disk)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Where its records end, if that is known.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// About how many bytes it has.
    pub(super) fn bytes(&self) -> u64 {
        match self.end() {
            u64::MAX => self.disk().and_then(|own| own.len()).unwrap_or(0),
            end => end,
        }
    }

    /// Cuts off everything after `end`, durably.
    pub(super) fn cut(&self, end: u64) -> io::Result<()> {
        let disk = self.disk()?;
        disk.set_len(end)?;
        disk.sync()
    }

    /// Finds the end of the records and cuts off what follows; `None` where not even the header is whole.
    pub(super) fn recover(&self) -> io::Result<Option<Recovered>> {
        let disk = self.disk()?;
        let len = disk.len()?;
        let mut bytes = [0; HEADER_BYTES as usize];
        if len < HEADER_BYTES {
            return Ok(None);
        }
        disk.read(0, &mut bytes)?;
        if bytes != header(self.first) {
            return Ok(None);
        }
        let (mut end, mut next) = (HEADER_BYTES, self.first);
        let mut want = SCAN_BYTES;
        'chunks: loop {
            let room = usize::try_from(len - end).unwrap_or(usize::MAX);
            let mut chunk = vec![0; want.min(room)];
            disk.read(end, &mut chunk)?;
            let mut at = 0;
            loop {
                match read_record(&chunk[at..], next) {
                    Found::Record(_, bytes) => {
                        at += bytes;
                        next += 1;
                    }
                    Found::Part(bytes) => {
                        end += at as u64;
                        if end + bytes as u64 > len {
                            break 'chunks;
                        }
                        want = bytes.max(SCAN_BYTES);
                        break;
                    }
                    Found::End => {
                        end += at as u64;
                        break 'chunks;
                    }
                }
            }
        }
        // What a reader sees must not be lost afterwards, and what is torn must not become whole again.
        self.cut(end)?;
        Ok(Some(Recovered { end, next }))
    }
}
