//! Custom resources: follows CustomResourceDefinitions, accepts their names, serves their objects and removes them with the
//! definition. Upstream: apiextensions-apiserver `pkg/apiserver/customresource_handler.go`, `pkg/controller`.
//!
//! Flow: a definition changes → its names are accepted → its rows are added → its conditions say so. The rows are there
//! before the definition says `Established`, so nobody who waits for that is disappointed.

mod clean_up;
mod convert;

use crate::inward;
use crate::present::Convert;
use crate::server::Server;
use crate::watch_cache::{Interest, Snapshot, WatchCache};
use api::custom::{self, Definition};
use api::{Status, Timestamp};
use convert::WebhookConverter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// How long to wait before a definition that could not be served or written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a definition is written.
fn path_of(name: &str, subresource: &str) -> String {
    format!("/apis/{GROUP}/v1/{PLURAL}/{name}{subresource}")
}

/// Serves what is defined already, then follows changes until the server is gone. Does nothing in a server without
/// definitions.
pub(crate) async fn start(server: &Arc<Server>) {
    let cache = server.registry().table().cache(GROUP, PLURAL).cloned();
    let Some(cache) = cache else { return };
    let own = |entry: &crate::registry::Entry| (entry.resource.group.clone(), entry.resource.plural.clone());
    let mut follower = Follower {
        server: Arc::downgrade(server),
        built_in: server.registry().table().entries().map(own).collect(),
        served: BTreeMap::new(),
        ending: BTreeSet::new(),
    };
    follower.serve(&definitions(&cache.snapshot())).await;
    tokio::spawn(follower.run(cache, server.stop_token()));
}

fn definitions(snapshot: &Snapshot) -> Vec<Definition> {
    let decode = |item: &Arc<crate::watch_cache::Item>| item.object.decode().ok().map(Definition);
    snapshot.items.values().filter_map(decode).collect()
}

/// What of a definition decides how its objects are served.
#[derive(Clone, PartialEq, Eq)]
struct Served {
    uid: String,
    generation: i64,
    is_terminating: bool,
    names: String,
    group: String,
    plural: String,
}

struct Follower {
    server: Weak<Server>,
    /// Groups and plurals that are served whatever definitions say: kinds that come with a definition, as clients look for one.
    built_in: BTreeSet<(String, String)>,
    /// What is served, by name of the definition.
    served: BTreeMap<String, Served>,
    /// UIDs of definitions whose objects are being removed.
    ending: BTreeSet<String>,
}

impl Follower {
    async fn run(mut self, cache: Arc<WatchCache>, stop: CancellationToken) {
        loop {
            let Ok((snapshot, mut changes)) = cache.watch_now(Interest::default()) else { return };
            let mut all = definitions(&snapshot);
            loop {
                let again = self.sync(&all).await;
                let retry = async {
                    match again {
                        true => tokio::time::sleep(RETRY_AFTER).await,
                        false => std::future::pending().await,
                    }
                };
                let change = tokio::select! {
                    change = changes.next() => change,
                    () = retry => { all = definitions(&cache.snapshot()); continue }
                    () = stop.cancelled() => return,
                };
                if change.is_none() {
                    break;
                }
                all = definitions(&cache.snapshot());
            }
        }
    }

    /// Brings everything up to date. Whether something failed and must be tried again.
    async fn sync(&mut self, all: &[Definition]) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        let mut again = false;
        let now = Timestamp::now();
        // Names are given one after another: each sees what the one before got.
        let mut current = all.to_vec();
        for index in 0..current.len() {
            let unready = unready(&current[index]);
            let Some(new) = custom::with_names(&current[index], &current, unready, now) else { continue };
            if new.is_served()
                && let Err(status) = self.serve_one(&server, &new).await
            {
                tracing::error!(%status, name = new.name(), "a custom resource cannot be served");
                again = true;
                continue;
            }
            let written =
                inward::call(&server, http::Method::PUT, &path_of(new.name(), "/status"), &new.0).await;
            match written {
                Ok(value) => current[index] = Definition(value),
                // Whoever was faster made a change that comes here, too.
                Err(status) if status.is_conflict() || status.is_not_found() => {}
                Err(status) => {
                    tracing::warn!(%status, name = new.name(), "the status of a definition cannot be written");
                    again = true;
                }
            }
        }
        again |= self.serve(&current).await;
        for definition in current.iter().filter(|own| own.wants_clean_up()) {
            if self.ending.insert(definition.uid().to_owned()) {
                tokio::spawn(clean_up::run(
                    self.server.clone(),
                    definition.name().to_owned(),
                    definition.uid().to_owned(),
                ));
            }
        }
        self.ending.retain(|uid| current.iter().any(|own| own.uid() == uid));
        again
    }

    /// Adds and removes rows. Whether something failed and must be tried again.
    async fn serve(&mut self, all: &[Definition]) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        let mut again = false;
        let gone: Vec<String> = self
            .served
            .keys()
            .filter(|name| !all.iter().any(|own| own.name() == *name && own.is_served()))
            .cloned()
            .collect();
        for name in gone {
            if let Some(served) = self.served.remove(&name) {
                server.registry().remove(&served.group, &served.plural, &[]).await;
            }
        }
        for definition in all.iter().filter(|own| own.is_served()) {
            if let Err(status) = self.serve_one(&server, definition).await {
                tracing::error!(%status, name = definition.name(), "a custom resource cannot be served");
                again = true;
            }
        }
        again
    }

    async fn serve_one(&mut self, server: &Arc<Server>, definition: &Definition) -> Result<(), Status> {
        if self.built_in.contains(&(definition.group().to_owned(), definition.plural().to_owned())) {
            return Ok(());
        }
        let served = Served {
            uid: definition.uid().to_owned(),
            generation: definition.generation(),
            is_terminating: definition.is_terminating(),
            names: definition.0["status"]["acceptedNames"].to_string(),
            group: definition.group().to_owned(),
            plural: definition.plural().to_owned(),
        };
        let before = self.served.get(definition.name());
        if before == Some(&served) {
            return Ok(());
        }
        let registry = server.registry();
        if before.is_some_and(|before| before.uid != served.uid) {
            registry.remove(&served.group, &served.plural, &[]).await;
        }
        let changed = before.is_some_and(|before| before.generation != served.generation);
        let rows = custom::rows(definition)?;
        let versions: Vec<String> = rows.iter().map(|row| row.version.clone()).collect();
        let conversion = &definition.0["spec"]["conversion"];
        let converter = (conversion["strategy"] == "Webhook").then(|| -> Arc<dyn Convert> {
            let client = conversion["webhook"]["clientConfig"].clone();
            Arc::new(WebhookConverter { server: self.server.clone(), client })
        });
        registry.add_converted(rows, converter).await?;
        let keep: Vec<&str> = versions.iter().map(String::as_str).collect();
        registry.remove(&served.group, &served.plural, &keep).await;
        let cache = registry.table().cache(&served.group, &served.plural).cloned();
        if let Some(cache) = cache.filter(|_| changed) {
            // Watchers see objects as their version was when they came: they have to come again.
            cache.close();
        }
        self.served.insert(definition.name().to_owned(), served);
        Ok(())
    }
}

/// Why a definition is not established although its names are accepted.
fn unready(definition: &Definition) -> Option<(&'static str, &'static str)> {
    let bundle = definition.0.pointer("/spec/conversion/webhook/clientConfig/caBundle")?.as_str()?;
    let has_certificate = crate::webhook::is_bundle(bundle);
    (!has_certificate).then_some(("InvalidCABundle", "The conversion webhook CABundle is invalid"))
}
