//! Whether and when to try again. Pure. Upstream: `pkg/kncloudevents/retries.go`.

use super::Failure;
use api::period;
use http::StatusCode;
use jiff::Timestamp;
use std::time::Duration;

/// The longest wait between two attempts; upstream has no bound.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long one attempt may take where `timeout` says nothing; upstream would wait for ever.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

/// The longest that one attempt may take.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The most attempts after the first.
pub const RETRY_MAX: u32 = 1000;

/// How waits grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backoff {
    /// Delay times the number of the attempt, which starts at 0. The published text says otherwise; this is what upstream does.
    Linear,
    /// Delay times two to the power of that number.
    #[default]
    Exponential,
}

/// `spec.delivery`, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub retry: u32,
    /// How waits grow.
    pub backoff: Backoff,
    /// What they grow from.
    pub delay: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The longest wait that `Retry-After` may ask for; `None` and zero mean that nobody looks at it.
    pub retry_after_max: Option<Duration>,
}

impl Default for Retry {
    /// One attempt: what is used without `spec.delivery`.
    fn default() -> Self {
        Retry {
            retry: 0,
            backoff: Backoff::Exponential,
            delay: Duration::ZERO,
            timeout: TIMEOUT_DEFAULT,
            retry_after_max: None,
        }
    }
}

/// The fields of `spec.delivery` that [`Retry::of`] reads, as the object has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spec<'a> {
    /// `retry`.
    pub retry: Option<i64>,
    /// `backoffPolicy`: `linear` or `exponential`.
    pub backoff_policy: Option<&'a str>,
    /// `backoffDelay`, ISO 8601.
    pub backoff_delay: Option<&'a str>,
    /// `timeout`, ISO 8601.
    pub timeout: Option<&'a str>,
    /// `retryAfterMax`, ISO 8601.
    pub retry_after_max: Option<&'a str>,
}

impl Retry {
    /// Reads the fields. What cannot be read, which validation refuses before, is as if it were not there. Without both a policy and
    /// a delay there is no wait.
    pub fn of(spec: Spec<'_>) -> Retry {
        let backoff = match spec.backoff_policy {
            Some("linear") => Some(Backoff::Linear),
            Some("exponential") => Some(Backoff::Exponential),
            _ => None,
        };
        let timeout = spec.timeout.and_then(period::parse).filter(|own| !own.is_zero());
        let delay = backoff.and(spec.backoff_delay.and_then(period::parse));
        Retry {
            retry: spec.retry.map_or(0, |own| u32::try_from(own.max(0)).unwrap_or(u32::MAX).min(RETRY_MAX)),
            backoff: backoff.unwrap_or_default(),
            delay: delay.unwrap_or_default(),
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX),
            retry_after_max: spec.retry_after_max.and_then(period::parse),
        }
    }

    /// How long to wait after a failed attempt, the first being number 0; `None` to give up.
    pub fn wait(&self, attempt: u32, failure: &Failure, now: Timestamp) -> Option<Duration> {
        if !failure.again || attempt >= self.retry {
            return None;
        }
        let factor = match self.backoff {
            Backoff::Linear => attempt,
            Backoff::Exponential => 1u32.checked_shl(attempt).unwrap_or(u32::MAX),
        };
        let asked = match (self.retry_after_max, &failure.retry_after) {
            (Some(max), Some(text)) => retry_after(text, now).unwrap_or_default().min(max),
            _ => Duration::ZERO,
        };
        Some(self.delay.saturating_mul(factor).max(asked).min(WAIT_MAX))
    }
}

/// Which statuses may get better. Upstream: `SelectiveRetry`.
pub fn is_retried(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 408 | 409 | 429 | 500..)
}

/// The wait that `Retry-After` asks for: seconds or an HTTP date.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds.min(period::PERIOD_SECONDS_MAX)));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(at.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16, retry_after: Option<&str>) -> Failure {
        let again = is_retried(StatusCode::from_u16(code).unwrap());
        Failure { code, data: bytes::Bytes::new(), again, retry_after: retry_after.map(str::to_owned) }
    }

    #[test]
    fn which_statuses_are_retried() {
        for code in 100..=599 {
            let wanted = matches!(code, 404 | 408 | 409 | 429) || code >= 500;
            assert_eq!(is_retried(StatusCode::from_u16(code).unwrap()), wanted, "{code}");
        }
    }

    #[test]
    fn waits() {
        let check = |policy: &str, delay: &str, attempt: u32, millis: Option<u64>| {
            let spec = Spec {
                retry: Some(5),
                backoff_policy: Some(policy),
                backoff_delay: Some(delay),
                ..Spec::default()
            };
            let wait = Retry::of(spec).wait(attempt, &failure(503, Some("60")), Timestamp::UNIX_EPOCH);
            assert_eq!(wait, millis.map(Duration::from_millis), "{policy} {delay} {attempt}");
        };
        check("exponential", "PT0.2S", 0, Some(200));
        check("exponential", "PT0.2S", 1, Some(400));
        check("exponential", "PT0.2S", 4, Some(3200));
        check("exponential", "PT0.2S", 5, None);
        check("exponential", "P300D", 4, Some(86_400_000));
        check("linear", "PT1S", 0, Some(0));
        check("linear", "PT1S", 3, Some(3000));
        check("", "PT1S", 3, Some(0));
    }

    #[test]
    fn huge_attempts_do_not_overflow() {
        let own = Retry { retry: RETRY_MAX, delay: Duration::from_secs(1), ..Retry::default() };
        assert_eq!(own.wait(999, &failure(500, None), Timestamp::UNIX_EPOCH), Some(WAIT_MAX));
    }

    #[test]
    fn retry_after_counts_only_with_a_bound() {
        let check = |max: Option<&str>, header: &str, seconds: u64| {
            let spec = Spec { retry: Some(3), retry_after_max: max, ..Spec::default() };
            let now = "1994-11-06T08:49:37Z".parse().unwrap();
            let wait = Retry::of(spec).wait(0, &failure(429, Some(header)), now);
            assert_eq!(wait, Some(Duration::from_secs(seconds)), "{max:?} {header}");
        };
        check(None, "60", 0);
        check(Some("PT0S"), "60", 0);
        check(Some("PT30S"), "60", 30);
        check(Some("PT90S"), "60", 60);
        check(Some("PT90S"), "Sun, 06 Nov 1994 08:50:07 GMT", 30);
        check(Some("PT90S"), "Sun, 06 Nov 1994 08:49:07 GMT", 0);
        check(Some("PT90S"), "soon", 0);
        check(Some("PT90S"), "-5", 0);
    }

    #[test]
    fn what_is_not_retried() {
        let own = Retry { retry: 3, ..Retry::default() };
        assert_eq!(own.wait(0, &failure(400, None), Timestamp::UNIX_EPOCH), None);
        assert_eq!(own.wait(0, &failure(302, None), Timestamp::UNIX_EPOCH), None);
        assert_eq!(Retry::default().wait(0, &failure(500, None), Timestamp::UNIX_EPOCH), None);
        assert_eq!(Retry::of(Spec { retry: Some(-3), ..Spec::default() }).retry, 0);
        assert_eq!(
            Retry::of(Spec { timeout: Some("PT5S"), ..Spec::default() }).timeout,
            Duration::from_secs(5)
        );
    }
}
