//! What must be in the kernel's maps for one service. Pure.
//!
//! A *frontend* is an address and port that a service is reached at; a *group* is the endpoints that take its connections: all
//! of the cluster's, or this node's own. Upstream: `pkg/proxy/nftables`, `pkg/proxy/topology.go`.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use api::ObjectName;

use super::view::{Endpoint, ServicePort, ServiceView, SliceView};
use crate::{Cidr, Protocol};

/// Stands for each of the machine's own addresses: the frontend is a node port.
pub(crate) const ANY_OWN_ADDRESS: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// The key of an element, and so the map that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Where connections are taken.
    Frontend(Ipv4Addr, Protocol, u16),
    /// Where they are refused.
    Refused(Ipv4Addr, Protocol, u16),
    /// Where only some sources may connect.
    Guarded(Ipv4Addr, Protocol, u16),
    /// One of those sources.
    Allowed(Ipv4Addr, Protocol, u16, Cidr),
    /// A group of endpoints.
    Group(u32),
    /// An endpoint of a group by its place.
    Endpoint(u32, u32),
    /// An endpoint of a group with affinity by itself.
    Member(u32, Ipv4Addr, u16),
    /// An address that services have: other ports of it are refused.
    ClusterIp(Ipv4Addr),
    /// An endpoint on this node: what it sends to itself needs another source.
    OwnEndpoint(Ipv4Addr),
}

/// The value of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// It is in a set.
    None,
    Frontend {
        policy: Policy,
        group: u32,
        /// Whose endpoints take connections of this node and its pods, under `ExternalLocal`.
        short: u32,
    },
    Refusal(Refusal),
    Group {
        /// How many endpoints it has, at least one.
        len: u32,
        /// How long a client stays with an endpoint; 0 for not at all.
        affinity_seconds: u32,
    },
    Endpoint(Ipv4Addr, u16),
}

/// How connections to a frontend are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Policy {
    /// The cluster's own address: clients of the cluster keep theirs.
    Internal,
    /// Any endpoint takes it, so the answer must come back here.
    External,
    /// Only this node's endpoints take what comes from outside, and see where it comes from.
    ExternalLocal,
}

/// What happens to a connection that nobody takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No endpoint at all.
    Reject,
    /// None on this node, and others do not count.
    Drop,
}

/// Which node the plan is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeView {
    pub name: Box<str>,
    /// Empty where it has none.
    pub zone: Box<str>,
    /// Services at these addresses that have no endpoints are served by the machine itself.
    pub served_here: Vec<Ipv4Addr>,
}

/// What one service needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub elements: Vec<(Key, Value)>,
    /// Its frontends of datagrams, for flows that outlived their endpoint.
    pub flows: Vec<UdpFrontend>,
}

/// A frontend whose flows must end at one of these endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UdpFrontend {
    pub address: Ipv4Addr,
    pub port: u16,
    pub serving: Vec<(Ipv4Addr, u16)>,
}

/// Whose endpoints a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Cluster,
    Own,
}

/// A service's group: the port's name and protocol, and whose endpoints.
type GroupName = (Box<str>, Protocol, Scope);

/// The numbers of groups: the same as long as the service has the port, never used twice.
#[derive(Debug, Default)]
pub(crate) struct GroupNumbers {
    of: HashMap<ObjectName, HashMap<GroupName, u32>>,
    last: u32,
}

impl GroupNumbers {
    fn get(&mut self, service: &ObjectName, port: &ServicePort, scope: Scope) -> u32 {
        let numbers = match self.of.get_mut(service) {
            Some(numbers) => numbers,
            None => self.of.entry(service.clone()).or_default(),
        };
        *numbers.entry((port.name.clone(), port.protocol, scope)).or_insert_with(|| {
            self.last += 1;
            self.last
        })
    }

    /// The service is gone.
    pub fn forget(&mut self, service: &ObjectName) {
        self.of.remove(service);
    }
}

/// The endpoints of one port, and which of them this node uses.
#[derive(Debug, Default)]
struct Endpoints {
    cluster: Vec<(Ipv4Addr, u16)>,
    own: Vec<(Ipv4Addr, u16)>,
    /// Of both, those on this node.
    on_this_node: Vec<Ipv4Addr>,
    /// Whether any node has one.
    any: bool,
    serving: Vec<(Ipv4Addr, u16)>,
}

/// All elements for one service.
pub(crate) fn plan<'a>(
    name: &ObjectName,
    service: &ServiceView,
    slices: impl Iterator<Item = &'a SliceView> + Clone,
    node: &NodeView,
    numbers: &mut GroupNumbers,
) -> Plan {
    let mut plan = Plan::default();
    for port in &service.ports {
        plan_port(&mut plan, name, service, port, slices.clone(), node, numbers);
    }
    plan.elements.sort_by_key(|(key, _)| *key);
    plan.elements.dedup_by_key(|(key, _)| *key);
    plan
}

fn plan_port<'a>(
    plan: &mut Plan,
    name: &ObjectName,
    service: &ServiceView,
    port: &ServicePort,
    slices: impl Iterator<Item = &'a SliceView>,
    node: &NodeView,
    numbers: &mut GroupNumbers,
) {
    let endpoints = choose(service, port, slices, node);
    let is_served_here = service.cluster_ip.is_some_and(|address| node.served_here.contains(&address));
    if is_served_here && !endpoints.any {
        return;
    }
    let cluster = numbers.get(name, port, Scope::Cluster);
    let own = numbers.get(name, port, Scope::Own);
    let affinity_seconds = service.affinity_seconds.unwrap_or(0);
    for (group, members) in [(cluster, &endpoints.cluster), (own, &endpoints.own)] {
        plan_group(plan, group, members, affinity_seconds);
    }
    plan.elements
        .extend(endpoints.on_this_node.iter().map(|address| (Key::OwnEndpoint(*address), Value::None)));

    let mut frontend = |address, number, policy, group: u32, has_endpoints: bool| {
        if endpoints.any && (has_endpoints || policy != Policy::Internal) {
            let value = Value::Frontend { policy, group, short: cluster };
            plan.elements.push((Key::Frontend(address, port.protocol, number), value));
        }
        if !has_endpoints {
            let refusal = if endpoints.any { Refusal::Drop } else { Refusal::Reject };
            plan.elements.push((Key::Refused(address, port.protocol, number), Value::Refusal(refusal)));
        }
        if port.protocol == Protocol::Udp && (address != ANY_OWN_ADDRESS || !endpoints.serving.is_empty()) {
            plan.flows.push(UdpFrontend { address, port: number, serving: endpoints.serving.clone() });
        }
    };
    if let Some(address) = service.cluster_ip {
        let (group, members) =
            if service.internal_local { (own, &endpoints.own) } else { (cluster, &endpoints.cluster) };
        frontend(address, port.port, Policy::Internal, group, !members.is_empty());
    }
    let (policy, group, members) = match service.external_local {
        true => (Policy::ExternalLocal, own, &endpoints.own),
        false => (Policy::External, cluster, &endpoints.cluster),
    };
    for address in &service.external_ips {
        frontend(*address, port.port, policy, group, !members.is_empty());
    }
    if let Some(node_port) = port.node_port {
        frontend(ANY_OWN_ADDRESS, node_port, policy, group, !members.is_empty());
    }
    plan.elements.extend(service.cluster_ip.map(|address| (Key::ClusterIp(address), Value::None)));
    if !service.source_ranges.is_empty() {
        for address in &service.load_balancer_ips {
            plan.elements.push((Key::Guarded(*address, port.protocol, port.port), Value::None));
            let allowed =
                |range: &Cidr| (Key::Allowed(*address, port.protocol, port.port, *range), Value::None);
            plan.elements.extend(service.source_ranges.iter().map(allowed));
        }
    }
}

fn plan_group(plan: &mut Plan, group: u32, members: &[(Ipv4Addr, u16)], affinity_seconds: u32) {
    if members.is_empty() {
        return;
    }
    let len = u32::try_from(members.len()).unwrap_or(u32::MAX);
    plan.elements.push((Key::Group(group), Value::Group { len, affinity_seconds }));
    for (place, (address, port)) in (0..).zip(members) {
        plan.elements.push((Key::Endpoint(group, place), Value::Endpoint(*address, *port)));
        if affinity_seconds != 0 {
            plan.elements.push((Key::Member(group, *address, *port), Value::None));
        }
    }
}

/// How far endpoints' hints narrow the choice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameNode,
    SameZone,
}

/// Which hints count: those of nodes, or of zones, if every ready endpoint has one and one is for here.
fn topology(endpoints: &BTreeMap<(Ipv4Addr, u16), &Endpoint>, node: &NodeView) -> Topology {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let counts = |hints: fn(&Endpoint) -> &[Box<str>], here: &str| {
        !here.is_empty()
            && ready().all(|endpoint| !hints(endpoint).is_empty())
            && ready().any(|endpoint| names(hints(endpoint), here))
    };
    if counts(|endpoint| &endpoint.for_nodes, &node.name) {
        Topology::SameNode
    } else if counts(|endpoint| &endpoint.for_zones, &node.zone) {
        Topology::SameZone
    } else {
        Topology::Anywhere
    }
}

fn names(hints: &[Box<str>], here: &str) -> bool {
    hints.iter().any(|hint| **hint == *here)
}

/// The endpoints for one port: ready ones, else those that end but still serve.
fn choose<'a>(
    service: &ServiceView,
    port: &ServicePort,
    slices: impl Iterator<Item = &'a SliceView>,
    node: &NodeView,
) -> Endpoints {
    let mut all: BTreeMap<(Ipv4Addr, u16), &Endpoint> = BTreeMap::new();
    for slice in slices {
        let numbers =
            slice.ports.iter().filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        for (_, _, number) in numbers {
            for endpoint in &slice.endpoints {
                // One that is in two slices while it moves counts where it is ready.
                let known = all.entry((endpoint.address, *number)).or_insert(endpoint);
                if endpoint.ready {
                    *known = endpoint;
                }
            }
        }
    }
    let is_external = !service.external_ips.is_empty() || port.node_port.is_some();
    let uses_cluster = !service.internal_local || is_external;
    let uses_own = service.internal_local || (service.external_local && is_external);
    let is_own = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(&*node.name);
    let ends = |endpoint: &Endpoint| endpoint.serving && endpoint.terminating;
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<(Ipv4Addr, u16)> {
        all.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(at, _)| *at).collect()
    };
    let or_else = |first: Vec<_>, second: &dyn Fn(&Endpoint) -> bool| {
        if first.is_empty() { pick(second) } else { first }
    };

    let mut chosen = Endpoints { serving: pick(&|endpoint| endpoint.serving), ..Endpoints::default() };
    if uses_cluster {
        let topology = topology(&all, node);
        let is_near = |endpoint: &Endpoint| match topology {
            Topology::Anywhere => true,
            Topology::SameNode => names(&endpoint.for_nodes, &node.name),
            Topology::SameZone => names(&endpoint.for_zones, &node.zone),
        };
        chosen.cluster = or_else(pick(&|endpoint| endpoint.ready && is_near(endpoint)), &ends);
        chosen.any = !chosen.cluster.is_empty();
    }
    if uses_own {
        chosen.own = or_else(pick(&|endpoint| endpoint.ready && is_own(endpoint)), &|endpoint| {
            ends(endpoint) && is_own(endpoint)
        });
        chosen.any |= all.values().any(|endpoint| endpoint.ready || ends(endpoint));
    }
    let reached = |at: &(Ipv4Addr, u16)| chosen.cluster.contains(at) || chosen.own.contains(at);
    let own = all.iter().filter(|(at, endpoint)| is_own(endpoint) && reached(at));
    chosen.on_this_node = own.map(|((address, _), _)| *address).collect();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);
    const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

    fn pod(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, 0, last)
    }

    /// `1` is ready on this node, `2@b` on node `b`; then `-` for not ready, `~` for ending but serving, `!` for ending; then hints `n:NODE` and `z:ZONE`.
    fn endpoint(text: &str) -> Endpoint {
        let mut words = text.split(' ');
        let first = words.next().unwrap_or_default();
        let state = first.chars().last().filter(|state| "-~!".contains(*state));
        let place = first.trim_end_matches(['-', '~', '!']);
        let (last, node) = place.split_once('@').unwrap_or((place, "a"));
        let hints: Vec<&str> = words.collect();
        let hints =
            |kind: &str| hints.iter().filter_map(|hint| hint.strip_prefix(kind)).map(Into::into).collect();
        Endpoint {
            address: pod(last.parse().expect("a number")),
            ready: state.is_none(),
            serving: !matches!(state, Some('-' | '!')),
            terminating: matches!(state, Some('~' | '!')),
            node: Some(node.into()),
            for_nodes: hints("n:"),
            for_zones: hints("z:"),
        }
    }

    fn node() -> NodeView {
        NodeView { name: "a".into(), zone: "z1".into(), served_here: vec![Ipv4Addr::new(10, 43, 0, 10)] }
    }

    fn service() -> ServiceView {
        let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
        ServiceView { cluster_ip: Some(VIP), ports: vec![port], ..ServiceView::default() }
    }

    fn planned(service: &ServiceView, endpoints: &[&str]) -> Plan {
        let endpoints = endpoints.iter().map(|text| endpoint(text)).collect();
        let slice =
            SliceView { service: "s".into(), ports: vec![("".into(), Protocol::Tcp, 8080)], endpoints };
        plan(&ObjectName::new("n", "s"), service, [&slice].into_iter(), &node(), &mut GroupNumbers::default())
    }

    /// What takes connections at a frontend: the last numbers of its endpoints, or how it refuses.
    fn shown(plan: &Plan, address: Ipv4Addr, port: u16) -> String {
        let value = |key| plan.elements.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
        let refusal = match value(Key::Refused(address, Protocol::Tcp, port)) {
            Some(Value::Refusal(Refusal::Reject)) => "reject",
            Some(Value::Refusal(Refusal::Drop)) => "drop",
            _ => "",
        };
        let Some(Value::Frontend { group, .. }) = value(Key::Frontend(address, Protocol::Tcp, port)) else {
            return refusal.to_owned();
        };
        let Some(Value::Group { len, .. }) = value(Key::Group(group)) else { return refusal.to_owned() };
        let places = (0..len).filter_map(|place| match value(Key::Endpoint(group, place)) {
            Some(Value::Endpoint(address, 8080)) => Some(address.octets()[3].to_string()),
            _ => None,
        });
        format!("{}{refusal}", places.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ready_endpoints_are_used_else_those_that_end() {
        let check = |endpoints: &[&str], expect: &str| {
            assert_eq!(shown(&planned(&service(), endpoints), VIP, 80), expect, "{endpoints:?}")
        };
        check(&[], "reject");
        check(&["1", "2@b"], "1 2");
        check(&["1-", "2@b"], "2");
        check(&["1-"], "reject");
        check(&["1~", "2@b"], "2");
        check(&["1~", "2@b-"], "1");
        check(&["1!"], "reject");
        check(&["2", "1", "1"], "1 2");
        check(&["1-", "1"], "1");
    }

    #[test]
    fn hints_narrow_the_choice_if_every_ready_endpoint_has_one_and_one_is_for_here() {
        let check = |endpoints: &[&str], expect: &str| {
            assert_eq!(shown(&planned(&service(), endpoints), VIP, 80), expect, "{endpoints:?}")
        };
        check(&["1 z:z1", "2@b z:z2"], "1");
        check(&["1 z:z2", "2@b z:z2"], "1 2");
        check(&["1 z:z1", "2@b"], "1 2");
        check(&["1 z:z1", "2@b-"], "1");
        check(&["1 n:a z:z1", "2@b n:b z:z1"], "1");
        check(&["1 n:b z:z1", "2@b n:b z:z1", "3@c n:c z:z2"], "1 2");
        check(&["1~ z:z1", "2@b~"], "1 2");
    }

    #[test]
    fn policies_decide_whose_endpoints_count() {
        let local = ServiceView {
            internal_local: true,
            external_local: true,
            external_ips: vec![EXTERNAL],
            ..service()
        };
        let check = |service: &ServiceView, endpoints: &[&str], internal: &str, external: &str| {
            let plan = planned(service, endpoints);
            assert_eq!(
                (&*shown(&plan, VIP, 80), &*shown(&plan, EXTERNAL, 80)),
                (internal, external),
                "{endpoints:?}"
            );
        };
        check(&local, &["1", "2@b"], "1", "1");
        check(&local, &["2@b"], "drop", "drop");
        check(&local, &["1~", "2@b"], "1", "1");
        check(&local, &["1-"], "reject", "reject");
        check(&ServiceView { internal_local: false, ..local.clone() }, &["2@b"], "2", "drop");
        check(&ServiceView { external_local: false, ..local.clone() }, &["2@b"], "drop", "2");
        check(&ServiceView { external_ips: vec![], ..local.clone() }, &["2@b"], "drop", "");
        let port = ServicePort { node_port: Some(30080), ..local.ports[0].clone() };
        let with_port = planned(&ServiceView { ports: vec![port], ..local }, &["1", "2@b"]);
        assert_eq!(shown(&with_port, ANY_OWN_ADDRESS, 30080), "1");
        let short = with_port.elements.iter().find_map(|(key, value)| match (key, value) {
            (Key::Frontend(ANY_OWN_ADDRESS, ..), Value::Frontend { short, .. }) => Some(*short),
            _ => None,
        });
        let group = Key::Group(short.expect("a frontend"));
        assert!(
            with_port.elements.contains(&(group, Value::Group { len: 2, affinity_seconds: 0 })),
            "this node reaches all"
        );
    }

    #[test]
    fn what_the_machine_serves_itself_is_left_alone_until_somebody_else_does() {
        let dns = ServiceView { cluster_ip: Some(Ipv4Addr::new(10, 43, 0, 10)), ..service() };
        assert_eq!(planned(&dns, &[]), Plan::default());
        assert_eq!(shown(&planned(&dns, &["1"]), Ipv4Addr::new(10, 43, 0, 10), 80), "1");
    }

    #[test]
    fn only_groups_with_affinity_have_members() {
        let members = |affinity_seconds| {
            let plan = planned(&ServiceView { affinity_seconds, ..service() }, &["1", "2"]);
            plan.elements.iter().filter(|(key, _)| matches!(key, Key::Member(..))).count()
        };
        assert_eq!((members(None), members(Some(10))), (0, 2));
    }

    #[test]
    fn a_group_keeps_its_number_and_no_number_comes_again() {
        let mut numbers = GroupNumbers::default();
        let (service, port) = (ObjectName::new("n", "s"), &service().ports[0]);
        let first = numbers.get(&service, port, Scope::Cluster);
        let own = numbers.get(&service, port, Scope::Own);
        assert_eq!(numbers.get(&service, port, Scope::Cluster), first);
        numbers.forget(&service);
        let again = numbers.get(&service, port, Scope::Cluster);
        assert!(first != own && again != first && again != own);
    }
}
