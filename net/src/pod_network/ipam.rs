//! Which addresses of the node's range are taken. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::Cidr;

/// The first address a pod may have: 0 is the range's name, 1 is the gateway.
const FIRST: u32 = 2;

/// The addresses of one node's pods.
///
/// An address that was given back is given out again as late as possible: something may still remember who had it.
#[derive(Clone, Debug)]
pub(crate) struct Ipam {
    range: Cidr,
    taken: BTreeSet<u32>,
    next: u32,
}

impl Ipam {
    pub fn new(range: Cidr) -> Ipam {
        Ipam { range, taken: BTreeSet::new(), next: FIRST }
    }

    /// The range's first address: what pods send everything to.
    pub fn gateway(range: &Cidr) -> Ipv4Addr {
        (u32::from(range.first()) + 1).into()
    }

    /// One past the last address a pod may have: the range's last is for broadcasts.
    fn end(&self) -> u32 {
        u32::try_from(self.range.addresses() - 1).unwrap_or(u32::MAX)
    }

    /// A free address; `None` if all are taken.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        let free =
            (self.next..self.end()).chain(FIRST..self.next).find(|index| !self.taken.contains(index))?;
        self.taken.insert(free);
        self.next = free + 1;
        self.range.nth(free)
    }

    /// Takes this address; false if it is taken or not one of the range's.
    pub fn adopt(&mut self, address: Ipv4Addr) -> bool {
        match self.range.index_of(address) {
            Some(index) if (FIRST..self.end()).contains(&index) => {
                self.next = self.next.max(index + 1);
                self.taken.insert(index)
            }
            _ => false,
        }
    }

    pub fn give_back(&mut self, address: Ipv4Addr) {
        if let Some(index) = self.range.index_of(address) {
            self.taken.remove(&index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(range: &str) -> Ipam {
        Ipam::new(range.parse().expect("a range"))
    }

    #[test]
    fn a_range_is_used_up_and_an_address_comes_back_late() {
        let mut ipam = ipam("10.0.0.0/29");
        let all: Vec<_> = std::iter::from_fn(|| ipam.take()).map(|address| address.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
        for last in [3, 5] {
            ipam.give_back(Ipv4Addr::new(10, 0, 0, last));
        }
        assert_eq!(
            ipam.take(),
            Some(Ipv4Addr::new(10, 0, 0, 3)),
            "the end was reached: from the start again"
        );
        ipam.give_back(Ipv4Addr::new(10, 0, 0, 3));
        assert_eq!(ipam.take(), Some(Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(ipam.take(), Some(Ipv4Addr::new(10, 0, 0, 3)));
        assert_eq!(ipam.take(), None);
    }

    #[test]
    fn what_is_found_after_a_restart_is_not_given_out() {
        let mut ipam = ipam("10.0.0.0/29");
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        assert!(ipam.adopt(address(3)));
        assert!(!ipam.adopt(address(3)), "twice");
        assert!(!ipam.adopt(address(1)), "the gateway");
        assert!(!ipam.adopt(address(7)), "broadcast");
        assert!(!ipam.adopt(address(9)), "another range");
        assert_eq!(ipam.take(), Some(address(4)));
    }

    #[test]
    fn a_range_without_room_has_no_address() {
        assert_eq!(ipam("10.0.0.0/31").take(), None);
        assert_eq!(ipam("10.0.0.0/32").take(), None);
        assert_eq!(ipam("10.0.0.0/30").take(), Some(Ipv4Addr::new(10, 0, 0, 2)));
    }
}
