//! The one place that reads the clock: this crate stamps what happened, and decides nothing by it.

/// Now.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A shim's time stamp.
pub(crate) fn from_ns(ns: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default()
}
