//! The few other objects that a pod's containers are made from, and who tells when they change.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service};
use std::sync::Arc;

/// Reads config maps, secrets and services, as the API shows them now. Reading never waits.
pub(crate) trait Objects: Send + Sync {
    /// A config map.
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap>;
    /// A secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<Secret>;
    /// The services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Service>;
    /// A claim.
    fn claim(&self, namespace: &str, name: &str) -> Option<PersistentVolumeClaim>;
    /// A volume of the cluster.
    fn persistent_volume(&self, name: &str) -> Option<PersistentVolume>;
}

/// All objects of the cluster, through the shared caches of the process.
pub(crate) struct CachedObjects {
    config_maps: client::Cache<ConfigMap>,
    secrets: client::Cache<Secret>,
    services: client::Cache<Service>,
    claims: client::Cache<PersistentVolumeClaim>,
    volumes: client::Cache<PersistentVolume>,
}

impl CachedObjects {
    /// Starts the caches.
    pub(crate) fn new(caches: &client::Caches) -> Self {
        Self {
            config_maps: caches.of(),
            secrets: caches.of(),
            services: caches.of(),
            claims: caches.of(),
            volumes: caches.of(),
        }
    }

    /// Waits until each has been read once.
    pub(crate) async fn synced(&self) {
        tokio::join!(
            self.config_maps.synced(),
            self.secrets.synced(),
            self.services.synced(),
            self.claims.synced(),
            self.volumes.synced()
        );
    }

    /// The caches whose changes files in volumes follow.
    pub(crate) fn followed(&self) -> [(Followed, client::AnyCache); 2] {
        [(Followed::ConfigMap, (*self.config_maps).clone()), (Followed::Secret, (*self.secrets).clone())]
    }
}

impl Objects for CachedObjects {
    fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
        self.config_maps.read(namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
        self.secrets.read(namespace, name)
    }

    fn services(&self, namespace: &str) -> Vec<Service> {
        self.services.read_all(namespace)
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<PersistentVolumeClaim> {
        self.claims.read(namespace, name)
    }

    fn persistent_volume(&self, name: &str) -> Option<PersistentVolume> {
        self.volumes.read("", name)
    }
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

/// Shared objects.
pub(crate) type SharedObjects = Arc<dyn Objects>;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Objects in a map, for tables.
    #[derive(Default)]
    pub(crate) struct Fixed {
        pub(crate) config_maps: parking_lot::Mutex<HashMap<String, ConfigMap>>,
        pub(crate) secrets: parking_lot::Mutex<HashMap<String, Secret>>,
        pub(crate) services: Vec<Service>,
    }

    impl Objects for Fixed {
        fn config_map(&self, namespace: &str, name: &str) -> Option<ConfigMap> {
            self.config_maps.lock().get(&format!("{namespace}/{name}")).cloned()
        }

        fn secret(&self, namespace: &str, name: &str) -> Option<Secret> {
            self.secrets.lock().get(&format!("{namespace}/{name}")).cloned()
        }

        fn services(&self, namespace: &str) -> Vec<Service> {
            let of = |service: &&Service| service.metadata.namespace.as_deref() == Some(namespace);
            self.services.iter().filter(of).cloned().collect()
        }

        fn claim(&self, _: &str, _: &str) -> Option<PersistentVolumeClaim> {
            None
        }

        fn persistent_volume(&self, _: &str) -> Option<PersistentVolume> {
            None
        }
    }
}
