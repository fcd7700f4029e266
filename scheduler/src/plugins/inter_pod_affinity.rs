//! Pods that want to be near or far from others. Upstream: `framework/plugins/interpodaffinity`.

use crate::plugin::{Filter, Normalize, Plugin, Score, Verdict, Wake};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::{PodTerm, PodView};
use std::collections::{HashMap, HashSet};

pub(super) const PLUGIN: Plugin =
    Plugin::new("InterPodAffinity").filter(filter).score(score, Normalize::Spread, 2).wakes_on(&[
        Wake::NodeAdded,
        Wake::NodeLabelsChanged,
        Wake::PodAssigned,
        Wake::PodRemoved,
        Wake::PodLabelsChanged,
        Wake::NamespaceLabelsChanged,
    ]);

/// A place: topology key and value.
type Place<'a> = (&'a str, &'a str);

fn place<'a>(key: &'a str, info: &'a NodeInfo) -> Option<Place<'a>> {
    info.node.labels.get(key).map(|value| (key, value.as_str()))
}

fn filter<'a>(pod: &'a PodView, snapshot: &'a Snapshot) -> Filter<'a> {
    let spoken = |term: &PodTerm, other: &PodView| term.speaks_of(other, &snapshot.namespaces);
    let (mut refused, mut near, mut far) = (HashSet::new(), HashMap::new(), HashSet::new());
    for (info, other) in snapshot.pods() {
        for term in other.anti_affinity.iter().filter(|term| spoken(term, pod)) {
            refused.extend(place(&term.topology_key, info));
        }
        // A pod of the group counts when it satisfies every term (upstream: podMatchesAllAffinityTerms).
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| spoken(term, other)) {
            for place in pod.affinity.iter().filter_map(|term| place(&term.topology_key, info)) {
                *near.entry(place).or_insert(0_u32) += 1;
            }
        }
        for term in pod.anti_affinity.iter().filter(|term| spoken(term, other)) {
            far.extend(place(&term.topology_key, info));
        }
    }
    if refused.is_empty() && pod.affinity.is_empty() && far.is_empty() {
        return Filter::Skip;
    }
    // The first pod of a group that wants to be near itself may go anywhere that has the keys.
    let first = near.is_empty() && pod.affinity.iter().all(|term| spoken(term, pod));
    Filter::each(move |info| {
        let keys_there = pod.affinity.iter().all(|term| place(&term.topology_key, info).is_some());
        let near_enough = pod
            .affinity
            .iter()
            .all(|term| place(&term.topology_key, info).is_some_and(|place| near.contains_key(&place)));
        let has = |places: &HashSet<Place<'_>>| {
            places.iter().any(|(key, value)| info.node.labels.get(*key).is_some_and(|own| own == value))
        };
        if !keys_there || !(near_enough || first) {
            Verdict::Never("node(s) didn't match pod affinity rules")
        } else if has(&far) {
            Verdict::Unschedulable(vec!["node(s) didn't match pod anti-affinity rules".to_owned()])
        } else if has(&refused) {
            Verdict::Unschedulable(vec![
                "node(s) didn't satisfy existing pods anti-affinity rules".to_owned(),
            ])
        } else {
            Verdict::Fits
        }
    })
}

/// How much an existing pod's required affinity counts for the score. Upstream: `hardPodAffinityWeight`.
const REQUIRED_WEIGHT: i64 = 1;

fn score<'a>(pod: &'a PodView, snapshot: &'a Snapshot) -> Option<Score<'a>> {
    let mut weights: HashMap<Place<'a>, i64> = HashMap::new();
    let mut add = |term: &'a PodTerm, about: &PodView, info: &'a NodeInfo, weight: i64| {
        if term.speaks_of(about, &snapshot.namespaces)
            && let Some(place) = place(&term.topology_key, info)
        {
            *weights.entry(place).or_default() += weight;
        }
    };
    for (info, other) in snapshot.pods() {
        pod.pod_preferred.iter().for_each(|(weight, term)| add(term, other, info, i64::from(*weight)));
        other.pod_preferred.iter().for_each(|(weight, term)| add(term, pod, info, i64::from(*weight)));
        other.affinity.iter().for_each(|term| add(term, pod, info, REQUIRED_WEIGHT));
    }
    if weights.is_empty() {
        return None;
    }
    Some(Box::new(move |info| {
        let here = weights
            .iter()
            .filter(|((key, value), _)| info.node.labels.get(*key).is_some_and(|own| own == value));
        here.map(|(_, weight)| weight).sum()
    }))
}
