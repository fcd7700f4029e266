//! What the data plane counts and the autoscaler reads, by revision: how many requests there are at once, and how many came.
//!
//! Every request is counted once, by whichever part of the data plane sees it first, from its arrival to the end of its
//! answer. So there is nothing to scrape and nothing to subtract, unlike upstream, where activator and queue count apart.

use api::ObjectName;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Revisions that wait to be looked at by the autoscaler. Where it is full the next tick sees them anyway.
const WOKEN_LEN_MAX: usize = 1024;

/// The counters of all revisions.
pub struct Traffic {
    revisions: Mutex<HashMap<ObjectName, Arc<RevisionTraffic>>>,
    wake: mpsc::Sender<ObjectName>,
}

/// The revisions that got a request while nothing could take it, as they come.
pub type Woken = mpsc::Receiver<ObjectName>;

impl Traffic {
    /// No traffic yet. There is one receiver: the autoscaler's.
    pub fn new() -> (Arc<Self>, Woken) {
        let (wake, woken) = mpsc::channel(WOKEN_LEN_MAX);
        (Arc::new(Self { revisions: Mutex::default(), wake }), woken)
    }

    /// The counters of a revision; they begin with the first question for them.
    pub fn of(&self, revision: &ObjectName, now: Instant) -> Arc<RevisionTraffic> {
        let mut all = self.revisions.lock();
        all.entry(revision.clone()).or_insert_with(|| Arc::new(RevisionTraffic::new(now))).clone()
    }

    /// Forgets a revision that is gone.
    pub fn forget(&self, revision: &ObjectName) {
        self.revisions.lock().remove(revision);
    }

    /// A request has come that no pod can take now.
    pub fn wake(&self, revision: &ObjectName) {
        // Whoever misses a full queue is seen at the next tick.
        let _ = self.wake.try_send(revision.clone());
    }
}

/// The counters of one revision.
pub struct RevisionTraffic {
    counted: Mutex<Counted>,
}

struct Counted {
    in_flight: u32,
    requests: u64,
    /// In-flight requests times seconds, up to `at`.
    busy_seconds: f64,
    at: Instant,
    since: Instant,
}

/// What was counted between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Average of the requests at once.
    pub concurrency: f64,
    /// Requests that began, per second.
    pub requests_per_second: f64,
}

impl RevisionTraffic {
    fn new(now: Instant) -> Self {
        let counted = Counted { in_flight: 0, requests: 0, busy_seconds: 0.0, at: now, since: now };
        Self { counted: Mutex::new(counted) }
    }

    /// A request has arrived. It lasts until what this returns is dropped.
    pub fn begin(self: &Arc<Self>, now: Instant) -> InFlight {
        let mut counted = self.counted.lock();
        counted.advance(now);
        counted.in_flight += 1;
        counted.requests += 1;
        InFlight(self.clone())
    }

    /// Requests that are there now.
    pub fn in_flight(&self) -> u32 {
        self.counted.lock().in_flight
    }

    /// What was counted since the last call.
    pub fn take(&self, now: Instant) -> Figures {
        let mut counted = self.counted.lock();
        counted.advance(now);
        let seconds = now.saturating_duration_since(counted.since).as_secs_f64();
        let per_second = |sum: f64| if seconds > 0.0 { sum / seconds } else { 0.0 };
        #[allow(clippy::cast_precision_loss)]
        let figures = Figures {
            concurrency: per_second(counted.busy_seconds),
            requests_per_second: per_second(counted.requests as f64),
        };
        (counted.requests, counted.busy_seconds, counted.since) = (0, 0.0, now);
        figures
    }
}

impl Counted {
    fn advance(&mut self, now: Instant) {
        self.busy_seconds += f64::from(self.in_flight) * now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
    }
}

/// A request that is being answered.
pub struct InFlight(Arc<RevisionTraffic>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut counted = self.0.counted.lock();
        counted.advance(Instant::now());
        counted.in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn averages_follow_time() {
        let (traffic, _woken) = Traffic::new();
        let own = traffic.of(&ObjectName::new("a", "web-00001"), Instant::now());
        let first = own.begin(Instant::now());
        tokio::time::advance(Duration::from_millis(500)).await;
        let second = own.begin(Instant::now());
        tokio::time::advance(Duration::from_millis(500)).await;
        drop(first);
        assert_eq!(own.take(Instant::now()), Figures { concurrency: 1.5, requests_per_second: 2.0 });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(own.take(Instant::now()), Figures { concurrency: 1.0, requests_per_second: 0.0 });
        drop(second);
        assert_eq!(own.in_flight(), 0);
    }

    #[tokio::test]
    async fn a_request_without_a_pod_wakes_the_autoscaler() {
        let (traffic, mut woken) = Traffic::new();
        traffic.wake(&ObjectName::new("a", "web-00001"));
        assert_eq!(woken.recv().await, Some(ObjectName::new("a", "web-00001")));
    }
}
