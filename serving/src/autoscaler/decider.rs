//! How many pods a revision wants. Pure: time is a number of seconds. Upstream: `pkg/autoscaler/scaling/autoscaler.go`.

use super::settings::Scaling;
use super::window::Window;
use std::collections::VecDeque;

/// The state of one revision's autoscaler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decider {
    window: Window,
    /// Since when it panics, and the most pods that were wanted since.
    panic: Option<(u64, i32)>,
    /// Wishes of the last seconds, for the delay of scaling down.
    wishes: VecDeque<(u64, i32)>,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Decision {
    /// Pods.
    pub(crate) pods: i32,
    /// Room beyond the burst that is to find some; negative while there is too little.
    pub(crate) burst_left: f64,
    pub(crate) panics: bool,
}

impl Decider {
    /// A fresh autoscaler that finds several pods takes their number for justified for a while.
    pub(crate) fn new(ready: i32, now: u64) -> Self {
        Self { panic: (ready > 1).then_some((now, ready)), ..Self::default() }
    }

    /// What was counted in the last second.
    pub(crate) fn record(&mut self, now: u64, value: f64, scaling: &Scaling) {
        self.window.record(now, value, scaling.stable_window);
    }

    /// Decides; `None` where nothing was counted for as long as the window is.
    pub(crate) fn decide(
        &mut self,
        now: u64,
        ready: i32,
        is_reachable: bool,
        scaling: &Scaling,
    ) -> Option<Decision> {
        let stable = self.window.average(now, scaling.stable_window, scaling.weighted)?;
        let panic = self.window.average(now, scaling.panic_window, scaling.weighted).unwrap_or(0.0);
        let ready_counted = f64::from(ready.max(1));
        let cap = (scaling.up_rate_max * ready_counted).ceil();
        let floor = if is_reachable { (ready_counted / scaling.down_rate_max).floor() } else { 0.0 };
        let wish = |average: f64| {
            #[allow(clippy::cast_possible_truncation)]
            let pods = ((average / scaling.target).ceil()).clamp(floor, cap.max(floor)) as i32;
            let raw = (average / scaling.target).ceil();
            if scaling.activation > 1 && raw > 0.0 { pods.max(scaling.activation) } else { pods }
        };
        let (stable_pods, panic_pods) = (wish(stable), wish(panic));
        let is_over = (panic / scaling.target).ceil() / ready_counted >= scaling.panic_threshold;
        match &mut self.panic {
            None if is_over => self.panic = Some((now, 0)),
            Some((since, _)) if is_over => *since = now,
            Some((since, _)) if *since + scaling.stable_window.as_secs() < now => self.panic = None,
            _ => {}
        }
        let mut pods = match &mut self.panic {
            None => stable_pods,
            Some((_, most)) => {
                *most = stable_pods.max(panic_pods).max(*most);
                *most
            }
        };
        if is_reachable && !scaling.scale_down_delay.is_zero() {
            pods = self.delayed(now, pods, scaling.scale_down_delay.as_secs());
        }
        let room = f64::from(ready) * scaling.total - scaling.burst - panic;
        let burst_left = match scaling.burst {
            0.0 => 0.0,
            burst if burst < 0.0 => -1.0,
            _ => room.floor(),
        };
        Some(Decision { pods, burst_left, panics: self.panic.is_some() })
    }

    /// The most that was wanted within the delay.
    fn delayed(&mut self, now: u64, pods: i32, delay_seconds: u64) -> i32 {
        self.wishes.push_back((now, pods));
        while self.wishes.front().is_some_and(|(then, _)| then + delay_seconds < now) {
            self.wishes.pop_front();
        }
        self.wishes.iter().map(|(_, pods)| *pods).max().unwrap_or(pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoscaler::settings::scaling;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn with(annotations: &[(&str, &str)]) -> Scaling {
        let annotations: BTreeMap<String, String> = annotations
            .iter()
            .map(|(name, value)| (format!("autoscaling.knative.dev/{name}"), (*value).to_owned()))
            .collect();
        let meta = serde_json::from_value(serde_json::json!({"annotations": annotations})).unwrap();
        scaling(&meta, 0, &BTreeMap::new(), Duration::from_secs(600))
    }

    /// Counts `value` in each second of a range, then decides at its end.
    fn decide(
        own: &mut Decider,
        seconds: std::ops::Range<u64>,
        value: f64,
        ready: i32,
        scaling: &Scaling,
    ) -> Option<Decision> {
        let end = seconds.end;
        seconds.for_each(|second| own.record(second, value, scaling));
        own.decide(end - 1, ready, true, scaling)
    }

    #[test]
    fn pods_follow_the_average_over_the_target() {
        let check = |value: f64, ready: i32, expect: (i32, f64)| {
            let decision = decide(&mut Decider::default(), 0..60, value, ready, &with(&[])).unwrap();
            assert_eq!((decision.pods, decision.burst_left), expect, "{value} {ready}");
        };
        check(0.0, 0, (0, -211.0));
        check(0.0, 1, (0, -111.0));
        check(0.5, 1, (1, -112.0));
        check(70.0, 1, (1, -181.0));
        check(71.0, 1, (2, -182.0));
        check(700.0, 4, (10, -511.0));
        check(0.0, 10, (5, 789.0));
    }

    #[test]
    fn nothing_counted_is_no_decision() {
        assert_eq!(Decider::default().decide(0, 1, true, &with(&[])), None);
    }

    #[test]
    fn what_nobody_reaches_may_go_at_once() {
        let mut own = Decider::default();
        let scaling = with(&[]);
        (0..60).for_each(|second| own.record(second, 0.0, &scaling));
        assert_eq!(own.decide(59, 10, false, &scaling).unwrap().pods, 0);
    }

    #[test]
    fn a_burst_is_a_panic_in_which_pods_never_get_fewer() {
        let scaling = with(&[]);
        let mut own = Decider::default();
        assert!(!decide(&mut own, 0..60, 10.0, 1, &scaling).unwrap().panics);
        let burst = decide(&mut own, 60..66, 700.0, 1, &scaling).unwrap();
        assert_eq!((burst.panics, burst.pods), (true, 10));
        let after = decide(&mut own, 66..100, 0.0, 10, &scaling).unwrap();
        assert_eq!((after.panics, after.pods), (true, 10));
        let calm = decide(&mut own, 100..160, 0.0, 10, &scaling).unwrap();
        assert_eq!((calm.panics, calm.pods), (false, 5));
    }

    #[test]
    fn a_fresh_autoscaler_keeps_the_pods_it_finds() {
        let mut own = Decider::new(5, 0);
        let found = decide(&mut own, 0..2, 10.0, 5, &with(&[])).unwrap();
        assert_eq!((found.panics, found.pods), (true, 5));
    }

    #[test]
    fn pods_begin_together_and_go_late() {
        let scaling = with(&[("activation-scale", "3")]);
        assert_eq!(decide(&mut Decider::default(), 0..2, 1.0, 0, &scaling).unwrap().pods, 3);
        assert_eq!(decide(&mut Decider::default(), 0..2, 0.0, 0, &scaling).unwrap().pods, 0);
        let scaling = with(&[("scale-down-delay", "30s"), ("window", "6s")]);
        let mut own = Decider::default();
        assert_eq!(decide(&mut own, 0..6, 100.0, 2, &scaling).unwrap().pods, 2);
        assert_eq!(decide(&mut own, 6..20, 0.0, 2, &scaling).unwrap().pods, 2);
        assert_eq!(decide(&mut own, 20..60, 0.0, 1, &scaling).unwrap().pods, 0);
    }

    #[test]
    fn a_burst_capacity_may_be_none_or_any() {
        let check = |burst: &str, expect: f64| {
            let scaling = with(&[("target-burst-capacity", burst)]);
            let decision = decide(&mut Decider::default(), 0..2, 1.0, 1, &scaling).unwrap();
            assert!((decision.burst_left - expect).abs() < 1e-9, "{burst}: {decision:?}");
        };
        check("0", 0.0);
        check("-1", -1.0);
        check("10", 89.0);
    }
}
