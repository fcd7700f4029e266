//! Keeps pods off tainted nodes and prefers nodes with fewer soft taints. Upstream: `framework/plugins/tainttoleration`.

use crate::plugin::{Filter, Normalize, Plugin, Score, Verdict, Wake};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin = Plugin::new("TaintToleration")
    .filter(filter)
    .score(score, Normalize::Reverse, 3)
    .wakes_on(&[Wake::NodeAdded, Wake::NodeTaintsChanged, Wake::PodSpecChanged]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    Filter::each(|info| {
        let hard = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
        match info.node.taints.iter().any(|taint| hard(&taint.effect) && !pod.tolerates(taint)) {
            true => Verdict::Never("node(s) had untolerated taint(s)"),
            false => Verdict::Fits,
        }
    })
}

fn score<'a>(pod: &'a PodView, _: &'a Snapshot) -> Option<Score<'a>> {
    Some(Box::new(|info| {
        let soft = info.node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !pod.tolerates(taint)).count() as i64
    }))
}
