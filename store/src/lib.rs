//! An ordered, versioned map of bytes that can be watched. It knows no Kubernetes word.
//!
//! Start at [`Store`]. [`embedded`] is the engine of one machine, on a [`disk`]; [`etcd`] is for several machines;
//! [`conformance`] is the suite that every backend passes, [`testing`] the disk that fails on demand.

pub mod conformance;
pub mod disk;
pub mod embedded;
pub mod etcd;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod testing;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};

/// The longest key. A Kubernetes name and namespace have at most 253 bytes each, a group and plural likewise.
pub const KEY_BYTES_MAX: usize = 1024;

/// The largest value: what a request body may have upstream (`k8s.io/apiserver/pkg/server`, `MaxRequestBodyBytes`).
pub const VALUE_BYTES_MAX: usize = 3 << 20;

/// A key: bytes, ordered as bytes. Callers use `/` as a separator by convention.
pub type Key = Bytes;

/// The number of a committed write. The first write is revision 1.
pub type Revision = u64;

/// What must be true of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key's last write is this revision.
    At(Revision),
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the value.
    Put(Bytes),
    /// Removes the key.
    Delete,
}

/// A key as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Start after this key.
    pub after: Option<Key>,
    /// At most this many entries; 0 means all.
    pub limit: usize,
    /// As of this revision; `None` means the newest.
    pub at: Option<Revision>,
}

/// What a listing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Ordered by key.
    pub entries: Vec<Entry>,
    /// The store's revision that the listing shows.
    pub revision: Revision,
    /// Whether more follow.
    pub more: bool,
}

/// A committed write, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// The new value, or `None` where the key was removed.
    pub value: Option<Bytes>,
    /// The value before, or `None` where the key is new.
    pub previous: Option<Bytes>,
    /// The write's revision.
    pub revision: Revision,
}

/// What a stream of [`Store::follow`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A write.
    Write(Event),
    /// Every write up to here under the prefix was told.
    Reached(Revision),
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `Expect` does not hold; `found` is what the key is.
    #[error("the key is not as expected")]
    Conflict {
        /// The key as it is, or `None` where it does not exist.
        found: Option<Entry>,
    },
    /// The asked revision is gone.
    #[error("revision {asked} is compacted, the oldest is {oldest}")]
    Compacted {
        /// What was asked.
        asked: Revision,
        /// The oldest that is still there.
        oldest: Revision,
    },
    /// The asked revision is not written yet.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// What was asked.
        asked: Revision,
        /// The newest there is.
        newest: Revision,
    },
    /// The value or key is over its bound.
    #[error("{bytes} bytes are over the bound of {bytes_max}")]
    TooLarge {
        /// What was given.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// The medium is full. Nothing was changed; reads go on, and writes that fit may succeed later.
    #[error("no space is left on the disk")]
    Full,
    /// The medium failed, now or earlier: no write is accepted until the store is opened anew.
    #[error("the store refuses work after an I/O error: {message}")]
    Broken {
        /// What the medium said first.
        message: String,
    },
    /// The file is not a store, or is damaged.
    #[error("the store at {path} is damaged: {message}")]
    Corrupt {
        /// Where.
        path: String,
        /// How it was noticed.
        message: String,
    },
    /// Another handle, here or in another process, has the store open.
    #[error("the store at {path} is already open")]
    Locked {
        /// Where.
        path: String,
    },
    /// The store's file could not be opened or made.
    #[error("the store at {path} cannot be opened: {message}")]
    Unopened {
        /// Where.
        path: String,
        /// What the system said.
        message: String,
    },
    /// The other side could not be reached; whether the write happened is unknown.
    #[error("the store cannot be reached: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
}

/// The result of store calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An ordered, versioned map of bytes that can be watched.
///
/// # Invariants (`conformance` runs them against every backend, with injected faults)
/// 1. Each committed write takes a `Revision` larger than all before, never reused, also after a crash. The embedded engine leaves
///    no gap; etcd does, since whatever else lives in it counts too, and a transaction of somebody else may give several keys
///    one revision (then a watch tells them one after another).
/// 2. A write whose `Expect` does not hold changes nothing and says `Conflict` with what was found.
/// 3. `watch(prefix, after)` yields every later write once, in order, or ends with `Compacted`; however slow its reader is.
/// 4. Nothing is acknowledged, readable or watched before it is durable, except what `write_deferred` writes.
/// 5. A listing at a revision shows exactly the writes up to it.
pub trait Store: Send + Sync {
    /// The key as it is now.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>>;
    /// All keys that start with `prefix`, in order.
    fn list<'a>(&'a self, prefix: &'a Key, page: Page) -> BoxFuture<'a, Result<Listing>>;
    /// Writes if `expect` holds. There is no other write. A caller that stops waiting does not undo it.
    fn write<'a>(&'a self, key: &'a Key, expect: Expect, change: Change) -> BoxFuture<'a, Result<Revision>>;
    /// Like `write`, but it may be acknowledged, readable and watched before it is durable: for what the caller can bear to
    /// lose in a crash. It becomes durable in order, with the next `write` or a few seconds later, whichever comes first; no
    /// revision that was ever told is used again after a crash (there may then be a gap).
    fn write_deferred<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
        change: Change,
    ) -> BoxFuture<'a, Result<Revision>> {
        self.write(key, expect, change)
    }
    /// Every write after `after` to keys that start with `prefix`.
    fn watch(&self, prefix: &Key, after: Revision) -> BoxStream<'static, Result<Event>> {
        let writes = self.follow(prefix, after).filter_map(|told| {
            std::future::ready(match told {
                Ok(Told::Write(event)) => Some(Ok(event)),
                Ok(Told::Reached(_)) => None,
                Err(error) => Some(Err(error)),
            })
        });
        writes.boxed()
    }
    /// Like `watch`, and where [`Self::is_shared`] it also tells how far it is: at the latest a moment after
    /// [`Self::revision`] was called, that it has reached what was answered.
    fn follow(&self, prefix: &Key, after: Revision) -> BoxStream<'static, Result<Told>>;
    /// Whether others may write without this process being told first: then what a watch has told may be older than what
    /// somebody else was acknowledged.
    fn is_shared(&self) -> bool {
        false
    }
    /// Forgets revisions before `before`; what is current stays. Afterwards `before` is the oldest revision that can
    /// be listed or watched from.
    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>>;
    /// The newest revision: at least that of every write that was acknowledged before, to anybody.
    fn revision(&self) -> BoxFuture<'_, Result<Revision>>;
}

/// Refuses what is over the bounds.
fn check_bytes(key: &Key, change: &Change) -> Result<()> {
    let refuse = |bytes: usize, bytes_max: usize| match bytes > bytes_max {
        true => Err(Error::TooLarge { bytes, bytes_max }),
        false => Ok(()),
    };
    refuse(key.len(), KEY_BYTES_MAX)?;
    match change {
        Change::Put(value) => refuse(value.len(), VALUE_BYTES_MAX),
        Change::Delete => Ok(()),
    }
}
