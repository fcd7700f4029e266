//! Whose place a pod takes when it fits nowhere. Pure. Upstream: `pkg/scheduler/framework/preemption`.

use crate::cycle::{Filters, FitError};
use crate::plugin::Plugin;
use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::{PodView, SharedPod};
use std::sync::Arc;

/// A node and the pods that must go for another to fit.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node.
    pub node: Box<str>,
    /// Who must go; never empty.
    pub victims: Vec<SharedPod>,
    /// How many of them a disruption budget would protect.
    pub budgets_broken: usize,
}

/// Whether evicting this pod breaks a disruption budget.
pub type Protected<'a> = dyn Fn(&PodView) -> bool + 'a;

/// Finds the least harm that makes the pod fit, or says why there is none.
///
/// # Errors
/// Upstream's words for the end of the FailedScheduling message.
pub fn plan(
    pod: &PodView,
    snapshot: &Snapshot,
    plugins: &[Plugin],
    error: &FitError,
    protected: &Protected<'_>,
) -> Result<Plan, String> {
    let total = snapshot.nodes.len();
    if !pod.may_preempt {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let mut plans: Vec<Plan> = Vec::new();
    for index in &error.evictable {
        plans.extend(on_node(pod, snapshot, &snapshot.nodes[*index], plugins, protected));
    }
    let chosen = plans.into_iter().min_by(|one, other| harm(one).cmp(&harm(other)));
    chosen.ok_or_else(|| {
        let mut parts = Vec::new();
        let hopeless = total - error.evictable.len();
        if !error.evictable.is_empty() {
            parts.push(format!("{} No preemption victims found for incoming pod", error.evictable.len()));
        }
        if hopeless > 0 {
            parts.push(format!("{hopeless} Preemption is not helpful for scheduling"));
        }
        parts.sort();
        format!("preemption: 0/{total} nodes are available: {}.", parts.join(", "))
    })
}

/// Upstream's order: budgets broken, highest victim, sum of priorities, number of victims, latest start of the highest.
fn harm(plan: &Plan) -> impl Ord + use<> {
    let highest = plan.victims.iter().map(|victim| victim.priority).max().unwrap_or(i32::MIN);
    // Shifted so that many victims of negative priority still weigh more than few.
    let sum: i64 =
        plan.victims.iter().map(|victim| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let start = plan
        .victims
        .iter()
        .filter(|victim| victim.priority == highest)
        .filter_map(|own| own.start_time)
        .min();
    (plan.budgets_broken, highest, sum, plan.victims.len(), std::cmp::Reverse(start))
}

/// Takes off every pod of lower priority; if that helps, puts back as many as possible, the important ones first.
fn on_node(
    pod: &PodView,
    snapshot: &Snapshot,
    info: &Arc<NodeInfo>,
    plugins: &[Plugin],
    protected: &Protected<'_>,
) -> Option<Plan> {
    let mut lower: Vec<SharedPod> =
        info.pods.iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    let mut trial = NodeInfo::clone(info);
    for victim in &lower {
        trial.remove(&victim.uid);
    }
    let fits = |trial: &NodeInfo| {
        let mut with = snapshot.clone();
        if let Some(own) = with.nodes.iter_mut().find(|own| own.node.name == trial.node.name) {
            *own = Arc::new(trial.clone());
        }
        Filters::of(pod, &with, plugins).refusal(trial).is_none()
    };
    if !fits(&trial) {
        return None;
    }
    lower.sort_by_key(|victim| (!protected(victim), std::cmp::Reverse(victim.priority), victim.start_time));
    let (mut victims, mut budgets_broken) = (Vec::new(), 0);
    for candidate in lower {
        trial.add(candidate.clone());
        if !fits(&trial) {
            trial.remove(&candidate.uid);
            budgets_broken += usize::from(protected(&candidate));
            victims.push(candidate);
        }
    }
    (!victims.is_empty()).then(|| Plan { node: info.node.name.clone(), victims, budgets_broken })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::schedule;
    use crate::plugins::PLUGINS;
    use crate::view::{Amounts, NodeView};

    fn pod(name: &str, cpu_milli: i64, priority: i32) -> PodView {
        let requests = Amounts { cpu_milli, ..Amounts::default() };
        PodView {
            name: name.into(),
            uid: name.into(),
            priority,
            may_preempt: true,
            requests,
            ..PodView::default()
        }
    }

    fn node(name: &str, pods: &[(&str, i64, i32)]) -> Arc<NodeInfo> {
        let allocatable = Amounts { cpu_milli: 1000, ..Amounts::default() };
        let node = NodeView { name: name.into(), allocatable, pods_max: 10, ..NodeView::default() };
        let pods = pods.iter().map(|(name, cpu, priority)| Arc::new(pod(name, *cpu, *priority))).collect();
        Arc::new(NodeInfo::new(Arc::new(node), pods))
    }

    fn check(
        ask: (i64, i32),
        nodes: Vec<Arc<NodeInfo>>,
        protected: &[&str],
        expect: Result<(&str, &[&str]), &str>,
    ) {
        let snapshot = Snapshot { nodes, ..Snapshot::default() };
        let pod = pod("new", ask.0, ask.1);
        let error = schedule(&pod, &snapshot, PLUGINS, 0).unwrap_err();
        let found = plan(&pod, &snapshot, PLUGINS, &error, &|own| protected.contains(&&*own.name));
        let found = found.map(|plan| {
            let mut names: Vec<_> = plan.victims.iter().map(|own| own.name.to_string()).collect();
            names.sort();
            (plan.node.to_string(), names)
        });
        let expect = expect
            .map(|(node, names)| (node.to_owned(), names.iter().map(|own| (*own).to_owned()).collect()))
            .map_err(str::to_owned);
        assert_eq!(found, expect);
    }

    #[test]
    fn the_least_harm_is_done() {
        // Only as many as needed, the least important ones.
        check((500, 10), vec![node("n1", &[("a", 500, 5), ("b", 500, 1)])], &[], Ok(("n1", &["b"])));
        // The node whose highest victim is lowest.
        check(
            (800, 10),
            vec![node("n1", &[("a", 900, 5)]), node("n2", &[("b", 900, 3)])],
            &[],
            Ok(("n2", &["b"])),
        );
        // A budget outweighs priority.
        check(
            (800, 10),
            vec![node("n1", &[("a", 900, 5)]), node("n2", &[("b", 900, 3)])],
            &["b"],
            Ok(("n1", &["a"])),
        );
    }

    #[test]
    fn equals_are_not_evicted() {
        check(
            (800, 5),
            vec![node("n1", &[("a", 900, 5)])],
            &[],
            Err("preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."),
        );
    }
}
