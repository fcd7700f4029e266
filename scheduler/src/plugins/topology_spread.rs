//! Spreads pods over places. Upstream: `framework/plugins/podtopologyspread`.

use crate::plugin::{Filter, Normalize, Plugin, Score, Verdict, Wake};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::{PodView, Spread};
use std::collections::HashMap;

pub(super) const PLUGIN: Plugin =
    Plugin::new("PodTopologySpread").filter(filter).score(score, Normalize::Reverse, 2).wakes_on(&[
        Wake::NodeAdded,
        Wake::NodeLabelsChanged,
        Wake::PodAssigned,
        Wake::PodRemoved,
        Wake::PodLabelsChanged,
    ]);

/// Counts, for each place of a constraint, the pods that it is about. Nodes that the pod's own node affinity excludes
/// do not count (`nodeAffinityPolicy: Honor`, the default).
fn counts<'a>(pod: &PodView, spread: &Spread, snapshot: &'a Snapshot) -> HashMap<&'a str, i64> {
    let mut counts = HashMap::new();
    for info in &snapshot.nodes {
        let Some(value) = info.node.labels.get(&spread.topology_key) else { continue };
        let wanted = pod.node_selector.iter().all(|(key, value)| info.node.labels.get(key) == Some(value))
            && pod
                .node_required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(&info.node)));
        if !wanted {
            continue;
        }
        let counted = |other: &&std::sync::Arc<PodView>| {
            other.namespace == pod.namespace
                && !other.deleting
                && spread.selector.matches(|key| other.label(key))
        };
        *counts.entry(value.as_str()).or_insert(0) += info.pods.iter().filter(counted).count() as i64;
    }
    counts
}

fn filter<'a>(pod: &'a PodView, snapshot: &'a Snapshot) -> Filter<'a> {
    let constraints: Vec<_> = pod
        .spread
        .iter()
        .filter(|spread| spread.required)
        .map(|spread| {
            let counts = counts(pod, spread, snapshot);
            let too_few = (counts.len() as i64) < i64::from(spread.min_domains);
            let least = if too_few { 0 } else { counts.values().copied().min().unwrap_or(0) };
            let own = i64::from(spread.selector.matches(|key| pod.label(key)));
            (spread, counts, least, own)
        })
        .collect();
    if constraints.is_empty() {
        return Filter::Skip;
    }
    Filter::each(move |info: &NodeInfo| {
        for (spread, counts, least, own) in &constraints {
            let Some(value) = info.node.labels.get(&spread.topology_key) else {
                return Verdict::Never(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                );
            };
            let there = counts.get(value.as_str()).copied().unwrap_or(0);
            if there + own - least > i64::from(spread.max_skew) {
                return Verdict::Unschedulable(vec![
                    "node(s) didn't match pod topology spread constraints".to_owned(),
                ]);
            }
        }
        Verdict::Fits
    })
}

fn score<'a>(pod: &'a PodView, snapshot: &'a Snapshot) -> Option<Score<'a>> {
    let constraints: Vec<_> = pod
        .spread
        .iter()
        .filter(|spread| !spread.required)
        .map(|spread| (spread, counts(pod, spread, snapshot)))
        .collect();
    if constraints.is_empty() {
        return None;
    }
    Some(Box::new(move |info| {
        let of = |(spread, counts): &(&Spread, HashMap<&str, i64>)| {
            let value = info.node.labels.get(&spread.topology_key)?;
            counts.get(value.as_str()).copied()
        };
        constraints.iter().filter_map(of).sum()
    }))
}
