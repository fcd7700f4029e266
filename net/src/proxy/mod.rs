//! The service proxy: sends what goes to a service to one of its endpoints.
//!
//! Start at [`run`]. Inside: `view` takes out of objects what counts, `plan` says what one service needs (pure), `desired` what
//! changes (pure), `nftables` puts it into the kernel, `conntrack` ends flows that lost their endpoint.
//!
//! # Flow
//! Changes of services and slices mark services; marked services are planned anew, and what differs becomes one transaction. While a
//! transaction runs, further changes gather for the next.
//!
//! # Guarantees
//! On start the whole table is replaced in one transaction: connections go on, and there is no moment without rules. When `run` ends the rules stay, so
//! that services work during a restart; [`remove`] removes them.

mod conntrack;
mod desired;
mod nftables;
mod plan;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use api::ObjectName;
use client::{Caches, Delta};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use self::desired::Desired;
use self::nftables::Table;
use self::plan::{GroupNumbers, NodeView, Plan};
use self::view::{ServiceView, SliceView};
use crate::nft::NetfilterError;
use crate::{Cidr, Instance};

/// How long to wait before rules that the kernel refused are tried again, all of them.
const RETRY_WAIT: Duration = Duration::from_secs(2);

/// What a proxy is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose proxy it is.
    pub instance: Instance,
    /// The node it runs on: which endpoints are near, and which are its own.
    pub node_name: String,
    /// The addresses of all pods. Who comes from elsewhere gets the node's address, so that answers come back this way.
    pub cluster_cidr: Option<Cidr>,
    /// The addresses of services: what is sent to one that nobody has is dropped.
    pub service_cidrs: Vec<Cidr>,
    /// Addresses of services that this machine serves itself (the cluster's DNS): not refused while they have no endpoints.
    pub served_here: Vec<Ipv4Addr>,
}

/// Why the proxy cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Netfilter cannot be reached.
    #[error("opening netfilter")]
    Netfilter(#[source] std::io::Error),
    /// The kernel refused the rules.
    #[error("changing the rules of services: {message}")]
    Rules {
        /// What it said.
        message: String,
    },
    /// The caches were stopped.
    #[error("the caches of services and endpoints have ended")]
    CachesEnded,
}

impl From<NetfilterError> for Error {
    fn from(error: NetfilterError) -> Error {
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Error::Rules { message: format!("{error}{source}") }
    }
}

/// Keeps the kernel's rules as services and endpoints say, until it is dropped.
///
/// # Errors
/// Netfilter cannot be opened, or the caches have ended. What the kernel refuses is logged and tried again.
pub async fn run(caches: Caches, options: Options) -> Result<(), Error> {
    let services = caches.of::<Service>();
    let slices = caches.of::<EndpointSlice>();
    let node = caches.of_fields::<Node>(&format!("metadata.name={}", options.node_name));
    let (service_views, slice_views, zone) =
        (services.project(view::service), slices.project(view::slice), node.project(view::zone));
    let (mut service_changes, mut slice_changes, mut zone_changes) =
        (service_views.subscribe(), slice_views.subscribe(), zone.subscribe());
    tokio::join!(services.synced(), slices.synced(), node.synced());

    let mut table = Table::open(&options).map_err(Error::Netfilter)?;
    let mut proxy = Proxy::new(&options);
    let mut is_whole = false;
    loop {
        while let Some(change) = service_changes.try_next() {
            proxy.service_changed(change);
        }
        while let Some(change) = slice_changes.try_next() {
            proxy.slice_changed(change);
        }
        while let Some(change) = zone_changes.try_next() {
            proxy.zone_changed(change.new.as_deref().cloned().unwrap_or_default());
        }
        let (back, result) = program(table, &mut proxy, is_whole).await?;
        table = back;
        is_whole = result.is_ok();
        if let Err(error) = result {
            tracing::error!(%error, "the rules of services could not be changed and are made anew");
        }
        tokio::select! {
            change = service_changes.next() => proxy.service_changed(change.ok_or(Error::CachesEnded)?),
            change = slice_changes.next() => proxy.slice_changed(change.ok_or(Error::CachesEnded)?),
            Some(change) = zone_changes.next() => proxy.zone_changed(change.new.as_deref().cloned().unwrap_or_default()),
            () = tokio::time::sleep(RETRY_WAIT), if !is_whole => {}
        }
    }
}

/// Removes the rules of a proxy that is not running.
///
/// # Errors
/// Netfilter cannot be reached, or refuses.
pub fn remove(instance: &Instance) -> Result<(), Error> {
    let options = Options {
        instance: instance.clone(),
        node_name: String::new(),
        cluster_cidr: None,
        service_cidrs: vec![],
        served_here: vec![],
    };
    Ok(Table::open(&options).map_err(Error::Netfilter)?.remove()?)
}

/// One transaction, where blocking is allowed: the kernel works while the call runs.
async fn program(
    mut table: Table,
    proxy: &mut Proxy,
    is_whole: bool,
) -> Result<(Table, Result<(), NetfilterError>), Error> {
    proxy.plan_marked();
    let changes = proxy.desired.take_changes();
    let all = if is_whole { None } else { Some(proxy.desired.all()) };
    let flows = changes.flows.then(|| conntrack::Frontends::new(proxy.desired.flows()));
    let work = move || {
        let result = match all {
            Some(all) => table.replace(&all),
            None => table.change(&changes.removed, &changes.added),
        };
        if let Some(Err(error)) = flows.map(|flows| conntrack::end_stale(&flows)) {
            tracing::warn!(%error, "flows that lost their endpoint could not be ended");
        }
        (table, result)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// What is known of services, and which of them are to be planned anew.
#[derive(Debug, Default)]
struct Proxy {
    node: NodeView,
    services: HashMap<ObjectName, Arc<ServiceView>>,
    /// The slices of each service, by their names.
    slices: HashMap<ObjectName, BTreeMap<Box<str>, Arc<SliceView>>>,
    marked: HashSet<ObjectName>,
    numbers: GroupNumbers,
    desired: Desired,
}

impl Proxy {
    fn new(options: &Options) -> Proxy {
        let node = NodeView {
            name: options.node_name.as_str().into(),
            zone: Box::default(),
            served_here: options.served_here.clone(),
        };
        Proxy { node, ..Proxy::default() }
    }

    fn service_changed(&mut self, change: Delta<ServiceView>) {
        match change.new {
            Some(service) => self.services.insert(change.key.clone(), service),
            None => self.services.remove(&change.key),
        };
        self.marked.insert(change.key);
    }

    fn slice_changed(&mut self, change: Delta<SliceView>) {
        let ObjectName { namespace, name } = change.key;
        if let Some(old) = change.old {
            let service = ObjectName::new(&namespace, &old.service);
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(&name);
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            self.marked.insert(service);
        }
        if let Some(new) = change.new {
            let service = ObjectName::new(&namespace, &new.service);
            self.slices.entry(service.clone()).or_default().insert(name, new);
            self.marked.insert(service);
        }
    }

    fn zone_changed(&mut self, zone: Box<str>) {
        if self.node.zone != zone {
            self.node.zone = zone;
            self.marked.extend(self.services.keys().cloned());
        }
    }

    fn plan_marked(&mut self) {
        for name in self.marked.drain() {
            let plan = match self.services.get(&name) {
                Some(service) => {
                    let slices = self
                        .slices
                        .get(&name)
                        .into_iter()
                        .flat_map(|slices| slices.values())
                        .map(|slice| &**slice);
                    plan::plan(&name, service, slices, &self.node, &mut self.numbers)
                }
                None => {
                    self.numbers.forget(&name);
                    Plan::default()
                }
            };
            self.desired.set(&name, plan);
        }
    }
}
