//! How fast a log takes events: for benchmarks.

use super::{Log, LogError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// How many events are durable.
    pub events: u64,
    /// How long that took.
    pub took: Duration,
}

impl Measured {
    /// Durable events per second.
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Lets `producers` append `each` events of `bytes` bytes, every one after its last is durable.
///
/// # Errors
/// The first error of an append.
pub async fn appends(log: &Arc<Log>, producers: u64, each: u64, bytes: usize) -> Result<Measured, LogError> {
    let start = Instant::now();
    let all = (0..producers).map(|_| {
        let log = log.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                log.append(vec![vec![b'x'; bytes.max(1)]]).await?;
            }
            Ok::<(), LogError>(())
        })
    });
    for own in futures::future::join_all(all).await {
        own.unwrap_or(Err(LogError::Stopped))?;
    }
    Ok(Measured { events: producers * each, took: start.elapsed() })
}
