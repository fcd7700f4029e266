//! Time for components.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tokio::time::Instant;

/// Tells the time and waits. Components ask nothing else for the time, so that tests can hold it still.
///
/// Waiting is tokio's: under `tokio::time::pause` time jumps as soon as nobody has anything to do.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Where the virtual clock started, if it is one.
    start: Option<(Instant, Timestamp)>,
}

impl Clock {
    /// The time of the machine.
    pub fn system() -> Self {
        Self { start: None }
    }

    /// A clock that shows `now` and goes on as tokio's time does. For tests with paused time.
    pub fn starting_at(now: Timestamp) -> Self {
        Self { start: Some((Instant::now(), now)) }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        match self.start {
            None => Timestamp::now(),
            Some((start, at_start)) => at_start + start.elapsed(),
        }
    }

    /// Waits for a duration.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits for a point in time; returns at once if it has passed.
    pub async fn sleep_until(&self, at: Timestamp) {
        tokio::time::sleep(self.until(at)).await;
    }

    /// How long until a point in time; zero if it has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        Duration::try_from(at.duration_since(self.now())).unwrap_or_default()
    }
}

/// A timestamp as objects hold it: whole seconds. Upstream: `metav1.Time`.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_virtual_clock_moves_with_paused_time() {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        clock.sleep_until(Timestamp::from_second(90).unwrap()).await;
        assert_eq!(clock.now().as_second(), 90);
        assert_eq!(clock.until(Timestamp::from_second(10).unwrap()), Duration::ZERO);
        assert_eq!(time(Timestamp::new(5, 999_999_999).unwrap()).0.to_string(), "1970-01-01T00:00:05Z");
    }
}
