//! Whether the node takes a pod: what the scheduler decided may have been overtaken, or nobody asked it. Pure.
//! Upstream: `pkg/kubelet/lifecycle/predicate.go`, `pkg/kubelet/sysctl`.

use crate::amount::{Amount, ResourceList};
use crate::network::HostPort;
use crate::resources::{Totals, pod_requests};
use crate::spec::PodDef;
use crate::status::Verdict;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What the pods of the node were given, by uid.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    totals: Mutex<HashMap<String, Totals>>,
    ports: Mutex<HashMap<String, Vec<HostPort>>>,
}

impl Accounts {
    /// Gives a pod what it asks for.
    pub(crate) fn give(&self, uid: &str, totals: Totals) {
        self.totals.lock().insert(uid.to_owned(), totals);
    }

    /// Gives a pod its ports of the machine, unless one is taken; answers whether it has them.
    pub(crate) fn give_ports(&self, uid: &str, wanted: Vec<HostPort>) -> bool {
        let mut ports = self.ports.lock();
        let taken = ports.iter().filter(|(own, _)| *own != uid).flat_map(|(_, ports)| ports);
        let free = !taken.into_iter().any(|own| wanted.iter().any(|port| collide(own, port)));
        if free && !wanted.is_empty() {
            ports.insert(uid.to_owned(), wanted);
        }
        free
    }

    /// Takes back what a pod had. Answers whether it had anything.
    pub(crate) fn take_back(&self, uid: &str) -> bool {
        let had_ports = self.ports.lock().remove(uid).is_some();
        self.totals.lock().remove(uid).is_some() || had_ports
    }

    /// What all pods but one were given, and how many they are.
    pub(crate) fn others(&self, uid: &str) -> (Totals, usize) {
        let accounts = self.totals.lock();
        let mut sum = Totals::new();
        for totals in accounts.iter().filter(|(own, _)| *own != uid).map(|(_, totals)| totals) {
            for (name, amount) in totals {
                let all = sum.entry(name.clone()).or_default();
                *all = *all + *amount;
            }
        }
        (sum, accounts.len() - usize::from(accounts.contains_key(uid)))
    }
}

/// Whether two pods cannot have these ports at once.
fn collide(one: &HostPort, other: &HostPort) -> bool {
    let is_any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && (is_any(one.host_ip) || is_any(other.host_ip) || one.host_ip == other.host_ip)
}

/// The refusal of a pod whose port of the machine another one has.
pub(crate) fn no_port() -> Verdict {
    Verdict {
        reason: "NodePorts".to_owned(),
        message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
            .to_owned(),
    }
}

/// What the node can give, and how it is marked.
pub(crate) struct Place<'a> {
    pub name: &'a str,
    pub allocatable: &'a ResourceList,
    pub labels: &'a BTreeMap<String, String>,
    pub taints: &'a [Taint],
    pub unsafe_sysctls: &'a [String],
}

impl<'a> Place<'a> {
    /// From the node's object.
    pub(crate) fn new(
        name: &'a str,
        allocatable: &'a ResourceList,
        node: Option<&'a Node>,
        unsafe_sysctls: &'a [String],
    ) -> Self {
        static EMPTY: BTreeMap<String, String> = BTreeMap::new();
        let labels = node.and_then(|node| node.metadata.labels.as_ref()).unwrap_or(&EMPTY);
        let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
        Self { name, allocatable, labels, taints, unsafe_sysctls }
    }
}

/// Whether the node takes the pod, else why not.
pub(crate) fn admit(def: &PodDef, place: &Place<'_>, others: &(Totals, usize)) -> Result<(), Verdict> {
    let no = |reason: &str, message: String| Err(Verdict { reason: reason.to_owned(), message });
    if let Some(os) = def.spec().os.as_ref().filter(|os| os.name != "linux") {
        let _ = os;
        return no(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS".to_owned(),
        );
    }
    let selector = def.spec().node_selector.as_ref();
    if let Some(os) = selector.and_then(|selector| selector.get("kubernetes.io/os"))
        && place.labels.get("kubernetes.io/os") != Some(os)
    {
        let text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return no("PodOSSelectorNodeLabelDoesNotMatch", text.to_owned());
    }
    for sysctl in def.spec().security_context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if !is_allowed(&name, place.unsafe_sysctls) {
            return no("SysctlForbidden", format!("forbidden sysctl: \"{name}\" not allowlisted"));
        }
    }
    fits(def, place, others)?;
    if !matches_node(def, place) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return no("NodeAffinity", text.to_owned());
    }
    let tolerations = def.spec().tolerations.as_deref().unwrap_or_default();
    let unbearable =
        |taint: &&Taint| taint.effect == "NoExecute" && !tolerations.iter().any(|own| tolerates(own, taint));
    if place.taints.iter().any(|taint| unbearable(&taint)) {
        return no(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate".to_owned(),
        );
    }
    Ok(())
}

/// Whether what the pod asks for is left.
pub(crate) fn fits(def: &PodDef, place: &Place<'_>, others: &(Totals, usize)) -> Result<(), Verdict> {
    let short = |name: &str, requested: i64, used: i64, capacity: i64| Verdict {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let pods_max = place.allocatable.get("pods").map(|own| Amount::of(own).value()).unwrap_or(i64::MAX);
    let count = i64::try_from(others.1).unwrap_or(i64::MAX);
    if count >= pods_max {
        return Err(short("pods", 1, count, pods_max));
    }
    for (name, requested) in pod_requests(def) {
        // Extended resources that no node has are the cluster's business.
        let Some(capacity) = place.allocatable.get(&name).map(Amount::of) else { continue };
        let used = others.0.get(&name).copied().unwrap_or_default();
        if !requested.is_zero() && requested + used > capacity {
            let number = |amount: Amount| if name == "cpu" { amount.milli() } else { amount.value() };
            return Err(short(&name, number(requested), number(used), number(capacity)));
        }
    }
    Ok(())
}

/// Sysctls that belong to namespaces of the pod and harm nobody else. Upstream: `SafeSysctlAllowlist`.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn is_allowed(name: &str, more: &[String]) -> bool {
    let fits = |own: &String| match own.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => own == name,
    };
    SAFE_SYSCTLS.contains(&name) || more.iter().any(fits)
}

fn matches_node(def: &PodDef, place: &Place<'_>) -> bool {
    let mut selector = def.spec().node_selector.iter().flatten();
    if !selector.all(|(key, value)| place.labels.get(key) == Some(value)) {
        return false;
    }
    let required = def
        .spec()
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, place)))
}

fn matches_term(term: &NodeSelectorTerm, place: &Place<'_>) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|one| matches_requirement(one, place.labels.get(&one.key).map(String::as_str)))
        && fields
            .iter()
            .all(|one| matches_requirement(one, (one.key == "metadata.name").then_some(place.name)))
}

fn matches_requirement(one: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = one.values.as_deref().unwrap_or_default();
    let named = value.is_some_and(|value| values.iter().any(|own| own == value));
    let compare = |than: fn(i64, i64) -> bool| {
        let number = value.and_then(|value| value.parse().ok());
        let bound = values.first().and_then(|bound| bound.parse().ok());
        number.zip(bound).is_some_and(|(number, bound)| than(number, bound))
    };
    match one.operator.as_str() {
        "In" => named,
        "NotIn" => !named,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|number, bound| number > bound),
        "Lt" => compare(|number, bound| number < bound),
        _ => false,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if set(&toleration.effect).is_some_and(|effect| effect != taint.effect) {
        return false;
    }
    let key = set(&toleration.key);
    if key.as_ref().is_some_and(|key| *key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => key.is_some() && set(&toleration.value) == set(&taint.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;
    use crate::spec::tests::pod;
    use serde_json::json;

    fn check(spec: serde_json::Value, used_milli: i64, pods: usize, expect: Option<&str>) {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([]);
        }
        let def = pod(json!({"metadata": {"uid": "u"}, "spec": spec.clone()}));
        let allocatable = ResourceList::from([
            ("cpu".to_owned(), amount::from_milli(2000)),
            ("pods".to_owned(), amount::from_units(3)),
        ]);
        let node: Node = serde_json::from_value(json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "zone": "a", "n": "5"}},
            "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}, {"key": "x", "effect": "NoSchedule"}]}}))
        .unwrap();
        let place = Place::new("me", &allocatable, Some(&node), &[]);
        let used = Totals::from([("cpu".to_owned(), Amount::parse(&format!("{used_milli}m")).unwrap())]);
        let found = admit(&def, &place, &(used, pods)).err().map(|verdict| verdict.reason);
        assert_eq!(found.as_deref(), expect, "{spec}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let bears = json!([{"key": "k", "operator": "Exists"}]);
        let asks = |cpu: &str| json!({"tolerations": bears, "containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]});
        check(asks("1"), 1000, 0, None);
        check(asks("1001m"), 1000, 0, Some("OutOfcpu"));
        check(asks("0"), 9000, 0, None);
        check(asks("1m"), 0, 3, Some("OutOfpods"));
        check(json!({}), 0, 0, Some("TaintToleration"));
        check(json!({"tolerations": [{"key": "k", "value": "v"}]}), 0, 0, None);
        check(json!({"tolerations": [{"key": "k", "value": "w"}]}), 0, 0, Some("TaintToleration"));
        check(json!({"tolerations": [{"operator": "Exists"}]}), 0, 0, None);
        check(json!({"tolerations": bears, "nodeSelector": {"zone": "b"}}), 0, 0, Some("NodeAffinity"));
        check(
            json!({"tolerations": bears, "nodeSelector": {"kubernetes.io/os": "windows"}}),
            0,
            0,
            Some("PodOSSelectorNodeLabelDoesNotMatch"),
        );
        let affinity = |term: serde_json::Value| {
            json!({"tolerations": bears, "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
        };
        let label = |key: &str, operator: &str, values: serde_json::Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        check(label("zone", "In", json!(["a", "b"])), 0, 0, None);
        check(label("zone", "NotIn", json!(["a"])), 0, 0, Some("NodeAffinity"));
        check(label("n", "Gt", json!(["4"])), 0, 0, None);
        check(label("n", "Lt", json!(["4"])), 0, 0, Some("NodeAffinity"));
        check(affinity(json!({})), 0, 0, Some("NodeAffinity"));
        check(
            affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["me"]}]})),
            0,
            0,
            None,
        );
        let sysctl = |name: &str| json!({"tolerations": bears, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        check(sysctl("kernel.shm_rmid_forced"), 0, 0, None);
        check(sysctl("net/ipv4/tcp_syncookies"), 0, 0, None);
        check(sysctl("kernel.msgmax"), 0, 0, Some("SysctlForbidden"));
    }

    #[test]
    fn a_port_of_the_machine_has_one_pod() {
        let accounts = Accounts::default();
        let port = |ip: Option<&str>, host_port: u16, protocol: &str| {
            vec![HostPort {
                host_ip: ip.map(|ip| ip.parse().unwrap()),
                host_port,
                container_port: 80,
                protocol: protocol.to_owned(),
            }]
        };
        assert!(accounts.give_ports("a", port(Some("127.0.0.1"), 8080, "TCP")));
        assert!(accounts.give_ports("a", port(Some("127.0.0.1"), 8080, "TCP")), "its own port");
        assert!(accounts.give_ports("b", port(Some("127.0.0.2"), 8080, "TCP")), "another address");
        assert!(accounts.give_ports("c", port(None, 8080, "UDP")), "another protocol");
        assert!(!accounts.give_ports("d", port(Some("0.0.0.0"), 8080, "TCP")), "all addresses");
        accounts.take_back("a");
        accounts.take_back("b");
        assert!(accounts.give_ports("d", port(None, 8080, "TCP")));
    }
}
