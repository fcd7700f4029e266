//! Quantities as the node computes with them: whole nano-units in an `i128`, so that sums and comparisons are exact.
//! Upstream: apimachinery `pkg/api/resource`.

use api::quantity::Format;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Resources by name, as in a spec.
pub(crate) type ResourceList = BTreeMap<String, Quantity>;

const NANO: i128 = 1_000_000_000;

/// An exact amount of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

impl Amount {
    /// Reads a quantity. What is not one counts as zero: the API server has checked it.
    pub(crate) fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    /// Reads the text of a quantity.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        api::quantity::Quantity::parse(text).ok().map(|quantity| Self(quantity.nanos()))
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

/// A quantity of `milli` thousandths, in canonical decimal form (`500m`, `2`).
pub(crate) fn from_milli(milli: i64) -> Quantity {
    Quantity(api::quantity::Quantity::from_millis(milli).to_string())
}

/// A quantity of `bytes`, in canonical binary form (`64Mi`, `1025`).
pub(crate) fn from_bytes(bytes: i64) -> Quantity {
    Quantity(api::quantity::Quantity::from_units(bytes, Format::BinarySi).to_string())
}

/// A quantity of whole `units` in canonical decimal form (`110`, `2k`).
pub(crate) fn from_units(units: i64) -> Quantity {
    Quantity(api::quantity::Quantity::from_units(units, Format::DecimalSi).to_string())
}

/// The amount of one resource in a list, zero where it is not named.
pub(crate) fn in_list(list: Option<&ResourceList>, name: &str) -> Amount {
    list.and_then(|list| list.get(name)).map(Amount::of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_canonically() {
        assert_eq!(from_milli(250).0, "250m");
        assert_eq!(from_milli(2000).0, "2");
        assert_eq!(from_bytes(64 << 20).0, "64Mi");
        assert_eq!(from_bytes(1025).0, "1025");
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
