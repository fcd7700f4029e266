//! Growing waits between tries.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Exponential waits with jitter, so that many clients that lost the same server do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits `first`, then twice as long each time, up to `max`; each lengthened by up to a half at random.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait + wait.mul_f64(random_fraction() / 2.0)
    }

    /// Starts again with the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random number in `[0, 1)`. Good enough to spread clients, not for secrets.
pub(crate) fn random_fraction() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    // 53 bits are what a double can hold exactly.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
