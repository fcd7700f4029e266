//! Which range a node gets. Pure.

use k8s_openapi::api::core::v1::Node;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Ranges of one network that are looked at: a /8 in /24s. Upstream refuses more, too.
const RANGES_BITS_MAX: u8 = 16;

/// A network of pod addresses, cut into equal ranges, one for each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRange {
    network: Network,
    /// Length of a node's prefix in bits.
    node_prefix: u8,
    /// Parts of it that are in use for something else.
    reserved: Vec<Network>,
}

/// Why a network cannot be cut into ranges.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Not such as `10.42.0.0/16`.
    #[error("{text:?} is not a network such as 10.42.0.0/16")]
    Network {
        /// What was given.
        text: String,
    },
    /// The node's prefix is shorter than the network's, too long for an address, or there would be too many ranges.
    #[error("a network /{prefix} cannot be cut into /{node_prefix}: allowed are /{prefix} to /{max}")]
    Prefix {
        /// Of the network.
        prefix: u8,
        /// Of a node.
        node_prefix: u8,
        /// The longest that is allowed.
        max: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: u128,
    prefix: u8,
    /// Bits of an address: 32 or 128.
    bits: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok()?;
        let (first, bits) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        let own = Self { first, prefix, bits };
        (prefix <= bits && first & (own.len() - 1) == 0).then_some(own)
    }

    /// How many addresses. (The whole of IPv6 counts one less.)
    fn len(self) -> u128 {
        1_u128.checked_shl(u32::from(self.bits - self.prefix)).unwrap_or(u128::MAX)
    }

    fn overlaps(self, other: Self) -> bool {
        self.bits == other.bits
            && self.first <= other.first + (other.len() - 1)
            && other.first <= self.first + (self.len() - 1)
    }

    fn text(self) -> String {
        let address = match self.bits {
            32 => IpAddr::V4((self.first as u32).into()),
            _ => IpAddr::V6(self.first.into()),
        };
        format!("{address}/{}", self.prefix)
    }
}

impl NodeRange {
    /// From texts such as `10.42.0.0/16`. Ranges that overlap one of `reserved` (those of services) are given to nobody.
    ///
    /// # Errors
    /// Says what is wrong and what is allowed.
    pub fn new(network: &str, node_prefix: u8, reserved: &[String]) -> Result<Self, RangeError> {
        let parse =
            |text: &str| Network::parse(text).ok_or_else(|| RangeError::Network { text: text.to_owned() });
        let network = parse(network)?;
        let max = (network.prefix + RANGES_BITS_MAX).min(network.bits);
        if node_prefix < network.prefix || node_prefix > max {
            return Err(RangeError::Prefix { prefix: network.prefix, node_prefix, max });
        }
        let reserved = reserved.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { network, node_prefix, reserved })
    }

    /// Whether the addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.bits == 128
    }

    fn count(&self) -> u32 {
        1 << (self.node_prefix - self.network.prefix)
    }

    fn range(&self, index: u32) -> Network {
        let own = Network { prefix: self.node_prefix, ..self.network };
        Network { first: self.network.first + u128::from(index) * own.len(), ..own }
    }
}

/// The ranges that a node has.
pub(super) fn cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match &spec.pod_cidrs {
        Some(list) if !list.is_empty() => list.clone(),
        _ => spec.pod_cidr.iter().filter(|own| !own.is_empty()).cloned().collect(),
    }
}

/// Who has which ranges.
pub(super) struct Ranges {
    networks: Vec<NodeRange>,
    /// For each network, where the search goes on: a range that was given back rests for as long as there are others.
    next: Vec<u32>,
    given: HashMap<String, Vec<String>>,
}

impl Ranges {
    pub(super) fn new(networks: Vec<NodeRange>) -> Self {
        let next = vec![0; networks.len()];
        Self { networks, next, given: HashMap::new() }
    }

    /// A node has these, whoever has given them.
    pub(super) fn occupy(&mut self, node: &str, cidrs: Vec<String>) {
        if !cidrs.is_empty() {
            self.given.insert(node.to_owned(), cidrs);
        }
    }

    /// A node is gone; whether it had any.
    pub(super) fn release(&mut self, node: &str) -> bool {
        self.given.remove(node).is_some()
    }

    /// One range of each network for a node: those that it was given before, else free ones. `None` if a network has none left.
    pub(super) fn choose(&mut self, node: &str) -> Option<Vec<String>> {
        if let Some(given) = self.given.get(node) {
            return Some(given.clone());
        }
        let used: Vec<Network> =
            self.given.values().flatten().filter_map(|text| Network::parse(text)).collect();
        let exact: HashSet<(u128, u8)> = used.iter().map(|own| (own.first, own.prefix)).collect();
        // What others have chosen by another prefix: few, if any.
        let mut chosen = Vec::new();
        for (network, next) in self.networks.iter().zip(&mut self.next) {
            let odd = used
                .iter()
                .filter(|own| own.bits == network.network.bits && own.prefix != network.node_prefix);
            let odd: Vec<_> = odd.chain(&network.reserved).collect();
            let is_free = |own: &Network| {
                !exact.contains(&(own.first, own.prefix)) && !odd.iter().any(|other| own.overlaps(**other))
            };
            let count = network.count();
            let found = (0..count)
                .map(|step| (*next + step) % count)
                .find(|index| is_free(&network.range(*index)))?;
            *next = (found + 1) % count;
            chosen.push(network.range(found).text());
        }
        if chosen.is_empty() {
            return None;
        }
        self.given.insert(node.to_owned(), chosen.clone());
        Some(chosen)
    }
}
