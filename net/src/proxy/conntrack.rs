//! Ends flows of datagrams that the kernel would keep sending to an endpoint that is gone.
//!
//! A translation is chosen when a flow begins. TCP notices that nobody answers; a client that sends datagrams from one port may never.
//! Upstream: `pkg/proxy/conntrack`.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;

use super::plan::{ANY_OWN_ADDRESS, UdpFrontend};
use crate::nft::{Attributes, Netfilter};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const UDP: u8 = 17;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    source: Option<(Ipv4Addr, u16)>,
    destination: Option<(Ipv4Addr, u16)>,
}

/// The attributes in `bytes`: kind and value. What is cut off ends them.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The highest bits say that it is nested, or of which byte order.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (addresses, protocol) = (find(bytes, 1)?, find(bytes, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(addresses, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(find(protocol, kind)?.try_into().ok()?));
    Some(Tuple {
        protocol: *find(protocol, 1)?.first()?,
        source: address(1).zip(port(2)),
        destination: address(2).zip(port(3)),
    })
}

/// The frontends, for looking up flows.
#[derive(Debug, Default)]
pub(super) struct Frontends {
    of: HashMap<(Ipv4Addr, u16), HashSet<(Ipv4Addr, u16)>>,
}

impl Frontends {
    pub fn new<'a>(frontends: impl Iterator<Item = &'a UdpFrontend>) -> Frontends {
        let of = frontends
            .map(|frontend| ((frontend.address, frontend.port), frontend.serving.iter().copied().collect()));
        Frontends { of: of.collect() }
    }

    /// Whether the flow goes to a frontend, and ends at none of its endpoints.
    fn is_stale(&self, original: &Tuple, reply: &Tuple) -> bool {
        let (Some((address, port)), Some(end)) = (original.destination, reply.source) else { return false };
        let serving = self.of.get(&(address, port)).or_else(|| self.of.get(&(ANY_OWN_ADDRESS, port)));
        original.protocol == UDP && serving.is_some_and(|serving| !serving.contains(&end))
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// Ends the flows to frontends that end at none of their endpoints; returns how many.
pub(super) fn end_stale(frontends: &Frontends) -> io::Result<usize> {
    if frontends.is_empty() {
        return Ok(0);
    }
    let mut netfilter = Netfilter::open()?;
    let mut stale = Vec::new();
    netfilter.ask(GET, NLM_F_REQUEST | NLM_F_DUMP, &[], |body| {
        let Some(body) = body.get(4..) else { return };
        let parse = || Some((find(body, ORIGINAL)?, find(body, REPLY)?));
        let Some((original, reply)) = parse() else { return };
        if let (Some(from), Some(to)) = (tuple(original), tuple(reply))
            && frontends.is_stale(&from, &to)
        {
            let mut flow = Attributes::default();
            flow.nest(ORIGINAL, |out| out.raw(original));
            for kind in [ID, ZONE] {
                if let Some(value) = find(body, kind) {
                    flow.bytes(kind, value);
                }
            }
            stale.push(flow);
        }
    })?;
    for flow in &stale {
        match netfilter.ask(DELETE, NLM_F_REQUEST | NLM_F_ACK, flow.as_bytes(), |_| {}) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(stale.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_stale_if_its_end_is_no_endpoint_of_its_frontend() {
        let at = |last, port| (Ipv4Addr::new(10, 0, 0, last), port);
        let service = UdpFrontend { address: at(1, 0).0, port: 53, serving: vec![at(7, 5353)] };
        let node_port = UdpFrontend { address: ANY_OWN_ADDRESS, port: 30053, serving: vec![at(7, 5353)] };
        let frontends = Frontends::new([&service, &node_port].into_iter());
        let check = |protocol, to, end, stale| {
            let original = Tuple { protocol, destination: Some(to), ..Tuple::default() };
            let reply = Tuple { protocol, source: Some(end), ..Tuple::default() };
            assert_eq!(frontends.is_stale(&original, &reply), stale, "{to:?} at {end:?}");
        };
        check(UDP, at(1, 53), at(7, 5353), false);
        check(UDP, at(1, 53), at(8, 5353), true);
        check(UDP, at(1, 53), at(1, 53), true);
        check(UDP, at(9, 30053), at(8, 5353), true);
        check(UDP, at(9, 30053), at(7, 5353), false);
        check(UDP, at(9, 53), at(9, 53), false);
        check(6, at(1, 53), at(8, 5353), false);
    }

    #[test]
    fn bytes_that_are_cut_off_are_no_flow() {
        let mut flow = Attributes::default();
        flow.nest(1, |out| {
            out.bytes(1, &[10, 0, 0, 1]).bytes(2, &[10, 0, 0, 2]);
        });
        flow.nest(2, |out| {
            out.bytes(1, &[UDP]).bytes(2, &[0, 53]).bytes(3, &[1, 0]);
        });
        let bytes = flow.as_bytes();
        let whole = tuple(bytes).expect("a flow");
        assert_eq!(whole.destination, Some((Ipv4Addr::new(10, 0, 0, 2), 256)));
        for cut in 0..bytes.len() - 3 {
            assert_ne!(tuple(&bytes[..cut]), Some(whole));
        }
    }
}
