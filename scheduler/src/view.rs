//! What the scheduler sees of a pod and of a node: a few hundred bytes, extracted once from each version.

use api::quantity::Quantity;
use api::selector::{LabelSelector, Operator, Requirement};
use k8s_openapi::api::core::v1 as core;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An amount of every resource, in the scheduler's units: CPU in thousandths, the rest in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes of ephemeral storage.
    pub ephemeral_bytes: i64,
    /// Everything else, by name.
    pub extended: BTreeMap<Box<str>, i64>,
}

impl Amounts {
    /// From a resource list of the API. A quantity that does not parse counts as zero: the API has validated it.
    pub fn from_list<'a>(
        list: impl IntoIterator<Item = (&'a String, &'a k8s_openapi::apimachinery::pkg::api::resource::Quantity)>,
    ) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => amounts.cpu_milli = quantity.millis(),
                "memory" => amounts.memory_bytes = quantity.units(),
                "ephemeral-storage" => amounts.ephemeral_bytes = quantity.units(),
                "pods" => {}
                other => {
                    amounts.extended.insert(other.into(), quantity.units());
                }
            }
        }
        amounts
    }

    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.cpu_milli += other.cpu_milli;
        self.memory_bytes += other.memory_bytes;
        self.ephemeral_bytes += other.ephemeral_bytes;
        for (name, amount) in &other.extended {
            *self.extended.entry(name.clone()).or_default() += amount;
        }
    }

    /// Takes another amount away.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu_milli -= other.cpu_milli;
        self.memory_bytes -= other.memory_bytes;
        self.ephemeral_bytes -= other.ephemeral_bytes;
        for (name, amount) in &other.extended {
            *self.extended.entry(name.clone()).or_default() -= amount;
        }
    }

    /// The larger of both, resource by resource.
    pub fn max(&mut self, other: &Self) {
        self.cpu_milli = self.cpu_milli.max(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(other.ephemeral_bytes);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }
}

/// What a pod takes: the larger of its app containers (with sidecars) and each init container at its turn, plus
/// overhead. Upstream: `component-helpers/resource.PodRequests`.
pub fn pod_requests(spec: &core::PodSpec) -> Amounts {
    let of = |container: &core::Container| {
        Amounts::from_list(container.resources.iter().flat_map(|own| own.requests.iter().flatten()))
    };
    let mut total = Amounts::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let (mut sidecars, mut initial) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut own = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&own);
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        initial.max(&own);
    }
    total.max(&initial);
    if let Some(pod_level) = spec.resources.as_ref().and_then(|own| own.requests.as_ref()) {
        let stated = Amounts::from_list(pod_level);
        for name in pod_level.keys() {
            match name.as_str() {
                "cpu" => total.cpu_milli = stated.cpu_milli,
                "memory" => total.memory_bytes = stated.memory_bytes,
                _ => {}
            }
        }
    }
    total.add(&Amounts::from_list(spec.overhead.iter().flatten()));
    total
}

/// A port of the host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Address; `0.0.0.0` is every one.
    pub ip: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// Port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// One term of a node selector: all must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTerm {
    /// Over labels.
    pub labels: LabelSelector,
    /// Over `metadata.name`.
    pub names: Vec<Requirement>,
}

impl NodeTerm {
    fn from_api(term: &core::NodeSelectorTerm) -> Option<Self> {
        let requirement = |own: &core::NodeSelectorRequirement| {
            let operator = match own.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::GreaterThan,
                "Lt" => Operator::LessThan,
                _ => return None,
            };
            Some(Requirement {
                key: own.key.clone(),
                operator,
                values: own.values.clone().unwrap_or_default(),
            })
        };
        let labels: Option<Vec<_>> = term.match_expressions.iter().flatten().map(requirement).collect();
        let names: Option<Vec<_>> = term.match_fields.iter().flatten().map(requirement).collect();
        let (labels, names) = (labels?, names?);
        // A term without any requirement matches nothing (upstream: nodeaffinity.isEmptyNodeSelectorTerm).
        (!labels.is_empty() || !names.is_empty())
            .then_some(Self { labels: LabelSelector { requirements: labels }, names })
    }

    /// Whether a node satisfies the term.
    pub fn matches(&self, node: &NodeView) -> bool {
        self.labels.matches(|key| node.labels.get(key).map(String::as_str))
            && self.names.iter().all(|term| term.key == "metadata.name" && term.matches(Some(&node.name)))
    }
}

/// A pod affinity or anti-affinity term.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    /// Over the labels of other pods; `None` matches nothing.
    pub selector: Option<LabelSelector>,
    /// Namespaces of the other pods by name; the pod's own where nothing else is said.
    pub namespaces: Vec<String>,
    /// Namespaces of the other pods by label; empty matches every namespace.
    pub namespace_selector: Option<LabelSelector>,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
}

impl PodTerm {
    fn from_api(
        term: &core::PodAffinityTerm,
        own_namespace: &str,
        own_labels: &BTreeMap<String, String>,
    ) -> Self {
        let parse =
            |selector: &Option<_>| selector.as_ref().and_then(|own| LabelSelector::from_object(own).ok());
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own_namespace.to_owned());
        }
        let mut selector: Option<LabelSelector> = parse(&term.label_selector);
        if let Some(selector) = &mut selector {
            let mut add = |keys: &Option<Vec<String>>, operator| {
                for key in keys.iter().flatten() {
                    if let Some(value) = own_labels.get(key) {
                        let values = vec![value.clone()];
                        selector.requirements.push(Requirement { key: key.clone(), operator, values });
                    }
                }
            };
            add(&term.match_label_keys, Operator::In);
            add(&term.mismatch_label_keys, Operator::NotIn);
        }
        Self {
            selector,
            namespaces,
            namespace_selector: parse(&term.namespace_selector),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether another pod is one that the term speaks of. `namespace_labels` gives the labels of a namespace.
    pub fn speaks_of(
        &self,
        other: &PodView,
        namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> bool {
        let in_namespace = self.namespaces.iter().any(|own| *own == *other.namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let labels = namespaces.get(&*other.namespace);
                selector.matches(|key| labels.and_then(|own| own.get(key)).map(String::as_str))
            });
        in_namespace
            && self.selector.as_ref().is_some_and(|selector| selector.matches(|key| other.label(key)))
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How much two places may differ.
    pub max_skew: i32,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
    /// Whether the pod waits rather than break it.
    pub required: bool,
    /// Which pods are counted.
    pub selector: LabelSelector,
    /// At least this many places count, else the least count is taken as zero.
    pub min_domains: i32,
}

/// What the scheduler sees of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// UID.
    pub uid: Box<str>,
    /// Generation, for conditions.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Which scheduler it wants.
    pub scheduler_name: Box<str>,
    /// Its node, once assigned.
    pub node_name: Option<Box<str>>,
    /// The node that preemption made room on.
    pub nominated_node: Option<Box<str>>,
    /// Priority.
    pub priority: i32,
    /// Whether it may take the place of others.
    pub may_preempt: bool,
    /// What it takes.
    pub requests: Amounts,
    /// Ports of the host.
    pub host_ports: Vec<HostPort>,
    /// Tolerations.
    pub tolerations: Vec<core::Toleration>,
    /// `nodeSelector`: all must be equal.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity: one of them must match. `None`: none asked.
    pub node_required: Option<Vec<NodeTerm>>,
    /// Preferred node affinity with weights.
    pub node_preferred: Vec<(i32, NodeTerm)>,
    /// Required pod affinity.
    pub affinity: Vec<PodTerm>,
    /// Required pod anti-affinity.
    pub anti_affinity: Vec<PodTerm>,
    /// Preferred pod affinity (negative weights: anti-affinity).
    pub pod_preferred: Vec<(i32, PodTerm)>,
    /// Topology spread constraints.
    pub spread: Vec<Spread>,
    /// Scheduling gates that are still closed.
    pub gates: Vec<String>,
    /// Images of its containers.
    pub images: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended (`Succeeded` or `Failed`) and takes nothing.
    pub ended: bool,
    /// When it started, for the choice of victims.
    pub start_time: Option<api::Timestamp>,
}

impl PodView {
    /// Extracts the view from a pod.
    pub fn from_api(pod: &core::Pod) -> Self {
        let empty = core::PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let node = affinity.and_then(|own| own.node_affinity.as_ref());
        let pods = affinity.and_then(|own| own.pod_affinity.as_ref());
        let anti = affinity.and_then(|own| own.pod_anti_affinity.as_ref());
        let term = |term: &core::PodAffinityTerm| PodTerm::from_api(term, namespace, &labels);
        let weighted = |list: Option<&Vec<core::WeightedPodAffinityTerm>>, sign: i32| {
            list.into_iter()
                .flatten()
                .map(|own| (own.weight * sign, term(&own.pod_affinity_term)))
                .collect::<Vec<_>>()
        };
        let mut pod_preferred = weighted(
            pods.and_then(|own| own.preferred_during_scheduling_ignored_during_execution.as_ref()),
            1,
        );
        pod_preferred.extend(weighted(
            anti.and_then(|own| own.preferred_during_scheduling_ignored_during_execution.as_ref()),
            -1,
        ));
        let status = pod.status.as_ref();
        let phase = status.and_then(|own| own.phase.as_deref()).unwrap_or_default();
        Self {
            namespace: namespace.into(),
            name: pod.metadata.name.as_deref().unwrap_or_default().into(),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            generation: pod.metadata.generation.unwrap_or(0),
            scheduler_name: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            node_name: spec.node_name.as_deref().filter(|own| !own.is_empty()).map(Into::into),
            nominated_node: status
                .and_then(|own| own.nominated_node_name.as_deref())
                .filter(|own| !own.is_empty())
                .map(Into::into),
            priority: spec.priority.unwrap_or(0),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            requests: pod_requests(spec),
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_required: node
                .and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref())
                .map(|own| own.node_selector_terms.iter().filter_map(NodeTerm::from_api).collect()),
            node_preferred: node
                .and_then(|own| own.preferred_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|own| Some((own.weight, NodeTerm::from_api(&own.preference)?)))
                .collect(),
            affinity: pods
                .and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(term)
                .collect(),
            anti_affinity: anti
                .and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref())
                .into_iter()
                .flatten()
                .map(term)
                .collect(),
            pod_preferred,
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|own| spread(own, &labels))
                .collect(),
            gates: spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect(),
            images: spec.containers.iter().filter_map(|container| container.image.clone()).collect(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            ended: matches!(phase, "Succeeded" | "Failed"),
            start_time: status.and_then(|own| own.start_time.as_ref()).map(|time| time.0),
            labels,
        }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether some toleration tolerates the taint. Upstream: `v1helper.TolerationsTolerateTaint`.
    pub fn tolerates(&self, taint: &core::Taint) -> bool {
        self.tolerations.iter().any(|own| tolerates(own, taint))
    }
}

fn spread(own: &core::TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Spread {
    let mut selector = own
        .label_selector
        .as_ref()
        .and_then(|selector| LabelSelector::from_object(selector).ok())
        .unwrap_or_default();
    for key in own.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            let values = vec![value.clone()];
            selector.requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
    }
    Spread {
        max_skew: own.max_skew,
        topology_key: own.topology_key.clone(),
        required: own.when_unsatisfiable == "DoNotSchedule",
        selector,
        min_domains: own.min_domains.unwrap_or(1),
    }
}

fn host_ports(spec: &core::PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|own| own.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.as_deref().unwrap_or("0.0.0.0").into(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

/// Whether one toleration tolerates one taint. Upstream: `v1.Toleration.ToleratesTaint`.
pub fn tolerates(toleration: &core::Toleration, taint: &core::Taint) -> bool {
    let given = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let (effect, key) = (given(&toleration.effect), given(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => given(&toleration.value) == given(&taint.value),
        operator @ ("Gt" | "Lt") => {
            let number = |text: String| text.parse::<i64>().ok();
            match (number(given(&taint.value)), number(given(&toleration.value))) {
                (Some(own), Some(bound)) if operator == "Gt" => own > bound,
                (Some(own), Some(bound)) => own < bound,
                _ => false,
            }
        }
        _ => false,
    }
}

/// What the scheduler sees of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Name.
    pub name: Box<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<core::Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What pods may take.
    pub allocatable: Amounts,
    /// How many pods it holds.
    pub pods_max: i64,
    /// Names of its images with their sizes in bytes.
    pub images: BTreeMap<String, i64>,
}

impl NodeView {
    /// Extracts the view from a node.
    pub fn from_api(node: &core::Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|own| own.allocatable.as_ref());
        let pods = allocatable.and_then(|own| own.get("pods")).and_then(|own| Quantity::parse(&own.0).ok());
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default().into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|own| own.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|own| own.unschedulable).unwrap_or(false),
            allocatable: Amounts::from_list(allocatable.into_iter().flatten()),
            pods_max: pods.map_or(0, |own| own.units()),
            images: status
                .and_then(|own| own.images.as_ref())
                .into_iter()
                .flatten()
                .flat_map(|image| {
                    let bytes = image.size_bytes.unwrap_or(0);
                    image.names.iter().flatten().map(move |name| (name.clone(), bytes))
                })
                .collect(),
        }
    }
}

/// A shared view of a pod.
pub type SharedPod = Arc<PodView>;

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> PodView {
        PodView::from_api(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn requests_are_the_larger_of_apps_and_each_init_container_with_the_sidecars_before_it() {
        let c = |cpu: &str| serde_json::json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = c("100m");
        sidecar["restartPolicy"] = "Always".into();
        let view = pod(serde_json::json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [c("300m"), sidecar, c("1")], "containers": [c("200m"), c("200m")],
            "overhead": {"cpu": "50m"}}}));
        // 1000m beside the sidecar's 100m is more than 200 + 200 + 100.
        assert_eq!(view.requests.cpu_milli, 1150);
    }

    #[test]
    fn tolerations_match_as_upstream_does() {
        let taint = |effect: &str| core::Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: effect.into(),
            time_added: None,
        };
        for (toleration, expect) in [
            (serde_json::json!({"operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "value": "v"}), true),
            (serde_json::json!({"key": "k", "value": "w"}), false),
            (serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            (serde_json::json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), true),
            (serde_json::json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let parsed: core::Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint("NoSchedule")), expect, "{toleration}");
        }
    }

    #[test]
    fn host_ports_conflict_when_an_address_is_shared() {
        let port = |ip: &str, port| HostPort { ip: ip.into(), protocol: "TCP".into(), port };
        for (one, other, expect) in [
            (port("0.0.0.0", 80), port("127.0.0.1", 80), true),
            (port("127.0.0.1", 80), port("127.0.0.2", 80), false),
            (port("127.0.0.1", 80), port("127.0.0.1", 81), false),
        ] {
            assert_eq!(one.conflicts(&other), expect, "{one:?} {other:?}");
        }
    }
}
