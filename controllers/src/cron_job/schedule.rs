//! Cron schedules as upstream reads them: five fields, descriptors, a time zone. Pure.
//!
//! Rule source: robfig/cron v3 `ParseStandard`, which upstream uses.

use api::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, ToSpan};
use std::time::Duration;

/// A schedule that does not come up within this many years never does (30 February).
const YEARS_MAX: i16 = 5;

/// Why a schedule cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("empty spec string")]
    Empty,
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields { found: usize, text: String },
    #[error("failed to parse {what}: {text:?}")]
    Field { what: &'static str, text: String },
    #[error("unrecognized descriptor: {text}")]
    Descriptor { text: String },
    #[error("provided bad location {name}")]
    Zone { name: String },
}

/// When something happens.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// Again and again after this time.
    Every(Duration),
    /// At all minutes that match.
    At(Box<Matches>),
}

/// One bit for each value that matches.
#[derive(Clone, Debug)]
pub(crate) struct Matches {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day of the month, or of the week, is open: then only the other decides.
    days_open: bool,
    weekdays_open: bool,
    zone: TimeZone,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

struct Bounds {
    what: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

impl Schedule {
    /// Reads a schedule; `zone` is an IANA name, and a `TZ=` in the text goes before it.
    pub(crate) fn parse(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let mut text = text.trim();
        let mut zone = zone.map(str::to_owned);
        if let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            zone = Some(name.to_owned());
            text = rest.trim();
        }
        let zone = match zone.as_deref() {
            None | Some("" | "UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| Error::Zone { name: name.to_owned() })?,
        };
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if let Some(name) = text.strip_prefix('@') {
            return descriptor(name, text, zone);
        }
        fields(text, zone)
    }

    /// The first time after `after`; `None` if there never is one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(period) => {
                let second = Timestamp::from_second(after.as_second()).ok()?;
                second.checked_add(SignedDuration::try_from(*period).ok()?).ok()
            }
            Self::At(matches) => matches.next(after),
        }
    }

    /// The last time not after `now`, if it is after `after`.
    pub(crate) fn last(&self, after: Timestamp, now: Timestamp) -> Option<Timestamp> {
        // Back in growing steps until one holds a time, then forward within it.
        let mut back = SignedDuration::from_mins(1);
        loop {
            let start = now.checked_sub(back).unwrap_or(Timestamp::MIN).max(after);
            let mut found = self.next(start).filter(|at| *at <= now);
            if found.is_some() || start <= after {
                while let Some(later) = found.and_then(|at| self.next(at)).filter(|at| *at <= now) {
                    found = Some(later);
                }
                return found;
            }
            back *= 8;
        }
    }
}

fn descriptor(name: &str, text: &str, zone: TimeZone) -> Result<Schedule, Error> {
    let plain = match name {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => {
            let period = name.strip_prefix("every ").and_then(go_duration);
            return match period {
                Some(period) => Ok(Schedule::Every(Duration::from_secs(period.as_secs().max(1)))),
                None => Err(Error::Descriptor { text: text.to_owned() }),
            };
        }
    };
    fields(plain, zone)
}

/// A duration as Go writes it: `1h30m`, `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_len = rest[end..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - end);
        let factor = match &rest[end..end + unit_len] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * factor;
        rest = &rest[end + unit_len..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

fn fields(text: &str, zone: TimeZone) -> Result<Schedule, Error> {
    let parts: Vec<_> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts[..] else {
        return Err(Error::Fields { found: parts.len(), text: parts.join(" ") });
    };
    let bounds = |what, min, max, names| Bounds { what, min, max, names };
    let (minutes, _) = field(minute, &bounds("minute", 0, 59, &[]))?;
    let (hours, _) = field(hour, &bounds("hour", 0, 23, &[]))?;
    let (days, days_open) = field(day, &bounds("day of month", 1, 31, &[]))?;
    let (months, _) = field(month, &bounds("month", 1, 12, &MONTHS))?;
    let (weekdays, weekdays_open) = field(weekday, &bounds("day of week", 0, 6, &WEEKDAYS))?;
    let matches = Matches { minutes, hours, days, months, weekdays, days_open, weekdays_open, zone };
    Ok(Schedule::At(Box::new(matches)))
}

/// The bits of one field, and whether it is open (`*`).
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), Error> {
    let wrong = || Error::Field { what: bounds.what, text: text.to_owned() };
    let (mut bits, mut is_open) = (0, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0).ok_or_else(wrong)?))
            }
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => {
                // With a step it chooses, so it is not open.
                is_open |= step.unwrap_or(1) == 1;
                (bounds.min, bounds.max)
            }
            range => {
                let (first, last) = range.split_once('-').unwrap_or((range, ""));
                let first = number(first, bounds).ok_or_else(wrong)?;
                let last = match (last, step) {
                    ("", None) if !range.contains('-') => first,
                    ("", Some(_)) if !range.contains('-') => bounds.max,
                    (last, _) => number(last, bounds).ok_or_else(wrong)?,
                };
                (first, last)
            }
        };
        if first < bounds.min || last > bounds.max || first > last {
            return Err(wrong());
        }
        let step = usize::try_from(step.unwrap_or(1)).map_err(|_| wrong())?;
        (first..=last).step_by(step).for_each(|value| bits |= 1 << value);
    }
    Ok((bits, is_open))
}

fn number(text: &str, bounds: &Bounds) -> Option<u32> {
    let name = text.to_ascii_lowercase();
    match bounds.names.iter().position(|own| *own == name) {
        Some(position) => u32::try_from(position).ok().map(|position| position + bounds.min),
        None => text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?,
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

impl Matches {
    fn is_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.days_open || self.weekdays_open { day && weekday } else { day || weekday }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let local = after.to_zoned(self.zone.clone()).datetime();
        let last_year = local.year().checked_add(YEARS_MAX)?;
        let mut date = local.date();
        // One day before: after a change of the clock the same local times come again.
        date = date.checked_sub(1.day()).unwrap_or(date);
        while date.year() <= last_year {
            if !has(self.months, date.month()) {
                date = date.first_of_month().checked_add(1.month()).ok()?;
                continue;
            }
            if self.is_day(date)
                && let Some(found) = self.in_day(date, after)
            {
                return Some(found);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// The first time of a day after `after`.
    fn in_day(&self, date: Date, after: Timestamp) -> Option<Timestamp> {
        let hours = (0..24_i8).filter(|hour| has(self.hours, *hour));
        let mut times = hours.flat_map(|hour| {
            (0..60_i8).filter(|minute| has(self.minutes, *minute)).map(move |minute| (hour, minute))
        });
        times.find_map(|(hour, minute)| self.resolve(date.at(hour, minute, 0, 0)).filter(|at| *at > after))
    }

    /// A local time as a point in time. One that the clock jumps over does not happen.
    fn resolve(&self, local: DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => None,
            _ => ambiguous.compatible().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_next_time_is_found() {
        let check = |schedule: &str, zone: Option<&str>, after: &str, expect: Option<&str>| {
            let next = Schedule::parse(schedule, zone).unwrap().next(at(after));
            assert_eq!(next, expect.map(at), "{schedule}");
        };
        let start = "2026-01-01T00:00:00Z";
        check("* * * * *", None, start, Some("2026-01-01T00:01:00Z"));
        check("*/15 * * * *", None, "2026-01-01T00:15:00Z", Some("2026-01-01T00:30:00Z"));
        check("5/20 * * * *", None, "2026-01-01T00:26:00Z", Some("2026-01-01T00:45:00Z"));
        check("0 9-17/4 * * *", None, "2026-01-01T10:00:00Z", Some("2026-01-01T13:00:00Z"));
        check("0 0 * * mon,WED", None, start, Some("2026-01-05T00:00:00Z"));
        check("0 0 13 * 5", None, start, Some("2026-01-02T00:00:00Z"));
        check("0 0 13 * *", None, start, Some("2026-01-13T00:00:00Z"));
        check("0 0 */2 * 1", None, start, Some("2026-01-03T00:00:00Z"));
        check("0 0 29 2 ?", None, start, Some("2028-02-29T00:00:00Z"));
        check("0 0 30 2 *", None, start, None);
        check("@weekly", None, start, Some("2026-01-04T00:00:00Z"));
        check("@every 1h30m", None, "2026-01-01T00:00:00.5Z", Some("2026-01-01T01:30:00Z"));
        check("@every 10ms", None, start, Some("2026-01-01T00:00:01Z"));
        check("0 9 * * *", Some("Asia/Tokyo"), start, Some("2026-01-02T00:00:00Z"));
        check("TZ=Asia/Tokyo 1 9 * * *", None, start, Some("2026-01-01T00:01:00Z"));
        // Clocks jump from 2 to 3 on 29 March 2026 in Berlin: half past two does not happen.
        check("30 2 * * *", Some("Europe/Berlin"), "2026-03-28T12:00:00Z", Some("2026-03-30T00:30:00Z"));
        check("30 2 * * *", Some("Europe/Berlin"), "2026-10-24T12:00:00Z", Some("2026-10-25T00:30:00Z"));
    }

    #[test]
    fn the_last_time_is_found() {
        let check = |schedule: &str, after: &str, now: &str, expect: Option<&str>| {
            let last = Schedule::parse(schedule, None).unwrap().last(at(after), at(now));
            assert_eq!(last, expect.map(at), "{schedule}");
        };
        check("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:00:30Z", None);
        check("* * * * *", "2026-01-01T00:00:00Z", "2026-03-01T00:05:30Z", Some("2026-03-01T00:05:00Z"));
        check("0 0 1 1 *", "2020-06-01T00:00:00Z", "2026-03-01T00:05:30Z", Some("2026-01-01T00:00:00Z"));
        check("0 0 1 1 *", "2026-01-01T00:00:00Z", "2026-03-01T00:05:30Z", None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "* * * * 7",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@often",
            "@every",
            "@every x",
            "TZ=Nowhere/Land * * * * *",
            "1- * * * *",
        ] {
            assert!(Schedule::parse(text, None).is_err(), "{text:?}");
        }
    }
}
