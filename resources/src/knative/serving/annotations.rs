//! Annotations that say how a revision scales. Upstream: `pkg/apis/autoscaling/annotation_validation.go`.

use super::settings::Autoscaler;
use crate::knative::faults::Faults;
use api::time_text::{format_duration, parse_duration};
use serde_json::Value;

const GROUP: &str = "autoscaling.knative.dev";
/// The class that Knative scales itself.
pub(super) const KPA: &str = "kpa.autoscaling.knative.dev";
/// The class that Kubernetes scales.
pub(super) const HPA: &str = "hpa.autoscaling.knative.dev";
const SECOND: i64 = 1_000_000_000;
const WINDOW_MAX: i64 = 3_600 * SECOND;

/// The annotation under one of its spellings: the present one, and older ones.
fn find<'v>(annotations: &'v Value, names: &[&str]) -> Option<(String, &'v str)> {
    names.iter().find_map(|name| {
        let key = format!("{GROUP}/{name}");
        let value = annotations.get(&key)?.as_str()?;
        Some((key, value))
    })
}

/// Annotations that would only work on the template.
pub(super) fn none(annotations: &Value, faults: &mut Faults) {
    let own = annotations.as_object().into_iter().flatten();
    for (key, _) in own.filter(|(key, _)| key.starts_with(GROUP)) {
        let why = "autoscaling annotations must be put under \"spec.template.metadata.annotations\" to work";
        faults.invalid_key(key, "", why);
    }
}

/// What must be true of the annotations of a template or revision.
pub(super) fn validate(annotations: &Value, config: &Autoscaler, faults: &mut Faults) {
    let class = find(annotations, &["class"]);
    if let Some((key, value)) = &class
        && value.ends_with(GROUP)
        && ![KPA, HPA].contains(value)
    {
        faults.invalid(value, key, "");
    }
    validate_scales(annotations, config, faults);
    validate_floats(annotations, faults);
    validate_durations(annotations, faults);
    let class = class.map(|(_, value)| value);
    if let Some((key, metric)) = find(annotations, &["metric"]) {
        let fits = match class.unwrap_or(&config.class) {
            KPA => ["concurrency", "rps"].contains(&metric),
            HPA => !metric.is_empty(),
            _ => true,
        };
        if !fits {
            faults.invalid(metric, &key, "");
        }
    }
    let algorithms = ["", "linear", "weighted-exponential", "weightedExponential"];
    if class == Some(KPA)
        && let Some((key, value)) =
            find(annotations, &["metric-aggregation-algorithm", "metricAggregationAlgorithm"])
        && !algorithms.contains(&value)
    {
        faults.invalid(value, &key, "");
    }
    if let Some((key, value)) = find(annotations, &["initial-scale", "initialScale"]) {
        match value.parse::<i64>() {
            Err(_) => faults.invalid(value, &key, ""),
            Ok(own) if own < 0 => faults.invalid(value, &format!("{key} must be greater than 0"), ""),
            Ok(0) if !config.allow_zero_initial_scale => {
                faults.invalid(value, &format!("{key}=0 not allowed by cluster"), "");
            }
            Ok(_) => {}
        }
    }
}

fn count(annotations: &Value, names: &[&str], faults: &mut Faults) -> i64 {
    let Some((key, value)) = find(annotations, names) else { return 0 };
    match value.parse::<i64>() {
        Ok(own) if (0..=i64::from(i32::MAX)).contains(&own) => own,
        Ok(_) => {
            faults.out_of_bounds(value, 0, i32::MAX, &key);
            0
        }
        Err(_) => {
            faults.invalid(value, &key, "");
            0
        }
    }
}

fn validate_scales(annotations: &Value, config: &Autoscaler, faults: &mut Faults) {
    let min = count(annotations, &["min-scale", "minScale"], faults);
    let max = count(annotations, &["max-scale", "maxScale"], faults);
    if max != 0 && max < min {
        let fields = [&*format!("{GROUP}/max-scale"), &*format!("{GROUP}/min-scale")];
        faults.add(format!("max-scale={max} is less than min-scale={min}"), &fields, "");
    }
    let limit = config.max_scale_limit;
    if let Some((key, _)) = find(annotations, &["max-scale", "maxScale"])
        && limit != 0
    {
        if max > limit {
            faults.out_of_bounds(max, 1, limit, &key);
        }
        if max == 0 {
            faults.generic(format!("max-scale=0 (unlimited), must be less than {limit}"), &key);
        }
    }
    let Some((key, value)) = find(annotations, &["activation-scale", "activationScale"]) else { return };
    match value.parse::<i32>().map(i64::from) {
        Err(_) => faults.invalid(value, &key, ""),
        Ok(own) if min > own => {
            faults.generic(format!("min-scale={min} is greater than activation-scale={own}"), &key);
        }
        Ok(own) if max < own && max != 0 => {
            faults.generic(format!("max-scale={max} is less than activation-scale={own}"), &key);
        }
        Ok(own) if own < 2 => faults.generic(format!("activation-scale={own} must be greater than 1"), &key),
        Ok(_) => {}
    }
}

fn validate_floats(annotations: &Value, faults: &mut Faults) {
    for (names, low, high) in [
        (["panic-window-percentage", "panicWindowPercentage"], 1.0, 100.0),
        (["panic-threshold-percentage", "panicThresholdPercentage"], 110.0, 1000.0),
        (["target-utilization-percentage", "targetUtilizationPercentage"], 1.0, 100.0),
    ] {
        let Some((key, value)) = find(annotations, &names) else { continue };
        match value.parse::<f64>() {
            Err(_) => faults.invalid(value, &key, ""),
            Ok(own) if !(low..=high).contains(&own) => faults.out_of_bounds(value, low, high, &key),
            Ok(_) => {}
        }
    }
    if let Some((key, value)) = find(annotations, &["target"]) {
        match value.parse::<f64>() {
            Err(_) => faults.invalid(value, &key, ""),
            Ok(own) if own < 0.01 => {
                faults.generic(format!("target {value} should be at least 0.01"), &key);
            }
            Ok(_) => {}
        }
    }
    if let Some((key, value)) = find(annotations, &["target-burst-capacity", "targetBurstCapacity"])
        && !value.parse::<f64>().is_ok_and(|own| own >= 0.0 || own == -1.0)
    {
        faults.invalid(value, &key, "");
    }
}

fn validate_durations(annotations: &Value, faults: &mut Faults) {
    for (names, low, whole_seconds) in [
        (["window", "window"], 6 * SECOND, true),
        (["scale-down-delay", "scaleDownDelay"], 0, true),
        (["scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod"], 0, false),
    ] {
        let Some((key, value)) = find(annotations, &names) else { continue };
        match parse_duration(value) {
            Err(_) => faults.invalid(value, &key, ""),
            Ok(own) if !(low..=WINDOW_MAX).contains(&own) => {
                faults.out_of_bounds(value, format_duration(low), format_duration(WINDOW_MAX), &key);
            }
            Ok(own) if whole_seconds && own % SECOND != 0 => {
                faults.generic("must be specified with at most second precision", &key);
            }
            Ok(_) => {}
        }
    }
}

/// A duration of whole, not negative seconds under any of these keys. Upstream: `ValidateRolloutDurationAnnotation`,
/// `validateProgressDeadlineAnnotation`.
pub(super) fn validate_seconds(annotations: &Value, name: &str, keys: &[&str], faults: &mut Faults) {
    let Some((key, value)) = keys
        .iter()
        .find_map(|key| Some((*key, annotations.get(*key)?.as_str().filter(|own| !own.is_empty())?)))
    else {
        return;
    };
    match parse_duration(value) {
        Err(_) => faults.invalid(value, key, ""),
        Ok(own) if own % SECOND != 0 => {
            faults.generic(format!("{name}={value} is not at second precision"), key);
        }
        Ok(own) if own < 0 => faults.generic(format!("{name}={value} must be positive"), key),
        Ok(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(annotations: Value, expect: Option<&str>) {
        let config =
            Autoscaler { class: KPA.to_owned(), max_scale_limit: 0, allow_zero_initial_scale: false };
        let mut faults = Faults::default();
        validate(&annotations, &config, &mut faults);
        assert_eq!(faults.text().as_deref(), expect, "{annotations}");
    }

    #[test]
    fn scales_are_checked() {
        let own = |name: &str, value: &str| json!({format!("autoscaling.knative.dev/{name}"): value});
        check(json!({}), None);
        check(own("min-scale", "2"), None);
        check(own("minScale", "x"), Some("invalid value: x: autoscaling.knative.dev/minScale"));
        check(
            own("min-scale", "-1"),
            Some("expected 0 <= -1 <= 2147483647: autoscaling.knative.dev/min-scale"),
        );
        check(own("window", "5s"), Some("expected 6s <= 5s <= 1h0m0s: autoscaling.knative.dev/window"));
        check(
            own("class", "x.autoscaling.knative.dev"),
            Some("invalid value: x.autoscaling.knative.dev: autoscaling.knative.dev/class"),
        );
        check(own("class", "mine"), None);
        check(own("metric", "cpu"), Some("invalid value: cpu: autoscaling.knative.dev/metric"));
        check(
            own("initial-scale", "0"),
            Some("invalid value: 0: autoscaling.knative.dev/initial-scale=0 not allowed by cluster"),
        );
        check(
            own("target-burst-capacity", "-2"),
            Some("invalid value: -2: autoscaling.knative.dev/target-burst-capacity"),
        );
        check(
            own("activation-scale", "1"),
            Some("activation-scale=1 must be greater than 1: autoscaling.knative.dev/activation-scale"),
        );
    }
}
