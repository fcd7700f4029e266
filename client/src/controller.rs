//! The runtime of control loops: watches put keys into a queue, workers reconcile them.

use crate::cache::{AnyCache, Caches, Delta, Selection};
use crate::client::Client;
use crate::clock::Clock;
use crate::events::EventRecorder;
use crate::expectations::Expectations;
use crate::queue::Queue;
use crate::resource::{Kind, ResourceRef};
use api::{Meta, ObjectName, Status, Timestamp};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::{ClusterResourceScope, Resource};
use std::any::TypeId;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What a loop can reach: one per controller, shared by its workers.
pub struct Context {
    /// To write, and to read what must be fresh.
    pub client: Client,
    /// To read.
    pub caches: Caches,
    /// To tell people.
    pub events: EventRecorder,
    /// The time.
    pub clock: Clock,
    /// Own writes that the caches may not show yet.
    pub expectations: Expectations,
    /// The keys to be reconciled, for loops that find work by other ways than watches.
    pub queue: Queue<ObjectName>,
}

impl Context {
    /// A context without a controller; [`Controller::run`] makes one of its own from it.
    pub fn new(client: Client, caches: Caches, events: EventRecorder, clock: Clock) -> Self {
        Self { client, caches, events, clock, expectations: Expectations::default(), queue: Queue::new() }
    }

    fn for_controller(&self, name: &str) -> Self {
        Self::new(self.client.clone(), self.caches.clone(), self.events.named(name), self.clock.clone())
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The objects of a kind whose managing controller has this UID.
    pub fn owned<K: Kind>(&self, uid: &str) -> Vec<K> {
        self.caches.of::<K>().controlled_by(uid)
    }
}

/// When a key is looked at again although nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Only if something changes.
    Done,
    /// After this time.
    After(Duration),
}

impl Next {
    /// At a point in time.
    pub fn at(clock: &Clock, at: Timestamp) -> Self {
        Self::After(clock.until(at))
    }

    /// The earlier of two.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(two)) => Self::After(one.min(two)),
            (Self::Done, other) | (other, Self::Done) => other,
        }
    }
}

/// Why a reconciliation failed. It is tried again, later and later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] Status),
    /// An object does not have the form it should have.
    #[error("an object is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Something of the controller's own.
    #[error(transparent)]
    Own(#[from] Box<dyn std::error::Error + Send + Sync>),
}

type Reconcile =
    Arc<dyn Fn(ObjectName, Arc<Context>) -> BoxFuture<'static, Result<Next, Error>> + Send + Sync>;
type Keys = Arc<dyn Fn(&Delta, &Context) -> Vec<ObjectName> + Send + Sync>;
type Beside = Box<dyn FnOnce(Arc<Context>) -> BoxFuture<'static, ()> + Send>;

struct Source {
    resource: ResourceRef,
    selection: Selection,
    keys: Keys,
}

/// A control loop: what it watches, and what it does for each key.
///
/// # Guarantees
/// A key is never reconciled twice at the same time. It is reconciled after every change of what it depends on, at the
/// latest after the running reconciliation. A failure or a panic is tried again with growing waits. Nothing is reconciled
/// before all caches are synced.
pub struct Controller {
    name: &'static str,
    owner: OwnerKind,
    sources: Vec<Source>,
    beside: Vec<Beside>,
    workers: usize,
    reconcile: Option<Reconcile>,
}

#[derive(Clone, Copy)]
struct OwnerKind {
    group: &'static str,
    kind: &'static str,
    is_cluster_scoped: bool,
}

impl OwnerKind {
    fn key_of(self, child: &Meta) -> Option<ObjectName> {
        let owner = child.controller()?;
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let namespace = if self.is_cluster_scoped { "" } else { child.namespace() };
        (*owner.kind == *self.kind && group == self.group).then(|| ObjectName::new(namespace, &owner.name))
    }
}

impl Controller {
    /// A loop over the objects of a kind.
    pub fn of<K: Kind>(name: &'static str) -> Self {
        Self::of_some::<K>(name, |_| true)
    }

    /// A loop over the objects of a kind, for those changes that matter to it.
    pub fn of_some<K: Kind>(
        name: &'static str,
        matters: impl Fn(&Delta) -> bool + Send + Sync + 'static,
    ) -> Self {
        let owner = OwnerKind {
            group: K::GROUP,
            kind: K::KIND,
            is_cluster_scoped: TypeId::of::<<K as Resource>::Scope>() == TypeId::of::<ClusterResourceScope>(),
        };
        let controller =
            Self { name, owner, sources: Vec::new(), beside: Vec::new(), workers: 1, reconcile: None };
        controller.watches::<K>(
            move |delta, _| {
                if matters(delta) { vec![delta.key.clone()] } else { Vec::new() }
            },
        )
    }

    /// Objects of `C` whose managing controller is an object of this loop's kind put that one into the queue, before and
    /// after a change of owner.
    pub fn owns<C: Kind>(self) -> Self {
        let owner = self.owner;
        self.watches::<C>(move |delta, _| {
            let versions = [delta.old.as_deref(), delta.new.as_deref()];
            let mut keys: Vec<_> =
                versions.into_iter().flatten().filter_map(|object| owner.key_of(&object.meta)).collect();
            keys.dedup();
            keys
        })
    }

    /// Changes of `X` put those keys into the queue that `keys` names.
    pub fn watches<X: Kind>(
        self,
        keys: impl Fn(&Delta, &Context) -> Vec<ObjectName> + Send + Sync + 'static,
    ) -> Self {
        self.watches_some(ResourceRef::of::<X>(), Selection::default(), keys)
    }

    /// As [`Controller::watches`], for some objects of any resource.
    pub fn watches_some(
        mut self,
        resource: ResourceRef,
        selection: Selection,
        keys: impl Fn(&Delta, &Context) -> Vec<ObjectName> + Send + Sync + 'static,
    ) -> Self {
        self.sources.push(Source { resource, selection, keys: Arc::new(keys) });
        self
    }

    /// The caches of `X` are read by the loop, but their changes put nothing into the queue.
    pub fn reads<X: Kind>(self) -> Self {
        self.watches::<X>(|_, _| Vec::new())
    }

    /// A task that runs beside the workers once the caches are synced, until the controller ends.
    pub fn beside<F>(mut self, task: impl FnOnce(Arc<Context>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.beside.push(Box::new(move |context| task(context).boxed()));
        self
    }

    /// How many keys are reconciled at once; 1 if not said.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.max(1);
        self
    }

    /// What is done for each key. The object may be gone.
    pub fn reconcile<F>(mut self, f: impl Fn(ObjectName, Arc<Context>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        self.reconcile = Some(Arc::new(move |key, context| f(key, context).boxed()));
        self
    }

    /// The name, as the log shows it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Which resources it reads: its role in RBAC is derived from them.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceRef> {
        self.sources.iter().map(|source| &source.resource)
    }

    /// Runs until `shutdown`, then finishes what is being reconciled.
    pub async fn run(self, base: &Context, shutdown: CancellationToken) {
        let Some(reconcile) = self.reconcile else {
            tracing::error!(controller = self.name, "a controller without reconcile does nothing");
            return;
        };
        let context = Arc::new(base.for_controller(self.name));
        let mut feeds = JoinSet::new();
        let mut caches: Vec<AnyCache> = Vec::new();
        for source in self.sources {
            let cache = context.caches.any(source.resource, source.selection);
            feeds.spawn(feed(cache.clone(), source.keys, context.clone()));
            caches.push(cache);
        }
        let synced = async {
            for cache in &caches {
                cache.synced().await;
            }
        };
        tokio::select! {
            () = synced => {}
            () = shutdown.cancelled() => return,
        }
        for task in self.beside {
            feeds.spawn(task(context.clone()));
        }
        let mut workers = JoinSet::new();
        for _ in 0..self.workers {
            workers.spawn(work(self.name, context.clone(), reconcile.clone()));
        }
        shutdown.cancelled().await;
        context.queue.close();
        feeds.shutdown().await;
        while workers.join_next().await.is_some() {}
    }
}

async fn feed(cache: AnyCache, keys: Keys, context: Arc<Context>) {
    let mut changes = cache.subscribe();
    while let Some(delta) = changes.next().await {
        keys(&delta, &context).into_iter().for_each(|key| context.queue.add(key));
    }
}

async fn work(name: &'static str, context: Arc<Context>, reconcile: Reconcile) {
    while let Some(key) = context.queue.get().await {
        let span = tracing::debug_span!("reconcile", controller = name, %key);
        let run = AssertUnwindSafe(reconcile(key.clone(), context.clone())).catch_unwind();
        match run.instrument(span).await {
            Ok(Ok(next)) => {
                context.queue.forget(&key);
                if let Next::After(wait) = next {
                    context.queue.add_after(key.clone(), wait);
                }
            }
            Ok(Err(error)) => {
                // Losing a race, or a namespace that is going away, is daily business.
                let is_expected =
                    matches!(&error, Error::Api(status) if status.is_conflict() || status.code == 403);
                if is_expected {
                    tracing::debug!(controller = name, %key, %error, "reconciliation is tried again");
                } else {
                    tracing::warn!(controller = name, %key, %error, "reconciliation failed");
                }
                context.queue.add_rate_limited(key.clone());
            }
            Err(_) => {
                tracing::error!(controller = name, %key, "reconciliation panicked");
                context.queue.add_rate_limited(key.clone());
            }
        }
        context.queue.done(&key);
    }
}
