//! The few other objects that pods are made from, and who tells when they change.
//!
//! Beside an API server in the same process the shared caches hold all of them anyway. A node that is elsewhere may (and should) only
//! see those that its pods name: it watches each by name, as long as a pod uses it.

use crate::spec::PodDef;
use crate::volume;
use api::{Object, Status};
use client::{AnyCache, Cache, Caches, Client, Delta, Kind, Selection};
use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    ConfigMap, EnvVarSource, PersistentVolume, PersistentVolumeClaim, Secret, Service,
};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// How long a pod's start waits for objects that nobody has read yet. After that they count as missing, and are tried again.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes that wait to be told. Who falls behind is waited for.
const CHANGES_MAX: usize = 256;

/// Reads config maps, secrets and services, as the API shows them now. Reading those never waits.
pub(crate) trait Objects: Send + Sync {
    /// A config map.
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
    /// A secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
    /// A service.
    fn service(&self, namespace: &str, name: &str) -> Option<Service>;
    /// The services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Service>;
    /// A claim.
    fn claim<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<PersistentVolumeClaim, Status>>;
    /// A volume of the cluster.
    fn persistent_volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<PersistentVolume, Status>>;
    /// Waits until everything that the pod names has been looked for once.
    fn settled<'a>(&'a self, def: &'a PodDef) -> BoxFuture<'a, ()>;
}

/// Kinds of objects whose changes reach running pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Followed {
    /// `ConfigMap`.
    ConfigMap,
    /// `Secret`.
    Secret,
}

/// An object that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// Its kind.
    pub kind: Followed,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// All objects that a pod names: for volumes, variables and pulling images.
pub(crate) fn references(def: &PodDef) -> HashSet<Reference> {
    let namespace = def.namespace();
    let of = |kind, name: &str| Reference { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let mut list: HashSet<Reference> = volume::references(def).into_iter().collect();
    list.extend(def.spec().image_pull_secrets.iter().flatten().map(|own| of(Followed::Secret, &own.name)));
    for container in &def.containers {
        for from in container.spec.env_from.iter().flatten() {
            list.extend(from.config_map_ref.iter().map(|own| of(Followed::ConfigMap, &own.name)));
            list.extend(from.secret_ref.iter().map(|own| of(Followed::Secret, &own.name)));
        }
        for source in container.spec.env.iter().flatten().filter_map(|own| own.value_from.as_ref()) {
            let EnvVarSource { config_map_key_ref, secret_key_ref, .. } = source;
            list.extend(config_map_key_ref.iter().map(|own| of(Followed::ConfigMap, &own.name)));
            list.extend(secret_key_ref.iter().map(|own| of(Followed::Secret, &own.name)));
        }
    }
    list
}

/// The objects of the cluster that pods of this node may need.
pub(crate) struct ClusterObjects {
    client: Client,
    caches: Caches,
    services: Cache<Service>,
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
    changes: mpsc::Sender<Reference>,
    users: Mutex<HashMap<String, HashSet<Reference>>>,
}

enum Kept<K> {
    /// All of them, with the task that tells changes.
    All(Cache<K>, AbortHandle),
    /// One cache for each that a pod names.
    Named(Mutex<HashMap<(String, String), Named<K>>>),
}

struct Named<K> {
    cache: Cache<K>,
    task: AbortHandle,
    users: usize,
}

impl<K> Drop for Named<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Drop for Kept<K> {
    fn drop(&mut self) {
        if let Self::All(_, task) = self {
            task.abort();
        }
    }
}

impl<K: Kind> Kept<K> {
    fn new(kind: Followed, caches: &Caches, changes: &mpsc::Sender<Reference>, all: bool) -> Self {
        if !all {
            return Self::Named(Mutex::default());
        }
        let cache = caches.of::<K>();
        let task = tokio::spawn(tell(kind, (*cache).clone(), changes.clone())).abort_handle();
        Self::All(cache, task)
    }

    fn read(&self, namespace: &str, name: &str) -> Option<K> {
        match self {
            Self::All(cache, _) => cache.read(namespace, name),
            Self::Named(named) => {
                let cache = named.lock().get(&(namespace.to_owned(), name.to_owned()))?.cache.clone();
                cache.read(namespace, name)
            }
        }
    }

    fn follow(&self, reference: &Reference, caches: &Caches, changes: &mpsc::Sender<Reference>) {
        let Self::Named(named) = self else { return };
        let key = (reference.namespace.clone(), reference.name.clone());
        let mut named = named.lock();
        let one = named.entry(key).or_insert_with(|| {
            let cache = caches.select::<K>(Selection {
                namespace: reference.namespace.clone(),
                fields: Some(format!("metadata.name={}", reference.name)),
                ..Selection::default()
            });
            let task = tokio::spawn(tell(reference.kind, (*cache).clone(), changes.clone())).abort_handle();
            Named { cache, task, users: 0 }
        });
        one.users += 1;
    }

    fn unfollow(&self, reference: &Reference, caches: &Caches) {
        let Self::Named(named) = self else { return };
        let key = (reference.namespace.clone(), reference.name.clone());
        let mut named = named.lock();
        let Some(one) = named.get_mut(&key) else { return };
        one.users -= 1;
        if one.users == 0 {
            caches.stop(&one.cache);
            named.remove(&key);
        }
    }

    fn cache_of(&self, reference: &Reference) -> Option<AnyCache> {
        match self {
            Self::All(cache, _) => Some((**cache).clone()),
            Self::Named(named) => {
                let key = (reference.namespace.clone(), reference.name.clone());
                named.lock().get(&key).map(|one| (*one.cache).clone())
            }
        }
    }
}

/// Tells which object has changed, each time one does.
async fn tell(kind: Followed, cache: AnyCache, changes: mpsc::Sender<Reference>) {
    let mut deltas = cache.subscribe();
    while let Some(delta) = deltas.next().await {
        let Delta::<Object> { key, .. } = delta;
        let reference = Reference { kind, namespace: key.namespace.to_string(), name: key.name.to_string() };
        if changes.send(reference).await.is_err() {
            return;
        }
    }
}

impl ClusterObjects {
    /// Starts reading. The receiver hears which config maps and secrets have changed.
    pub(crate) fn new(client: &Client, caches: &Caches) -> (Self, mpsc::Receiver<Reference>) {
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        let all = caches.client().is_in_process();
        let objects = Self {
            client: client.clone(),
            services: caches.of(),
            config_maps: Kept::new(Followed::ConfigMap, caches, &changes, all),
            secrets: Kept::new(Followed::Secret, caches, &changes, all),
            caches: caches.clone(),
            changes,
            users: Mutex::default(),
        };
        (objects, changed)
    }

    /// Waits until what every pod needs has been read once.
    pub(crate) async fn synced(&self) {
        self.services.synced().await;
        if let (Kept::All(maps, _), Kept::All(secrets, _)) = (&self.config_maps, &self.secrets) {
            tokio::join!(maps.synced(), secrets.synced());
        }
    }

    /// Says which objects a pod names now; none when it has gone.
    pub(crate) fn follow(&self, uid: &str, references: HashSet<Reference>) {
        let mut users = self.users.lock();
        let old = users.remove(uid).unwrap_or_default();
        for reference in references.difference(&old) {
            match reference.kind {
                Followed::ConfigMap => self.config_maps.follow(reference, &self.caches, &self.changes),
                Followed::Secret => self.secrets.follow(reference, &self.caches, &self.changes),
            }
        }
        for reference in old.difference(&references) {
            match reference.kind {
                Followed::ConfigMap => self.config_maps.unfollow(reference, &self.caches),
                Followed::Secret => self.secrets.unfollow(reference, &self.caches),
            }
        }
        if !references.is_empty() {
            users.insert(uid.to_owned(), references);
        }
    }
}

impl Objects for ClusterObjects {
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        self.config_maps.read(namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        self.secrets.read(namespace, name)
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        self.services.read(namespace, name)
    }

    fn services(&self, namespace: &str) -> Vec<Service> {
        self.services.read_all(namespace)
    }

    fn claim<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<PersistentVolumeClaim, Status>> {
        Box::pin(async move { self.client.namespaced::<PersistentVolumeClaim>(namespace).get(name).await })
    }

    fn persistent_volume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<PersistentVolume, Status>> {
        Box::pin(async move { self.client.api::<PersistentVolume>().get(name).await })
    }

    fn settled<'a>(&'a self, def: &'a PodDef) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let caches = references(def).into_iter().filter_map(|reference| match reference.kind {
                Followed::ConfigMap => self.config_maps.cache_of(&reference),
                Followed::Secret => self.secrets.cache_of(&reference),
            });
            let waiting: Vec<AnyCache> = caches.filter(|cache| !cache.is_synced()).collect();
            let all = async {
                for cache in &waiting {
                    cache.synced().await;
                }
            };
            // Late objects are told as changes, which the worker hears.
            let _ = tokio::time::timeout(SETTLE_TIMEOUT, all).await;
        })
    }
}

/// Shared objects.
pub(crate) type SharedObjects = Arc<dyn Objects>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// Objects in a map, for tables.
    #[derive(Default)]
    pub(crate) struct Fixed {
        pub(crate) config_maps: Mutex<HashMap<String, ConfigMap>>,
        pub(crate) secrets: Mutex<HashMap<String, Secret>>,
        pub(crate) services: Vec<Service>,
    }

    impl Objects for Fixed {
        fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
            self.config_maps.lock().get(&format!("{namespace}/{name}")).cloned()
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
            self.secrets.lock().get(&format!("{namespace}/{name}")).cloned()
        }

        fn service(&self, namespace: &str, name: &str) -> Option<Service> {
            self.services(namespace).into_iter().find(|own| own.metadata.name.as_deref() == Some(name))
        }

        fn services(&self, namespace: &str) -> Vec<Service> {
            let of = |service: &&Service| service.metadata.namespace.as_deref() == Some(namespace);
            self.services.iter().filter(of).cloned().collect()
        }

        fn claim<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<PersistentVolumeClaim, Status>> {
            Box::pin(async { Err(Status::unavailable("none here")) })
        }

        fn persistent_volume<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<PersistentVolume, Status>> {
            Box::pin(async { Err(Status::unavailable("none here")) })
        }

        fn settled<'a>(&'a self, _: &'a PodDef) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    #[test]
    fn a_pod_s_references_are_all_it_names() {
        let def = crate::spec::tests::pod(json!({"metadata": {"namespace": "ns"}, "spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"name": "v", "configMap": {"name": "files"}}],
            "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "all"}}],
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}}]}]}}));
        let mut names: Vec<String> = references(&def).into_iter().map(|one| one.name).collect();
        names.sort();
        assert_eq!(names, ["all", "files", "one", "pull"]);
    }
}
