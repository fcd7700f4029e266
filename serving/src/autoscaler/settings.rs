//! How a revision scales: `config-autoscaler`, overridden by annotations. Pure. Upstream: `pkg/autoscaler/config`,
//! `pkg/apis/autoscaling`.

use crate::kinds::annotation;
use api::time_text::parse_duration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Requests at once.
    Concurrency,
    /// Requests per second.
    RequestsPerSecond,
}

/// How one revision scales.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scaling {
    pub(crate) measure: Measure,
    /// What one pod bears.
    pub(crate) total: f64,
    /// What one pod is given.
    pub(crate) target: f64,
    /// Requests that must find room at once; negative for any number.
    pub(crate) burst: f64,
    pub(crate) up_rate_max: f64,
    pub(crate) down_rate_max: f64,
    /// How many times the pods that are there have to be wanted for a panic.
    pub(crate) panic_threshold: f64,
    pub(crate) stable_window: Duration,
    pub(crate) panic_window: Duration,
    pub(crate) scale_down_delay: Duration,
    pub(crate) weighted: bool,
    pub(crate) initial: i32,
    pub(crate) min: i32,
    /// 0 for none.
    pub(crate) max: i32,
    /// Pods that begin together when there is anything to do.
    pub(crate) activation: i32,
    pub(crate) to_zero: bool,
    pub(crate) grace: Duration,
    pub(crate) retention: Duration,
    pub(crate) activator_capacity: f64,
    pub(crate) is_kpa: bool,
    pub(crate) progress_deadline: Duration,
}

/// Smallest target that makes sense. Upstream: `autoscaling.TargetMin`.
const TARGET_MIN: f64 = 0.01;

/// Reads the settings of one revision's autoscaler. What cannot be read is the default.
pub(crate) fn scaling(
    meta: &ObjectMeta,
    concurrency_max: i64,
    config: &BTreeMap<String, String>,
    progress_deadline: Duration,
) -> Scaling {
    let own = Values { meta, config };
    let measure = match own.annotation(&["metric"]) {
        Some("rps") => Measure::RequestsPerSecond,
        _ => Measure::Concurrency,
    };
    let utilization = own.number(
        &["target-utilization-percentage", "targetUtilizationPercentage"],
        "container-concurrency-target-percentage",
        70.0,
    );
    // Upstream reads fractions up to 1 as such.
    let utilization = if utilization > 1.0 { utilization / 100.0 } else { utilization };
    #[allow(clippy::cast_precision_loss)]
    let concurrency_max = concurrency_max as f64;
    let mut total = match measure {
        Measure::RequestsPerSecond => own.config_number("requests-per-second-target-default", 200.0),
        Measure::Concurrency if concurrency_max > 0.0 => concurrency_max,
        Measure::Concurrency => own.config_number("container-concurrency-target-default", 100.0),
    };
    if let Some(target) = own.annotation(&["target"]).and_then(|own| own.parse().ok()) {
        let is_bounded = measure == Measure::Concurrency && concurrency_max > 0.0;
        total = if is_bounded { f64::min(target, concurrency_max) } else { target };
    }
    let stable_window = own.duration(&["window"], "stable-window", 60);
    let panic_percent =
        own.number(&["panic-window-percentage", "panicWindowPercentage"], "panic-window-percentage", 10.0);
    let panic_seconds = (stable_window.as_secs_f64() * panic_percent / 100.0).round().max(1.0);
    let integer = |names: &[&str], key: &str, missing: f64| {
        #[allow(clippy::cast_possible_truncation)]
        let whole = own.number(names, key, missing).clamp(0.0, f64::from(i32::MAX)) as i32;
        whole
    };
    Scaling {
        measure,
        total,
        target: (total * utilization).max(TARGET_MIN),
        burst: own.number(&["target-burst-capacity", "targetBurstCapacity"], "target-burst-capacity", 211.0),
        up_rate_max: own.config_number("max-scale-up-rate", 1000.0),
        down_rate_max: own.config_number("max-scale-down-rate", 2.0),
        panic_threshold: own.number(
            &["panic-threshold-percentage", "panicThresholdPercentage"],
            "panic-threshold-percentage",
            200.0,
        ) / 100.0,
        stable_window,
        panic_window: Duration::from_secs_f64(panic_seconds),
        scale_down_delay: own.duration(&["scale-down-delay", "scaleDownDelay"], "scale-down-delay", 0),
        weighted: own.annotation(&["metric-aggregation-algorithm"]) == Some("weighted-exponential"),
        initial: integer(&["initial-scale", "initialScale"], "initial-scale", 1.0),
        min: integer(&["min-scale", "minScale"], "min-scale", 0.0),
        max: integer(&["max-scale", "maxScale"], "max-scale", 0.0),
        activation: integer(&["activation-scale", "activationScale"], "", 0.0),
        to_zero: own.config.get("enable-scale-to-zero").is_none_or(|own| own.trim() == "true"),
        grace: own.duration(&[], "scale-to-zero-grace-period", 30),
        retention: own.duration(
            &["scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod"],
            "scale-to-zero-pod-retention-period",
            0,
        ),
        activator_capacity: own.config_number("activator-capacity", 100.0).max(1.0),
        is_kpa: own
            .annotation(&["class"])
            .or_else(|| config.get("pod-autoscaler-class").map(String::as_str))
            .is_none_or(|class| class == "kpa.autoscaling.knative.dev"),
        progress_deadline,
    }
}

struct Values<'v> {
    meta: &'v ObjectMeta,
    config: &'v BTreeMap<String, String>,
}

impl<'v> Values<'v> {
    fn annotation(&self, names: &[&str]) -> Option<&'v str> {
        names.iter().find_map(|name| annotation(self.meta, &format!("autoscaling.knative.dev/{name}")))
    }

    fn config_number(&self, key: &str, missing: f64) -> f64 {
        self.config.get(key).and_then(|own| own.trim().parse().ok()).unwrap_or(missing)
    }

    fn number(&self, names: &[&str], key: &str, missing: f64) -> f64 {
        let own = self.annotation(names).and_then(|own| own.parse().ok());
        own.unwrap_or_else(|| self.config_number(key, missing))
    }

    fn duration(&self, names: &[&str], key: &str, missing_seconds: u64) -> Duration {
        let parse =
            |own: &str| Some(Duration::from_nanos(u64::try_from(parse_duration(own.trim()).ok()?).ok()?));
        let own = self.annotation(names).and_then(parse);
        own.or_else(|| self.config.get(key).and_then(|own| parse(own)))
            .unwrap_or(Duration::from_secs(missing_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(annotations: &[(&str, &str)], concurrency_max: i64, config: &[(&str, &str)]) -> Scaling {
        let annotations: BTreeMap<_, _> = annotations
            .iter()
            .map(|(name, value)| (format!("autoscaling.knative.dev/{name}"), *value))
            .collect();
        let meta = serde_json::from_value(json!({"annotations": annotations})).unwrap();
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        scaling(&meta, concurrency_max, &config, Duration::from_secs(600))
    }

    #[test]
    fn targets_follow_concurrency_annotations_and_settings() {
        let check = |annotations: &[(&str, &str)],
                     concurrency_max,
                     config: &[(&str, &str)],
                     expect: (f64, f64)| {
            let own = with(annotations, concurrency_max, config);
            assert!((own.total - expect.0).abs() < 1e-9 && (own.target - expect.1).abs() < 1e-9, "{own:?}");
        };
        check(&[], 0, &[], (100.0, 70.0));
        check(&[], 10, &[], (10.0, 7.0));
        check(&[("target", "5")], 0, &[], (5.0, 3.5));
        check(&[("target", "50")], 10, &[], (10.0, 7.0));
        check(&[("metric", "rps")], 0, &[], (200.0, 140.0));
        check(&[("target-utilization-percentage", "100")], 1, &[], (1.0, 1.0));
        check(&[], 0, &[("container-concurrency-target-default", "20")], (20.0, 14.0));
        check(&[("target", "0.001")], 0, &[], (0.001, 0.01));
    }

    #[test]
    fn windows_and_old_spellings_are_read() {
        let own =
            with(&[("window", "6s"), ("minScale", "2"), ("max-scale", "3"), ("initialScale", "0")], 0, &[]);
        assert_eq!((own.stable_window, own.panic_window), (Duration::from_secs(6), Duration::from_secs(1)));
        assert_eq!((own.min, own.max, own.initial), (2, 3, 0));
        let own = with(&[], 0, &[("scale-to-zero-grace-period", "6s"), ("enable-scale-to-zero", "false")]);
        assert_eq!((own.grace, own.to_zero), (Duration::from_secs(6), false));
        assert!(!with(&[("class", "hpa.autoscaling.knative.dev")], 0, &[]).is_kpa);
    }
}
