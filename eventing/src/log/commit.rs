//! Group commit: who comes while a sync runs waits for the next one.

use super::segment::{GROW_BYTES, put_record};
use super::{
    GROUP_BYTES_MAX, LOG_BYTES_MAX, Log, LogError, QUEUE_BYTES_MAX, RECORD_BYTES_MAX, SEGMENT_BYTES_MAX,
    Writing,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

#[derive(Debug)]
pub(super) struct Queue {
    /// Bytes that may still be queued.
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Somebody commits.
    busy: bool,
}

#[derive(Debug)]
struct Waiting {
    payloads: Vec<Vec<u8>>,
    bytes: usize,
    answer: oneshot::Sender<Result<u64, Refusal>>,
    _room: OwnedSemaphorePermit,
}

/// Why a whole group was refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Full,
    Stopped,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue { room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)), state: Mutex::new(State::default()) }
    }

    /// The next group; without one nobody commits any more.
    fn group(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = state.waiting.front() {
            if !group.is_empty() && bytes + next.bytes > GROUP_BYTES_MAX {
                break;
            }
            bytes += next.bytes;
            group.extend(state.waiting.pop_front());
        }
        state.busy = !group.is_empty();
        group
    }
}

impl Log {
    /// Appends records together and returns, once they are durable, the sequence number of the first.
    ///
    /// # Errors
    /// `Full` and `Stopped` without anything appended; `TooLarge` for a record that is empty or too large. A caller that does not
    /// wait for the answer knows nothing.
    pub async fn append(self: &Arc<Self>, payloads: Vec<Vec<u8>>) -> Result<u64, LogError> {
        if payloads.is_empty() || payloads.iter().any(|own| own.is_empty() || own.len() > RECORD_BYTES_MAX) {
            return Err(LogError::TooLarge { what: "a record", max: RECORD_BYTES_MAX });
        }
        let bytes: usize = payloads.iter().map(Vec::len).sum();
        let permits = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.queue.room.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_| LogError::Stopped)?;
        let (answer, answered) = oneshot::channel();
        let lead = {
            let mut state = self.queue.state.lock();
            state.waiting.push_back(Waiting { payloads, bytes, answer, _room: room });
            !std::mem::replace(&mut state.busy, true)
        };
        if lead {
            let log = self.clone();
            // Not awaited: the group is committed even if this caller goes away.
            drop(tokio::task::spawn_blocking(move || log.commit_all()));
        }
        match answered.await {
            Ok(Ok(first)) => Ok(first),
            Ok(Err(Refusal::Full)) => Err(LogError::Full),
            Ok(Err(Refusal::Stopped)) | Err(_) => Err(LogError::Stopped),
        }
    }

    fn commit_all(&self) {
        loop {
            let group = self.queue.group();
            if group.is_empty() {
                return;
            }
            let mut writing = self.writing.lock();
            let result = self.commit(&mut writing, &group);
            drop(writing);
            let mut first = match result {
                Ok(first) => first,
                Err(refusal) => {
                    for own in group {
                        let _ = own.answer.send(Err(refusal));
                    }
                    continue;
                }
            };
            for own in group {
                let count = own.payloads.len() as u64;
                // Nobody has to wait for the answer.
                let _ = own.answer.send(Ok(first));
                first += count;
            }
        }
    }

    /// Makes a group durable and returns the sequence number of its first record.
    fn commit(&self, writing: &mut Writing, group: &[Waiting]) -> Result<u64, Refusal> {
        if self.is_stopped() {
            return Err(Refusal::Stopped);
        }
        let first = *self.next.borrow();
        let mut next = first;
        let mut bytes = Vec::new();
        for payload in group.iter().flat_map(|own| &own.payloads) {
            put_record(&mut bytes, next, payload);
            next += 1;
        }
        match self.write(writing, &bytes) {
            Ok(()) => {}
            Err(LogError::Full) => return Err(Refusal::Full),
            Err(error) => {
                tracing::error!(%error, source = std::error::Error::source(&error), "a log of events stopped");
                self.stopped.store(true, Ordering::Release);
                return Err(Refusal::Stopped);
            }
        }
        writing.used += bytes.len() as u64;
        self.next.send_replace(next);
        Ok(first)
    }

    fn write(&self, writing: &mut Writing, bytes: &[u8]) -> Result<(), LogError> {
        if writing.older_bytes + writing.used + bytes.len() as u64 > LOG_BYTES_MAX {
            return Err(LogError::Full);
        }
        if writing.torn {
            writing.disk.set_len(writing.used)?;
            (writing.torn, writing.len) = (false, writing.used);
        }
        if writing.used > SEGMENT_BYTES_MAX {
            self.roll(writing).map_err(full)?;
        }
        let disk = writing.disk.clone();
        let end = writing.used + bytes.len() as u64;
        if end > writing.len {
            let len = end.next_multiple_of(GROW_BYTES);
            if disk.free_bytes().is_some_and(|own| own < len - writing.len) {
                return Err(LogError::Full);
            }
            disk.set_len(len).map_err(|error| full(error.into()))?;
            writing.len = len;
        }
        if let Err(error) = disk.write(writing.used, bytes) {
            // Part of it may be there.
            writing.torn = true;
            return Err(full(error.into()));
        }
        // A sync that failed may have lost what it was to keep: only a new segment helps, whatever the reason.
        disk.sync()?;
        Ok(())
    }
}

/// A full disk is not a broken one.
fn full(error: LogError) -> LogError {
    match error {
        LogError::Io(own)
            if matches!(own.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            LogError::Full
        }
        own => own,
    }
}
