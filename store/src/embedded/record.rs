//! What the engine's file holds: three tables, and how one write looks in them.
//!
//! **Invariant**: the newest revision is the largest key of `LOG`, which compaction never removes, or `META_FLOOR` where that is larger.
//! **Invariant**: no revision above the durable `META_RESERVED` is ever told before it is durable.
//! **Invariant**: each entry of `CURRENT` names a record of `LOG` with the same key, which is a put.

use redb::TableDefinition;

use crate::{Error, Revision};

/// Revision → record: every write that is still current or within the history.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Key → revision of the write that made it what it is.
pub(super) const CURRENT: TableDefinition<'static, &[u8], u64> = TableDefinition::new("current");
/// Single numbers, by the names below.
pub(super) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// In `META`: the version of this layout.
pub(super) const META_FORMAT: &str = "format";
/// In `META`: the oldest revision that can be listed or watched from.
pub(super) const META_OLDEST: &str = "oldest";
/// In `META`: revisions up to here may have been told before a crash took them back. They are not used again.
pub(super) const META_FLOOR: &str = "floor";
/// In `META`: revisions up to here may be told before they are durable.
pub(super) const META_RESERVED: &str = "reserved";
/// The layout this engine reads and writes.
pub(super) const FORMAT: u64 = 1;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const HEADER_BYTES: usize = 11;

/// One write, borrowed from its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The revision of the key before; 0 where the key is new.
    pub previous: Revision,
    pub key: &'a [u8],
    /// `None` is a removal.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Writes the record over `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(HEADER_BYTES + self.key.len() + self.value.map_or(0, <[u8]>::len));
        out.push(if self.value.is_some() { PUT } else { DELETE });
        out.extend_from_slice(&u16::try_from(self.key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.value.unwrap_or_default());
    }

    /// Reads what `encode` wrote; `None` where it did not.
    pub fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let key_len = usize::from(u16::from_le_bytes([header[1], header[2]]));
        let previous = u64::from_le_bytes(header[3..].try_into().ok()?);
        let (key, value) = rest.split_at_checked(key_len)?;
        let value = match header[0] {
            PUT => Some(value),
            DELETE if value.is_empty() => None,
            _ => return None,
        };
        Some(Record { previous, key, value })
    }
}

/// What redb said, in the store's words.
pub(super) fn explain(path: &str, error: impl Into<redb::Error>) -> Error {
    use std::io::ErrorKind;
    let corrupt = |message: String| Error::Corrupt { path: path.to_owned(), message };
    match error.into() {
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Error::Full,
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                corrupt(error.to_string())
            }
            _ => Error::Broken { message: error.to_string() },
        },
        redb::Error::PreviousIo => Error::Broken { message: "an earlier I/O error".to_owned() },
        redb::Error::DatabaseClosed => Error::Unavailable { message: "the store is closed".to_owned() },
        redb::Error::DatabaseAlreadyOpen => Error::Locked { path: path.to_owned() },
        error => corrupt(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_cut_one_does_not() {
        let check = |record: Record<'_>| {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes), Some(record));
            for cut in 0..HEADER_BYTES + record.key.len() {
                assert_eq!(Record::decode(&bytes[..cut]), None, "cut at {cut}");
            }
        };
        check(Record { previous: 0, key: b"a", value: Some(b"") });
        check(Record { previous: 7, key: b"a/b", value: Some(b"value") });
        check(Record { previous: u64::MAX, key: b"a/b", value: None });
        assert_eq!(Record::decode(&[3; 20]), None, "an unknown kind");
    }
}
