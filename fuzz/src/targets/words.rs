//! Short texts and the shim's messages.

use api::cron::Schedule;
use api::quantity::Quantity;
use api::selector::{FieldSelector, LabelSelector};
use api::time_text::{self, Precision};

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Schedules: the next time is found, and is later.
pub fn cron(bytes: &[u8]) {
    let Some(schedule) = text(bytes).and_then(|text| Schedule::parse(text).ok()) else { return };
    let now = jiff::Timestamp::from_second(1_795_767_608).expect("a time");
    if let Some(next) = schedule.next_after(now, &jiff::tz::TimeZone::UTC) {
        assert!(next > now);
    }
}

/// Quantities: the canonical text means the same.
pub fn quantity(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let _ = (quantity.units(), quantity.millis(), quantity.nanos());
    let canonical = Quantity::canonical(text).expect("what can be read can be written");
    let again = Quantity::canonical(&canonical).expect("what was written can be read");
    assert_eq!(canonical, again, "{text}");
}

/// Selectors of labels and fields.
pub fn selector(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let _ = selector.matches(|_| Some("1"));
        let _ = selector.matches(|_| None);
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.matches(|field| Some(field.to_owned()));
    }
}

/// Times and durations: what is written of them is read as the same.
pub fn time(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for precision in [Precision::Seconds, Precision::Micros] {
        let Ok((seconds, nanos)) = time_text::parse_time(text, precision) else { continue };
        let Some(written) = time_text::format_time(seconds, nanos, precision) else { continue };
        let again = time_text::parse_time(&written, precision).expect("what was written can be read");
        assert_eq!(time_text::format_time(again.0, again.1, precision), Some(written));
    }
    if let Ok(nanos) = time_text::parse_duration(text) {
        let written = time_text::format_duration(nanos);
        assert_eq!(time_text::parse_duration(&written), Ok(nanos), "{written}");
    }
}

/// What daemon and shim say to each other.
pub fn shim(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<shim::Request>(bytes) {
        let text = serde_json::to_vec(&request).expect("it can be written");
        assert!(serde_json::from_slice::<shim::Request>(&text).is_ok());
    }
    if let Ok(message) = serde_json::from_slice::<shim::Message>(bytes) {
        let text = serde_json::to_vec(&message).expect("it can be written");
        assert!(serde_json::from_slice::<shim::Message>(&text).is_ok());
    }
}
