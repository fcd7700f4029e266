//! `nodeSelector` and node affinity. Upstream: `framework/plugins/nodeaffinity`.

use crate::plugin::{Filter, Normalize, Plugin, Score, Verdict, Wake};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin = Plugin::new("NodeAffinity")
    .filter(filter)
    .score(score, Normalize::Scale, 2)
    .wakes_on(&[Wake::NodeAdded, Wake::NodeLabelsChanged, Wake::PodSpecChanged]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    if pod.node_selector.is_empty() && pod.node_required.is_none() {
        return Filter::Skip;
    }
    Filter::each(|info| {
        let equal = pod.node_selector.iter().all(|(key, value)| info.node.labels.get(key) == Some(value));
        let wanted =
            pod.node_required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(&info.node)));
        match equal && wanted {
            true => Verdict::Fits,
            false => Verdict::Never("node(s) didn't match Pod's node affinity/selector"),
        }
    })
}

fn score<'a>(pod: &'a PodView, _: &'a Snapshot) -> Option<Score<'a>> {
    if pod.node_preferred.is_empty() {
        return None;
    }
    Some(Box::new(|info| {
        let held = pod.node_preferred.iter().filter(|(_, term)| term.matches(&info.node));
        held.map(|(weight, _)| i64::from(*weight)).sum()
    }))
}
