//! The audit log: which requests are recorded ([`policy`]), as what ([`event`]) and where ([`file`]). Upstream:
//! `apiserver/pkg/audit`, `apiserver/plugin/pkg/audit/log`.
//!
//! # Flow
//! Requests leave records in a bounded queue; one task writes them. What the queue has no room for is dropped and counted: a disk
//! that is slow must not stop the API.

pub mod event;
pub mod file;
pub mod policy;

use crate::hooks::{Attributes, Audit, AuditLevel, AuditRecord};
use file::File;
use parking_lot::Mutex;
use policy::{Policy, Question};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Records that wait to be written. Upstream: `--audit-log-batch-buffer-size`.
const QUEUE_LEN_MAX: usize = 10_000;
/// Bytes of objects in them.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Records written at once.
const BATCH_LEN_MAX: usize = 256;

/// Keeps records in a file.
pub struct AuditLog {
    policy: Policy,
    queue: Mutex<Option<mpsc::Sender<Waiting>>>,
    counts: Arc<Counts>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Waiting {
    record: AuditRecord,
    omit_managed_fields: bool,
}

#[derive(Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Waiting {
    fn bytes(&self) -> usize {
        let objects = [&self.record.request_object, &self.record.response_object];
        objects.into_iter().flatten().map(bytes::Bytes::len).sum()
    }
}

impl AuditLog {
    /// Starts the task that writes.
    pub fn start(policy: Policy, file: File) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE_LEN_MAX);
        let counts = Arc::new(Counts::default());
        let writer = tokio::spawn(write(waiting, file, counts.clone()));
        Arc::new(Self { policy, queue: Mutex::new(Some(queue)), counts, writer: Mutex::new(Some(writer)) })
    }

    /// How many records were lost because the disk was too slow or failed.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Acquire)
    }

    /// Takes no more records and waits until those it has are written.
    pub async fn close(&self) {
        drop(self.queue.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.await;
        }
    }
}

impl Audit for AuditLog {
    fn level(&self, attributes: &Attributes<'_>, source: Option<SocketAddr>) -> AuditLevel {
        self.policy.decide(&Question::of(attributes, source)).level
    }

    fn record(&self, record: AuditRecord) {
        let decision = self.policy.decide(&Question::of_record(&record));
        if decision.omits(record.stage) {
            return;
        }
        let waiting = Waiting { record, omit_managed_fields: decision.omit_managed_fields };
        let bytes = waiting.bytes();
        let queue = self.queue.lock();
        let has_room = self.counts.waiting_bytes.load(Ordering::Acquire) + bytes <= QUEUE_BYTES_MAX;
        // Counted first: the writer may be done with it before this goes on.
        self.counts.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        if !has_room || queue.as_ref().is_none_or(|queue| queue.try_send(waiting).is_err()) {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::AcqRel);
        }
    }
}

async fn write(mut waiting: mpsc::Receiver<Waiting>, mut file: File, counts: Arc<Counts>) {
    let (mut batch, mut told) = (Vec::new(), 0);
    while waiting.recv_many(&mut batch, BATCH_LEN_MAX).await > 0 {
        let (len, bytes) = (batch.len() as u64, batch.iter().map(Waiting::bytes).sum());
        let records = std::mem::take(&mut batch);
        let work = move || {
            let mut lines = Vec::new();
            for waiting in &records {
                event::write_line(&waiting.record, waiting.omit_managed_fields, &mut lines);
            }
            let written = file.append(&lines);
            (file, written)
        };
        let Ok((returned, written)) = tokio::task::spawn_blocking(work).await else { return };
        file = returned;
        counts.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if let Err(error) = written {
            counts.dropped.fetch_add(len, Ordering::AcqRel);
            tracing::error!(%error, path = %file.path().display(), "audit records were not written");
        }
        let dropped = counts.dropped.load(Ordering::Acquire);
        if dropped > told {
            tracing::warn!(dropped, "audit records were lost");
            told = dropped;
        }
    }
}

#[cfg(test)]
mod tests;
