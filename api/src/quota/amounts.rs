//! Amounts by name. Upstream: `apiserver/pkg/quota/v1/resources.go`.

use crate::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// Amounts by name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a list of an object. What is no quantity counts as nothing: validation has refused it.
pub fn read(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter()
        .flatten()
        .map(|(name, text)| (name.clone(), Quantity::parse(&text.0).unwrap_or_default()))
        .collect()
}

/// The list as an object has it.
pub fn write(amounts: &Amounts) -> BTreeMap<String, Text> {
    amounts.iter().map(|(name, amount)| (name.clone(), Text::from(amount))).collect()
}

/// `a + b` by name.
pub fn add(mut a: Amounts, b: &Amounts) -> Amounts {
    for (name, amount) in b {
        let sum = a.entry(name.clone()).or_default();
        *sum = *sum + *amount;
    }
    a
}

/// `a - b` by name, and nothing where that is negative.
pub fn subtract_to_zero(mut a: Amounts, b: &Amounts) -> Amounts {
    for (name, amount) in b {
        let rest = a.entry(name.clone()).or_default();
        *rest = *rest - *amount;
    }
    for rest in a.values_mut().filter(|rest| rest.sign() < 0) {
        *rest = Quantity::ZERO;
    }
    a
}

/// What of the amounts `has` names.
pub fn mask(amounts: &Amounts, has: impl Fn(&str) -> bool) -> Amounts {
    amounts.iter().filter(|(name, _)| has(name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}

/// The larger of both, by name.
pub(super) fn max(mut a: Amounts, b: &Amounts) -> Amounts {
    for (name, amount) in b {
        let own = a.entry(name.clone()).or_insert(*amount);
        if *amount > *own {
            *own = *amount;
        }
    }
    a
}
