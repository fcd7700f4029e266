//! What runs beside the API server: controllers and scheduler, and the node where there is one. They share one set of caches.

use crate::config::Without;
use crate::control_plane::ControlPlane;
use crate::control_socket::{ControlSocket, Verb};
use crate::knative::Names;
use crate::local_node::LocalNode;
use crate::pki::Pki;
use anyhow::{Context as _, Result};
use api::{UserInfo, object::Object};
use client::{Caches, Client, Clock, Context, EventRecorder};
use eventing::dispatch::Eventing;
use eventing::log::Folder;
use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serving::data_plane::{DataPlane, Entrances};
use serving::digest::Resolve;
use serving::traffic::{Traffic, Woken};
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What runs until it is stopped.
pub struct Components {
    tasks: JoinSet<(&'static str, Result<()>)>,
    stop: CancellationToken,
    caches: Caches,
    without: Without,
    /// What Knative's data plane counts, and who hears of requests that wait.
    traffic: Arc<Traffic>,
    woken: Arc<Mutex<Option<Woken>>>,
}

impl Components {
    /// Starts the loops of the control plane, but for those that others do.
    ///
    /// # Errors
    /// The cluster's authority cannot sign.
    pub fn start(control_plane: &ControlPlane, pki: &Pki, without: Without) -> Result<Self> {
        // One cache per kind for everybody in this process: what is read once is kept once.
        let caches = Caches::new(control_plane.controllers());
        let (traffic, woken) = Traffic::new();
        let woken = Arc::new(Mutex::new(Some(woken)));
        let mut own =
            Self { tasks: JoinSet::new(), stop: CancellationToken::new(), caches, without, traffic, woken };
        if !without.controllers {
            own.start_controllers(control_plane, pki)?;
        }
        if !without.scheduler {
            own.start_scheduler(control_plane);
        }
        Ok(own)
    }

    fn start_controllers(&mut self, control_plane: &ControlPlane, pki: &Pki) -> Result<()> {
        let shared = self.context(&control_plane.controllers(), "kube-controller-manager");
        let signer = controllers::Signer::new(pki.ca_pem(), pki.ca_key_pem())?;
        let root_ca = pki.ca_pem().to_owned();
        let options =
            controllers::Options { root_ca, signer: Some(signer), ..controllers::Options::default() };
        let stopped = self.stop.clone();
        self.spawn("controllers", async move {
            controllers::run(&shared, &options, stopped).await;
            Ok(())
        });
        Ok(())
    }

    fn start_scheduler(&mut self, control_plane: &ControlPlane) {
        let client = control_plane.component("system:kube-scheduler");
        let Context { client, caches, events, clock, .. } = self.context(&client, "default-scheduler");
        self.spawn("scheduler", async move {
            scheduler::run(client, caches, events, clock, scheduler::Options::default()).await;
            Ok(())
        });
    }

    /// Starts the node of this process, and the data plane on it. `entrances` is where that takes requests.
    pub fn start_node(
        &mut self,
        control_plane: &ControlPlane,
        node: LocalNode,
        entrances: Entrances,
    ) -> DataPlane {
        let data_plane = DataPlane::new(&self.caches, self.traffic.clone(), node.sockets());
        let client = control_plane.as_user(UserInfo::node(node.name()), "kubelet");
        for (name, task) in node.tasks(client, &self.caches, data_plane.clone(), self.stop.clone()) {
            self.spawn(name, task);
        }
        let (own, stop) = (data_plane.clone(), self.stop.clone());
        self.spawn("data-plane", async move {
            own.run(entrances, stop).await;
            Ok(())
        });
        data_plane
    }

    /// Starts the loops of Knative. `resolve` finds out which image a tag means; `data_plane` takes requests at the address.
    pub fn start_knative(
        &mut self,
        control_plane: &ControlPlane,
        cluster_domain: &str,
        resolve: Option<Arc<dyn Resolve>>,
        data_plane: Option<(DataPlane, IpAddr)>,
    ) {
        let shared = self.context(&control_plane.controllers(), "knative-serving");
        let options = serving::Options {
            resolve,
            cluster_domain: cluster_domain.to_owned(),
            data_plane,
            traffic: Some((self.traffic.clone(), self.woken.clone())),
        };
        let stopped = self.stop.clone();
        self.spawn("serving", async move {
            serving::run(&shared, &options, stopped).await;
            Ok(())
        });
    }

    /// Starts Knative Eventing: its loops, and its data plane with the logs below `directory`.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn start_eventing(
        &mut self,
        control_plane: &ControlPlane,
        cluster_domain: &str,
        directory: &Path,
        listener: TcpListener,
    ) -> Result<()> {
        let shared = self.context(&control_plane.controllers(), "knative-eventing");
        let folder =
            Folder::open(directory).with_context(|| format!("cannot use {}", directory.display()))?;
        let resolve: Arc<dyn eventing::delivery::Resolve> =
            Arc::new(Names::new(&self.caches, cluster_domain));
        let options = eventing::Options {
            eventing: Eventing::open(Arc::new(folder), resolve.clone(), Clock::system()),
            listener,
            resolve,
            cluster_domain: cluster_domain.to_owned(),
        };
        let stopped = self.stop.clone();
        self.spawn("eventing", async move {
            eventing::run(&shared, options, stopped).await;
            Ok(())
        });
        Ok(())
    }

    /// Serves the local control socket.
    pub fn serve_socket(&mut self, socket: ControlSocket, verbs: Vec<Arc<dyn Verb>>) {
        self.spawn("control-socket", async move {
            socket.serve(verbs).await;
            Ok(())
        });
    }

    fn context(&self, client: &Client, name: &str) -> Context {
        let clock = Clock::system();
        let events = EventRecorder::new(client.clone(), clock.clone(), name, "");
        Context::new(client.clone(), self.caches.clone(), events, clock)
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        let stopped = self.stop.clone();
        // Loops that know how to stop are given the time to; the others are dropped.
        let knows_how = matches!(name, "controllers" | "serving" | "eventing" | "kubelet" | "data-plane");
        self.tasks.spawn(async move {
            let stopped = async {
                match knows_how {
                    true => std::future::pending().await,
                    false => stopped.cancelled().await,
                }
            };
            tokio::select! {
                result = task => (name, result),
                () = stopped => (name, Ok(())),
            }
        });
    }

    /// Waits until the node says that it is ready and pods may be scheduled to it. The latter is what controllers see to: where
    /// others do their work, it is not waited for.
    pub fn node_ready(&self, name: &str) -> impl Future<Output = ()> + use<> {
        let node = self.caches.of_fields::<Node>(&format!("metadata.name={name}"));
        let mut changes = node.subscribe();
        let may_be_tainted = self.without.controllers;
        let is_ready = move |object: &Object| {
            let Ok(node) = object.decode::<Node>() else { return false };
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            conditions.iter().any(|own| own.type_ == "Ready" && own.status == "True")
                && (may_be_tainted || !taints.iter().any(|taint| taint.key == "node.kubernetes.io/not-ready"))
        };
        async move {
            while let Some(change) = changes.next().await {
                if change.new.as_deref().is_some_and(is_ready) {
                    return;
                }
            }
        }
    }

    /// Waits until a deployment has all the pods that it asks for.
    pub fn deployment_available(&self, namespace: &str, name: &str) -> impl Future<Output = ()> + use<> {
        let deployment = self.caches.of_fields::<Deployment>(&format!("metadata.name={name}"));
        let mut changes = deployment.subscribe();
        let namespace = namespace.to_owned();
        async move {
            while let Some(change) = changes.next().await {
                let deployment = change.new.and_then(|object| object.decode::<Deployment>().ok());
                let is_meant = |own: &Deployment| own.metadata.namespace.as_ref() == Some(&namespace);
                if deployment.is_some_and(|own| is_meant(&own) && crate::demo::is_available(&own)) {
                    return;
                }
            }
        }
    }

    /// Waits until one of them ends by itself, which none should: says why.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn failed(&mut self) -> Result<()> {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok((name, result))) => result.with_context(|| format!("{name} ended")),
            Some(Err(error)) => Err(error).context("a component ended badly"),
        }
    }

    /// Asks all to end and waits until they have.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().boxed().await {
            match ended {
                Ok((name, Ok(()))) => tracing::debug!(name, "stopped"),
                Ok((name, Err(error))) => tracing::error!(name, error = format!("{error:#}"), "ended badly"),
                Err(error) => tracing::error!(%error, "a component ended badly"),
            }
        }
    }
}
