//! A pod's network namespace: kept by a mount at a path, so that it outlives this process.
//!
//! A namespace is made on a thread of its own, which ends with it: nothing else must ever run there.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::mount::UnmountFlags;

use super::Error;

/// The interface that pods see.
const POD_INTERFACE: &str = "eth0";
/// What `statfs` says of a mounted namespace.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The stack of the thread that makes a namespace.
const STACK_BYTES: usize = 512 << 10;

/// What a new namespace is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Where it is kept.
    pub path: PathBuf,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// The machine's end of the link.
    pub link: String,
    pub bridge_index: u32,
    pub mtu: u32,
}

/// Makes a namespace with its link, ready for a pod.
pub(super) async fn create(plan: Plan) -> Result<(), Error> {
    let (done, created) = tokio::sync::oneshot::channel();
    let run = move || {
        let result = create_here(&plan);
        if result.is_err() {
            let _ = remove(&plan.path);
        }
        let _ = done.send(result);
    };
    let thread = std::thread::Builder::new().name("pod-network".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(run).map_err(|source| Error::Io { what: "starting a thread", source })?;
    created.await.unwrap_or(Err(Error::Io {
        what: "making a network namespace",
        source: io::ErrorKind::BrokenPipe.into(),
    }))
}

fn create_here(plan: &Plan) -> Result<(), Error> {
    let io = |what| move |source| Error::Io { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(io("starting a runtime"))?;
    runtime.block_on(async {
        let (connection, outside, _) = rtnetlink::new_connection().map_err(io("opening netlink"))?;
        tokio::spawn(connection);
        leave_network_namespace().map_err(io("making a network namespace"))?;
        let namespace =
            File::open("/proc/thread-self/ns/net").map_err(io("opening the network namespace"))?;
        File::create(&plan.path).map_err(io("making the file of the network namespace"))?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &plan.path)
            .map_err(|error| Error::Io { what: "mounting the network namespace", source: error.into() })?;
        let (connection, inside, _) = rtnetlink::new_connection().map_err(io("opening netlink"))?;
        tokio::spawn(connection);
        link(plan, &outside, &namespace).await?;
        address(plan, &inside).await?;
        set_pod_sysctls().map_err(io("setting a sysctl of the pod"))
    })
}

/// Moves this thread, and nothing else, to a network namespace of its own.
fn leave_network_namespace() -> io::Result<()> {
    let flags = rustix::thread::UnshareFlags::NEWNET;
    // SAFETY: a network namespace shares no memory and no file table with anything, so nothing that safe code
    // relies on changes. The thread was started for this and ends afterwards.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// A pod's hardware address follows from its address: who remembers an earlier pod of this address (the machine's neighbour table keeps
/// entries for minutes) reaches the new one.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// One link: an end at the bridge, and one in the namespace.
async fn link(plan: &Plan, outside: &Handle, namespace: &File) -> Result<(), Error> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(POD_INTERFACE)
        .address(hardware_address(plan.address).to_vec())
        .setns_by_fd(namespace.as_raw_fd())
        .mtu(plan.mtu)
        .build();
    let link = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(plan.link.clone())
        .mtu(plan.mtu)
        .controller(plan.bridge_index)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let netlink = |source| Error::Netlink { what: "making a pod's link", source };
    outside.link().add(link).execute().await.map_err(netlink)?;
    let index = link_index(outside, &plan.link).await?.ok_or(Error::NoLink { name: plan.link.clone() })?;
    // Where bridged packets pass the rules (br_netfilter), a pod that reaches itself through a service comes back by its own port.
    let port = LinkBridgePort::new(index).hairpin(true).build();
    outside.link().change(port).execute().await.map_err(netlink)
}

/// The address with the gateway as the only neighbour: what a pod sends to another pod passes the machine's routing, and so the
/// rules for services, whether or not bridged packets do.
async fn address(plan: &Plan, inside: &Handle) -> Result<(), Error> {
    let netlink = |what| move |source| Error::Netlink { what, source };
    let up = |index| LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    inside.link().change(up(1)).execute().await.map_err(netlink("starting the loopback of a pod"))?;
    let index =
        link_index(inside, POD_INTERFACE).await?.ok_or(Error::NoLink { name: POD_INTERFACE.to_owned() })?;
    inside
        .address()
        .add(index, plan.address.into(), 32)
        .execute()
        .await
        .map_err(netlink("giving a pod its address"))?;
    inside.link().change(up(index)).execute().await.map_err(netlink("starting the link of a pod"))?;
    let route =
        RouteMessageBuilder::<Ipv4Addr>::new().gateway(plan.gateway).output_interface(index).onlink().build();
    inside.route().add(route).execute().await.map_err(netlink("giving a pod its route"))
}

/// What containerd sets for a pod: ports below 1024 and ping need no privilege. And redirects past the gateway are not believed.
fn set_pod_sysctls() -> io::Result<()> {
    set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    set_sysctl("net/ipv4/conf/all/accept_redirects", "0")?;
    set_sysctl(&format!("net/ipv4/conf/{POD_INTERFACE}/accept_redirects"), "0")
}

/// Sets a sysctl of this thread's network namespace.
pub(super) fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(Path::new("/proc/sys").join(name), value)
}

/// The number of the interface with this name.
pub(crate) async fn link_index(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
        Err(source) => Err(Error::Netlink { what: "looking for a link", source }),
    }
}

/// Whether a namespace is mounted there.
pub(super) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
}

/// Lets go of the namespace: the kernel ends it, and its link, when the last process in it is gone.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    while is_mounted(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
