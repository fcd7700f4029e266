//! The kernel's side of the proxy: one table of maps for all services, and a fixed number of rules.
//!
//! # Flow of a new connection
//! `frontends` gives for address, protocol and port how to treat it (a policy) and the group of endpoints. The policy's chain marks what needs this node's
//! address as its source. `groups` gives the group's *shape*: how many endpoints, and how long a client stays. The shape's chain picks one
//! of `endpoints` and translates. No chain or rule belongs to a service, so what changes with services is elements only.
//!
//! With affinity, `affinity` (filled by packets, with a time limit) knows the endpoint of a client in a group; one that is not
//! in `members` any more is forgotten and picked anew.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Options;
use super::plan::{Key, Policy, Refusal, Value};
use crate::Protocol;
use crate::nft::{
    Batch, ChainType, Data, Fib, Field, Filled, Header, Hook, Meta, Netfilter, NetfilterError, REGISTER,
    Refusal as Refuse, Rule, Update, Values, Verdict,
};

/// Marks connections that get this node's address as their source; removed before the packet leaves. kube-proxy's bit.
const MASQUERADE_MARK: u32 = 0x4000;
/// Clients with affinity that are remembered. Over it clients are spread as if they had none. An entry has about 150 bytes.
const AFFINITY_LEN_MAX: u32 = 1 << 17;

const FRONTENDS: &str = "frontends";
const GROUPS: &str = "groups";
const ENDPOINTS: &str = "endpoints";
const MEMBERS: &str = "members";
const AFFINITY: &str = "affinity";
const REFUSED: &str = "refused";
const GUARDED: &str = "guarded";
const ALLOWED: &str = "allowed";
const CLUSTER_IPS: &str = "cluster-ips";
const OWN_ENDPOINTS: &str = "own-endpoints";
const REFUSE: &str = "refuse";
/// Every map that elements of plans are in.
const MAPS: [&str; 9] =
    [GROUPS, ENDPOINTS, MEMBERS, FRONTENDS, REFUSED, ALLOWED, GUARDED, CLUSTER_IPS, OWN_ENDPOINTS];

/// Registers: the frontend's key (three), then what `frontends` gives.
const KEY: u32 = REGISTER;
const POLICY: u32 = KEY + 3;
const GROUP: u32 = KEY + 4;
const SHORT: u32 = KEY + 5;
const SHAPE: u32 = KEY + 7;

/// How the frontend was found: each way has chains of its own, as a chain has to find it again.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// A node port, else an address of the service.
    is_node_port: bool,
    /// The group for clients of this node, else that of the policy.
    is_short: bool,
}

const WAYS: [Way; 4] = [
    Way { is_node_port: false, is_short: false },
    Way { is_node_port: false, is_short: true },
    Way { is_node_port: true, is_short: false },
    Way { is_node_port: true, is_short: true },
];

impl Way {
    fn kind(self) -> &'static str {
        if self.is_node_port { "port" } else { "address" }
    }

    /// The chain that picks from the group.
    fn chain(self) -> String {
        format!("{}-{}", self.kind(), if self.is_short { "short" } else { "main" })
    }

    fn shapes(self) -> String {
        format!("shapes-{}", self.chain())
    }

    fn group(self) -> u32 {
        if self.is_short { SHORT } else { GROUP }
    }

    /// A rule that has loaded what `frontends` gives.
    fn found(self) -> Rule {
        key(Rule::new(), self.is_node_port).lookup(FRONTENDS, KEY, POLICY)
    }
}

/// Loads the key of the frontend that a packet is for.
fn key(rule: Rule, is_node_port: bool) -> Rule {
    let rule = match is_node_port {
        true => rule.own_address(Fib::Destination, KEY).value(KEY, &[0; 4]),
        false => rule.address(Header::Destination, KEY),
    };
    rule.meta(Meta::Protocol, KEY + 1).destination_port(KEY + 2)
}

fn policy_chain(policy: Policy, is_node_port: bool) -> String {
    let name = match policy {
        Policy::Internal => "internal",
        Policy::External => "external",
        Policy::ExternalLocal => "external-local",
    };
    format!("{}-{name}", Way { is_node_port, is_short: false }.kind())
}

/// How a group picks: how many endpoints, and how long a client stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    len: u32,
    affinity_seconds: u32,
}

/// The proxy's table.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    netfilter: Netfilter,
    options: Options,
    /// The shapes that have chains, by their numbers.
    shapes: Vec<Shape>,
    known_shapes: BTreeSet<Shape>,
}

impl Table {
    pub fn open(options: &Options) -> std::io::Result<Table> {
        let name = options.instance.services_table();
        Ok(Table {
            name,
            netfilter: Netfilter::open()?,
            options: options.clone(),
            shapes: vec![],
            known_shapes: BTreeSet::new(),
        })
    }

    /// Puts exactly these elements there, at once, whatever was there before.
    pub fn replace(&mut self, elements: &[(Key, Value)]) -> Result<(), NetfilterError> {
        self.shapes.clear();
        self.known_shapes.clear();
        let mut batch = Batch::on(&self.name);
        batch.replace_table();
        put_maps(&mut batch);
        put_chains(&mut batch, &self.options);
        self.add(&mut batch, elements);
        self.netfilter.commit(batch)
    }

    /// Removes and adds elements, at once. The removed are there; the added are not, or are among the removed.
    pub fn change(&mut self, removed: &[Key], added: &[(Key, Value)]) -> Result<(), NetfilterError> {
        let mut batch = Batch::on(&self.name);
        for map in MAPS {
            batch.remove(
                map,
                &removed.iter().filter(|key| map_of(key) == map).map(key_bytes).collect::<Vec<_>>(),
            );
        }
        self.add(&mut batch, added);
        self.netfilter.commit(batch)
    }

    /// Removes the table.
    pub fn remove(&mut self) -> Result<(), NetfilterError> {
        let mut batch = Batch::on(&self.name);
        batch.remove_table();
        self.netfilter.commit(batch)
    }

    fn add(&mut self, batch: &mut Batch, elements: &[(Key, Value)]) {
        for (_, value) in elements {
            if let Value::Group { len, affinity_seconds } = value {
                self.ensure_shape(batch, Shape { len: *len, affinity_seconds: *affinity_seconds });
            }
        }
        for map in MAPS {
            let elements = elements.iter().filter(|(key, _)| map_of(key) == map);
            let encoded: Vec<_> = elements.map(|(key, value)| (key_bytes(key), self.data(value))).collect();
            batch.add(map, &encoded);
        }
    }

    /// Makes the chains of a shape. They stay: there are as many as different numbers of endpoints were seen.
    fn ensure_shape(&mut self, batch: &mut Batch, shape: Shape) {
        if !self.known_shapes.insert(shape) {
            return;
        }
        let number = self.shapes.len() as u32;
        self.shapes.push(shape);
        for way in WAYS {
            let chain = format!("{}-{}-{}", way.chain(), shape.len, shape.affinity_seconds);
            batch.chain(&chain);
            put_pick(batch, &chain, way, shape);
            batch.add(&way.shapes(), &[(number.to_ne_bytes().to_vec(), Data::Verdict(Verdict::Goto(chain)))]);
        }
    }

    fn data(&self, value: &Value) -> Data {
        match value {
            Value::None => Data::None,
            Value::Frontend { policy, group, short } => Data::Value(
                [(*policy as u32).to_ne_bytes(), group.to_ne_bytes(), short.to_ne_bytes()].concat(),
            ),
            Value::Refusal(Refusal::Drop) => Data::Verdict(Verdict::Drop),
            Value::Refusal(Refusal::Reject) => Data::Verdict(Verdict::Goto(REFUSE.to_owned())),
            Value::Group { len, affinity_seconds } => {
                let shape = Shape { len: *len, affinity_seconds: *affinity_seconds };
                let number = self.shapes.iter().position(|known| *known == shape).unwrap_or_default() as u32;
                Data::Value(number.to_ne_bytes().to_vec())
            }
            Value::Endpoint(address, port) => Data::Value([address.octets(), port_bytes(*port)].concat()),
        }
    }
}

fn map_of(key: &Key) -> &'static str {
    match key {
        Key::Frontend(..) => FRONTENDS,
        Key::Refused(..) => REFUSED,
        Key::Guarded(..) => GUARDED,
        Key::Allowed(..) => ALLOWED,
        Key::Group(_) => GROUPS,
        Key::Endpoint(..) => ENDPOINTS,
        Key::Member(..) => MEMBERS,
        Key::ClusterIp(_) => CLUSTER_IPS,
        Key::OwnEndpoint(_) => OWN_ENDPOINTS,
    }
}

/// A port as registers hold it.
fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn frontend_bytes(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    [address.octets(), [protocol.number(), 0, 0, 0], port_bytes(port)].concat()
}

fn key_bytes(key: &Key) -> Vec<u8> {
    match *key {
        Key::Frontend(address, protocol, port)
        | Key::Refused(address, protocol, port)
        | Key::Guarded(address, protocol, port) => frontend_bytes(address, protocol, port),
        Key::Allowed(address, protocol, port, range) => {
            // What `saddr & mask` makes of every source in the range, and the mask's length.
            let mut bytes = frontend_bytes(address, protocol, port);
            bytes.extend_from_slice(&u32::from(range.prefix_len()).to_ne_bytes());
            bytes.extend_from_slice(&range.first().octets());
            bytes
        }
        Key::Group(group) => group.to_ne_bytes().to_vec(),
        Key::Endpoint(group, place) => [group.to_ne_bytes(), place.to_ne_bytes()].concat(),
        Key::Member(group, address, port) => {
            [group.to_ne_bytes(), address.octets(), port_bytes(port)].concat()
        }
        Key::ClusterIp(address) => address.octets().to_vec(),
        Key::OwnEndpoint(address) => [address.octets(), address.octets()].concat(),
    }
}

fn put_maps(batch: &mut Batch) {
    use Field::{Address, Integer, Port};
    let frontend = [Address, Field::Protocol, Port];
    let ours = Filled::ByTransactions;
    batch.set(FRONTENDS, &frontend, Values::Fields(&[Integer, Integer, Integer]), ours);
    batch.set(REFUSED, &frontend, Values::Verdicts, ours);
    batch.set(GUARDED, &frontend, Values::None, ours);
    batch.set(ALLOWED, &[Address, Field::Protocol, Port, Integer, Address], Values::None, ours);
    batch.set(GROUPS, &[Integer], Values::Fields(&[Integer]), ours);
    batch.set(ENDPOINTS, &[Integer, Integer], Values::Fields(&[Address, Port]), ours);
    batch.set(MEMBERS, &[Integer, Address, Port], Values::None, ours);
    batch.set(CLUSTER_IPS, &[Address], Values::None, ours);
    batch.set(OWN_ENDPOINTS, &[Address, Address], Values::None, ours);
    let by_packets = Filled::ByPackets { len_max: AFFINITY_LEN_MAX };
    batch.set(AFFINITY, &[Address, Integer], Values::Fields(&[Address, Port]), by_packets);
    for way in WAYS {
        batch.set(&way.shapes(), &[Integer], Values::Verdicts, ours);
    }
    for kind in ["address", "port"] {
        batch.set(&format!("policies-{kind}"), &[Integer], Values::Verdicts, ours);
    }
}

fn goto(chain: &str) -> Rule {
    Rule::new().verdict(Verdict::Goto(chain.to_owned()))
}

/// Marks a connection that needs this node's address.
fn mark(rule: Rule) -> Rule {
    let rule = rule.meta(Meta::Mark, KEY);
    rule.bits(KEY, KEY, (!MASQUERADE_MARK).to_ne_bytes(), MASQUERADE_MARK.to_ne_bytes()).set_mark(KEY)
}

fn put_chains(batch: &mut Batch, options: &Options) {
    for way in WAYS {
        batch.chain(&way.chain());
        let rule = way.found().lookup(GROUPS, way.group(), SHAPE);
        batch.rule(&way.chain(), rule.lookup_verdict(&way.shapes(), SHAPE));
    }
    for is_node_port in [false, true] {
        for policy in [Policy::Internal, Policy::External, Policy::ExternalLocal] {
            put_policy(batch, policy, is_node_port, options);
        }
    }
    put_refusals(batch, options);
    put_guard(batch);
    for (chain, hook) in [("services-in", Hook::Prerouting), ("services-out", Hook::Output)] {
        batch.base_chain(chain, ChainType::Nat, hook, -100);
        for is_node_port in [false, true] {
            let way = Way { is_node_port, is_short: false };
            batch.rule(chain, way.found().lookup_verdict(&format!("policies-{}", way.kind()), POLICY));
        }
    }
    batch.base_chain("masquerade", ChainType::Nat, Hook::Postrouting, 100);
    let marked = Rule::new().meta(Meta::Mark, KEY).bits(KEY, KEY + 1, MASQUERADE_MARK.to_ne_bytes(), [0; 4]);
    let unmarked = marked
        .not_equal(KEY + 1, &[0; 4])
        .bits(KEY, KEY, (!MASQUERADE_MARK).to_ne_bytes(), [0; 4])
        .set_mark(KEY);
    batch.rule("masquerade", unmarked.masquerade());
    let to_itself = Rule::new().address(Header::Source, KEY).address(Header::Destination, KEY + 1);
    batch.rule("masquerade", to_itself.contained(OWN_ENDPOINTS, KEY).masquerade());
}

fn put_policy(batch: &mut Batch, policy: Policy, is_node_port: bool, options: &Options) {
    let chain = policy_chain(policy, is_node_port);
    let main = Way { is_node_port, is_short: false }.chain();
    let short = Way { is_node_port, is_short: true }.chain();
    batch.chain(&chain);
    let source = |range: &crate::Cidr| {
        Rule::new().address(Header::Source, KEY).bits(KEY, KEY, range.mask().octets(), [0; 4])
    };
    match policy {
        Policy::Internal => {
            if let Some(cluster) = &options.cluster_cidr {
                batch.rule(&chain, mark(source(cluster).not_equal(KEY, &cluster.first().octets())));
            }
        }
        Policy::External => batch.rule(&chain, mark(Rule::new())),
        Policy::ExternalLocal => {
            // What this node's pods and the node itself send is as if it had gone out and come back by a load balancer.
            if let Some(cluster) = &options.cluster_cidr {
                let from_pod = source(cluster).equal(KEY, &cluster.first().octets());
                batch.rule(&chain, from_pod.verdict(Verdict::Goto(short.clone())));
            }
            let from_node = || Rule::new().own_address(Fib::Source, KEY);
            batch.rule(&chain, mark(from_node()));
            batch.rule(&chain, from_node().verdict(Verdict::Goto(short)));
        }
    }
    batch.rule(&chain, goto(&main));
    let kind = Way { is_node_port, is_short: false }.kind();
    let element = ((policy as u32).to_ne_bytes().to_vec(), Data::Verdict(Verdict::Goto(chain)));
    batch.add(&format!("policies-{kind}"), &[element]);
}

/// What was not translated although it is for a service.
fn put_refusals(batch: &mut Batch, options: &Options) {
    batch.chain(REFUSE);
    let is_tcp = Rule::new().meta(Meta::Protocol, KEY).equal(KEY, &[Protocol::Tcp.number()]);
    batch.rule(REFUSE, is_tcp.reject(Refuse::TcpReset));
    batch.rule(REFUSE, Rule::new().reject(Refuse::PortUnreachable));
    for (chain, hook) in [("refused-in", Hook::Prerouting), ("refused-out", Hook::Output)] {
        batch.base_chain(chain, ChainType::Filter, hook, -90);
        for is_node_port in [false, true] {
            batch.rule(chain, key(Rule::new(), is_node_port).lookup_verdict(REFUSED, KEY));
        }
        let destination = || Rule::new().address(Header::Destination, KEY);
        for address in &options.served_here {
            batch.rule(chain, destination().equal(KEY, &address.octets()).verdict(Verdict::Accept));
        }
        batch
            .rule(chain, destination().contained(CLUSTER_IPS, KEY).verdict(Verdict::Goto(REFUSE.to_owned())));
        for range in &options.service_cidrs {
            let rule = destination().bits(KEY, KEY, range.mask().octets(), [0; 4]);
            batch.rule(chain, rule.equal(KEY, &range.first().octets()).verdict(Verdict::Drop));
        }
    }
}

/// Only allowed sources reach a guarded frontend: one rule for each length of prefix.
fn put_guard(batch: &mut Batch) {
    const CHECK: &str = "guarded-sources";
    batch.chain(CHECK);
    for prefix_len in (0..=32).rev() {
        let mask =
            crate::Cidr::new(Ipv4Addr::BROADCAST, prefix_len).map_or(Ipv4Addr::BROADCAST, |cidr| cidr.mask());
        let rule = key(Rule::new(), false).value(KEY + 3, &u32::from(prefix_len).to_ne_bytes());
        let rule = rule.address(Header::Source, KEY + 4).bits(KEY + 4, KEY + 4, mask.octets(), [0; 4]);
        batch.rule(CHECK, rule.contained(ALLOWED, KEY).verdict(Verdict::Accept));
    }
    batch.rule(CHECK, Rule::new().verdict(Verdict::Drop));
    for (chain, hook) in [("guard-in", Hook::Prerouting), ("guard-out", Hook::Output)] {
        batch.base_chain(chain, ChainType::Filter, hook, -120);
        batch.rule(
            chain,
            key(Rule::new(), false).contained(GUARDED, KEY).verdict(Verdict::Goto(CHECK.to_owned())),
        );
    }
}

/// The rules that pick an endpoint of a group.
///
/// Registers from `group - 1`: the client's address, the group, and then place, or address and port. So each key is a row of them.
fn put_pick(batch: &mut Batch, chain: &str, way: Way, shape: Shape) {
    let group = way.group();
    let (client, endpoint) = (group - 1, group + 1);
    let picked = |rule: Rule| rule.random(shape.len, endpoint).lookup(ENDPOINTS, group, endpoint);
    if shape.affinity_seconds != 0 {
        let found = || way.found().address(Header::Source, client);
        let put = |rule: Rule| rule.update(AFFINITY, Update::Put, client, endpoint, shape.affinity_seconds);
        let known = found().lookup(AFFINITY, client, endpoint).contained(MEMBERS, group);
        batch.rule(chain, put(known).dnat(endpoint, endpoint + 1));
        let anew = picked(found()).update(AFFINITY, Update::Delete, client, endpoint, 0);
        batch.rule(chain, put(anew).dnat(endpoint, endpoint + 1));
    }
    // With affinity: if no more clients can be remembered.
    batch.rule(chain, picked(way.found()).dnat(endpoint, endpoint + 1));
}
