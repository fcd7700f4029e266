//! What fuzzing reaches of this crate's insides.

use crate::embedded::record::Record;

/// A record that is read is written the same way, and nothing makes reading panic.
pub fn record(bytes: &[u8]) {
    let Some(record) = Record::decode(bytes) else { return };
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(Record::decode(&again), Some(record));
}
