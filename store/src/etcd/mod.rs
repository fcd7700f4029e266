//! etcd as the store: for several machines.
//!
//! # How it meets the invariants of [`crate::Store`]
//! 1. A revision is etcd's: the counter of all its writes. Every write of ours is a transaction of one key, so it has a revision
//!    of its own; what others write to the same etcd leaves gaps in ours.
//! 2. The condition is a comparison of the key's `mod_revision` in the same transaction, whose other branch reads the key.
//! 3. A watch asks for previous values and goes on after its last whole revision when a connection breaks; what is
//!    compacted meanwhile ends it with `Compacted`.
//! 4. etcd answers after its quorum has the write on disk. [`crate::Store::write_deferred`] is a plain write.
//! 5. A listing of several pages is read at the revision of its first.
//!
//! # Assumptions
//! A write whose answer does not come has perhaps happened: it is `Unavailable` and never sent twice. Values may have as many
//! bytes as etcd's `--max-request-bytes` allows, by default fewer than [`crate::VALUE_BYTES_MAX`]. Other writers below our
//! keys are other servers of ours.

mod client;
mod watch;

/// What goes over the wire.
#[allow(missing_docs, clippy::all, unreachable_pub)]
mod wire {
    include!("generated/etcdserverpb.rs");
}

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use self::client::{Client, header_revision, number};
use self::wire::compare::{CompareResult, CompareTarget, TargetUnion};
use self::wire::request_op::Request;
use self::wire::response_op::Response;
use crate::{Change, Entry, Error, Expect, Key, Listing, Page, Result, Revision, Store, Told, check_bytes};

/// Entries in one answer. With the largest values that is [`client::ANSWER_BYTES_MAX`].
const CHUNK_LEN: usize = 128;
const _: () = assert!(CHUNK_LEN * crate::VALUE_BYTES_MAX <= client::ANSWER_BYTES_MAX);

/// Where etcd is and how to be let in.
#[derive(Clone, Default)]
pub struct Options {
    /// URLs of its members, `https://10.0.0.1:2379`; the first that answers is used.
    pub endpoints: Vec<String>,
    /// Certificates (PEM) of the authorities that may have signed etcd's. `https` needs it.
    pub ca_pem: Option<String>,
    /// Our own certificate and key (PEM), where etcd asks for one.
    pub identity_pem: Option<(String, String)>,
}

/// An etcd.
pub struct Etcd(Arc<Client>);

impl Etcd {
    /// Connects to etcd and looks whether it can be used.
    ///
    /// # Errors
    /// `Unopened` where the options contradict themselves or etcd is too old, `Unavailable` where no member answers.
    pub async fn open(options: &Options) -> Result<Arc<Etcd>> {
        let client = Client::new(options)?;
        client.check_version().await?;
        let etcd = Etcd(Arc::new(client));
        etcd.revision().await?;
        Ok(Arc::new(etcd))
    }
}

/// The first key after all that start with `prefix`, as etcd writes a range's end; `\0` stands for no end.
fn range_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < u8::MAX) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(&[0]),
    }
}

/// Where a range begins: etcd knows no empty key.
fn range_start(key: &Key) -> Bytes {
    if key.is_empty() { Bytes::from_static(&[0]) } else { key.clone() }
}

fn entry(found: wire::KeyValue) -> Entry {
    Entry { key: found.key, value: found.value, revision: number(found.mod_revision) }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>>> {
        let request = wire::RangeRequest { key: range_start(key), ..Default::default() };
        async move { Ok(self.0.range(request).await?.kvs.pop().map(entry)) }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a Key, page: Page) -> BoxFuture<'a, Result<Listing>> {
        self.pages(prefix, page).boxed()
    }

    fn write<'a>(&'a self, key: &'a Key, expect: Expect, change: Change) -> BoxFuture<'a, Result<Revision>> {
        async move {
            check_bytes(key, &change)?;
            let mut done = self.0.txn(transaction(key, expect, change)).await?;
            if done.succeeded {
                return Ok(header_revision(done.header.as_ref()));
            }
            let found = match done.responses.pop().and_then(|answer| answer.response) {
                Some(Response::ResponseRange(mut found)) => found.kvs.pop().map(entry),
                _ => None,
            };
            Err(Error::Conflict { found })
        }
        .boxed()
    }

    fn follow(&self, prefix: &Key, after: Revision) -> BoxStream<'static, Result<Told>> {
        watch::follow(self.0.clone(), prefix.clone(), after)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<()>> {
        async move {
            match self.0.compact(before).await {
                // Somebody else was faster, or it is as far already.
                Err(Error::Compacted { .. }) => Ok(()),
                Err(Error::Future { asked, .. }) => {
                    Err(Error::Future { asked, newest: self.revision().await? })
                }
                result => result,
            }
        }
        .boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        async move {
            let request =
                wire::RangeRequest { key: Bytes::from_static(&[0]), count_only: true, ..Default::default() };
            let newest = header_revision(self.0.range(request).await?.header.as_ref());
            self.0.want_progress(newest);
            Ok(newest)
        }
        .boxed()
    }
}

/// A write of one key, and a reading of it where the expectation does not hold.
fn transaction(key: &Key, expect: Expect, change: Change) -> wire::TxnRequest {
    let revision = match expect {
        Expect::Absent => 0,
        Expect::At(revision) => i64::try_from(revision).unwrap_or(i64::MAX),
    };
    let key = key.clone();
    let compare = wire::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(revision)),
    };
    let read = wire::RangeRequest { key: key.clone(), ..Default::default() };
    let write = match change {
        Change::Put(value) => Request::RequestPut(wire::PutRequest { key, value, lease: 0 }),
        Change::Delete => Request::RequestDeleteRange(wire::DeleteRangeRequest { key, ..Default::default() }),
    };
    wire::TxnRequest {
        compare: vec![compare],
        success: vec![wire::RequestOp { request: Some(write) }],
        failure: vec![wire::RequestOp { request: Some(Request::RequestRange(read)) }],
    }
}

impl Etcd {
    async fn pages(&self, prefix: &Key, page: Page) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut at = match page.at {
            // etcd counts from 1, and its 0 means the newest.
            Some(0) => return Err(Error::Compacted { asked: 0, oldest: 1 }),
            at => at,
        };
        let mut start = match page.after {
            Some(after) if after >= *prefix => just_after(&after),
            _ => range_start(prefix),
        };
        loop {
            let rest = match page.limit {
                0 => CHUNK_LEN,
                limit => CHUNK_LEN.min(limit - listing.entries.len()),
            };
            let request = wire::RangeRequest {
                key: start.clone(),
                range_end: range_end(prefix),
                limit: rest as i64,
                revision: at.map_or(0, |at| i64::try_from(at).unwrap_or(i64::MAX)),
                ..Default::default()
            };
            let found = match self.0.range(request).await {
                Err(Error::Future { asked, .. }) => {
                    return Err(Error::Future { asked, newest: self.revision().await? });
                }
                found => found?,
            };
            let at = *at.get_or_insert(header_revision(found.header.as_ref()));
            if let Some(last) = found.kvs.last() {
                start = just_after(&last.key);
            }
            listing.entries.extend(found.kvs.into_iter().map(entry));
            listing.revision = at;
            listing.more = found.more;
            if !found.more || listing.entries.len() == page.limit {
                return Ok(listing);
            }
        }
    }
}

/// The least key greater than `key`.
fn just_after(key: &Key) -> Bytes {
    [key.as_ref(), &[0]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_the_prefix_does() {
        for (prefix, end) in [
            (&b"/a/"[..], &b"/a0"[..]),
            (b"a\xff", b"b"),
            (b"", b"\0"),
            (b"\xff\xff", b"\0"),
            (b"a\xff\xffb", b"a\xff\xffc"),
        ] {
            assert_eq!(range_end(prefix), end);
        }
    }
}
