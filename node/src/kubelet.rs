//! The node as a whole: starts and feeds the workers of pods, tells about itself, looks after the machine.

use crate::admission::{self, Accounts, Place};
use crate::container_spec;
use crate::context::{NodeContext, PULLS_MAX};
use crate::eviction;
use crate::log_rotation;
use crate::network::PodNetwork;
use crate::node_object::{self, Changing, Pressure};
use crate::objects::{self, ClusterObjects, Reference};
use crate::observed::{self, Observed};
use crate::options::NodeOptions;
use crate::pods::Pods;
use crate::resources::pod_requests;
use crate::spec::PodDef;
use crate::status::Verdict;
use crate::volume::token::ApiTokens;
use crate::volume::{self, Directories};
use crate::worker::{self, Message};
use api::{Object, Timestamp};
use client::{Caches, Client, Clock, Delta, EventRecorder};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeStatus, Pod, PodCondition};
use parking_lot::Mutex;
use runtime::Runtime;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// How often the lease is renewed; everything that has to be measured is measured then too. Upstream: a quarter of the lease.
const TICK: Duration = Duration::from_secs(10);
/// How often the status is told though nothing changed. Upstream: `nodeStatusReportFrequency`.
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// How long a tried registration rests.
const REGISTER_RETRY: Duration = Duration::from_secs(1);
/// Workers that have ended and wait to be forgotten.
const ENDED_MAX: usize = 256;

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or mount could not be made.
    #[error("{operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A volume could not be removed.
    #[error(transparent)]
    Volume(Box<dyn std::error::Error + Send + Sync>),
    /// The runtime does not answer.
    #[error("the runtime does not answer")]
    Runtime(#[from] runtime::Error),
    /// The HTTPS API could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Runs the node until `shutdown`. Containers go on running after that: the next run adopts them.
///
/// # Flow
/// Adopts what the runtime has, registers the node, then follows the pods that the API assigns to it.
///
/// # Errors
/// The machine or the runtime cannot be used at all. What the API refuses is tried again and never an error here.
pub async fn run(
    options: NodeOptions,
    client: Client,
    caches: Caches,
    runtime: Arc<dyn Runtime>,
    network: Arc<dyn PodNetwork>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let directories = prepare_directories(&options)?;
    let clock = Clock::system();
    let machine = node_object::machine();
    let capacity = node_object::capacity(&options, machine);
    let (objects, changed) = ClusterObjects::new(&client, &caches);
    let objects = Arc::new(objects);
    let context = NodeContext {
        allocatable: node_object::allocatable(&options, &capacity),
        host_addresses: options.addresses.iter().map(ToString::to_string).collect(),
        runtime_classes: caches.of(),
        tokens: Arc::new(ApiTokens::new(client.clone())),
        events: EventRecorder::new(client.clone(), clock.clone(), "kubelet", &options.name),
        objects: objects.clone(),
        accounts: Accounts::default(),
        pulls: Semaphore::new(PULLS_MAX),
        sandboxes: Mutex::default(),
        options,
        client,
        runtime,
        network,
        directories,
        clock,
        machine,
    };
    let name = context.options.name.clone();
    let pods = Arc::new(Pods::default());
    let context = Arc::new(context);
    if let Some(server) = context.options.server.clone() {
        crate::server::serve(context.clone(), pods.clone(), server, shutdown.clone()).await?;
    }
    let kubelet = Kubelet {
        own: caches.of_fields::<Node>(&format!("metadata.name={name}")),
        assigned: caches.of_fields::<Pod>(&format!("spec.nodeName={name}")),
        capacity,
        node: context,
        pods,
        objects,
        changed: Some(changed),
        found: HashMap::new(),
        lease: None,
        told: None,
        told_at: None,
        pressure: Pressure::default(),
        rounds: 0,
        image_rounds: HashMap::new(),
    };
    tokio::select! {
        result = kubelet.run() => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// Removes the volumes of all pods that an ended node left, mounts first. May be repeated.
///
/// # Errors
/// What the system refuses to unmount or to remove.
pub fn remove_volumes(volume_directory: &Path) -> Result<(), Error> {
    let directories = directories_in(volume_directory);
    for uid in names_in(&directories.disk).into_iter().chain(names_in(&directories.memory)) {
        volume::unmount_all(&directories, &uid)?;
    }
    volume::unmount_memory_root(&directories.memory).map_err(|source| Error::Io {
        operation: "unmount",
        path: directories.memory.clone(),
        source,
    })
}

fn directories_in(volume_directory: &Path) -> Directories {
    Directories { disk: volume_directory.join("pods"), memory: volume_directory.join("memory") }
}

fn prepare_directories(options: &NodeOptions) -> Result<Directories, Error> {
    let directories = directories_in(&options.volume_directory);
    let make = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|source| Error::Io {
            operation: "mkdir",
            path: path.to_owned(),
            source,
        })
    };
    make(&directories.disk)?;
    make(&directories.memory)?;
    make(&options.log_directory)?;
    volume::mount_memory_root(&directories.memory).map_err(|source| Error::Io {
        operation: "mount",
        path: directories.memory.clone(),
        source,
    })?;
    Ok(directories)
}

impl From<volume::VolumeError> for Error {
    fn from(error: volume::VolumeError) -> Self {
        Self::Volume(error.into())
    }
}

struct Kubelet {
    node: Arc<NodeContext>,
    pods: Arc<Pods>,
    objects: Arc<ClusterObjects>,
    changed: Option<mpsc::Receiver<Reference>>,
    own: client::Cache<Node>,
    assigned: client::Cache<Pod>,
    capacity: crate::amount::ResourceList,
    /// What the runtime had of pods that have not been seen yet.
    found: HashMap<String, Observed>,
    lease: Option<Lease>,
    told: Option<NodeStatus>,
    told_at: Option<Timestamp>,
    pressure: Pressure,
    rounds: u64,
    image_rounds: HashMap<String, u64>,
}

impl Kubelet {
    async fn run(mut self) -> Result<(), Error> {
        let mut events = self.node.runtime.events();
        self.found = self.list().await?;
        self.register().await;
        tokio::join!(
            self.objects.synced(),
            self.node.runtime_classes.synced(),
            self.own.synced(),
            self.assigned.synced()
        );
        let (on_end, mut ended) = mpsc::channel(ENDED_MAX);
        let mut changes = self.assigned.subscribe();
        let mut own_changes = self.own.subscribe();
        let Some(mut changed) = self.changed.take() else { return Ok(()) };
        while let Some(delta) = changes.try_next() {
            self.take_pod(delta, &on_end).await;
        }
        self.remove_orphans().await;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                Some(delta) = changes.next() => self.take_pod(delta, &on_end).await,
                Some(event) = events.next() => self.take_event(event).await?,
                Some(uid) = ended.recv() => self.forget(&uid).await,
                Some(reference) = changed.recv() => self.refresh(&reference).await,
                Some(delta) = own_changes.next() => if delta.new.is_none() && delta.old.is_some() {
                    self.told = None;
                    self.register().await;
                },
                _ = tick.tick() => self.tick().await,
            }
        }
    }

    async fn list(&self) -> Result<HashMap<String, Observed>, Error> {
        let (sandboxes, containers) =
            tokio::try_join!(self.node.runtime.sandboxes(), self.node.runtime.containers())?;
        Ok(observed::by_pod(&sandboxes, &containers))
    }

    async fn take_pod(&mut self, delta: Delta<Object>, on_end: &mpsc::Sender<String>) {
        let Some(object) = delta.new else {
            if let Some(old) = delta.old {
                self.pods.tell(&old.meta.uid, Message::Gone).await;
            }
            return;
        };
        let pod: Pod = match object.decode() {
            Ok(pod) => pod,
            Err(error) => return tracing::error!(key = %object.meta.key, %error, "a pod cannot be decoded"),
        };
        let def = PodDef::new(pod);
        let uid = object.meta.uid.to_string();
        let revision = object.meta.resource_version;
        self.objects.follow(&uid, objects::references(&def));
        let references = volume::references(&def);
        if self.pods.contains(&uid) {
            self.pods.set_references(&uid, references);
            return self.pods.tell(&uid, Message::Update(Box::new(def), revision)).await;
        }
        let observed = self.found.remove(&uid).unwrap_or_default();
        let rejected = self.admit(&def, &observed);
        let worker = worker::start(self.node.clone(), def, revision, observed, rejected, on_end.clone());
        self.pods.add(&uid, worker, references);
    }

    /// Gives the pod what it asks for, or says why not. What runs already is not asked again.
    fn admit(&self, def: &PodDef, observed: &Observed) -> Option<Verdict> {
        if def.has_ended() || def.deletion_at().is_some() {
            return None;
        }
        let known = observed.sandbox.is_some();
        let own: Option<Node> = self.own.read("", &self.node.options.name);
        let options = &self.node.options;
        let place = Place::new(&options.name, &self.node.allocatable, own.as_ref(), &options.unsafe_sysctls);
        let verdict = match known {
            true => Ok(()),
            false => admission::admit(def, &place, &self.node.accounts.others(def.uid())),
        };
        // Last, since it takes them. What runs already has them.
        let has_ports =
            verdict.is_ok() && self.node.accounts.give_ports(def.uid(), container_spec::declared_ports(def));
        let verdict =
            if verdict.is_ok() && !has_ports && !known { Err(admission::no_port()) } else { verdict };
        match verdict {
            Ok(()) => {
                self.node.accounts.give(def.uid(), pod_requests(def));
                None
            }
            Err(verdict) => {
                self.node.pod_event(def, true, &verdict.reason, verdict.message.clone());
                Some(Verdict { message: format!("Pod was rejected: {}", verdict.message), ..verdict })
            }
        }
    }

    async fn take_event(&mut self, event: runtime::Event) -> Result<(), Error> {
        let sandbox = match &event {
            runtime::Event::Started { sandbox, .. }
            | runtime::Event::Exited { sandbox, .. }
            | runtime::Event::OutOfMemory { sandbox, .. }
            | runtime::Event::SandboxLost { sandbox } => sandbox.clone(),
            runtime::Event::Lost { .. } => {
                let mut found = self.list().await?;
                for uid in self.pods.uids() {
                    let observed = found.remove(&uid).unwrap_or_default();
                    self.pods.tell(&uid, Message::Relist(Box::new(observed))).await;
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let uid = self.node.sandboxes.lock().get(&sandbox).cloned();
        if let Some(uid) = uid {
            self.pods.tell(&uid, Message::Runtime(event)).await;
        }
        Ok(())
    }

    async fn refresh(&self, reference: &Reference) {
        for uid in self.pods.users(reference) {
            self.pods.tell(&uid, Message::Refresh).await;
        }
    }

    /// A pod has left: what others waited for may be free now.
    async fn forget(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.objects.follow(uid, HashSet::new());
        self.node.sandboxes.lock().retain(|_, own| own != uid);
        if self.node.accounts.take_back(uid) {
            for uid in self.pods.uids() {
                self.pods.tell(&uid, Message::Room).await;
            }
        }
    }

    /// Ends and removes what belongs to pods that the API no longer has.
    async fn remove_orphans(&mut self) {
        let known: HashSet<String> = self.pods.uids().into_iter().collect();
        for (uid, observed) in std::mem::take(&mut self.found) {
            let current = observed.sandbox.iter().map(|sandbox| sandbox.id.clone());
            for sandbox in observed.old_sandboxes.iter().cloned().chain(current) {
                if let Err(error) = self.node.runtime.remove_sandbox(&sandbox).await {
                    tracing::warn!(sandbox, uid, %error, "a sandbox without a pod cannot be removed");
                }
            }
        }
        match self.node.network.attached().await {
            Ok(attached) => {
                for uid in attached.iter().filter(|uid| !known.contains(*uid)) {
                    if let Err(error) = self.node.network.detach(uid).await {
                        tracing::warn!(uid, %error, "the network of a pod that is gone cannot be given up");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the pod network cannot tell who is attached"),
        }
        let directories = &self.node.directories;
        for uid in names_in(&directories.disk).into_iter().chain(names_in(&directories.memory)) {
            if !known.contains(&uid)
                && let Err(error) = volume::unmount_all(directories, &uid)
            {
                tracing::warn!(uid, %error, "the volumes of a pod that is gone cannot be removed");
            }
        }
        for name in names_in(&self.node.options.log_directory) {
            let uid = name.rsplit('_').next().unwrap_or_default();
            if !known.contains(uid) {
                let _ = std::fs::remove_dir_all(self.node.options.log_directory.join(&name));
            }
        }
    }

    fn status(&self, images: Vec<k8s_openapi::api::core::v1::ContainerImage>) -> NodeStatus {
        let not_ready = self.node.network.ready().err().map(|why| {
            format!("container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{why}")
        });
        let changing = Changing { pressure: self.pressure, not_ready: not_ready.as_deref(), images };
        let (options, allocatable) = (&self.node.options, &self.node.allocatable);
        node_object::status(
            options,
            &self.capacity,
            allocatable,
            changing,
            self.told.as_ref(),
            self.node.clock.now(),
        )
    }

    async fn images(&self) -> Vec<runtime::Image> {
        self.node.runtime.images().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the runtime does not tell its images");
            Vec::new()
        })
    }

    /// Registers the node, trying until the API takes it.
    async fn register(&mut self) {
        let images = node_object::images(&self.images().await);
        loop {
            let status = self.status(images.clone());
            match node_object::register(&self.node, &status).await {
                Ok(object) => {
                    tracing::info!(node = self.node.options.name, "the node is registered");
                    self.told = Some(status);
                    self.told_at = Some(self.node.clock.now());
                    self.renew_lease(object.metadata.uid).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the node cannot be registered yet");
                    self.node.clock.sleep(REGISTER_RETRY).await;
                }
            }
        }
    }

    async fn renew_lease(&mut self, node_uid: Option<String>) {
        let node_uid = node_uid
            .or_else(|| self.own.get("", &self.node.options.name).map(|object| object.meta.uid.to_string()));
        match node_object::renew_lease(&self.node, node_uid, self.lease.take()).await {
            Ok(lease) => self.lease = Some(lease),
            Err(error) => tracing::warn!(%error, "the lease of the node cannot be renewed"),
        }
    }

    /// Renews the lease, measures the machine, tells what changed.
    async fn tick(&mut self) {
        self.rounds += 1;
        self.renew_lease(None).await;
        let images = self.images().await;
        self.look_after_machine(&images).await;
        let status = self.status(node_object::images(&images));
        let now = self.node.clock.now();
        let overdue = self
            .told_at
            .is_none_or(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default() >= STATUS_EVERY);
        if !overdue && self.told.as_ref().is_some_and(|told| node_object::same(told, &status)) {
            return;
        }
        match node_object::patch_status(&self.node, self.told.as_ref(), &status).await {
            Ok(_) => (self.told, self.told_at) = (Some(status), Some(now)),
            Err(error) => {
                tracing::warn!(%error, "the status of the node cannot be written");
                self.told_at = None;
            }
        }
    }

    async fn look_after_machine(&mut self, images: &[runtime::Image]) {
        let usage = self.node.runtime.image_usage().await.unwrap_or_default();
        let measure = |path: &Path| node_object::disk(path).unwrap_or_default();
        let measured = eviction::Measured {
            memory_free: u64::try_from(node_object::memory_field("MemAvailable").unwrap_or(i64::MAX))
                .unwrap_or(0),
            volumes: measure(&self.node.options.volume_directory),
            images: measure(if usage.path.as_os_str().is_empty() {
                &self.node.options.volume_directory
            } else {
                &usage.path
            }),
        };
        let thresholds = self.node.options.eviction;
        self.pressure = eviction::pressure(&measured, &thresholds);
        self.collect_images(images, &measured, &thresholds).await;
        self.rotate_logs().await;
        if self.pressure.memory {
            self.evict().await;
        }
    }

    async fn collect_images(
        &mut self,
        images: &[runtime::Image],
        measured: &eviction::Measured,
        thresholds: &crate::options::EvictionThresholds,
    ) {
        let Ok(containers) = self.node.runtime.containers().await else { return };
        let in_use: HashSet<String> = containers.iter().map(|container| container.image_id.clone()).collect();
        for id in &in_use {
            self.image_rounds.insert(id.clone(), self.rounds);
        }
        self.image_rounds.retain(|id, _| images.iter().any(|image| image.id == *id));
        let Some(bytes) = eviction::image_bytes_to_free(&measured.images, thresholds) else { return };
        for id in eviction::images_to_remove(images, &in_use, &self.image_rounds, bytes) {
            match self.node.runtime.remove_image(&id).await {
                Ok(()) => tracing::info!(image = id, "an unused image is removed"),
                Err(error) => tracing::warn!(image = id, %error, "an unused image cannot be removed"),
            }
        }
    }

    async fn rotate_logs(&self) {
        let stamp = self.node.clock.now().strftime("%Y%m%d-%H%M%S").to_string();
        for view in self.pods.views() {
            for seen in view.observed.running() {
                if let Some(log) = &seen.log_path {
                    log_rotation::rotate(&*self.node.runtime, &seen.id, log, &stamp).await;
                }
            }
        }
    }

    async fn evict(&self) {
        let mut candidates = Vec::new();
        for view in self.pods.views() {
            let Some(sandbox) = view.observed.sandbox.as_ref().filter(|sandbox| sandbox.ready) else {
                continue;
            };
            let stats = self.node.runtime.sandbox_stats(&sandbox.id).await.unwrap_or_default();
            candidates.push(eviction::Candidate { view, memory_bytes: stats.memory_working_set_bytes });
        }
        let Some(victim) = eviction::victim(&candidates) else { return };
        let def = &victim.view.def;
        let message = "The node was low on resource: memory. ".to_owned();
        self.node.pod_event(def, true, "Evicted", message.clone());
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message.clone()),
            last_transition_time: Some(client::time(self.node.clock.now())),
            observed_generation: Some(def.generation()).filter(|generation| *generation != 0),
            ..Default::default()
        };
        let verdict = Verdict { reason: "Evicted".to_owned(), message };
        self.pods.tell(def.uid(), Message::Evict(verdict, Some(Box::new(condition)))).await;
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
