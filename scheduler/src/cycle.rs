//! One pod against one snapshot: which node, or why none. Pure.

use crate::plugin::{Filter, Normalize, Plugin, SCORE_MAX, Verdict};
use crate::snapshot::{NodeInfo, Snapshot};
use crate::view::PodView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a pod fits nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// How often each reason was given.
    pub reasons: BTreeMap<String, usize>,
    /// A reason that speaks for all nodes at once.
    pub nowhere: Option<String>,
    /// Which plugins refused: their news wake the pod.
    pub plugins: Vec<&'static str>,
    /// Nodes where evicting pods may help, by index in the snapshot.
    pub evictable: Vec<usize>,
    /// What preemption said, if it was tried.
    pub preemption: String,
}

impl FitError {
    /// Upstream's text of the event and condition (`framework.FitError`).
    pub fn message(&self) -> String {
        let mut text = format!("0/{} nodes are available:", self.nodes);
        if let Some(nowhere) = &self.nowhere {
            text.push_str(&format!(" {nowhere}."));
        } else if !self.reasons.is_empty() {
            let mut parts: Vec<_> =
                self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            parts.sort();
            text.push_str(&format!(" {}.", parts.join(", ")));
        }
        if !self.preemption.is_empty() {
            text.push_str(&format!(" {}", self.preemption));
        }
        text
    }
}

type NodeFilter<'a> = Box<dyn Fn(&NodeInfo) -> Verdict + 'a>;

/// The filters that apply to a pod, decided once.
pub struct Filters<'a> {
    each: Vec<(&'static str, NodeFilter<'a>)>,
    nowhere: Option<(&'static str, String)>,
}

impl<'a> Filters<'a> {
    /// Asks every plugin about the pod.
    pub fn of(pod: &'a PodView, snapshot: &'a Snapshot, plugins: &[Plugin]) -> Self {
        let mut filters = Self { each: Vec::new(), nowhere: None };
        for plugin in plugins {
            match plugin.filter.map(|filter| filter(pod, snapshot)) {
                None | Some(Filter::Skip) => {}
                Some(Filter::Each(filter)) => filters.each.push((plugin.name, filter)),
                Some(Filter::Nowhere(why)) => filters.nowhere = filters.nowhere.or(Some((plugin.name, why))),
            }
        }
        filters
    }

    /// What the first plugin that refuses says of a node.
    pub fn refusal(&self, info: &NodeInfo) -> Option<(&'static str, Verdict)> {
        self.each
            .iter()
            .map(|(name, filter)| (*name, filter(info)))
            .find(|(_, verdict)| *verdict != Verdict::Fits)
    }
}

/// Chooses a node for a pod: its name, or why there is none.
///
/// `turn` breaks ties between equal nodes: the same turn chooses the same node.
///
/// # Errors
/// Why the pod fits nowhere.
pub fn schedule(
    pod: &PodView,
    snapshot: &Snapshot,
    plugins: &[Plugin],
    turn: u64,
) -> Result<Arc<NodeInfo>, FitError> {
    let mut error = FitError { nodes: snapshot.nodes.len(), ..FitError::default() };
    if snapshot.nodes.is_empty() {
        error.nowhere = Some("no nodes available to schedule pods".to_owned());
        return Err(error);
    }
    let filters = Filters::of(pod, snapshot, plugins);
    if let Some((plugin, why)) = filters.nowhere {
        error.plugins.push(plugin);
        error.nowhere = Some(why);
        return Err(error);
    }
    let mut feasible = Vec::new();
    for (index, info) in snapshot.nodes.iter().enumerate() {
        match filters.refusal(info) {
            None => feasible.push(info),
            Some((plugin, verdict)) => error.add(plugin, verdict, index),
        }
    }
    match feasible.as_slice() {
        [] => Err(error),
        [only] => Ok((*only).clone()),
        many => Ok(best(pod, snapshot, many, plugins, turn)),
    }
}

impl FitError {
    fn add(&mut self, plugin: &'static str, verdict: Verdict, index: usize) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
        match verdict {
            Verdict::Fits => {}
            Verdict::Never(reason) => *self.reasons.entry(reason.to_owned()).or_default() += 1,
            Verdict::Unschedulable(reasons) => {
                self.evictable.push(index);
                for reason in reasons {
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }
}

fn best(
    pod: &PodView,
    snapshot: &Snapshot,
    nodes: &[&Arc<NodeInfo>],
    plugins: &[Plugin],
    turn: u64,
) -> Arc<NodeInfo> {
    let mut totals = vec![0_i64; nodes.len()];
    for (score, normalize, weight) in plugins.iter().filter_map(|plugin| plugin.score) {
        let Some(score) = score(pod, snapshot) else { continue };
        let mut scores: Vec<i64> = nodes.iter().map(|info| score(info)).collect();
        normalized(&mut scores, normalize);
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score * weight);
    }
    let top = totals.iter().copied().max().unwrap_or(0);
    let ties: Vec<_> =
        totals.iter().enumerate().filter(|(_, total)| **total == top).map(|(at, _)| at).collect();
    nodes[ties[turn as usize % ties.len()]].clone()
}

fn normalized(scores: &mut [i64], how: Normalize) {
    let most = scores.iter().copied().max().unwrap_or(0);
    let least = scores.iter().copied().min().unwrap_or(0);
    for score in scores {
        *score = match how {
            Normalize::Done => *score,
            Normalize::Scale if most == 0 => 0,
            Normalize::Scale => SCORE_MAX * *score / most,
            Normalize::Reverse if most == 0 => SCORE_MAX,
            Normalize::Reverse => SCORE_MAX - SCORE_MAX * *score / most,
            Normalize::Spread if most == least => 0,
            Normalize::Spread => SCORE_MAX * (*score - least) / (most - least),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::PLUGINS;
    use k8s_openapi::api::core::v1 as core;
    use serde_json::{Value, json};

    fn node(name: &str, change: Value) -> Value {
        let mut node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": "a"}},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"}}, "spec": {}});
        for (path, value) in change.as_object().unwrap() {
            match node.pointer_mut(path) {
                Some(at) => *at = value.clone(),
                None => {
                    let (parent, name) = path.rsplit_once('/').unwrap();
                    node.pointer_mut(parent).unwrap()[name] = value.clone();
                }
            }
        }
        node
    }

    fn pod(name: &str, spec: Value) -> PodView {
        let pod: core::Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default",
            "uid": name, "labels": {"app": name}}, "spec": spec}))
            .unwrap();
        PodView::from_api(&pod)
    }

    fn snapshot(nodes: &[(Value, Vec<PodView>)]) -> Snapshot {
        let nodes = nodes.iter().map(|(node, pods)| {
            let node: core::Node = serde_json::from_value(node.clone()).unwrap();
            let pods = pods.iter().cloned().map(Arc::new).collect();
            Arc::new(NodeInfo::new(Arc::new(crate::view::NodeView::from_api(&node)), pods))
        });
        Snapshot { nodes: nodes.collect(), ..Snapshot::default() }
    }

    /// `expect` is the node, or upstream's message.
    fn check(spec: Value, nodes: &[(Value, Vec<PodView>)], expect: Result<&str, &str>) {
        let snapshot = snapshot(nodes);
        let pod = pod("new", spec);
        let found = schedule(&pod, &snapshot, PLUGINS, 0);
        let found = found.map(|info| info.node.name.to_string()).map_err(|error| error.message());
        assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned));
    }

    fn asks(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn each_plugin_refuses_in_upstreams_words() {
        let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
        let cases: &[(Value, Value, &str)] = &[
            (asks("3"), json!({}), "0/1 nodes are available: 1 Insufficient cpu."),
            (
                asks("1"),
                json!({"/spec/unschedulable": true}),
                "0/1 nodes are available: 1 node(s) were unschedulable.",
            ),
            (
                asks("1"),
                json!({"/spec/taints": taint}),
                "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
            ),
            (
                json!({"nodeSelector": {"disk": "ssd"}, "containers": []}),
                json!({}),
                "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            ),
            (
                asks("1"),
                json!({"/status/allocatable/pods": "0"}),
                "0/1 nodes are available: 1 Too many pods.",
            ),
        ];
        for (spec, change, message) in cases {
            check(spec.clone(), &[(node("n1", change.clone()), vec![])], Err(message));
        }
    }

    #[test]
    fn reasons_are_counted_over_nodes_and_sorted() {
        let nodes = [
            (node("n1", json!({"/spec/unschedulable": true})), vec![]),
            (node("n2", json!({})), vec![pod("old", asks("1500m"))]),
            (node("n3", json!({})), vec![pod("old", asks("1500m"))]),
        ];
        check(
            asks("1"),
            &nodes,
            Err("0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu."),
        );
    }

    #[test]
    fn the_emptier_node_wins() {
        let nodes =
            [(node("n1", json!({})), vec![pod("old", asks("1500m"))]), (node("n2", json!({})), vec![])];
        check(asks("100m"), &nodes, Ok("n2"));
    }

    #[test]
    fn preferred_node_affinity_outweighs_emptiness() {
        let nodes = [
            (node("n1", json!({"/metadata/labels/disk": "ssd"})), vec![pod("old", asks("500m"))]),
            (node("n2", json!({})), vec![]),
        ];
        let spec = json!({"containers": [], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference":
                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
        check(spec, &nodes, Ok("n1"));
    }

    #[test]
    fn host_ports_exclude_each_other() {
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        check(
            port.clone(),
            &[(node("n1", json!({})), vec![pod("old", port)])],
            Err("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."),
        );
    }

    #[test]
    fn pod_anti_affinity_keeps_apart_and_affinity_keeps_together() {
        let term =
            |key: &str| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "old"}}}]);
        let rule = |kind: &str, key: &str| json!({"containers": [], "affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(key)}}});
        let nodes = [(node("n1", json!({})), vec![pod("old", asks("1m"))]), (node("n2", json!({})), vec![])];
        check(rule("podAntiAffinity", "kubernetes.io/hostname"), &nodes, Ok("n2"));
        check(rule("podAffinity", "kubernetes.io/hostname"), &nodes, Ok("n1"));
        check(
            rule("podAntiAffinity", "zone"),
            &nodes,
            Err("0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."),
        );
        check(
            rule("podAffinity", "none"),
            &nodes,
            Err("0/2 nodes are available: 2 node(s) didn't match pod affinity rules."),
        );
    }

    #[test]
    fn required_spread_fills_the_emptier_place() {
        let spread = json!({"containers": [], "topologySpreadConstraints": [{"maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}]});
        let nodes =
            [(node("n1", json!({})), vec![]), (node("n2", json!({"/spec/unschedulable": true})), vec![])];
        check(spread.clone(), &nodes, Ok("n1"));
        let nodes = [
            (node("n1", json!({})), vec![pod("old", asks("1m"))]),
            (node("n2", json!({"/spec/unschedulable": true})), vec![]),
        ];
        check(
            spread,
            &nodes,
            Err(
                "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.",
            ),
        );
    }
}
