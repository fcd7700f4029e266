//! Times and durations as upstream's JSON spells them. Upstream: `metav1.Time`, `metav1.MicroTime`, `metav1.Duration`
//! and Go's package `time`, whose error texts clients see.

use jiff::Timestamp;
use jiff::civil::date;

/// The layout that errors name for times in seconds.
const LAYOUT_SECONDS: &str = "2006-01-02T15:04:05Z07:00";
/// The layout that errors name for times in microseconds.
const LAYOUT_MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// How precise a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `2006-01-02T15:04:05Z`, a fraction is read and dropped.
    Seconds,
    /// `2006-01-02T15:04:05.000000Z`.
    Micros,
}

/// Writes seconds and nanoseconds since 1970 in UTC. `None` outside of the years that RFC 3339 can name.
pub fn format_time(seconds: i64, nanos: i32, precision: Precision) -> Option<String> {
    let time = Timestamp::new(seconds, 0).ok()?.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    if !(0..=9999).contains(&time.year()) {
        return None;
    }
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    Some(match precision {
        Precision::Seconds => text + "Z",
        Precision::Micros => format!("{text}.{:06}Z", nanos.clamp(0, 999_999_999) / 1000),
    })
}

/// A timestamp in seconds, as `creationTimestamp` has it.
pub fn format_seconds(time: Timestamp) -> String {
    format_time(time.as_second(), 0, Precision::Seconds).unwrap_or_default()
}

/// A timestamp in microseconds, as `Lease.spec.renewTime` has it.
pub fn format_micros(time: Timestamp) -> String {
    let seconds = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    let nanos = time.subsec_nanosecond().rem_euclid(1_000_000_000);
    format_time(seconds, nanos, Precision::Micros).unwrap_or_default()
}

/// Reads RFC 3339 as Go does: seconds since 1970 and nanoseconds.
///
/// # Errors
/// Go's text for what is wrong.
pub fn parse_time(text: &str, precision: Precision) -> Result<(i64, i32), String> {
    let mut reader = TimeReader { text, rest: text, precision };
    let year = reader.digits(4, "2006")?;
    reader.literal("-")?;
    let month = reader.digits(2, "01")?;
    reader.literal("-")?;
    let day = reader.digits(2, "02")?;
    reader.literal("T")?;
    let hour = reader.digits(2, "15")?;
    reader.literal(":")?;
    let minute = reader.digits(2, "04")?;
    reader.literal(":")?;
    let second = reader.digits(2, "05")?;
    let nanos = reader.fraction()?;
    let offset_seconds = reader.zone()?;
    for (value, low, high, what) in
        [(month, 1, 12, "month"), (hour, 0, 23, "hour"), (minute, 0, 59, "minute"), (second, 0, 59, "second")]
    {
        if !(low..=high).contains(&value) {
            return Err(reader.failure(&format!(": {what} out of range")));
        }
    }
    let midnight = jiff::civil::Date::new(year as i16, month as i8, day as i8)
        .map_err(|_| reader.failure(": day out of range"))?;
    if !reader.rest.is_empty() {
        return Err(reader.failure(&format!(": extra text: {:?}", reader.rest)));
    }
    let days = i64::from((midnight - date(1970, 1, 1)).get_days());
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds;
    Ok((seconds, nanos))
}

struct TimeReader<'a> {
    text: &'a str,
    rest: &'a str,
    precision: Precision,
}

impl TimeReader<'_> {
    fn failure(&self, why: &str) -> String {
        format!("parsing time {:?}{why}", self.text)
    }

    fn cannot(&self, element: &str) -> String {
        let layout = if self.precision == Precision::Micros { LAYOUT_MICROS } else { LAYOUT_SECONDS };
        self.failure(&format!(" as {layout:?}: cannot parse {:?} as {element:?}", self.rest))
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<i64, String> {
        match self.rest.get(..count) {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.rest = &self.rest[count..];
                Ok(digits.bytes().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0')))
            }
            _ => Err(self.cannot(element)),
        }
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.cannot(literal))?;
        Ok(())
    }

    fn fraction(&mut self) -> Result<i32, String> {
        let digits = match self.rest.strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if self.precision == Precision::Micros && digits != 6 {
            return Err(self.cannot(".000000"));
        }
        if digits == 0 {
            return Ok(0);
        }
        let fraction = &self.rest[1..=digits];
        self.rest = &self.rest[digits + 1..];
        Ok(fraction
            .bytes()
            .chain(std::iter::repeat(b'0'))
            .take(9)
            .fold(0, |sum, byte| sum * 10 + i32::from(byte - b'0')))
    }

    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let fits = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|index| bytes[*index].is_ascii_digit());
        if !fits {
            return Err(self.cannot("Z07:00"));
        }
        let digit = |index: usize| i64::from(bytes[index] - b'0');
        let (hours, minutes) = (digit(1) * 10 + digit(2), digit(4) * 10 + digit(5));
        if hours > 24 {
            return Err(self.failure(": time zone offset hour out of range"));
        }
        if minutes > 60 {
            return Err(self.failure(": time zone offset minute out of range"));
        }
        let seconds = hours * 3600 + minutes * 60;
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * seconds)
    }
}

/// Go's units of durations, in nanoseconds.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration such as `1h30m` into nanoseconds.
///
/// # Errors
/// Go's text for what is wrong.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (whole, fraction) = rest[..number].split_once('.').unwrap_or((&rest[..number], ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(invalid());
        }
        rest = &rest[number..];
        let unit_len = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..unit_len];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let (_, scale) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        rest = &rest[unit_len..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        nanos = whole.checked_mul(*scale).and_then(|part| nanos.checked_add(part)).ok_or_else(invalid)?;
        // More digits than nanoseconds have are below the unit.
        let digits = &fraction[..fraction.len().min(18)];
        if let Ok(part) = digits.parse::<i128>() {
            nanos += part * scale / 10i128.pow(digits.len() as u32);
        }
    }
    i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| invalid())
}

/// Writes nanoseconds as Go's `Duration.String` does.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let with_fraction = |value: u64, unit: u64, name: &str| {
        let fraction = format!("{:0width$}", value % unit, width = (unit as f64).log10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || unit == 1 { "" } else { "." };
        let fraction = if unit == 1 { "" } else { fraction };
        format!("{}{dot}{fraction}{name}", value / unit)
    };
    let text = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => with_fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => with_fraction(nanos, 1_000_000, "ms"),
        _ => {
            let (seconds, minutes) = (nanos % 60_000_000_000, nanos / 60_000_000_000);
            let seconds = with_fraction(seconds, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_does() {
        let check = |input: &str, expect: Result<&str, &str>| {
            let found = parse_time(input, Precision::Seconds)
                .map(|(seconds, nanos)| format_time(seconds, nanos, Precision::Seconds).unwrap_or_default());
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{input}");
        };
        check("2026-11-23T10:11:12Z", Ok("2026-11-23T10:11:12Z"));
        check("2026-11-23T10:11:12.345+02:00", Ok("2026-11-23T08:11:12Z"));
        check("0001-01-01T00:00:00Z", Ok("0001-01-01T00:00:00Z"));
        check("x", Err(r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#));
        check(
            "2026-11-23",
            Err(r#"parsing time "2026-11-23" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
        );
        check("2026-13-23T00:00:00Z", Err(r#"parsing time "2026-13-23T00:00:00Z": month out of range"#));
        check("2026-02-30T00:00:00Z", Err(r#"parsing time "2026-02-30T00:00:00Z": day out of range"#));
        check("2026-02-03T00:00:00Zx", Err(r#"parsing time "2026-02-03T00:00:00Zx": extra text: "x""#));
    }

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        let check = |input: &str, expect: Result<&str, &str>| {
            let found = parse_duration(input).map(format_duration);
            assert_eq!(found.as_deref().map_err(String::as_str), expect, "{input}");
        };
        check("90m", Ok("1h30m0s"));
        check("1.5s", Ok("1.5s"));
        check("1500us", Ok("1.5ms"));
        check("-10m", Ok("-10m0s"));
        check("0", Ok("0s"));
        check("5", Err(r#"time: missing unit in duration "5""#));
        check("5x", Err(r#"time: unknown unit "x" in duration "5x""#));
        check("", Err(r#"time: invalid duration """#));
    }
}
