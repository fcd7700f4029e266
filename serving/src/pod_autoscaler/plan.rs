//! From what is wanted to what is done: bounds, the way to zero, conditions. Pure.
//! Upstream: `pkg/reconciler/autoscaling/kpa/{kpa,scaler}.go`, `pkg/apis/autoscaling/v1alpha1/pa_lifecycle.go`.

use crate::autoscaler::decider::Decision;
use crate::autoscaler::settings::Scaling;
use crate::conditions::{Conditions, state};
use crate::keys;
use crate::kinds::{Metric, PodAutoscaler, ServerlessService, controller_reference, name_of, text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::time::Duration;

/// The conditions of a PodAutoscaler.
pub(super) const CONDITIONS: &[&str] = &["Active", "SKSReady", "ScaleTargetInitialized"];
/// How much longer than its progress deadline a revision may take to get a pod. Upstream: `activationTimeoutBuffer`.
const ACTIVATION_EXTRA: Duration = Duration::from_secs(30);
/// Activators that a revision is told; there is one, but the field says how many are wanted. Upstream: `minActivators`.
const ACTIVATORS_MIN: f64 = 2.0;

/// What is known.
#[derive(Clone, Debug)]
pub(super) struct Seen<'s> {
    pub(super) scaling: &'s Scaling,
    pub(super) decision: Option<Decision>,
    /// `True`, `False`, `Unknown`, and for how long it has been that.
    pub(super) active: (&'s str, Duration),
    pub(super) is_initialized: bool,
    pub(super) is_reachable: bool,
    /// Pods as the deployment wants them, and those that are ready.
    pub(super) replicas: i32,
    pub(super) ready: i32,
    /// For how long requests have gone to whoever waits for pods; `None` if they do not.
    pub(super) proxied: Option<Duration>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Pods that are wanted now; -1 if nobody knows.
    pub(super) want: i32,
    /// What the deployment is set to, if it is.
    pub(super) scale_to: Option<i32>,
    /// When it is looked at again.
    pub(super) after: Option<Duration>,
}

/// Decides on the scale.
pub(super) fn plan(seen: &Seen<'_>) -> Plan {
    let scaling = seen.scaling;
    let mut least = if seen.is_reachable { scaling.min } else { 0 };
    if !seen.is_initialized && seen.is_reachable {
        least = least.max(scaling.initial);
    }
    let wish = seen.decision.map(|own| own.pods);
    // Nothing was counted yet: what is there stays, or what the beginning asks for.
    let mut want =
        wish.unwrap_or(if seen.is_initialized { seen.replicas } else { scaling.initial }).max(least);
    if scaling.max > 0 {
        want = want.min(scaling.max);
    }
    if want == 0 && !scaling.to_zero {
        want = 1;
    }
    if want > 0 {
        return Plan { want, scale_to: (want != seen.replicas).then_some(want), after: None };
    }
    if wish.is_none() && seen.is_initialized && seen.replicas > 0 {
        return Plan { want: -1, scale_to: None, after: None };
    }
    to_zero(seen)
}

/// Nothing is wanted: how the pods go.
fn to_zero(seen: &Seen<'_>) -> Plan {
    let (scaling, replicas) = (seen.scaling, seen.replicas);
    let keep = |want, after| Plan { want, scale_to: None, after };
    if replicas == 0 {
        return keep(0, None);
    }
    let (active, since) = seen.active;
    match active {
        // It is said to be inactive first: requests must have somewhere else to go before the pods do.
        "True" if since >= scaling.stable_window => keep(0, None),
        "True" => Plan {
            want: 1,
            scale_to: (replicas > 1).then_some(1),
            after: Some(scaling.stable_window.saturating_sub(since)),
        },
        "Unknown" => {
            let most = scaling.progress_deadline + ACTIVATION_EXTRA;
            match since >= most {
                true => Plan { want: 0, scale_to: Some(0), after: None },
                false => keep(-1, Some(most.saturating_sub(since))),
            }
        }
        _ => {
            let least = scaling.grace.max(scaling.retention);
            let is_over = since >= least
                || seen.proxied.is_some_and(|own| own >= scaling.grace && since >= scaling.retention);
            match (is_over, seen.proxied) {
                (true, Some(_)) => Plan { want: 0, scale_to: Some(0), after: None },
                (true, None) => keep(0, None),
                (false, _) => keep(0, Some(least.saturating_sub(since))),
            }
        }
    }
}

/// How many pods have to be ready for the revision to count as active.
fn ready_min(seen: &Seen<'_>) -> i32 {
    let own = if seen.is_reachable { seen.scaling.min } else { 0 };
    let own = if seen.is_initialized { own } else { own.max(seen.scaling.initial) };
    own.max(1)
}

/// What the status says.
pub(super) fn take(
    conditions: &mut Conditions<'_>,
    seen: &Seen<'_>,
    plan: &Plan,
    sks: Option<&ServerlessService>,
) {
    let is_inactive = state(conditions.status(), "Active") == "False";
    let is_activating = state(conditions.status(), "Active") == "Unknown";
    let begins_at_zero = !seen.is_initialized && seen.scaling.initial == 0;
    if plan.want == 0 {
        let (reason, message) = match is_activating && !begins_at_zero && seen.replicas > 0 {
            true => ("TimedOut", "The target could not be activated."),
            false => ("NoTraffic", "The target is not receiving traffic."),
        };
        conditions.mark("Active", "False", reason, message);
    } else if seen.ready < ready_min(seen) {
        if plan.want > 0 || !is_inactive {
            let message = "Requests to the target are being buffered as resources are provisioned.";
            conditions.mark("Active", "Unknown", "Queued", message);
        }
    } else if plan.want > 0 || !is_inactive {
        conditions.mark("Active", "True", "", "");
    }
    let service = sks.map(|own| text(&own.status, "/serviceName").to_owned()).unwrap_or_default();
    match sks.and_then(|own| crate::conditions::parts(&own.status, "Ready")) {
        Some(("True", ..)) => conditions.mark("SKSReady", "True", "", ""),
        Some((_, _, message)) => conditions.mark("SKSReady", "Unknown", "NotReady", message),
        None => conditions.mark("SKSReady", "Unknown", "NotReady", "SKS is not created yet"),
    }
    if (seen.ready >= ready_min(seen) || begins_at_zero) && !service.is_empty() {
        conditions.mark("ScaleTargetInitialized", "True", "", "");
    }
    let status = conditions.status();
    status["desiredScale"] = plan.want.into();
    status["actualScale"] = seen.ready.into();
    status["serviceName"] = service.into();
    status["metricsServiceName"] =
        sks.map_or(Value::Null, |own| text(&own.status, "/privateServiceName").into());
}

fn metadata(autoscaler: &PodAutoscaler) -> ObjectMeta {
    let mut annotations = autoscaler.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(keys::LAST_APPLIED);
    ObjectMeta {
        name: autoscaler.metadata.name.clone(),
        namespace: autoscaler.metadata.namespace.clone(),
        labels: autoscaler.metadata.labels.clone(),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(autoscaler)]),
        ..ObjectMeta::default()
    }
}

/// The services of the revision: they lead to its pods, or to whoever waits for some.
pub(super) fn serverless_service(
    autoscaler: &PodAutoscaler,
    plan: &Plan,
    seen: &Seen<'_>,
) -> ServerlessService {
    let has_room = seen.decision.is_some_and(|own| own.burst_left >= 0.0);
    let mode = if plan.want != 0 && has_room { "Serve" } else { "Proxy" };
    let scaling = seen.scaling;
    let activators = match scaling.burst {
        0.0 => ACTIVATORS_MIN,
        burst => ((f64::from(seen.ready) * scaling.total + burst.max(0.0)) / scaling.activator_capacity)
            .ceil()
            .max(ACTIVATORS_MIN),
    };
    #[allow(clippy::cast_possible_truncation)]
    let activators = activators as i64;
    let spec = json!({
        "mode": mode, "numActivators": activators, "protocolType": autoscaler.spec["protocolType"],
        "objectRef": autoscaler.spec["scaleTargetRef"],
    });
    ServerlessService::new(metadata(autoscaler), spec)
}

/// What is measured. Nothing is scraped: the object says so to whoever reads it.
pub(super) fn metric(autoscaler: &PodAutoscaler, scaling: &Scaling) -> Metric {
    let nanos = |own: Duration| u64::try_from(own.as_nanos()).unwrap_or(u64::MAX);
    let target = text(&autoscaler.status, "/metricsServiceName");
    let target = if target.is_empty() {
        format!("{}-private", name_of(&autoscaler.metadata))
    } else {
        target.to_owned()
    };
    let spec = json!({"stableWindow": nanos(scaling.stable_window), "panicWindow": nanos(scaling.panic_window),
        "scrapeTarget": target});
    Metric::new(metadata(autoscaler), spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn scaling(annotations: &[(&str, &str)]) -> Scaling {
        let annotations: BTreeMap<String, String> = annotations
            .iter()
            .map(|(name, value)| (format!("autoscaling.knative.dev/{name}"), (*value).to_owned()))
            .collect();
        let meta = serde_json::from_value(json!({"annotations": annotations})).unwrap();
        crate::autoscaler::settings::scaling(&meta, 0, &BTreeMap::new(), Duration::from_secs(600))
    }

    struct Case {
        annotations: &'static [(&'static str, &'static str)],
        wish: Option<i32>,
        active: (&'static str, u64),
        is_initialized: bool,
        is_reachable: bool,
        replicas: i32,
        proxied: Option<u64>,
    }

    const CASE: Case = Case {
        annotations: &[],
        wish: Some(0),
        active: ("True", 100),
        is_initialized: true,
        is_reachable: true,
        replicas: 1,
        proxied: None,
    };

    fn check(case: Case, want: i32, scale_to: Option<i32>, after_seconds: Option<u64>) {
        let scaling = scaling(case.annotations);
        let seen = Seen {
            scaling: &scaling,
            decision: case.wish.map(|pods| Decision { pods, burst_left: 0.0, panics: false }),
            active: (case.active.0, Duration::from_secs(case.active.1)),
            is_initialized: case.is_initialized,
            is_reachable: case.is_reachable,
            replicas: case.replicas,
            ready: case.replicas,
            proxied: case.proxied.map(Duration::from_secs),
        };
        assert_eq!(plan(&seen), Plan { want, scale_to, after: after_seconds.map(Duration::from_secs) });
    }

    #[test]
    fn wishes_are_bounded() {
        check(Case { wish: Some(3), ..CASE }, 3, Some(3), None);
        check(Case { wish: Some(3), replicas: 3, ..CASE }, 3, None, None);
        check(Case { wish: Some(30), annotations: &[("max-scale", "5")], ..CASE }, 5, Some(5), None);
        check(Case { annotations: &[("min-scale", "2")], ..CASE }, 2, Some(2), None);
        let unreached = Case {
            annotations: &[("min-scale", "2")],
            is_reachable: false,
            active: ("False", 100),
            proxied: Some(100),
            ..CASE
        };
        check(unreached, 0, Some(0), None);
    }

    #[test]
    fn a_revision_begins_with_its_initial_scale() {
        let begins = Case { wish: None, active: ("Unknown", 0), is_initialized: false, ..CASE };
        check(Case { annotations: &[("initial-scale", "3")], replicas: 3, ..begins }, 3, None, None);
        let begins = Case { wish: None, active: ("Unknown", 0), is_initialized: false, ..CASE };
        check(Case { replicas: 0, ..begins }, 1, Some(1), None);
        let at_zero = Case {
            wish: None,
            active: ("Unknown", 0),
            is_initialized: false,
            annotations: &[("initial-scale", "0")],
            replicas: 0,
            ..CASE
        };
        check(at_zero, 0, None, None);
    }

    #[test]
    fn what_was_not_counted_yet_stays() {
        check(Case { wish: None, replicas: 4, ..CASE }, 4, None, None);
    }

    #[test]
    fn the_way_to_zero_has_two_steps() {
        check(Case { active: ("True", 20), replicas: 3, ..CASE }, 1, Some(1), Some(40));
        check(Case { active: ("True", 60), ..CASE }, 0, None, None);
        check(Case { active: ("False", 10), proxied: Some(10), ..CASE }, 0, None, Some(20));
        check(Case { active: ("False", 30), proxied: Some(29), ..CASE }, 0, Some(0), None);
        check(Case { active: ("False", 30), proxied: None, ..CASE }, 0, None, None);
        let kept = Case {
            active: ("False", 40),
            proxied: Some(40),
            annotations: &[("scale-to-zero-pod-retention-period", "1m")],
            ..CASE
        };
        check(kept, 0, None, Some(20));
        check(Case { active: ("False", 99), replicas: 0, ..CASE }, 0, None, None);
    }

    #[test]
    fn what_never_comes_up_is_given_up() {
        check(Case { active: ("Unknown", 100), ..CASE }, -1, None, Some(530));
        check(Case { active: ("Unknown", 630), ..CASE }, 0, Some(0), None);
    }
}
