//! Gives pods their network: a namespace each, a link to the node's bridge, an address.
//!
//! Start at [`PodNetwork`]. Inside: `ipam` knows which addresses are taken (pure), `namespace` makes a pod's side, `bridge` the
//! machine's, `rules` what is translated.
//!
//! # How packets go
//! A pod has its address alone (`/32`) and the gateway, the bridge, as its only neighbour. So everything it sends passes the machine's routing and connection
//! tracking, also to a pod on the same bridge, and rules for services work without br_netfilter.
//!
//! # What is kept
//! `FOLDER/ADDRESS` is the mounted namespace, `FOLDER/ADDRESS.owner` says whose it is. That is all there is to know: after a
//! restart the state is what is found there.

mod bridge;
mod ipam;
mod namespace;
mod rules;
mod sockets;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::namespace::link_index;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rtnetlink::Handle;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio_util::task::AbortOnDropHandle;

use self::ipam::Ipam;
use self::rules::HostPortElements;
use crate::nft::{Batch, Netfilter, NetfilterError};
use crate::{Cidr, Instance, Protocol};

/// How many namespaces may wait for pods: each costs the kernel a few hundred kilobytes.
const WARM_LEN_MAX: usize = 64;

/// What a pod network is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose network it is.
    pub instance: Instance,
    /// Where namespaces are kept (`DATA_DIR/run/netns`).
    pub folder: PathBuf,
    /// The addresses of this node's pods. The first is the gateway's.
    pub node_cidr: Cidr,
    /// The addresses of all pods: what goes there keeps the pod's address.
    pub cluster_cidr: Cidr,
    /// The addresses of services, so that the machine itself has a route to them.
    pub service_cidr: Option<Cidr>,
    /// Further addresses of the machine, such as the cluster's DNS.
    pub local_addresses: Vec<Ipv4Addr>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Namespaces that are made before a pod needs them; at most 64.
    pub warm_len: usize,
}

/// A port of the machine that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// On which address of the machine; `None` for all.
    pub host_address: Option<Ipv4Addr>,
    /// On the machine.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// A pod's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The path of its network namespace.
    pub namespace_path: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where it sends everything.
    pub gateway: Ipv4Addr,
}

/// Why a pod cannot have its network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a change of links, addresses or routes.
    #[error("{what}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The system refused something else.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The kernel refused the rules.
    #[error("changing the rules of the pod network: {message}")]
    Rules {
        /// What it said.
        message: String,
    },
    /// A link that was just made is not there.
    #[error("the link {name} is gone")]
    NoLink {
        /// Its name.
        name: String,
    },
    /// The node has no address left.
    #[error("no address is free in {cidr}")]
    NoAddress {
        /// The node's range.
        cidr: Cidr,
    },
}

impl From<NetfilterError> for Error {
    fn from(error: NetfilterError) -> Error {
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Error::Rules { message: format!("{error}{source}") }
    }
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io { what, source }
}

/// Whose a namespace is; the content of its `.owner` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    id: String,
    #[serde(default)]
    host_ports: Vec<HostPort>,
}

/// The network of one node's pods.
///
/// # Guarantees
/// `attach` of an id that is attached answers what it answered before, also after a restart; `detach` may be repeated. Two ids never have the
/// same address. Several instances live side by side.
///
/// # Assumptions
/// It runs as root in the network namespace whose interfaces it makes, and nobody else writes to its folder.
pub struct PodNetwork {
    shared: Arc<Shared>,
    _netlink: AbortOnDropHandle<()>,
}

struct Shared {
    options: Options,
    handle: Handle,
    bridge_index: u32,
    state: Mutex<State>,
    /// A namespace that was being made is made, or not.
    came: Notify,
}

struct State {
    ipam: Ipam,
    netfilter: Netfilter,
    /// Namespaces without an owner.
    warm: VecDeque<Ipv4Addr>,
    /// How many are being made.
    coming: usize,
    owners: HashMap<String, (Ipv4Addr, Owner)>,
    is_down: bool,
}

impl PodNetwork {
    /// Makes the bridge and the rules, and takes over what an earlier process left.
    ///
    /// # Errors
    /// What the system refuses; nothing is then taken back.
    pub async fn open(options: Options) -> Result<PodNetwork, Error> {
        std::fs::create_dir_all(&options.folder)
            .map_err(io_error("making the folder of network namespaces"))?;
        let (connection, handle, _) = rtnetlink::new_connection().map_err(io_error("opening netlink"))?;
        let netlink = AbortOnDropHandle::new(tokio::spawn(connection));
        let bridge_index = bridge::ensure(&options, &handle).await?;
        let mut state = State {
            ipam: Ipam::new(options.node_cidr),
            netfilter: Netfilter::open().map_err(io_error("opening netfilter"))?,
            warm: VecDeque::new(),
            coming: 0,
            owners: HashMap::new(),
            is_down: false,
        };
        adopt(&options, &handle, &mut state).await?;
        let mut batch = rules::table(&options.instance, &options.node_cidr, &options.cluster_cidr);
        for (address, owner) in state.owners.values() {
            HostPortElements::of(*address, &owner.host_ports).add(&mut batch);
        }
        state.netfilter.commit(batch)?;
        let shared =
            Arc::new(Shared { options, handle, bridge_index, state: Mutex::new(state), came: Notify::new() });
        shared.warm_up(&mut *shared.state.lock().await);
        Ok(PodNetwork { shared, _netlink: netlink })
    }

    /// Gives `id` a namespace with an address, and these ports of the machine.
    ///
    /// # Errors
    /// `NoAddress` where all are taken; what the system refuses.
    pub async fn attach(&self, id: &str, host_ports: &[HostPort]) -> Result<Attached, Error> {
        let shared = &self.shared;
        let (mut state, address) = loop {
            let came = shared.came.notified();
            let mut state = shared.state.lock().await;
            if let Some((address, _)) = state.owners.get(id) {
                return Ok(shared.attached(*address));
            }
            if let Some(address) = state.warm.pop_front() {
                break (state, address);
            }
            if let Some(address) = state.ipam.take() {
                let created = namespace::create(shared.plan(address)).await;
                created.inspect_err(|_| state.ipam.give_back(address))?;
                break (state, address);
            }
            if state.coming == 0 {
                return Err(Error::NoAddress { cidr: shared.options.node_cidr });
            }
            drop(state);
            came.await;
        };
        let owner = Owner { id: id.to_owned(), host_ports: host_ports.to_vec() };
        if let Err(error) = shared.own(&mut state, address, &owner) {
            state.warm.push_front(address);
            return Err(error);
        }
        state.owners.insert(id.to_owned(), (address, owner));
        shared.warm_up(&mut state);
        Ok(shared.attached(address))
    }

    /// Takes back what `attach` gave.
    ///
    /// # Errors
    /// What the system refuses; it may then be tried again.
    pub async fn detach(&self, id: &str) -> Result<(), Error> {
        let shared = &self.shared;
        let mut state = shared.state.lock().await;
        let Some((address, owner)) = state.owners.get(id).cloned() else { return Ok(()) };
        let elements = HostPortElements::of(address, &owner.host_ports);
        if !elements.is_empty() {
            let mut batch = Batch::on(&shared.options.instance.pods_table());
            elements.remove(&mut batch);
            state.netfilter.commit(batch)?;
            // Said again if what follows fails: then there are no rules to take back.
            if let Some((_, owner)) = state.owners.get_mut(id) {
                owner.host_ports.clear();
            }
        }
        shared.remove(address).await?;
        state.owners.remove(id);
        state.ipam.give_back(address);
        shared.warm_up(&mut state);
        Ok(())
    }

    /// What `id` was given.
    pub async fn get(&self, id: &str) -> Option<Attached> {
        let state = self.shared.state.lock().await;
        state.owners.get(id).map(|(address, _)| self.shared.attached(*address))
    }

    /// Every id that is attached, in order.
    pub async fn list(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.shared.state.lock().await.owners.keys().cloned().collect();
        ids.sort();
        ids
    }

    /// Where pods send everything: an address of this machine.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipam::gateway(&self.shared.options.node_cidr)
    }

    /// Removes every namespace, interface, route and rule of this network.
    ///
    /// # Errors
    /// What the system refuses; it may then be tried again.
    pub async fn down(&self) -> Result<(), Error> {
        let mut state = self.shared.wait_for_coming().await;
        state.owners.clear();
        state.warm.clear();
        let options = &self.shared.options;
        remove_all(&options.instance, &options.folder, &self.shared.handle, &mut state.netfilter).await
    }
}

/// Removes what a pod network left that is not running.
///
/// # Errors
/// What the system refuses; it may then be tried again.
pub async fn down(instance: &Instance, folder: &Path) -> Result<(), Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(io_error("opening netlink"))?;
    let _netlink = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut netfilter = Netfilter::open().map_err(io_error("opening netfilter"))?;
    remove_all(instance, folder, &handle, &mut netfilter).await
}

async fn remove_all(
    instance: &Instance,
    folder: &Path,
    handle: &Handle,
    netfilter: &mut Netfilter,
) -> Result<(), Error> {
    for (name, _) in bridge::links(handle, &instance.link_prefix()).await? {
        bridge::remove_link(handle, &name).await?;
    }
    for (address, path) in namespaces_in(folder)? {
        namespace::remove(&path).map_err(io_error("removing a network namespace"))?;
        remove_owner(folder, address)?;
    }
    bridge::remove_link(handle, &instance.bridge()).await?;
    let mut batch = Batch::on(&instance.pods_table());
    batch.remove_table();
    Ok(netfilter.commit(batch)?)
}

/// The files of namespaces, whether they are mounted or not.
fn namespaces_in(folder: &Path) -> Result<Vec<(Ipv4Addr, PathBuf)>, Error> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error("reading the folder of network namespaces"))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("reading the folder of network namespaces"))?;
        if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((address, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn owner_path(folder: &Path, address: Ipv4Addr) -> PathBuf {
    folder.join(format!("{address}.owner"))
}

fn remove_owner(folder: &Path, address: Ipv4Addr) -> Result<(), Error> {
    match std::fs::remove_file(owner_path(folder, address)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("removing the owner of a network namespace")(error))
        }
        _ => Ok(()),
    }
}

fn read_owner(folder: &Path, address: Ipv4Addr) -> Option<Owner> {
    let text = std::fs::read(owner_path(folder, address)).ok()?;
    let owner = serde_json::from_slice(&text);
    owner
        .inspect_err(
            |error| tracing::warn!(%address, %error, "the owner of a network namespace cannot be read"),
        )
        .ok()
}

/// Takes over the namespaces that are whole, and removes the rest.
async fn adopt(options: &Options, handle: &Handle, state: &mut State) -> Result<(), Error> {
    let prefix = options.instance.link_prefix();
    let mut links: HashMap<_, _> = bridge::links(handle, &prefix).await?.into_iter().collect();
    for (address, path) in namespaces_in(&options.folder)? {
        let link = options.instance.link(&options.node_cidr, address);
        let is_whole = namespace::is_mounted(&path) && links.contains_key(&link);
        if !is_whole || !state.ipam.adopt(address) {
            tracing::info!(%address, "a network namespace of an earlier run is not whole and is removed");
            namespace::remove(&path).map_err(io_error("removing a network namespace"))?;
            remove_owner(&options.folder, address)?;
            continue;
        }
        links.remove(&link);
        match read_owner(&options.folder, address) {
            Some(owner) => {
                state.owners.insert(owner.id.clone(), (address, owner));
            }
            None => state.warm.push_back(address),
        }
    }
    for name in links.into_keys() {
        bridge::remove_link(handle, &name).await?;
    }
    Ok(())
}

impl Shared {
    fn path(&self, address: Ipv4Addr) -> PathBuf {
        self.options.folder.join(address.to_string())
    }

    fn attached(&self, address: Ipv4Addr) -> Attached {
        Attached {
            namespace_path: self.path(address),
            address,
            gateway: Ipam::gateway(&self.options.node_cidr),
        }
    }

    fn plan(&self, address: Ipv4Addr) -> namespace::Plan {
        namespace::Plan {
            path: self.path(address),
            address,
            gateway: Ipam::gateway(&self.options.node_cidr),
            link: self.options.instance.link(&self.options.node_cidr, address),
            bridge_index: self.bridge_index,
            mtu: self.options.mtu,
        }
    }

    /// Writes down whose a namespace is, and opens its ports.
    fn own(&self, state: &mut State, address: Ipv4Addr, owner: &Owner) -> Result<(), Error> {
        let path = owner_path(&self.options.folder, address);
        let unfinished = path.with_extension("unfinished");
        let text =
            serde_json::to_vec(owner).map_err(io::Error::from).map_err(io_error("writing an owner"))?;
        let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, &path));
        written.map_err(io_error("writing the owner of a network namespace"))?;
        let elements = HostPortElements::of(address, &owner.host_ports);
        let mut batch = Batch::on(&self.options.instance.pods_table());
        elements.add(&mut batch);
        state.netfilter.commit(batch).map_err(|error| match remove_owner(&self.options.folder, address) {
            Ok(()) => error.into(),
            Err(error) => error,
        })
    }

    /// Removes a namespace and its link.
    async fn remove(&self, address: Ipv4Addr) -> Result<(), Error> {
        bridge::remove_link(&self.handle, &self.options.instance.link(&self.options.node_cidr, address))
            .await?;
        namespace::remove(&self.path(address)).map_err(io_error("removing a network namespace"))?;
        remove_owner(&self.options.folder, address)
    }

    /// Starts making namespaces until enough wait.
    fn warm_up(self: &Arc<Self>, state: &mut State) {
        let target = self.options.warm_len.min(WARM_LEN_MAX);
        while !state.is_down && state.warm.len() + state.coming < target {
            let Some(address) = state.ipam.take() else { return };
            state.coming += 1;
            let shared = self.clone();
            tokio::spawn(async move {
                let created = namespace::create(shared.plan(address)).await;
                let mut state = shared.state.lock().await;
                state.coming -= 1;
                shared.came.notify_waiters();
                match created {
                    Ok(()) => state.warm.push_back(address),
                    Err(error) => {
                        state.ipam.give_back(address);
                        tracing::warn!(%address, error = &error as &dyn std::error::Error, "a network namespace could not be made ahead");
                    }
                }
            });
        }
    }

    /// The state when nothing is being made, and nothing will be.
    async fn wait_for_coming(&self) -> MutexGuard<'_, State> {
        loop {
            let came = self.came.notified();
            let mut state = self.state.lock().await;
            state.is_down = true;
            if state.coming == 0 {
                return state;
            }
            drop(state);
            came.await;
        }
    }
}
