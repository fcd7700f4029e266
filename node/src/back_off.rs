//! Exponential waiting per key, in upstream's terms. Upstream: client-go `util/flowcontrol` `Backoff`.

use api::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// The first wait after a failure.
pub(crate) const INITIAL: Duration = Duration::from_secs(10);
/// No wait is longer.
pub(crate) const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    wait: Duration,
    updated_at: Timestamp,
}

/// Waits by key. Entries that rested for twice the longest wait start anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackOff {
    entries: HashMap<String, Entry>,
}

impl BackOff {
    /// Until when `key` has to wait, if it has to: `since` is when it failed.
    pub(crate) fn until(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|entry| !is_expired(entry, since))?;
        let until = since + entry.wait;
        (until > now).then_some(until)
    }

    /// Until when `key` has to wait, counted from the last time it was told to.
    pub(crate) fn until_since_update(&self, key: &str, now: Timestamp) -> Option<Timestamp> {
        let entry = self.entries.get(key).filter(|entry| !is_expired(entry, now))?;
        let until = entry.updated_at + entry.wait;
        (until > now).then_some(until)
    }

    /// Lengthens the wait of `key`, which failed at `at`.
    pub(crate) fn next(&mut self, key: &str, at: Timestamp, now: Timestamp) {
        let wait = match self.entries.get(key).filter(|entry| !is_expired(entry, at)) {
            Some(entry) => (entry.wait * 2).min(MAX),
            None => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { wait, updated_at: now });
    }

    /// The wait of `key` as it is.
    pub(crate) fn wait(&self, key: &str) -> Duration {
        self.entries.get(key).map(|entry| entry.wait).unwrap_or_default()
    }
}

fn is_expired(entry: &Entry, at: Timestamp) -> bool {
    at.duration_since(entry.updated_at) > jiff_duration(MAX * 2)
}

fn jiff_duration(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

/// A wait in Go's words: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::at;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_anew_after_ten() {
        let mut back_off = BackOff::default();
        assert_eq!(back_off.until("a", at(0), at(0)), None);
        for (expect, second) in [(10, 1), (20, 12), (40, 40), (80, 90), (160, 200), (300, 400), (300, 800)] {
            back_off.next("a", at(second), at(second));
            assert_eq!(back_off.wait("a"), Duration::from_secs(expect));
            assert_eq!(
                back_off.until("a", at(second), at(second)),
                Some(at(second) + Duration::from_secs(expect))
            );
        }
        assert_eq!(back_off.until("a", at(1401), at(1401)), None);
        back_off.next("a", at(1401), at(1401));
        assert_eq!(back_off.wait("a"), INITIAL);
    }

    #[test]
    fn durations_read_as_in_go() {
        assert_eq!(go_duration(Duration::from_secs(10)), "10s");
        assert_eq!(go_duration(Duration::from_secs(80)), "1m20s");
        assert_eq!(go_duration(Duration::from_secs(300)), "5m0s");
    }
}
