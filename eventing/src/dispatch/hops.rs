//! How many brokers an event may still pass. Pure. Upstream: `pkg/broker/ttl.go`, `pkg/broker/ingress`.

use crate::event::record::{HEADERS_MAX, Kept};
use jiff::Timestamp;

/// The extension that counts.
pub const HOPS: &str = "knativebrokerttl";

/// What an event starts with. Upstream: `cmd/broker/ingress`, `defaultTTL`.
pub const HOPS_MAX: i32 = 255;

/// When the broker took the event. Upstream: `EventArrivalTime`.
const ARRIVAL: &str = "knativearrivaltime";

/// The count beside an event that leaves the broker, where no consumer sees it. Upstream does not send it, so that a loop of two
/// brokers that are each other's subscribers never ends there. Its prefix is one that channels pass on.
pub(crate) const HOPS_HEADER: &str = "knative-broker-hops";

/// An event enters a broker: it starts to count, or counts down. `false` where it has gone too far and must be dropped.
#[must_use]
pub(crate) fn enter(kept: &mut Kept, now: Timestamp) -> bool {
    let beside = take_header(kept);
    let before = kept.event.extensions.get(HOPS).or(beside.as_ref());
    let left = match before.map(|own| own.parse::<i32>()) {
        None | Some(Err(_)) => HOPS_MAX,
        Some(Ok(left)) => left.saturating_sub(1),
    };
    kept.event.extensions.insert(HOPS.to_owned(), left.max(0).to_string());
    kept.event.extensions.insert(ARRIVAL.to_owned(), now.to_string());
    left > 0
}

/// An event leaves the broker for a subscriber: the count goes beside it. `None` for an event that no broker took.
pub(crate) fn leave(kept: &mut Kept) -> Option<String> {
    take_header(kept);
    let hops = kept.event.extensions.remove(HOPS)?;
    kept.headers.truncate(HEADERS_MAX - 1);
    kept.headers.push((HOPS_HEADER.to_owned(), hops.clone()));
    Some(hops)
}

fn take_header(kept: &mut Kept) -> Option<String> {
    let at = kept.headers.iter().position(|(name, _)| name == HOPS_HEADER)?;
    Some(kept.headers.remove(at).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn hops_are_counted() {
        let check = |before: Option<&str>, beside: Option<&str>, after: &str, goes_on: bool| {
            let mut kept = Kept { event: Event::new("1", "/s", "t"), headers: Vec::new() };
            kept.event.extensions.extend(before.map(|own| (HOPS.to_owned(), own.to_owned())));
            kept.headers.extend(beside.map(|own| (HOPS_HEADER.to_owned(), own.to_owned())));
            assert_eq!(enter(&mut kept, Timestamp::UNIX_EPOCH), goes_on, "{before:?} {beside:?}");
            assert_eq!(kept.event.extensions[ARRIVAL], "1970-01-01T00:00:00Z");
            assert!(kept.headers.is_empty());
            assert_eq!(leave(&mut kept).as_deref(), Some(after), "{before:?} {beside:?}");
            assert_eq!(kept.headers, [(HOPS_HEADER.to_owned(), after.to_owned())]);
            assert_eq!(leave(&mut kept), None);
        };
        check(None, None, "255", true);
        check(None, Some("7"), "6", true);
        check(Some("255"), None, "254", true);
        check(Some("3"), Some("9"), "2", true);
        check(Some("2"), None, "1", true);
        check(Some("1"), None, "0", false);
        check(Some("0"), None, "0", false);
        check(Some("-2147483648"), None, "0", false);
        check(Some("many"), None, "255", true);
    }
}
