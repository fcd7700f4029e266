//! The one data plane: gateway, activator and what upstream's queue-proxy does, in this process and without one in the pod.
//!
//! A request comes in by one of the entrances ([`Entrances`]) or, as other pods reach a revision, by the port that upstream's
//! queue-proxy listens on in a pod: this process listens there (see docs/adr/0007). Either way it ends in [`Revisions`], which
//! knows the pods of a revision, holds requests while there is none, and lets no more of them into a pod than it bears.

mod backend;
mod forward;
mod gateway;
mod headers;
mod pods;
mod probe;
mod revisions;
mod routes;
mod serve;
mod views;

pub(crate) use pods::{ADMIN_PORT, REQUEST_PORTS};

use crate::traffic::Traffic;
use api::ObjectName;
use arc_swap::ArcSwap;
use bytes::Bytes;
use client::Caches;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::Mutex;
use routes::Table;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A body of either direction.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;
/// Why a body ends early.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Sockets inside the network namespaces of this node's pods.
pub trait PodSockets: Send + Sync + 'static {
    /// Listens on a port of every address of the pod. The socket does not block.
    fn listen<'a>(&'a self, pod_uid: &'a str, port: u16) -> BoxFuture<'a, io::Result<std::net::TcpListener>>;
    /// The address of a pod, if it is one of this node.
    fn address<'a>(&'a self, pod_uid: &'a str) -> BoxFuture<'a, Option<IpAddr>>;
    /// Connects to a port of the pod's loopback interface.
    fn connect<'a>(&'a self, pod_uid: &'a str, port: u16) -> BoxFuture<'a, io::Result<TcpStream>>;
}

/// Where requests come in.
pub struct Entrances {
    /// From outside: hosts that are meant for there.
    pub external: TcpListener,
    /// From within the cluster: all hosts.
    pub local: TcpListener,
    /// For revisions: by the headers that say which, or by the host of its service.
    pub activator: TcpListener,
}

/// The data plane. Clones are the same one.
#[derive(Clone)]
pub struct DataPlane(Arc<Inner>);

struct Inner {
    views: views::Views,
    revisions: revisions::Revisions,
    pods: pods::Pods,
    backend: backend::Backend,
    /// The Ingresses that `routes` is made of.
    specs: Mutex<BTreeMap<(IngressKind, ObjectName), Value>>,
    routes: ArcSwap<Table>,
}

/// Whose Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IngressKind {
    Knative,
    Plain,
}

impl DataPlane {
    /// Over the caches of the process. Must be called within a runtime.
    pub fn new(caches: &Caches, traffic: Arc<Traffic>, sockets: Arc<dyn PodSockets>) -> Self {
        Self::over(views::Views::new(caches), traffic, sockets)
    }

    fn over(views: views::Views, traffic: Arc<Traffic>, sockets: Arc<dyn PodSockets>) -> Self {
        let pods = pods::Pods::new(sockets.clone());
        let backend = backend::Backend::new(pods.addresses(), sockets);
        let revisions = revisions::Revisions::new(traffic);
        Self(Arc::new(Inner {
            views,
            revisions,
            pods,
            backend,
            specs: Mutex::default(),
            routes: ArcSwap::default(),
        }))
    }

    /// A pod has its network and no container yet: if it is one of a revision, this process listens in it from now on.
    pub async fn pod_attached(&self, namespace: &str, name: &str, uid: &str) {
        self.0.pod_attached(namespace, name, uid).await;
    }

    /// A pod's network goes.
    pub fn pod_detached(&self, uid: &str) {
        self.0.pods.forget(uid);
    }

    /// The rules of an Ingress as they are from now on; `None` if it has none any more. They hold when this returns.
    pub(crate) fn set_ingress(&self, kind: IngressKind, name: &ObjectName, spec: Option<Value>) {
        let mut specs = self.0.specs.lock();
        let key = (kind, name.clone());
        let before = match &spec {
            Some(spec) => specs.insert(key, spec.clone()),
            None => specs.remove(&key),
        };
        if before == spec {
            return;
        }
        let mut table = Table::default();
        for ((kind, name), spec) in &*specs {
            match kind {
                IngressKind::Knative => table.add_knative(&name.namespace, spec),
                IngressKind::Plain => table.add_plain(&name.namespace, spec),
            }
        }
        self.0.routes.store(Arc::new(table));
    }

    /// Serves until `stop`, then lets requests end for a while.
    pub async fn run(&self, entrances: Entrances, stop: CancellationToken) {
        let Entrances { external, local, activator } = entrances;
        let inner = &self.0;
        let gateway = |listener, is_local| {
            let own = inner.clone();
            serve::serve(listener, stop.clone(), move |request, peer| {
                own.clone().gateway(request, peer, is_local)
            })
        };
        let own = inner.clone();
        let activator =
            serve::serve(activator, stop.clone(), move |request, peer| own.clone().activator(request, peer));
        let followed = self.follow(stop.clone());
        tokio::join!(gateway(external, false), gateway(local, true), activator, followed);
    }
}
