//! Cron schedules, as `CronJob` writes them. Upstream: `ParseStandard` of robfig/cron v3.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// How far ahead a schedule is searched: a leap day can be eight years away. In days.
const SEARCH_DAYS_MAX: i32 = 9 * 366;

/// When something happens, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the wall clock's times that match.
    Fields(Fields),
    /// `@every`: with a constant delay.
    Every(SignedDuration),
}

/// The times of the wall clock that match: a bit for each allowed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the days of the month and of the week are both restricted: then either of them is enough.
    either_day: bool,
}

/// Why a text is no schedule, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Nothing there.
    #[error("empty spec string")]
    Empty,
    /// Not five fields.
    #[error("expected exactly 5 fields, found {count}: {fields}")]
    Count {
        /// How many were found.
        count: usize,
        /// As Go shows a list of strings.
        fields: String,
    },
    /// A value is no number and no known name.
    #[error("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")]
    Number {
        /// The value.
        text: String,
    },
    /// A number below zero.
    #[error("negative number ({number}) not allowed: {text}")]
    Negative {
        /// The number.
        number: i64,
        /// The value.
        text: String,
    },
    /// A range with several hyphens.
    #[error("too many hyphens: {text}")]
    Hyphens {
        /// The range.
        text: String,
    },
    /// A range with several slashes.
    #[error("too many slashes: {text}")]
    Slashes {
        /// The range.
        text: String,
    },
    /// The range starts too low.
    #[error("beginning of range ({start}) below minimum ({min}): {text}")]
    Low {
        /// Where it starts.
        start: i64,
        /// Where it may start.
        min: i64,
        /// The range.
        text: String,
    },
    /// The range ends too high.
    #[error("end of range ({end}) above maximum ({max}): {text}")]
    High {
        /// Where it ends.
        end: i64,
        /// Where it may end.
        max: i64,
        /// The range.
        text: String,
    },
    /// The range ends before it starts.
    #[error("beginning of range ({start}) beyond end of range ({end}): {text}")]
    Backwards {
        /// Where it starts.
        start: i64,
        /// Where it ends.
        end: i64,
        /// The range.
        text: String,
    },
    /// The step is zero.
    #[error("step of range should be a positive number: {text}")]
    Step {
        /// The range.
        text: String,
    },
    /// An `@` name that does not exist.
    #[error("unrecognized descriptor: {text}")]
    Descriptor {
        /// The name.
        text: String,
    },
    /// The delay after `@every` cannot be read.
    #[error("failed to parse duration {text}: time: invalid duration \"{duration}\"")]
    Duration {
        /// The whole text.
        text: String,
        /// The delay.
        duration: String,
    },
}

struct Bounds {
    min: i64,
    max: i64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Schedule {
    /// Reads five fields, or a descriptor such as `@daily` or `@every 1h`. A time zone prefix is not accepted:
    /// `CronJob` has a field for it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        if text.is_empty() {
            return Err(CronError::Empty);
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            let shown = format!("[{}]", fields.join(" "));
            return Err(CronError::Count { count: fields.len(), fields: shown });
        };
        let (days, any_day) = field(days, &DAYS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::Fields(Fields {
            minutes: field(minutes, &MINUTES)?.0,
            hours: field(hours, &HOURS)?.0,
            days,
            months: field(months, &MONTHS)?.0,
            weekdays,
            either_day: !any_day && !any_weekday,
        }))
    }

    /// The first time after `after`, by the wall clock of `zone`. `None` if it never happens again.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => {
                let second = Timestamp::from_second(after.as_second()).ok()?;
                second.checked_add(*delay).ok()
            }
            Self::Fields(fields) => fields.next_after(after, zone),
        }
    }
}

impl Fields {
    fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = zone.to_datetime(after);
        let start = local.with().second(0).subsec_nanosecond(0).build().ok()?;
        let first = start.checked_add(1.minute()).ok()?;
        let (mut date, mut earliest) = (first.date(), Some(first));
        for _ in 0..SEARCH_DAYS_MAX {
            if self.has_date(date) {
                let from = earliest.filter(|earliest| earliest.date() == date);
                for candidate in self.times(date, from) {
                    // Where clocks jump, a time may not exist or come before `after`: the next one is taken.
                    let at = zone.to_timestamp(candidate).ok()?;
                    if at > after && zone.to_datetime(at) == candidate {
                        return Some(at);
                    }
                }
            }
            earliest = None;
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn has_date(&self, date: Date) -> bool {
        let has = |bits: u64, value: i8| bits & (1 << value) != 0;
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.either_day { day || weekday } else { day && weekday };
        has(self.months, date.month()) && fits
    }

    /// The times of a day that match, not before `from`.
    fn times(&self, date: Date, from: Option<DateTime>) -> impl Iterator<Item = DateTime> {
        let (hours, minutes) = (self.hours, self.minutes);
        let all = (0..24_i8).filter(move |hour| hours & (1 << hour) != 0);
        let all = all.flat_map(move |hour| {
            let minutes = (0..60_i8).filter(move |minute| minutes & (1 << minute) != 0);
            minutes.map(move |minute| date.at(hour, minute, 0, 0))
        });
        all.filter(move |time| from.is_none_or(|from| *time >= from))
    }
}

fn descriptor(text: &str) -> Result<Schedule, CronError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(delay) = text.strip_prefix("@every ") else {
                return Err(CronError::Descriptor { text: text.to_owned() });
            };
            let wrong = || CronError::Duration { text: text.to_owned(), duration: delay.to_owned() };
            let seconds = go_duration_seconds(delay).ok_or_else(wrong)?;
            return Ok(Schedule::Every(SignedDuration::from_secs(seconds.max(1))));
        }
    };
    Schedule::parse(fields)
}

/// Whole seconds of a duration as Go writes it: `1h30m`, `1.5h`.
fn go_duration_seconds(text: &str) -> Option<i64> {
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units =
            [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, scale) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        seconds += number * scale;
    }
    Some(seconds as i64)
}

/// The allowed values of a field, and whether it was left open with `*` or `?`.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let (mut bits, mut open) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (own, own_open) = range(part, bounds)?;
        bits |= own;
        open |= own_open;
    }
    Ok((bits, open))
}

fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), CronError> {
    let own = || text.to_owned();
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or("");
    let step_text = parts.next();
    if parts.next().is_some() {
        return Err(CronError::Slashes { text: own() });
    }
    let step = step_text.map_or(Ok(1), number)?;
    let limits: Vec<_> = span.split('-').collect();
    let star = matches!(limits[0], "*" | "?");
    let (start, mut end) = match limits[..] {
        _ if star => (bounds.min, bounds.max),
        [one] => (value(one, bounds)?, value(one, bounds)?),
        [low, high] => (value(low, bounds)?, value(high, bounds)?),
        _ => return Err(CronError::Hyphens { text: own() }),
    };
    if step_text.is_some() && limits.len() == 1 {
        end = bounds.max;
    }
    if start < bounds.min {
        return Err(CronError::Low { start, min: bounds.min, text: own() });
    }
    if end > bounds.max {
        return Err(CronError::High { end, max: bounds.max, text: own() });
    }
    if start > end {
        return Err(CronError::Backwards { start, end, text: own() });
    }
    if step == 0 {
        return Err(CronError::Step { text: own() });
    }
    let mut bits = 0;
    let mut at = start;
    while at <= end {
        bits |= 1 << at;
        at = at.saturating_add(step);
    }
    Ok((bits, star && step == 1))
}

fn value(text: &str, bounds: &Bounds) -> Result<i64, CronError> {
    let name = text.to_lowercase();
    match bounds.names.iter().position(|own| *own == name) {
        Some(at) => Ok(at as i64 + bounds.min),
        None => number(text),
    }
}

fn number(text: &str) -> Result<i64, CronError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(CronError::Negative { number, text: text.to_owned() }),
        Ok(number) => Ok(number),
        Err(_) => Err(CronError::Number { text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: &str, after: &str, expect: &str) {
        let next = Schedule::parse(schedule).unwrap().next_after(after.parse().unwrap(), &TimeZone::UTC);
        assert_eq!(next.map(|at| at.to_string()).as_deref(), Some(expect), "{schedule} after {after}");
    }

    #[test]
    fn next_times() {
        check("*/1 * * * ?", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        check("*/15 * * * *", "2026-01-01T00:01:30Z", "2026-01-01T00:15:00Z");
        check("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        check("30 4 * * mon-fri", "2026-01-02T05:00:00Z", "2026-01-05T04:30:00Z");
        check("0 12 1,15 * sun", "2026-01-02T05:00:00Z", "2026-01-04T12:00:00Z");
        check("5-10/2 1 * dec *", "2026-12-01T01:06:00Z", "2026-12-01T01:07:00Z");
        check("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        check("@every 1h30m", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z");
        assert_eq!(
            Schedule::parse("0 0 30 2 *").unwrap().next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC),
            None
        );
    }

    #[test]
    fn what_is_no_schedule() {
        for (text, why) in [
            ("", "empty spec string"),
            ("error schedule", "expected exactly 5 fields, found 2: [error schedule]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
        ] {
            assert_eq!(
                Schedule::parse(text).map_err(|error| error.to_string()),
                Err(why.to_owned()),
                "{text}"
            );
        }
    }
}
