//! `Quantity`: exact amounts with SI suffixes. Upstream: apimachinery `pkg/api/resource`.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Neg, Sub};

/// Nanos in a unit: the finest amount a quantity can say.
const NANOS: i128 = 1_000_000_000;

/// The largest whole amount; upstream caps here as well (2^63 - 1).
const UNITS_MAX: i128 = i64::MAX as i128;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, none, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// An exact amount down to a billionth, with the way it was written. Comparison looks at the amount only.
///
/// Sums keep the format of the left operand unless that is zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Empty, or it does not have the shape of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Shape,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number is none.
    #[error("unable to parse numeric part of quantity")]
    Number,
}

/// Decimal suffixes from the smallest, three digits apart.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Binary suffixes, ten bits apart.
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// What a suffix multiplies with: `base` to the power of `exponent`.
struct Scale {
    base: i128,
    exponent: i32,
    format: Format,
}

fn scale(suffix: &str) -> Result<Scale, QuantityError> {
    if let Some(at) = DECIMAL.iter().position(|own| *own == suffix) {
        return Ok(Scale { base: 10, exponent: 3 * (at as i32 - 3), format: Format::DecimalSi });
    }
    if let Some(at) = BINARY.iter().position(|own| *own == suffix) {
        return Ok(Scale { base: 2, exponent: 10 * at as i32, format: Format::BinarySi });
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok(Scale { base: 10, exponent, format: Format::DecimalExponent })
}

/// `dividend / divisor`, away from zero.
fn divide_up(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    quotient + rest.signum()
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units.
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANOS, format }
    }

    /// Thousandths, such as those of a CPU.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity. What is finer than a billionth is rounded up, what is larger than 2^63-1 is cut to that.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (digits, suffix) = unsigned.split_at(end);
        if digits.is_empty() {
            return Err(QuantityError::Shape);
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(if whole.is_empty() { QuantityError::Shape } else { QuantityError::Number });
        }
        let shaped = |c: char| "eEinumkKMGTP+-0123456789".contains(c);
        if !suffix.chars().all(shaped) {
            return Err(QuantityError::Shape);
        }
        let scale = scale(suffix)?;
        let nanos = scaled(whole, fraction, &scale);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format: scale.format })
    }

    /// The canonical text of a quantity's text.
    ///
    /// # Errors
    /// The text is no quantity.
    pub fn canonical(text: &str) -> Result<String, QuantityError> {
        Ok(Self::parse(text)?.to_string())
    }

    /// The amount in whole units, rounded away from zero.
    pub fn units(&self) -> i64 {
        clamp(divide_up(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn millis(&self) -> i64 {
        clamp(divide_up(self.nanos, NANOS / 1000))
    }

    /// The amount in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Rounded away from zero to thousandths, as resource lists are defaulted.
    pub fn rounded_to_millis(mut self) -> Self {
        self.nanos = divide_up(self.nanos, NANOS / 1000) * (NANOS / 1000);
        self
    }
}

fn clamp(amount: i128) -> i64 {
    amount.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Billionths of `whole.fraction` times the scale, rounded up and cut to the maximum.
fn scaled(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    /// More digits than these can neither be kept in nanos nor stay below the maximum.
    const DIGITS_MAX: usize = 28;
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let max = UNITS_MAX * NANOS;
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    if whole.len() > DIGITS_MAX {
        return max;
    }
    let kept = &fraction[..fraction.len().min(DIGITS_MAX - whole.len())];
    let lost = kept.len() < fraction.len();
    let number: i128 = format!("0{whole}{kept}").parse().unwrap_or(max);
    let number = number + i128::from(lost);
    if scale.base == 2 {
        // Divide first where the product could overflow: the amount is beyond the maximum then.
        let Some(product) = number.checked_mul(1 << scale.exponent).and_then(|n| n.checked_mul(NANOS)) else {
            let units = divide_up(number, 10_i128.pow(kept.len() as u32)).checked_mul(1 << scale.exponent);
            return units.map_or(max, |units| units.saturating_mul(NANOS).min(max));
        };
        return divide_up(product, 10_i128.pow(kept.len() as u32)).min(max);
    }
    let exponent = scale.exponent.saturating_add(9).saturating_sub(kept.len() as i32);
    match u32::try_from(exponent) {
        Ok(up) => 10_i128.checked_pow(up).and_then(|by| number.checked_mul(by)).map_or(max, |n| n.min(max)),
        Err(_) => match 10_i128.checked_pow(exponent.unsigned_abs()) {
            Some(by) => divide_up(number, by).min(max),
            None => 1,
        },
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let units = self.nanos / NANOS;
        if self.format == Format::BinarySi && self.is_whole() && !(-1024 < units && units < 1024) {
            let (mut mantissa, mut power) = (units, 0);
            while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                (mantissa, power) = (mantissa / 1024, power + 1);
            }
            return write!(f, "{mantissa}{}", BINARY[power]);
        }
        let (mut mantissa, mut power) = (self.nanos, 0);
        while mantissa % 1000 == 0 && power + 1 < DECIMAL.len() {
            (mantissa, power) = (mantissa / 1000, power + 1);
        }
        match (self.format, power as i32 - 3) {
            (Format::DecimalExponent, exponent) if exponent != 0 => write!(f, "{mantissa}e{}", exponent * 3),
            _ => write!(f, "{mantissa}{}", DECIMAL[power]),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl From<&Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: &Quantity) -> Self {
        Self(quantity.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_canonical() {
        for (text, expect) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("100m", "100m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1000Mi", "1000Mi"),
            ("512", "512"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("1e3", "1e3"),
            ("0.3e1", "3"),
            ("100000", "100k"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            (".5", "500m"),
            ("5.", "5"),
            ("1E", "1E"),
            ("8Ei", "9223372036854775807"),
            ("7Ei", "7Ei"),
            ("1e100", "9223372036854775807e0"),
            ("12345678901234567890123456789012345", "9223372036854775807"),
        ] {
            let expect = expect.trim_end_matches("e0");
            assert_eq!(Quantity::canonical(text).as_deref(), Ok(expect), "{text}");
            assert_eq!(Quantity::canonical(expect).as_deref(), Ok(expect), "{expect}");
        }
    }

    #[test]
    fn what_is_no_quantity() {
        for (text, why) in [
            ("", QuantityError::Shape),
            ("m", QuantityError::Shape),
            ("1 Gi", QuantityError::Shape),
            ("1gb", QuantityError::Shape),
            ("1KiB", QuantityError::Shape),
            ("1mm", QuantityError::Suffix),
            ("1..2", QuantityError::Number),
            ("--1", QuantityError::Shape),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(why), "{text}");
        }
    }

    #[test]
    fn amounts() {
        let of = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(of("1Gi"), of("1073741824"));
        assert!(of("100m") < of("0.2"));
        assert_eq!((of("1Gi") + of("1Mi")).to_string(), "1025Mi");
        assert_eq!((of("0") + of("1Gi")).to_string(), "1Gi");
        assert_eq!((of("1") - of("100m")).to_string(), "900m");
        assert_eq!((of("1500m").units(), of("1500u").millis(), of("2").millis()), (2, 2, 2000));
        assert_eq!([of("1"), of("2")].into_iter().sum::<Quantity>().units(), 3);
    }
}
