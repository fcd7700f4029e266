//! What was counted in the last seconds. Pure. Upstream: `pkg/autoscaler/aggregation`.

use std::collections::VecDeque;
use std::time::Duration;

/// The least weight of the newest second in the weighted average. Upstream: `minExponent`.
const NEWEST_WEIGHT_MIN: f64 = 0.2;
/// What part of the weight the seconds of the window get. Upstream: `weightPrecision`.
const WEIGHT_LEFT: f64 = 0.0001;

/// A value for each second. Seconds count from any beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    buckets: VecDeque<(u64, f64)>,
}

impl Window {
    /// What was counted in a second. Seconds come in order; what is older than `keep` is forgotten.
    pub(crate) fn record(&mut self, second: u64, value: f64, keep: Duration) {
        match self.buckets.back_mut() {
            Some((last, sum)) if *last == second => *sum = f64::max(*sum, value),
            _ => self.buckets.push_back((second, value)),
        }
        let keep = keep.as_secs();
        while self.buckets.front().is_some_and(|(first, _)| first + keep <= second) {
            self.buckets.pop_front();
        }
    }

    /// The average of the last seconds up to and with `now`; `None` if nothing was recorded in them.
    pub(crate) fn average(&self, now: u64, length: Duration, is_weighted: bool) -> Option<f64> {
        let length = length.as_secs().max(1);
        let own: Vec<f64> = self
            .buckets
            .iter()
            .rev()
            .take_while(|(second, _)| second + length > now)
            .map(|(_, value)| *value)
            .collect();
        if own.is_empty() {
            return None;
        }
        #[allow(clippy::cast_precision_loss)]
        let count = own.len() as f64;
        if !is_weighted {
            return Some(own.iter().sum::<f64>() / count);
        }
        #[allow(clippy::cast_precision_loss)]
        let step = (1.0 - WEIGHT_LEFT.powf(1.0 / length as f64)).max(NEWEST_WEIGHT_MIN);
        let (mut weight, mut weights, mut sum) = (step, 0.0, 0.0);
        for value in own {
            sum += value * weight;
            weights += weight;
            weight *= 1.0 - step;
        }
        Some(sum / weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_count_the_seconds_since_the_first_record() {
        let mut own = Window::default();
        let seconds = Duration::from_secs;
        assert_eq!(own.average(10, seconds(60), false), None);
        own.record(10, 4.0, seconds(60));
        own.record(11, 2.0, seconds(60));
        assert_eq!(own.average(11, seconds(60), false), Some(3.0));
        assert_eq!(own.average(11, seconds(1), false), Some(2.0));
        own.record(70, 0.0, seconds(60));
        assert_eq!(own.average(70, seconds(60), false), Some(1.0), "the first second has left the window");
        assert_eq!(own.average(131, seconds(60), false), None);
    }

    #[test]
    fn the_newest_weigh_most() {
        let mut own = Window::default();
        own.record(1, 0.0, Duration::from_secs(6));
        own.record(2, 10.0, Duration::from_secs(6));
        let average = own.average(2, Duration::from_secs(6), true).unwrap();
        assert!((5.0..10.0).contains(&average), "{average}");
    }
}
