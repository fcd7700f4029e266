//! Which address a node is known by.

use anyhow::{Context as _, Result, bail};
use std::net::Ipv4Addr;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    interface: String,
    address: Ipv4Addr,
}

/// The address of the interface with the default route, else the first that is neither loopback nor link-local.
///
/// # Errors
/// There is no such address: says which flag names one.
pub fn node_address() -> Result<Ipv4Addr> {
    let own: Vec<Own> = nix::ifaddrs::getifaddrs()
        .context("cannot read the addresses of this machine")?
        .filter_map(|found| {
            let address = found.address?.as_sockaddr_in()?.ip();
            Some(Own { interface: found.interface_name, address })
        })
        .collect();
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    match choose(&own, &routes) {
        Some(address) => Ok(address),
        None => bail!("this machine has no address that a node can be known by: give one with --node-ip"),
    }
}

/// Pure: `routes` is the kernel's table as `/proc/net/route` shows it.
fn choose(own: &[Own], routes: &str) -> Option<Ipv4Addr> {
    let default = routes.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (interface, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        (*destination == "00000000" && *mask == "00000000").then_some(*interface)
    });
    let usable = |own: &&Own| !own.address.is_loopback() && !own.address.is_link_local();
    let of_default = own.iter().filter(usable).find(|own| Some(own.interface.as_str()) == default);
    of_default.or_else(|| own.iter().find(usable)).map(|own| own.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_decides_then_the_first_global_address() {
        let own =
            |interface: &str, address: [u8; 4]| Own { interface: interface.into(), address: address.into() };
        let all = [own("lo", [127, 0, 0, 1]), own("eth0", [10, 0, 0, 1]), own("eth1", [10, 1, 0, 1])];
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let route = format!("{head}eth1\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n");
        assert_eq!(choose(&all, &route), Some([10, 1, 0, 1].into()));
        assert_eq!(choose(&all, head), Some([10, 0, 0, 1].into()));
        assert_eq!(choose(&all[..1], &route), None);
    }
}
