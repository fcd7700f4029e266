//! `LimitRange`. Upstream: `pkg/registry/core/limitrange`, `ValidateLimitRange`.

use crate::pod_spec::canonical;
use crate::pod_spec::resources::{Amounts, amount, check_container_name, check_name, may_overcommit};
use api::resource::{Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Quantity, Strategy, names};
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use std::collections::BTreeSet;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "LimitRange", "limitranges", Scope::Namespaced)
        .short_names(&["limits"])
        // Upstream has no table for it.
        .columns(crate::created_at())
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = LimitRange;

    fn default(&self, range: &mut LimitRange) {
        for item in range.spec.iter_mut().flat_map(|spec| spec.limits.iter_mut()) {
            for list in [
                &mut item.max,
                &mut item.min,
                &mut item.default,
                &mut item.default_request,
                &mut item.max_limit_request_ratio,
            ] {
                canonical(list);
            }
            if item.type_ == "Container" {
                default_item(item);
            }
        }
    }

    fn validate(&self, range: &LimitRange, errors: &mut FieldErrors) {
        let mut seen = BTreeSet::new();
        for (at, item) in range.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            errors.at(&format!("spec.limits[{at}]"), |errors| {
                check_type(&item.type_, errors);
                if !seen.insert(item.type_.as_str()) {
                    errors.duplicate("type", item.type_.as_str());
                }
                check_item(item, errors);
            });
        }
    }
}

/// Defaults follow from the bounds.
fn default_item(item: &mut LimitRangeItem) {
    let copy = |from: &Amounts, to: &mut Amounts| {
        for (name, own) in from {
            to.entry(name.clone()).or_insert_with(|| own.clone());
        }
    };
    let (max, min) = (item.max.clone().unwrap_or_default(), item.min.clone().unwrap_or_default());
    let mut default = item.default.take().unwrap_or_default();
    let mut request = item.default_request.take().unwrap_or_default();
    copy(&max, &mut default);
    copy(&default, &mut request);
    copy(&min, &mut request);
    item.default = (!default.is_empty()).then_some(default);
    item.default_request = (!request.is_empty()).then_some(request);
}

fn check_type(kind: &str, errors: &mut FieldErrors) {
    let faults = names::qualified(kind);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind);
    if faults.is_empty() && !kind.contains('/') && !standard {
        errors.invalid("type", kind, "must be a standard limit type or fully qualified");
    }
    names::report(errors, "type", kind, faults);
}

fn check_item(item: &LimitRangeItem, errors: &mut FieldErrors) {
    let none = Amounts::new();
    let of = |list: &'_ Option<Amounts>| list.clone().unwrap_or_else(|| none.clone());
    let (max, min, ratio) = (of(&item.max), of(&item.min), of(&item.max_limit_request_ratio));
    let (mut default, mut request) = (of(&item.default), of(&item.default_request));
    if item.type_ == "Pod" {
        for (field, list) in [("default", &mut default), ("defaultRequest", &mut request)] {
            if !list.is_empty() {
                errors.forbidden(field, "may not be specified when `type` is 'Pod'");
            }
            list.clear();
        }
    }
    let lists = [
        ("max", &max),
        ("min", &min),
        ("default", &default),
        ("defaultRequest", &request),
        ("maxLimitRequestRatio", &ratio),
    ];
    let mut names = BTreeSet::new();
    for (part, list) in lists {
        for name in list.keys() {
            let field = format!("{part}[{name}]");
            match item.type_.as_str() {
                "Pod" | "Container" => check_container_name(errors, &field, name),
                _ => {
                    check_name(errors, &field, name);
                }
            }
            names.insert(name);
        }
    }
    if item.type_ == "PersistentVolumeClaim" && !max.contains_key("storage") && !min.contains_key("storage") {
        errors.required(
            "limits",
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    for name in names {
        let at = |list: &Amounts| list.get(name).map(amount);
        let bounds = Bounds {
            name,
            max: at(&max),
            min: at(&min),
            default: at(&default),
            request: at(&request),
            ratio: at(&ratio),
        };
        bounds.check(errors);
    }
}

/// What an item says about one resource.
struct Bounds<'a> {
    name: &'a str,
    max: Option<Quantity>,
    min: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Bounds<'_> {
    fn check(&self, errors: &mut FieldErrors) {
        // The first of each pair must not be above the second.
        let pairs = [
            (self.min, self.max, "min", self.min, "min value", "max value"),
            (self.min, self.request, "defaultRequest", self.request, "min value", "default request value"),
            (self.request, self.max, "defaultRequest", self.request, "default request value", "max value"),
            (
                self.request,
                self.default,
                "defaultRequest",
                self.request,
                "default request value",
                "default limit value",
            ),
            (self.min, self.default, "default", self.min, "min value", "default value"),
            (self.default, self.max, "default", self.max, "default value", "max value"),
        ];
        for (low, high, field, shown, low_text, high_text) in pairs {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
                && low > high
            {
                errors.invalid(
                    &format!("{field}[{}]", self.name),
                    shown.to_string(),
                    format!("{low_text} {low} is greater than {high_text} {high}"),
                );
            }
        }
        if let Some(ratio) = self.ratio {
            self.check_ratio(ratio, errors);
        }
        if let (Some(default), Some(request)) = (self.default, self.request)
            && default != request
            && !may_overcommit(self.name)
        {
            errors.invalid(
                &format!("defaultRequest[{}]", self.name),
                request.to_string(),
                format!(
                    "default value {default} must equal to defaultRequest value {request} in {}",
                    self.name
                ),
            );
        }
    }

    fn check_ratio(&self, ratio: Quantity, errors: &mut FieldErrors) {
        let field = format!("maxLimitRequestRatio[{}]", self.name);
        if ratio < Quantity::from_millis(1000) {
            errors.invalid(&field, ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && !min.is_zero()
        {
            let limit = max.millis() as f64 / min.millis() as f64;
            if ratio.millis() as f64 / 1000.0 > limit {
                let why = format!("ratio {ratio} is greater than max/min = {limit:.6}");
                errors.invalid(&field, ratio.to_string(), why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, check, created};
    use serde_json::{Value, json};

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    #[test]
    fn defaults_follow_from_the_bounds() {
        let item = json!({"type": "Container", "max": {"cpu": "1000m"}, "min": {"memory": "1Gi"}});
        let (made, errors) = created(&resource(), range(item), &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(made["spec"]["limits"][0]["default"], json!({"cpu": "1"}));
        assert_eq!(made["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "1", "memory": "1Gi"}));
    }

    #[test]
    fn bounds_must_fit() {
        check(
            &resource(),
            range(json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ],
        );
        check(
            &resource(),
            range(json!({"type": "Pod", "default": {"cpu": "1"}})),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
    }
}
