//! Numbers that may be given as a share. Upstream: apimachinery `pkg/util/intstr`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The number, or that share of `total`, rounded up or down. `None` if the text is no percentage.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let product = percent * i64::from(total);
            let share = if round_up {
                product.div_euclid(100) + i64::from(product.rem_euclid(100) > 0)
            } else {
                product.div_euclid(100)
            };
            i32::try_from(share).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        let check = |value: &str, total, up, expect| {
            let value =
                value.parse().map_or_else(|_| IntOrString::String(value.to_owned()), IntOrString::Int);
            assert_eq!(scaled(&value, total, up), expect);
        };
        check("3", 10, true, Some(3));
        check("25%", 10, true, Some(3));
        check("25%", 10, false, Some(2));
        check("0%", 10, true, Some(0));
        check("100%", 7, false, Some(7));
        check("x%", 10, true, None);
        check("many", 10, true, None);
    }
}
