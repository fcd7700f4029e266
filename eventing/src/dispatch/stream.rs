//! The log of one broker or channel, and the task that writes its cursors.

use super::table::Name;
use crate::event::record::{self, Kept};
use crate::log::{Log, LogError};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long cursors may lag behind what was delivered: what a crash delivers again.
pub const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// How long a log that stopped is left alone before it is opened again.
pub const REOPEN_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: Name,
    pub(super) uid: String,
    pub(super) log: Arc<Log>,
    /// Without subscribers nothing is kept.
    pub(super) wanted: AtomicBool,
    moved: Notify,
    reopened: Mutex<Option<Instant>>,
}

impl Stream {
    pub(super) fn new(name: Name, uid: String, log: Arc<Log>) -> Stream {
        Stream {
            name,
            uid,
            log,
            wanted: AtomicBool::new(false),
            moved: Notify::new(),
            reopened: Mutex::new(None),
        }
    }

    /// Keeps events for all subscribers. They are durable when it returns.
    ///
    /// # Errors
    /// As [`Log::append`]; nothing is kept then.
    pub(crate) async fn keep(&self, events: &[Kept]) -> Result<(), LogError> {
        if events.is_empty() || !self.wanted.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.log.is_stopped() {
            self.reopen().await?;
        }
        self.log.append(events.iter().map(record::encode).collect()).await.map(drop)
    }

    async fn reopen(&self) -> Result<(), LogError> {
        {
            let mut reopened = self.reopened.lock();
            if reopened.is_some_and(|own| own.elapsed() < REOPEN_PAUSE) {
                return Err(LogError::Stopped);
            }
            *reopened = Some(Instant::now());
        }
        let log = self.log.clone();
        let opened =
            tokio::task::spawn_blocking(move || log.reopen()).await.unwrap_or(Err(LogError::Stopped));
        match &opened {
            Ok(()) => tracing::info!(source = %self.name, "the log of events is open again"),
            Err(error) => {
                tracing::error!(source = %self.name, %error, "the log of events cannot be opened again")
            }
        }
        opened
    }

    pub(super) fn advance(&self, subscriber: &str, sequence: u64) {
        if self.log.advance(subscriber, sequence) {
            self.moved.notify_one();
        }
    }

    pub(super) async fn save(&self) {
        let log = self.log.clone();
        let saved = tokio::task::spawn_blocking(move || log.save_cursors()).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(source = %self.name, %error, "cursors were not written");
        }
    }

    /// Writes cursors a while after they moved, until `stop`, and then once more.
    pub(super) async fn save_until(self: Arc<Self>, stop: CancellationToken) {
        let rounds = async {
            loop {
                self.moved.notified().await;
                tokio::time::sleep(SAVE_PAUSE).await;
                self.save().await;
            }
        };
        let _ = stop.run_until_cancelled(rounds).await;
        self.save().await;
    }
}
