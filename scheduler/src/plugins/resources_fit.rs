//! What a pod asks for must be free; the emptier node is better. Upstream: `framework/plugins/noderesources`.

use crate::plugin::{Filter, Normalize, Plugin, SCORE_MAX, Score, Verdict, Wake};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::PodView;

pub(super) const PLUGIN: Plugin = Plugin::new("NodeResourcesFit")
    .filter(filter)
    .score(score, Normalize::Done, 1)
    .wakes_on(&[Wake::NodeAdded, Wake::NodeAllocatableGrew, Wake::PodRemoved, Wake::PodSpecChanged]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    Filter::each(|info| {
        let (ask, have, used) = (&pod.requests, &info.node.allocatable, &info.requested);
        let mut missing = Vec::new();
        if info.pods.len() as i64 + 1 > info.node.pods_max {
            missing.push("Too many pods".to_owned());
        }
        let mut short = |name: &str, ask: i64, have: i64, used: i64| {
            if ask > 0 && ask > have - used {
                missing.push(format!("Insufficient {name}"));
            }
        };
        short("cpu", ask.cpu_milli, have.cpu_milli, used.cpu_milli);
        short("memory", ask.memory_bytes, have.memory_bytes, used.memory_bytes);
        short("ephemeral-storage", ask.ephemeral_bytes, have.ephemeral_bytes, used.ephemeral_bytes);
        for (name, amount) in &ask.extended {
            let of =
                |amounts: &std::collections::BTreeMap<Box<str>, i64>| amounts.get(name).copied().unwrap_or(0);
            short(name, *amount, of(&have.extended), of(&used.extended));
        }
        match missing.is_empty() {
            true => Verdict::Fits,
            false => Verdict::Unschedulable(missing),
        }
    })
}

/// A pod that asks for nothing is scored as if it took this much. Upstream: `DefaultMilliCPURequest`, `DefaultMemoryRequest`.
pub(super) const CPU_MILLI_ASSUMED: i64 = 100;
pub(super) const MEMORY_BYTES_ASSUMED: i64 = 200 << 20;

/// The parts of CPU and memory that would be taken with the pod, each from 0 to 1.
pub(super) fn fractions(pod: &PodView, info: &NodeInfo) -> [f64; 2] {
    let assumed = |amount: i64, default: i64| if amount == 0 { default } else { amount };
    let sum = |of: fn(&PodView) -> i64, default: i64| {
        info.pods.iter().map(|other| assumed(of(other), default)).sum::<i64>() + assumed(of(pod), default)
    };
    let part = |taken: i64, have: i64| if have == 0 { 1.0 } else { (taken as f64 / have as f64).min(1.0) };
    [
        part(sum(|own| own.requests.cpu_milli, CPU_MILLI_ASSUMED), info.node.allocatable.cpu_milli),
        part(sum(|own| own.requests.memory_bytes, MEMORY_BYTES_ASSUMED), info.node.allocatable.memory_bytes),
    ]
}

fn score<'a>(pod: &'a PodView, _: &'a Snapshot) -> Option<Score<'a>> {
    Some(Box::new(|info| {
        let parts = fractions(pod, info);
        (parts.iter().map(|part| (1.0 - part) * SCORE_MAX as f64).sum::<f64>() / parts.len() as f64) as i64
    }))
}
