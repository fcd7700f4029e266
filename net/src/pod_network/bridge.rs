//! The bridge that all pods of a node hang on, and the machine's routing around it.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, RouteMessageBuilder};

use super::ipam::Ipam;
use super::namespace::{link_index, set_sysctl};
use super::{Error, Options};

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> Error {
    move |source| Error::Netlink { what, source }
}

/// Makes the bridge, or takes over the one that is there; returns its index.
pub(super) async fn ensure(options: &Options, handle: &Handle) -> Result<u32, Error> {
    let name = options.instance.bridge();
    let index = match link_index(handle, &name).await? {
        Some(index) => index,
        None => {
            let bridge = LinkMessageBuilder::<LinkBridge>::new(&name)
                .address(options.instance.bridge_hardware_address().to_vec())
                .mtu(options.mtu)
                .up()
                .build();
            handle.link().add(bridge).execute().await.map_err(netlink("making the bridge"))?;
            link_index(handle, &name).await?.ok_or(Error::NoLink { name: name.clone() })?
        }
    };
    set_sysctls(&name).map_err(|source| Error::Io { what: "setting a sysctl of the node", source })?;
    let gateway = Ipam::gateway(&options.node_cidr);
    add_address(handle, index, gateway, options.node_cidr.prefix_len()).await?;
    for address in &options.local_addresses {
        add_address(handle, index, *address, 32).await?;
    }
    if let Some(services) = &options.service_cidr {
        // The machine itself needs a route to have a packet at all, before the rules send it elsewhere.
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(services.first(), services.prefix_len())
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(gateway)
            .build();
        handle
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .map_err(netlink("routing the services' addresses"))?;
    }
    Ok(index)
}

async fn add_address(handle: &Handle, index: u32, address: Ipv4Addr, prefix_len: u8) -> Result<(), Error> {
    let add = handle.address().add(index, address.into(), prefix_len).replace();
    add.execute().await.map_err(netlink("giving the bridge an address"))
}

/// The machine routes for pods, answers from 127.0.0.1 may come back from them (the rules keep out what they send there), and
/// pods are not told of shorter ways past the machine.
fn set_sysctls(bridge: &str) -> std::io::Result<()> {
    set_sysctl("net/ipv4/ip_forward", "1")?;
    set_sysctl(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1")?;
    set_sysctl("net/ipv4/conf/all/send_redirects", "0")?;
    set_sysctl(&format!("net/ipv4/conf/{bridge}/send_redirects"), "0")
}

/// The machine's ends of pods' links: name and index.
pub(super) async fn links(handle: &Handle, prefix: &str) -> Result<Vec<(String, u32)>, Error> {
    let mut found = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.map_err(netlink("listing links"))? {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) if name.starts_with(prefix) => Some(name.clone()),
            _ => None,
        });
        found.extend(name.map(|name| (name, link.header.index)));
    }
    Ok(found)
}

/// Removes an interface, if it is there.
pub(super) async fn remove_link(handle: &Handle, name: &str) -> Result<(), Error> {
    let Some(index) = link_index(handle, name).await? else { return Ok(()) };
    match handle.link().del(index).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
        result => result.map_err(netlink("removing a link")),
    }
}
