//! Which addresses and node ports there are, and which are taken. Upstream: `ipallocator`, `portallocator`.

use api::names::{masked, parse_cidr};
use api::{Lookup, Object};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Where addresses come from as long as the cluster has no `ServiceCIDR` yet.
const DEFAULT_NETWORK: &str = "10.43.0.0/16";
/// Node ports.
const PORT_MIN: u16 = 30_000;
const PORT_MAX: u16 = 32_767;
/// Below this port nothing is given out unasked while there is a choice, so that fixed ports rarely collide.
/// Upstream: `calculateRangeOffset` of the port allocator.
const PORT_DYNAMIC_MIN: u16 = PORT_MIN + 86;
/// How many addresses are tried in a large network before it counts as full.
const TRIES_MAX: u128 = 1 << 17;

/// Why nothing could be allocated, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PoolError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error("the provided network does not match the current range")]
    OtherNetwork,
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}")]
    AddressOutOfRange { ip: IpAddr, network: String },
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {PORT_MIN}-{PORT_MAX}")]
    PortOutOfRange,
}

#[derive(Clone, Debug)]
struct Network {
    first: u128,
    length: u8,
    text: String,
    is_v4: bool,
}

/// What the cluster has and what is taken.
pub(super) struct Pool {
    networks: Vec<Network>,
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

/// What a service has taken.
#[derive(Default)]
struct Claim {
    addresses: Box<[IpAddr]>,
    ports: Box<[u16]>,
}

/// What every service has taken, read out of each version of a service once: with thousands of them, reading all for each that is made
/// takes longer than all the rest. It holds what the last list held and nothing more.
#[derive(Default)]
pub(super) struct Claims {
    known: Mutex<HashMap<Box<str>, (u64, Arc<Claim>)>>,
}

impl Claims {
    /// The claims of these services.
    fn of(&self, services: &[Arc<Object>]) -> Vec<Arc<Claim>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = HashMap::with_capacity(services.len());
        let mut claims = Vec::with_capacity(services.len());
        for service in services {
            let meta = &service.meta;
            let claim = match known.remove(&meta.uid) {
                Some((revision, claim)) if revision == meta.resource_version => claim,
                _ => Arc::new(Claim::read(service)),
            };
            if !meta.uid.is_empty() {
                next.insert(meta.uid.clone(), (meta.resource_version, claim.clone()));
            }
            claims.push(claim);
        }
        *known = next;
        claims
    }
}

impl Claim {
    fn read(service: &Object) -> Self {
        let Ok(ClaimsOf { spec }) = service.decode() else { return Self::default() };
        let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.dedup();
        let ports = spec.ports.iter().map(|port| port.node_port).chain([spec.health_check_node_port]);
        Self { addresses: addresses.into(), ports: ports.filter(|port| *port != 0).collect() }
    }
}

/// What of a service takes something.
#[derive(Deserialize)]
struct ClaimsOf {
    #[serde(default)]
    spec: ClaimsSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimsSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    health_check_node_port: u16,
    ports: Vec<ClaimsPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimsPort {
    node_port: u16,
}

#[derive(Deserialize)]
struct Cidr {
    #[serde(default)]
    spec: CidrSpec,
}

#[derive(Default, Deserialize)]
struct CidrSpec {
    #[serde(default)]
    cidrs: Vec<String>,
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(own) => u128::from(u32::from(own)),
        IpAddr::V6(own) => own.into(),
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = parse_cidr(text)?;
        let first = number(masked(address, length));
        Some(Self { first, length, text: text.to_owned(), is_v4: address.is_ipv4() })
    }

    /// How many addresses there are, the network's own included.
    fn len(&self) -> u128 {
        let bits = if self.is_v4 { 32 } else { 128 } - u32::from(self.length);
        1_u128.checked_shl(bits).unwrap_or(u128::MAX)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_v4 && (self.first..=self.first + (self.len() - 1)).contains(&number(ip))
    }

    fn address(&self, offset: u128) -> IpAddr {
        let number = self.first + offset;
        match self.is_v4 {
            true => IpAddr::V4((number as u32).into()),
            false => IpAddr::V6(number.into()),
        }
    }

    /// Offsets that may be given out: neither the network's address nor, in IPv4, the broadcast address.
    fn usable(&self) -> std::ops::Range<u128> {
        let end = if self.is_v4 { self.len() - 1 } else { self.len() };
        1..end.max(1)
    }

    /// Below this offset nothing is given out unasked while there is a choice. Upstream: `calculateRangeOffset`.
    fn dynamic_min(&self) -> u128 {
        let (min, max, step, len) = (16, 256, 16, self.len());
        if len <= min { 0 } else { (len / step).clamp(min, max) }
    }
}

/// A number that differs from text to text (FNV-1a).
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// All of a range, from somewhere in the middle on.
fn around(range: std::ops::Range<u128>, seed: u64) -> impl Iterator<Item = u128> {
    let len = range.end.saturating_sub(range.start);
    let start = if len == 0 { 0 } else { u128::from(seed) % len };
    (0..len.min(TRIES_MAX)).map(move |at| range.start + (start + at) % len)
}

impl Pool {
    /// Reads the cluster's state.
    pub(super) fn new(lookup: &dyn Lookup, claims: &Claims) -> Self {
        let mut networks = Vec::new();
        for own in lookup.list("networking.k8s.io", "servicecidrs", "") {
            if own.meta.deleting {
                continue;
            }
            let cidrs = own.decode::<Cidr>().map(|own| own.spec.cidrs).unwrap_or_default();
            networks.extend(cidrs.iter().filter_map(|text| Network::parse(text)));
        }
        if networks.is_empty() {
            networks.extend(Network::parse(DEFAULT_NETWORK));
        }
        let mut pool = Self { networks, addresses: HashSet::new(), ports: HashSet::new() };
        for claim in claims.of(&lookup.list("", "services", "")) {
            pool.addresses.extend(claim.addresses.iter());
            pool.ports.extend(claim.ports.iter());
        }
        let claimed = lookup.list("networking.k8s.io", "ipaddresses", "");
        pool.addresses.extend(claimed.iter().filter_map(|own| own.meta.name().parse::<IpAddr>().ok()));
        pool
    }

    /// Whether the cluster has addresses of a family.
    pub(super) fn has(&self, family: &str) -> bool {
        self.networks.iter().any(|network| network.is_v4 == (family == "IPv4"))
    }

    /// The family of services that do not ask for one.
    pub(super) fn default_family(&self) -> &'static str {
        match self.networks.first() {
            Some(network) if !network.is_v4 => "IPv6",
            _ => "IPv4",
        }
    }

    /// Takes a given address.
    pub(super) fn take_address(&mut self, ip: IpAddr) -> Result<(), PoolError> {
        let network =
            self.networks.iter().find(|network| network.contains(ip)).ok_or(PoolError::OtherNetwork)?;
        if !network.usable().contains(&(number(ip) - network.first)) {
            return Err(PoolError::AddressOutOfRange { ip, network: network.text.clone() });
        }
        match self.addresses.insert(ip) {
            true => Ok(()),
            false => Err(PoolError::AddressTaken),
        }
    }

    /// Takes any address of a family.
    pub(super) fn take_any_address(&mut self, family: &str, seed: &str) -> Result<IpAddr, PoolError> {
        let seed = hash(seed);
        for network in self.networks.iter().filter(|network| network.is_v4 == (family == "IPv4")) {
            let (all, from) = (network.usable(), network.dynamic_min().max(network.usable().start));
            let order = around(from..all.end, seed).chain(around(all.start..from.min(all.end), seed));
            let free = order.map(|offset| network.address(offset)).find(|ip| !self.addresses.contains(ip));
            if let Some(ip) = free {
                self.addresses.insert(ip);
                return Ok(ip);
            }
        }
        Err(PoolError::Full)
    }

    /// Takes a given node port.
    pub(super) fn take_port(&mut self, port: i32) -> Result<(), PoolError> {
        let port = u16::try_from(port).ok().filter(|port| (PORT_MIN..=PORT_MAX).contains(port));
        match self.ports.insert(port.ok_or(PoolError::PortOutOfRange)?) {
            true => Ok(()),
            false => Err(PoolError::PortTaken),
        }
    }

    /// Takes any node port.
    pub(super) fn take_any_port(&mut self, seed: &str) -> Result<i32, PoolError> {
        let seed = hash(seed);
        let range = |from: u16, to: u16| u128::from(from)..u128::from(to);
        let order = around(range(PORT_DYNAMIC_MIN, PORT_MAX + 1), seed)
            .chain(around(range(PORT_MIN, PORT_DYNAMIC_MIN), seed));
        let mut ports = order.filter_map(|port| u16::try_from(port).ok());
        let port = ports.find(|port| !self.ports.contains(port)).ok_or(PoolError::Full)?;
        self.ports.insert(port);
        Ok(i32::from(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    fn pool(cidr: &str, taken: &[&str]) -> Pool {
        let mut objects = Objects::default().with(
            "networking.k8s.io",
            "servicecidrs",
            json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cidr]}}),
        );
        for (at, ip) in taken.iter().enumerate() {
            let service = json!({"metadata": {"name": format!("s{at}"), "namespace": "n"},
                "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"nodePort": 30_000 + at}]}});
            objects = objects.with("", "services", service);
        }
        Pool::new(&objects, &Claims::default())
    }

    #[test]
    fn given_addresses() {
        let mut pool = pool("10.0.0.0/24", &["10.0.0.5"]);
        let mut take =
            |text: &str| pool.take_address(text.parse().unwrap()).map_err(|error| error.to_string());
        assert_eq!(take("10.0.0.6"), Ok(()));
        assert_eq!(take("10.0.0.6"), Err("provided IP is already allocated".to_owned()));
        assert_eq!(take("10.0.0.5"), Err("provided IP is already allocated".to_owned()));
        assert_eq!(take("10.1.0.5"), Err("the provided network does not match the current range".to_owned()));
        assert_eq!(
            take("10.0.0.255"),
            Err("the provided IP (10.0.0.255) is not in the valid range. The range of valid IPs is 10.0.0.0/24".to_owned())
        );
    }

    #[test]
    fn a_small_network_is_used_up_to_its_last_address() {
        let mut pool = pool("10.0.0.0/29", &["10.0.0.2"]);
        let mut got = HashSet::new();
        while let Ok(ip) = pool.take_any_address("IPv4", "x") {
            assert!(got.insert(ip));
        }
        let expect = [1, 3, 4, 5, 6].map(|last| IpAddr::from([10, 0, 0, last]));
        assert_eq!(got, HashSet::from(expect));
        assert!(!pool.has("IPv6"));
    }

    #[test]
    fn addresses_come_from_the_upper_band_first() {
        let mut pool = pool("10.43.0.0/16", &[]);
        for at in 0..100 {
            let IpAddr::V4(ip) = pool.take_any_address("IPv4", &format!("{at}")).unwrap() else { panic!() };
            assert!(u32::from(ip) >= u32::from(std::net::Ipv4Addr::new(10, 43, 1, 0)));
        }
    }

    #[test]
    fn node_ports() {
        let mut pool = pool("10.0.0.0/24", &["10.0.0.5"]);
        assert_eq!(pool.take_port(30_000), Err(PoolError::PortTaken));
        assert_eq!(pool.take_port(80), Err(PoolError::PortOutOfRange));
        assert_eq!(pool.take_port(31_000), Ok(()));
        assert!((0..2766).all(|_| pool.take_any_port("x").is_ok()));
        assert_eq!(pool.take_any_port("x"), Err(PoolError::Full));
    }

    #[test]
    fn claims_follow_versions_and_forget_what_is_gone() {
        let service = |uid: &str, revision: u64, ip: &str| {
            let json = json!({"metadata": {"name": uid, "uid": uid, "resourceVersion": revision.to_string()},
                "spec": {"clusterIP": ip, "clusterIPs": [ip]}});
            Arc::new(Object::parse(json.to_string().into()).unwrap())
        };
        let claims = Claims::default();
        let check = |services: &[Arc<Object>], expect: &[&str]| {
            let found: Vec<_> = claims.of(services).iter().map(|own| own.addresses[0].to_string()).collect();
            assert_eq!(found, expect);
            assert_eq!(claims.known.lock().unwrap().len(), services.len());
        };
        check(&[service("a", 1, "10.0.0.1"), service("b", 2, "10.0.0.2")], &["10.0.0.1", "10.0.0.2"]);
        check(&[service("a", 3, "10.0.0.9"), service("b", 2, "10.0.0.2")], &["10.0.0.9", "10.0.0.2"]);
        check(&[service("b", 2, "10.0.0.2")], &["10.0.0.2"]);
        check(&[], &[]);
    }
}
