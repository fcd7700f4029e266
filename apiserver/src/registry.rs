//! The live resource table: rows can come and go (custom resources), each stored one has a watch cache per home.

use crate::hooks::{Handler, Transform};
use crate::present::{Convert, home_api_version};
use crate::storage::Storage;
use crate::watch_cache::WatchCache;
use api::resource::Home;
use api::{Lookup, Object, Resource, Status};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A row with what serves it.
#[derive(Clone)]
pub struct Entry {
    /// The row.
    pub resource: Arc<Resource>,
    /// The objects; absent for computed resources.
    pub cache: Option<Arc<WatchCache>>,
    /// Group and version of the row, as `apiVersion` says it.
    pub api_version: Arc<str>,
    /// The same of what is kept.
    pub home_api_version: Arc<str>,
    /// Who converts between versions where the row's rules do not.
    pub converter: Option<Arc<dyn Convert>>,
}

/// A group version that is served by somebody else.
#[derive(Clone)]
pub struct Delegate {
    /// Who.
    pub handler: Arc<dyn Handler>,
    /// The `APIResourceList` that it last told; null where it told none yet.
    pub resources: Arc<serde_json::Value>,
    /// Whether it answered when it was last asked.
    pub is_available: bool,
}

/// The table as it is at one moment.
#[derive(Clone, Default)]
pub struct Table {
    /// By group, version and plural.
    rows: BTreeMap<String, BTreeMap<String, BTreeMap<String, Entry>>>,
    /// Caches by home group and plural.
    caches: HashMap<(String, String), Arc<WatchCache>>,
    /// Groups and versions that are served by somebody else.
    delegates: BTreeMap<(String, String), Delegate>,
    /// Counts the changes of the table.
    generation: u64,
}

impl Table {
    /// The row of a group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Entry> {
        self.rows.get(group)?.get(version)?.get(plural)
    }

    /// Every row, ordered by group, version and plural.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values)
    }

    /// The rows of one group and version, ordered by plural.
    pub fn entries_of(&self, group: &str, version: &str) -> impl Iterator<Item = &Entry> {
        self.rows.get(group).and_then(|versions| versions.get(version)).into_iter().flat_map(BTreeMap::values)
    }

    /// The row of a kind, for references that name one.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Entry> {
        self.entries_of(group, version).find(|entry| entry.resource.kind == kind)
    }

    /// The cache of a home.
    pub fn cache(&self, group: &str, plural: &str) -> Option<&Arc<WatchCache>> {
        self.caches.get(&(group.to_owned(), plural.to_owned()))
    }

    /// Who serves a group and version, where that is not this server.
    pub fn delegate(&self, group: &str, version: &str) -> Option<&Delegate> {
        if self.delegates.is_empty() {
            return None;
        }
        self.delegates.get(&(group.to_owned(), version.to_owned()))
    }

    /// Groups and versions that are served by somebody else.
    pub fn delegates(&self) -> impl Iterator<Item = (&str, &str, &Delegate)> {
        self.delegates.iter().map(|((group, version), own)| (group.as_str(), version.as_str(), own))
    }

    /// Another number after every change of the table.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// The live table, the caches behind it and the feed that fills them.
pub struct Registry {
    table: ArcSwap<Table>,
    /// Changes of the table happen one after another.
    changing: tokio::sync::Mutex<()>,
    generation: tokio::sync::watch::Sender<u64>,
    storage: Arc<Storage>,
}

impl Registry {
    /// A table without rows over a store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        store: Arc<dyn store::Store>,
        transforms: HashMap<(String, String), Arc<dyn Transform>>,
    ) -> Result<Arc<Self>, Status> {
        let storage = Storage::open(store, transforms).await?;
        Ok(Arc::new(Self {
            table: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
            generation: tokio::sync::watch::Sender::new(0),
            storage,
        }))
    }

    /// The table as it is now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    /// Tells every change of the table, by its generation.
    pub fn changes_of_table(&self) -> tokio::sync::watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Where objects are kept.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Adds rows, or replaces those of the same group, version and plural, and loads the caches they need. When it
    /// returns, they are served.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn add(&self, rows: Vec<Resource>) -> Result<(), Status> {
        self.add_converted(rows, None).await
    }

    /// The same for rows whose versions `converter` converts between.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn add_converted(
        &self,
        rows: Vec<Resource>,
        converter: Option<Arc<dyn Convert>>,
    ) -> Result<(), Status> {
        let _changing = self.changing.lock().await;
        let mut table = Table::clone(&self.table.load());
        let homes: Vec<_> =
            rows.iter().filter_map(home_key).filter(|key| !table.caches.contains_key(key)).collect();
        for row in rows {
            let cache = home_key(&row).map(|key| {
                let open = || self.storage.open_cache(&key.0, &key.1);
                table.caches.entry(key.clone()).or_insert_with(open).clone()
            });
            let entry = Entry {
                cache,
                api_version: row.api_version().into(),
                home_api_version: home_api_version(&row.home).into(),
                converter: converter.clone(),
                resource: Arc::new(row),
            };
            let row = &entry.resource;
            let versions = table.rows.entry(row.group.clone()).or_default();
            versions.entry(row.version.clone()).or_default().insert(row.plural.clone(), entry.clone());
        }
        table.share_fields();
        let loads = homes.into_iter().collect::<std::collections::BTreeSet<_>>();
        let loads =
            loads.iter().filter_map(|key| table.caches.get(key)).map(|cache| self.storage.load(cache));
        futures::future::try_join_all(loads).await?;
        self.swap(table);
        Ok(())
    }

    /// Stops serving a group's resource in every version but those of `keep`. Its objects stay in the store; watches end.
    pub async fn remove(&self, group: &str, plural: &str, keep: &[&str]) {
        let _changing = self.changing.lock().await;
        let mut table = Table::clone(&self.table.load());
        if let Some(versions) = table.rows.get_mut(group) {
            for (version, rows) in
                versions.iter_mut().filter(|(version, _)| !keep.contains(&version.as_str()))
            {
                if rows.remove(plural).is_some() {
                    tracing::debug!(group, version, plural, "no longer served");
                }
            }
            versions.retain(|_, rows| !rows.is_empty());
        }
        table.rows.retain(|_, versions| !versions.is_empty());
        let used: std::collections::HashSet<_> =
            table.entries().filter_map(|entry| home_key(&entry.resource)).collect();
        table.caches.retain(|key, cache| {
            let stays = used.contains(key);
            if !stays {
                self.storage.close_cache(cache);
            }
            stays
        });
        self.swap(table);
    }

    /// Lets somebody else serve a whole group and version, or nobody but this server.
    pub async fn delegate(&self, group: &str, version: &str, delegate: Option<Delegate>) {
        let _changing = self.changing.lock().await;
        let mut table = Table::clone(&self.table.load());
        let key = (group.to_owned(), version.to_owned());
        match delegate {
            Some(delegate) => table.delegates.insert(key, delegate),
            None => table.delegates.remove(&key),
        };
        self.swap(table);
    }

    fn swap(&self, mut table: Table) {
        table.generation += 1;
        let generation = table.generation;
        self.table.store(Arc::new(table));
        self.generation.send_replace(generation);
    }
}

/// Group and plural of the home, where the resource has one.
fn home_key(resource: &Resource) -> Option<(String, String)> {
    match &resource.home {
        Home::Stored { group, plural, .. } => {
            let group = if group.is_empty() { "core" } else { group };
            Some((group.to_owned(), plural.clone()))
        }
        Home::Computed => None,
    }
}

/// Whether a row's objects look in the store as the row shows them, but for `apiVersion`.
pub fn is_as_kept(resource: &Resource) -> bool {
    !resource.strategy.converts()
}

impl Table {
    /// Makes every cache carry the fields that its rows select by.
    fn share_fields(&self) {
        let mut fields: HashMap<(String, String), Vec<api::resource::Field>> = HashMap::new();
        for entry in self.entries().filter(|entry| is_as_kept(&entry.resource)) {
            let Some(key) = home_key(&entry.resource) else { continue };
            let shared = fields.entry(key).or_default();
            for field in &entry.resource.fields {
                if !shared.iter().any(|own| own.name == field.name && own.pointer == field.pointer) {
                    shared.push(field.clone());
                }
            }
        }
        for (key, fields) in fields {
            if let Some(cache) = self.caches.get(&key) {
                cache.set_fields(fields);
            }
        }
    }

    /// The cache that holds a resource of an API group, whatever its version.
    fn cache_of(&self, group: &str, plural: &str) -> Option<&Arc<WatchCache>> {
        let versions = self.rows.get(group)?;
        versions.values().find_map(|rows| rows.get(plural)).and_then(|entry| entry.cache.as_ref())
    }
}

impl Lookup for Registry {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let table = self.table.load();
        table.cache_of(group, plural)?.get(namespace, name).map(|item| item.object.clone())
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        let table = self.table.load();
        let Some(cache) = table.cache_of(group, plural) else { return Vec::new() };
        cache.snapshot().range(namespace, None).map(|item| item.object.clone()).collect()
    }

    fn changes(&self, group: &str, plural: &str) -> u64 {
        let table = self.table.load();
        table.cache_of(group, plural).map_or(0, |cache| cache.last_change())
    }
}
