//! Which nodes get a daemon pod, and which pods go. Pure. Upstream: daemon_controller.go, update.go.

use crate::node_fit::{NodeView, is_selected, untolerated};
use crate::number::scaled;
use crate::owner::{Owner, name_of};
use crate::pod;
use api::Timestamp;
use client::EventType;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};
use std::collections::{BTreeMap, BTreeSet};

/// Pods made or removed in one go: as upstream's burst.
const BURST_MAX: usize = 250;
/// The label by which a pod names the revision of its template.
pub(crate) const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Taints that a node's own condition brings: daemons stay. The last only for pods in the node's network.
const TOLERATED: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// What is known.
pub(crate) struct World<'a> {
    pub(crate) set: &'a DaemonSet,
    pub(crate) nodes: &'a [NodeView],
    pub(crate) pods: &'a [Pod],
    /// Hashes of revisions equal to the template; the last is given to new pods.
    pub(crate) hashes: &'a [String],
    /// Whether a failed pod of a node may be removed now; if not, when.
    pub(crate) may_remove_failed: &'a dyn Fn(&str) -> Option<Timestamp>,
    pub(crate) now: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    /// Names of nodes.
    pub(crate) create: Vec<String>,
    pub(crate) delete: Vec<&'a Pod>,
    /// Nodes whose failed pod is removed.
    pub(crate) failed: Vec<String>,
    pub(crate) events: Vec<(EventType, &'static str, String)>,
    pub(crate) look_again: Option<Timestamp>,
}

/// The tolerations of daemon pods.
pub(crate) fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    let Some(spec) = &set.spec.template.spec else { return Vec::new() };
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let count = if spec.host_network == Some(true) { TOLERATED.len() } else { TOLERATED.len() - 1 };
    for (key, effect) in &TOLERATED[..count] {
        let wanted = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        let same = |own: &&mut Toleration| own.key == wanted.key && own.effect == wanted.effect;
        match all.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => all.push(wanted),
        }
    }
    all
}

/// Whether a daemon pod should be made on a node, and whether one that is there may stay.
pub(crate) fn fits(set: &DaemonSet, tolerations: &[Toleration], node: &NodeView) -> (bool, bool) {
    let Some(spec) = &set.spec.template.spec else { return (false, false) };
    let wanted = spec.node_name.as_deref().unwrap_or_default();
    if !(wanted.is_empty() || wanted == node.name) || !is_selected(spec, node) {
        return (false, false);
    }
    let stays = untolerated(&node.taints, tolerations, &["NoExecute"]).is_none();
    (stays && untolerated(&node.taints, tolerations, &["NoSchedule"]).is_none(), stays)
}

/// The node that a pod is or will be on.
pub(crate) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.into_iter().find(|own| own.key == "metadata.name" && own.operator == "In")?;
    match named.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}

/// A new pod for a node. The scheduler puts it there: its affinity leaves no other.
pub(crate) fn new_pod(set: &DaemonSet, owner: &Owner, hash: &str, node_name: &str) -> Pod {
    let mut made = pod::from_template(&set.spec.template, owner);
    let labels = made.metadata.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.to_owned());
    if let Some(generation) = pod::annotation(&set.metadata, GENERATION_ANNOTATION) {
        labels.insert(GENERATION.to_owned(), generation.to_owned());
    }
    let Some(spec) = &mut made.spec else { return made };
    spec.tolerations = Some(tolerations(set));
    let named = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node_name.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![named]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    made
}

type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Pod>>;

/// Pods by node; the one that counts first.
fn by_node<'a>(pods: &'a [Pod]) -> ByNode<'a> {
    let mut all = ByNode::new();
    // One that has ended and is being deleted is as good as gone.
    for pod in pods.iter().filter(|pod| !(pod::is_finished(pod) && pod::is_deleting(pod))) {
        if let Some(node) = target(pod) {
            all.entry(node).or_default().push(pod);
        }
    }
    let key = |pod: &&Pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (pod::node_name(pod).is_empty(), created, pod.metadata.name.clone())
    };
    all.values_mut().for_each(|pods| pods.sort_by_key(key));
    all
}

impl<'a> World<'a> {
    fn is_new(&self, pod: &Pod) -> bool {
        let hash = pod::label(&pod.metadata, HASH).unwrap_or_default();
        self.hashes.iter().any(|own| own == hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.set.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    /// How many pods more, and how many fewer, than nodes an update may make.
    fn fences(&self, nodes: usize) -> (usize, usize) {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let total = i32::try_from(nodes).unwrap_or(i32::MAX);
        let share = |value: Option<&_>| {
            let share = value.and_then(|value| scaled(value, total, true)).unwrap_or(0);
            usize::try_from(share).unwrap_or(0)
        };
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
        if nodes > 0 && surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.set.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn allows_surge(&self) -> bool {
        self.is_rolling() && self.fences(1).0 > 0
    }
}

/// Decides which pods are made and which go so that every fitting node has one.
pub(crate) fn plan<'a>(world: &World<'a>) -> Plan<'a> {
    let mut plan = Plan::default();
    let pods = by_node(world.pods);
    let tolerations = tolerations(world.set);
    for node in world.nodes {
        let (should_run, may_stay) = fits(world.set, &tolerations, node);
        match (should_run, may_stay, pods.get(node.name.as_str())) {
            (true, _, None) => plan.create.push(node.name.clone()),
            (_, true, Some(own)) => plan_node(world, &mut plan, node, own, should_run),
            (_, false, Some(own)) => {
                plan.delete.extend(own.iter().filter(|pod| !pod::is_deleting(pod)).copied());
            }
            (false, _, None) => {}
        }
    }
    let names: BTreeSet<_> = world.nodes.iter().map(|node| node.name.as_str()).collect();
    for (_, own) in pods.iter().filter(|(node, _)| !names.contains(*node)) {
        // Made for a node that is gone, and never placed.
        plan.delete.extend(own.iter().filter(|pod| pod::node_name(pod).is_empty()).copied());
    }
    if plan.create.is_empty() && plan.delete.is_empty() && world.is_rolling() {
        plan_update(world, &mut plan, pods, &tolerations);
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    plan
}

/// A node that has pods and may keep one.
fn plan_node<'a>(
    world: &World<'a>,
    plan: &mut Plan<'a>,
    node: &NodeView,
    pods: &[&'a Pod],
    should_run: bool,
) {
    let name = |pod: &Pod| {
        format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), name_of(&pod.metadata))
    };
    let mut running = Vec::new();
    for pod in pods.iter().copied().filter(|pod| !pod::is_deleting(pod)) {
        match pod::phase(pod) {
            "Failed" => match (world.may_remove_failed)(&node.name) {
                Some(at) => plan.look_again = Some(plan.look_again.map_or(at, |other| other.min(at))),
                None => {
                    let text = format!(
                        "Found failed daemon pod {} on node {}, will try to kill it",
                        name(pod),
                        node.name
                    );
                    plan.events.push((EventType::Warning, "FailedDaemonPod", text));
                    plan.failed.push(node.name.clone());
                    plan.delete.push(pod);
                }
            },
            "Succeeded" => {
                let text = format!(
                    "Found succeeded daemon pod {} on node {}, will try to delete it",
                    name(pod),
                    node.name
                );
                plan.events.push((EventType::Normal, "SucceededDaemonPod", text));
                plan.delete.push(pod);
            }
            _ => running.push(pod),
        }
    }
    if !world.allows_surge() {
        return plan.delete.extend(running.into_iter().skip(1));
    }
    if running.is_empty() && should_run {
        return plan.create.push(node.name.clone());
    }
    let (mut new, mut old) = (None, None);
    for pod in running {
        let slot = if world.is_new(pod) { &mut new } else { &mut old };
        match slot {
            None => *slot = Some(pod),
            Some(_) => plan.delete.push(pod),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!pod::is_ready(old) || world.is_available(new))
    {
        plan.delete.push(old);
    }
}

/// The new and the old pod of a node; `None` if there are several of one.
fn pair<'a>(world: &World<'_>, pods: &[&'a Pod]) -> Option<(Option<&'a Pod>, Option<&'a Pod>)> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().copied().filter(|pod| !pod::is_deleting(pod)) {
        let slot = if world.is_new(pod) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

fn plan_update<'a>(world: &World<'a>, plan: &mut Plan<'a>, mut pods: ByNode<'a>, tolerations: &[Toleration]) {
    let should_run: BTreeSet<&str> = world
        .nodes
        .iter()
        .filter(|node| fits(world.set, tolerations, node).0)
        .map(|node| node.name.as_str())
        .collect();
    let nodes: Vec<String> = pods.keys().map(|name| (*name).to_owned()).collect();
    let missing = should_run.iter().filter(|name| !pods.contains_key(*name)).count();
    let (surge, unavailable) = world.fences(should_run.len());
    pods.retain(|_, own| !own.is_empty());
    if surge == 0 {
        return replace_in_place(world, plan, &pods, unavailable.saturating_sub(missing));
    }
    let (mut surging, mut available, mut allowed, mut candidates) = (0, 0, Vec::new(), Vec::new());
    let mut elsewhere = Vec::new();
    for node in nodes {
        let Some((new, old)) = pair(world, &pods[node.as_str()]) else {
            surging += 1;
            continue;
        };
        available += usize::from(old.or(new).is_some_and(|pod| world.is_available(pod)));
        let may_run = should_run.contains(node.as_str());
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) if !world.is_available(old) => match may_run {
                true => allowed.push(node),
                false => plan.delete.push(old),
            },
            (None, Some(old)) => match may_run {
                true => candidates.push(node),
                false => elsewhere.push(old),
            },
            (Some(new), Some(_)) if !world.is_available(new) => surging += 1,
            (Some(_), Some(old)) => plan.delete.push(old),
        }
    }
    let spare = available.saturating_sub(should_run.len());
    plan.delete.extend(elsewhere.into_iter().take(spare));
    plan.create.extend(allowed);
    plan.create.extend(candidates.into_iter().take(surge.saturating_sub(surging)));
}

/// Removes old pods, those that do not serve at once, others as long as `room` lasts.
fn replace_in_place<'a>(world: &World<'a>, plan: &mut Plan<'a>, pods: &ByNode<'a>, room: usize) {
    let (mut unavailable, mut candidates) = (0, Vec::new());
    for own in pods.values() {
        match pair(world, own) {
            Some((None, Some(old))) if world.is_available(old) => candidates.push(old),
            Some((None, Some(old))) => {
                plan.delete.push(old);
                unavailable += 1;
            }
            Some((Some(new), None)) if world.is_available(new) => {}
            _ => unavailable += 1,
        }
    }
    plan.delete.extend(candidates.into_iter().take(room.saturating_sub(unavailable)));
}

/// The status.
pub(crate) fn status(world: &World<'_>, collision_count: i32) -> DaemonSetStatus {
    let pods = by_node(world.pods);
    let tolerations = tolerations(world.set);
    let mut status = DaemonSetStatus {
        observed_generation: world.set.metadata.generation,
        collision_count: (collision_count > 0).then_some(collision_count),
        conditions: world.set.status.as_ref().and_then(|status| status.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in world.nodes {
        let own = pods.get(node.name.as_str()).and_then(|pods| pods.first());
        let (should_run, _) = fits(world.set, &tolerations, node);
        match (should_run, own) {
            (false, Some(_)) => status.number_misscheduled += 1,
            (false, None) => {}
            (true, None) => status.desired_number_scheduled += 1,
            (true, Some(pod)) => {
                status.desired_number_scheduled += 1;
                status.current_number_scheduled += 1;
                status.number_ready += i32::from(pod::is_ready(pod));
                available += i32::from(world.is_available(pod));
                updated += i32::from(world.is_new(pod));
            }
        }
    }
    let some = |count: i32| (count != 0).then_some(count);
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}
