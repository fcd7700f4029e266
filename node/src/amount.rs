//! Quantities as the node computes with them: whole nano-units in an `i128`, so that sums and comparisons are exact.
//! Upstream: apimachinery `pkg/api/resource`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Resources by name, as in a spec.
pub(crate) type ResourceList = BTreeMap<String, Quantity>;

const NANO: i128 = 1_000_000_000;

/// An exact amount of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

impl Amount {
    /// Whole units.
    pub(crate) fn units(units: i64) -> Self {
        Self(i128::from(units) * NANO)
    }

    /// Reads a quantity. What is not one counts as zero: the API server has checked it.
    pub(crate) fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// Reads the text of a quantity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(split);
        // The sign of an exponent (`1e-3`) belongs to the suffix, which starts at the letter.
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (multiplier, power) = suffix_scale(suffix)?;
        let power = power + 9 - i32::try_from(fraction.len()).ok()?;
        let scaled = mantissa.checked_mul(multiplier)?;
        let nanos = if power >= 0 {
            scaled.checked_mul(10i128.checked_pow(power.unsigned_abs())?)?
        } else {
            let divisor = 10i128.checked_pow(power.unsigned_abs())?;
            scaled / divisor + i128::from(scaled % divisor != 0)
        };
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// Thousandths, rounded up.
    pub(crate) fn milli(self) -> i64 {
        clamp(ceil_div(self.0, NANO / 1000))
    }

    /// Whole units, rounded up.
    pub(crate) fn value(self) -> i64 {
        clamp(ceil_div(self.0, NANO))
    }

    /// How many times `divisor` fits in, rounded up; a zero divisor counts as one.
    pub(crate) fn divided_by(self, divisor: Self) -> i64 {
        clamp(ceil_div(self.0, if divisor.0 == 0 { NANO } else { divisor.0 }))
    }

    /// Whether it is nothing.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

fn ceil_div(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// A factor and a power of ten.
fn suffix_scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |shift: u32| Some((1i128 << shift, 0));
    match suffix {
        "" => Some((1, 0)),
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            (-30..=18).contains(&exponent).then_some((1, exponent))
        }
    }
}

/// A quantity of `milli` thousandths, in canonical decimal form (`500m`, `2`).
pub(crate) fn from_milli(milli: i64) -> Quantity {
    Quantity(if milli % 1000 == 0 { decimal(milli / 1000) } else { format!("{milli}m") })
}

/// A quantity of `bytes`, in canonical binary form (`64Mi`, `1000`).
pub(crate) fn from_bytes(bytes: i64) -> Quantity {
    let mut value = bytes;
    let mut suffix = 0;
    while value != 0 && value % 1024 == 0 && suffix < 6 {
        value /= 1024;
        suffix += 1;
    }
    Quantity(format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][suffix]))
}

/// A quantity of whole `units` in canonical decimal form (`110`, `2k`).
pub(crate) fn from_units(units: i64) -> Quantity {
    Quantity(decimal(units))
}

fn decimal(units: i64) -> String {
    let mut value = units;
    let mut suffix = 0;
    while value != 0 && value % 1000 == 0 && suffix < 6 {
        value /= 1000;
        suffix += 1;
    }
    format!("{value}{}", ["", "k", "M", "G", "T", "P", "E"][suffix])
}

/// The amount of one resource in a list, zero where it is not named.
pub(crate) fn in_list(list: Option<&ResourceList>, name: &str) -> Amount {
    list.and_then(|list| list.get(name)).map(Amount::of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(i64, i64)>) {
        assert_eq!(Amount::parse(text).map(|amount| (amount.milli(), amount.value())), expect, "{text}");
    }

    #[test]
    fn quantities_are_read_exactly() {
        check("0", Some((0, 0)));
        check("250m", Some((250, 1)));
        check("1.5", Some((1500, 2)));
        check("64Mi", Some((67_108_864_000, 67_108_864)));
        check("1e3", Some((1_000_000, 1000)));
        check("1E", Some((i64::MAX, 1_000_000_000_000_000_000)));
        check("100n", Some((1, 1)));
        check("1.5Gi", Some((1_610_612_736_000, 1_610_612_736)));
        check("-1", Some((-1000, -1)));
        check("", None);
        check("Mi", None);
        check("1x", None);
        check("1e99", None);
    }

    #[test]
    fn quantities_are_written_canonically() {
        assert_eq!(from_milli(250).0, "250m");
        assert_eq!(from_milli(2000).0, "2");
        assert_eq!(from_bytes(64 << 20).0, "64Mi");
        assert_eq!(from_bytes(1000).0, "1000");
        assert_eq!(from_units(110).0, "110");
        assert_eq!(from_units(2000).0, "2k");
    }

    #[test]
    fn division_rounds_up() {
        let amount = Amount::parse("1500m").unwrap();
        assert_eq!(amount.divided_by(Amount::default()), 2);
        assert_eq!(amount.divided_by(Amount::parse("1m").unwrap()), 1500);
        assert_eq!(Amount::parse("64Mi").unwrap().divided_by(Amount::parse("1Mi").unwrap()), 64);
    }
}
