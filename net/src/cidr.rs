//! A range of IPv4 addresses.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of IPv4 addresses, such as `10.42.0.0/16`. Bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// What is not a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a range of IPv4 addresses")]
pub struct NoCidr {
    /// What was given.
    pub text: String,
}

impl Cidr {
    /// The range of that prefix that has `address` in it; `None` over 32 bits.
    pub fn new(address: Ipv4Addr, prefix_len: u8) -> Option<Cidr> {
        let mask = mask(prefix_len)?;
        Some(Cidr { address: (u32::from(address) & mask).into(), prefix_len })
    }

    /// The first address.
    pub fn first(&self) -> Ipv4Addr {
        self.address
    }

    /// How many bits are fixed.
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// How many addresses there are.
    pub fn addresses(&self) -> u64 {
        1 << (32 - self.prefix_len)
    }

    /// The fixed bits.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix_len).unwrap_or(u32::MAX).into()
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & u32::from(self.mask()) == u32::from(self.address)
    }

    /// The address at `index`, if it has that many.
    pub fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        (u64::from(index) < self.addresses()).then(|| (u32::from(self.address) + index).into())
    }

    /// The index of an address that is in it.
    pub fn index_of(&self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| u32::from(address) - u32::from(self.address))
    }
}

fn mask(prefix_len: u8) -> Option<u32> {
    match prefix_len {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix_len)),
        _ => None,
    }
}

impl FromStr for Cidr {
    type Err = NoCidr;

    fn from_str(text: &str) -> Result<Cidr, NoCidr> {
        let parse = || {
            let (address, prefix_len) = text.split_once('/')?;
            Cidr::new(address.parse().ok()?, prefix_len.parse().ok()?)
        };
        parse().ok_or_else(|| NoCidr { text: text.to_owned() })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_back_and_contain_what_they_should() {
        let check = |text: &str, shown: Option<&str>| {
            assert_eq!(text.parse::<Cidr>().ok().map(|cidr| cidr.to_string()).as_deref(), shown, "{text}");
        };
        check("10.42.3.7/24", Some("10.42.3.0/24"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("1.2.3.4/32", Some("1.2.3.4/32"));
        check("1.2.3.4/33", None);
        check("1.2.3.4", None);
        check("fd00::/8", None);
        let cidr: Cidr = "10.42.3.0/24".parse().expect("a range");
        assert!(cidr.contains(Ipv4Addr::new(10, 42, 3, 255)) && !cidr.contains(Ipv4Addr::new(10, 42, 4, 0)));
        assert_eq!(cidr.nth(255), Some(Ipv4Addr::new(10, 42, 3, 255)));
        assert_eq!(cidr.nth(256), None);
        assert_eq!(cidr.index_of(Ipv4Addr::new(10, 42, 3, 9)), Some(9));
    }
}
