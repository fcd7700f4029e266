//! Prefers nodes whose CPU and memory are taken alike. Upstream: `framework/plugins/noderesources/balanced_allocation.go`.

use super::resources_fit::fractions;
use crate::plugin::{Normalize, Plugin, SCORE_MAX, Score};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodeResourcesBalancedAllocation").score(score, Normalize::Done, 1);

fn score<'a>(pod: &'a PodView, _: &'a Snapshot) -> Option<Score<'a>> {
    Some(Box::new(|info| {
        let [cpu, memory] = fractions(pod, info);
        // The standard deviation of two numbers is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * SCORE_MAX as f64) as i64
    }))
}
