//! ISO 8601 periods, as Knative's `backoffDelay`, `timeout` and `retryAfterMax` have them.

use std::time::Duration;

/// The longest period that is told apart; longer ones are this.
pub const PERIOD_SECONDS_MAX: u64 = 366 * 24 * 3600;

/// Reads `P[nY][nM][nW][nD][T[nH][nM][nS]]`; the last number may have a fraction. Years have 365.2425 days, months a twelfth of that,
/// as `rickb777/date/period` counts them.
pub fn parse(text: &str) -> Option<Duration> {
    const YEAR: f64 = 365.2425 * 86400.0;
    let text = text.trim();
    if text.len() > 64 {
        return None;
    }
    let mut rest = text.strip_prefix('P')?;
    let mut seconds = 0.0;
    let mut units = &[('Y', YEAR), ('M', YEAR / 12.0), ('W', 604_800.0), ('D', 86_400.0)][..];
    let (mut timed, mut parts, mut fraction) = (false, 0, false);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('T').filter(|own| !timed && !own.is_empty()) {
            (timed, rest) = (true, after);
            units = &[('H', 3600.0), ('M', 60.0), ('S', 1.0)];
            continue;
        }
        let len = rest.find(|own: char| !own.is_ascii_digit() && own != '.' && own != ',')?;
        let number = rest[..len].replace(',', ".");
        if len == 0 || fraction || number.starts_with('.') || number.ends_with('.') {
            return None;
        }
        fraction = number.contains('.');
        let unit = rest[len..].chars().next()?;
        let place = units.iter().position(|(own, _)| *own == unit)?;
        seconds += number.parse::<f64>().ok()? * units[place].1;
        units = &units[place + 1..];
        rest = &rest[len + unit.len_utf8()..];
        parts += 1;
    }
    let seconds = seconds.min(PERIOD_SECONDS_MAX as f64);
    (parts > 0).then(|| Duration::from_micros((seconds * 1e6).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse(text), millis.map(Duration::from_millis), "{text}");
        };
        check("PT0.2S", Some(200));
        check("PT1S", Some(1000));
        check("PT10M", Some(600_000));
        check("P1DT1H1M1.5S", Some(90_061_500));
        check("PT0S", Some(0));
        check("P2W", Some(14 * 86_400_000));
        check("PT0,5S", Some(500));
        check("P1000Y", Some(PERIOD_SECONDS_MAX * 1000));
        for own in [
            "", "P", "PT", "1S", "PT1", "PT-1S", "P1S", "PT1S1M", "PT1.5M1S", "PT.S", "PT1..2S", "P1DT",
            "PTT1S", "ä", "P1ä",
        ] {
            check(own, None);
        }
    }
}
