//! The pod network's own rules: what leaves the cluster gets the node's address, ports of the machine lead to pods.

use std::net::Ipv4Addr;

use super::HostPort;
use crate::nft::{
    Batch, ChainType, Data, Fib, Field, Filled, Header, Hook, Meta, REGISTER, Rule, Values, Verdict,
    interface_name,
};
use crate::{Cidr, Instance};

/// address . protocol . port → address . port
const HOST_PORTS: &str = "host-ports";
/// address . the same address, of pods that have ports of the machine
const HAIRPIN: &str = "hairpin";
const LOOPBACK: [u8; 4] = [127, 0, 0, 0];
const LOOPBACK_MASK: [u8; 4] = [255, 0, 0, 0];

/// The elements for one pod's ports of the machine.
pub(super) struct HostPortElements {
    ports: Vec<(Vec<u8>, Data)>,
    hairpin: Vec<(Vec<u8>, Data)>,
}

impl HostPortElements {
    pub fn of(address: Ipv4Addr, ports: &[HostPort]) -> HostPortElements {
        let element = |port: &HostPort| {
            let on = port.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let mut key = on.octets().to_vec();
            key.extend_from_slice(&[port.protocol.number(), 0, 0, 0]);
            key.extend_from_slice(&port.host_port.to_be_bytes());
            key.extend_from_slice(&[0, 0]);
            let mut value = address.octets().to_vec();
            value.extend_from_slice(&port.container_port.to_be_bytes());
            value.extend_from_slice(&[0, 0]);
            (key, Data::Value(value))
        };
        let hairpin = if ports.is_empty() {
            vec![]
        } else {
            vec![([address.octets(), address.octets()].concat(), Data::None)]
        };
        HostPortElements { ports: ports.iter().map(element).collect(), hairpin }
    }

    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    pub fn add(&self, batch: &mut Batch) {
        batch.add(HOST_PORTS, &self.ports);
        batch.add(HAIRPIN, &self.hairpin);
    }

    pub fn remove(&self, batch: &mut Batch) {
        batch.remove(HOST_PORTS, self.ports.iter().map(|(key, _)| key));
        batch.remove(HAIRPIN, self.hairpin.iter().map(|(key, _)| key));
    }
}

fn within(rule: Rule, header: Header, range: &Cidr) -> Rule {
    let rule = rule.address(header, REGISTER).bits(REGISTER, REGISTER, range.mask().octets(), [0; 4]);
    rule.equal(REGISTER, &range.first().octets())
}

/// The whole table, without elements.
pub(super) fn table(instance: &Instance, node: &Cidr, cluster: &Cidr) -> Batch {
    let bridge = interface_name(&instance.bridge());
    let mut batch = Batch::on(&instance.pods_table());
    batch.replace_table();
    batch.set(
        HOST_PORTS,
        &[Field::Address, Field::Protocol, Field::Port],
        Values::Fields(&[Field::Address, Field::Port]),
        Filled::ByTransactions,
    );
    batch.set(HAIRPIN, &[Field::Address, Field::Address], Values::None, Filled::ByTransactions);

    // Addresses of the loopback are routed on the bridge, so that the machine reaches pods from 127.0.0.1: nobody else may.
    batch.base_chain("guard", ChainType::Filter, Hook::Prerouting, -300);
    let from_pod = Rule::new().meta(Meta::InputName, REGISTER).equal(REGISTER, &bridge);
    let to_loopback =
        from_pod.address(Header::Destination, REGISTER).bits(REGISTER, REGISTER, LOOPBACK_MASK, [0; 4]);
    batch.rule("guard", to_loopback.equal(REGISTER, &LOOPBACK).verdict(Verdict::Drop));

    for (chain, hook) in [("host-ports-in", Hook::Prerouting), ("host-ports-out", Hook::Output)] {
        batch.base_chain(chain, ChainType::Nat, hook, -110);
        for any_address in [false, true] {
            let rule = Rule::new().own_address(Fib::Destination, REGISTER);
            let rule = match any_address {
                true => rule.value(REGISTER, &[0; 4]),
                false => rule.address(Header::Destination, REGISTER),
            };
            let rule = rule.meta(Meta::Protocol, REGISTER + 1).destination_port(REGISTER + 2);
            let rule = rule.lookup(HOST_PORTS, REGISTER, REGISTER + 3);
            batch.rule(chain, rule.dnat(REGISTER + 3, REGISTER + 4));
        }
    }

    batch.base_chain("masquerade", ChainType::Nat, Hook::Postrouting, 100);
    let leaves = within(Rule::new(), Header::Source, node);
    let leaves = leaves.address(Header::Destination, REGISTER).bits(
        REGISTER,
        REGISTER,
        cluster.mask().octets(),
        [0; 4],
    );
    let leaves = leaves.not_equal(REGISTER, &cluster.first().octets());
    let leaves = leaves.meta(Meta::OutputName, REGISTER).not_equal(REGISTER, &bridge);
    batch.rule("masquerade", leaves.masquerade());
    let from_loopback =
        Rule::new().address(Header::Source, REGISTER).bits(REGISTER, REGISTER, LOOPBACK_MASK, [0; 4]);
    let from_loopback = from_loopback.equal(REGISTER, &LOOPBACK).meta(Meta::OutputName, REGISTER);
    batch.rule("masquerade", from_loopback.equal(REGISTER, &bridge).masquerade());
    let to_itself = Rule::new().address(Header::Source, REGISTER).address(Header::Destination, REGISTER + 1);
    batch.rule("masquerade", to_itself.contained(HAIRPIN, REGISTER).masquerade());
    batch
}
