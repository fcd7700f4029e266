//! How packets and names reach pods: the pod network, the service proxy, the cluster's DNS.
//!
//! [`pod_network`] gives pods their network, [`proxy`] sends what goes to a service to its endpoints, [`dns`] answers for names. `nft` is the
//! language of the kernel's rules. Each works without the others.
//!
//! It never starts a program, and it never touches rules, interfaces or routes that it did not make.

mod cidr;
pub mod dns;
#[cfg(fuzzing)]
pub mod fuzzing;
mod names;
mod nft;
pub mod pod_network;
pub mod proxy;
#[cfg(test)]
mod testing;

pub use cidr::{Cidr, NoCidr};
pub use names::Instance;

use serde::{Deserialize, Serialize};

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The default.
    Tcp,
    /// Datagrams.
    Udp,
    /// Streams of messages.
    Sctp,
}

impl Protocol {
    /// From what objects say: `TCP`, `UDP`, `SCTP`.
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}
