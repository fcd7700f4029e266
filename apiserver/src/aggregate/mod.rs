//! Aggregation: group versions that other servers serve, and the APIServices of those that this one serves itself.
//! Upstream: kube-aggregator.
//!
//! Flow: an APIService with a service → a [`remote::Remote`] that is checked again and again → its group version goes there
//! and shows up in discovery. The table of rows → an APIService for each of its group versions.

mod local;
mod remote;

use crate::inward;
use crate::registry::Delegate;
use crate::server::Server;
use crate::watch_cache::{Interest, WatchCache};
use api::{Status, Timestamp};
use arc_swap::ArcSwap;
use http::Method;
use remote::{Finding, Remote, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// How long to wait before what failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a server that answers is checked. Upstream: the informers' resync.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// How often one that does not answer is checked.
const CHECK_AGAIN_EVERY: Duration = Duration::from_secs(2);
/// Streams at once through other servers; each holds two buffers and two sockets.
const STREAMS_MAX: usize = 1000;

/// The certificate that this server shows to others, so that they believe in whose name a request comes.
pub struct FrontProxy {
    /// Chain and key, in PEM.
    pair: ArcSwap<(String, String)>,
    generation: AtomicU64,
}

impl FrontProxy {
    /// Chain and key are PEM.
    pub fn new(chain_pem: String, key_pem: String) -> Self {
        Self { pair: ArcSwap::from_pointee((chain_pem, key_pem)), generation: AtomicU64::new(1) }
    }

    /// Shows a renewed certificate from now on.
    pub fn renew(&self, chain_pem: String, key_pem: String) {
        self.pair.store(Arc::new((chain_pem, key_pem)));
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn pair(&self) -> Arc<(String, String)> {
        self.pair.load_full()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Follows APIServices and the table until the server is gone. Does nothing in a server without APIServices.
pub(crate) fn start(server: &Arc<Server>, front_proxy: Option<Arc<FrontProxy>>) {
    let cache = server.registry().table().cache(GROUP, PLURAL).cloned();
    let Some(cache) = cache else { return };
    let aggregator = Aggregator {
        server: Arc::downgrade(server),
        front_proxy,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        remotes: BTreeMap::new(),
    };
    let table = server.registry().changes_of_table();
    tokio::spawn(aggregator.run(cache, table, server.stop_token()));
}

/// A running check of a remote; dropping it ends the check.
struct Running {
    spec: Spec,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Aggregator {
    server: Weak<Server>,
    front_proxy: Option<Arc<FrontProxy>>,
    streams: Arc<Semaphore>,
    /// By name of the APIService.
    remotes: BTreeMap<String, Running>,
}

fn services(cache: &WatchCache) -> BTreeMap<String, Value> {
    let snapshot = cache.snapshot();
    let decode = |item: &Arc<crate::watch_cache::Item>| {
        let value: Value = item.object.decode().ok()?;
        Some((item.object.meta.key.name.to_string(), value))
    };
    snapshot.items.values().filter_map(decode).collect()
}

impl Aggregator {
    async fn run(mut self, cache: Arc<WatchCache>, mut table: Receiver<u64>, stop: CancellationToken) {
        loop {
            let Ok((_, mut changes)) = cache.watch_now(Interest::default()) else { return };
            loop {
                let again = self.sync(&cache).await;
                let retry = async {
                    match again {
                        true => tokio::time::sleep(RETRY_AFTER).await,
                        false => std::future::pending().await,
                    }
                };
                tokio::select! {
                    change = changes.next() => if change.is_none() { break },
                    changed = table.changed() => if changed.is_err() { return },
                    () = retry => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Brings everything up to date. Whether something failed and must be tried again.
    async fn sync(&mut self, cache: &WatchCache) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        let all = services(cache);
        self.sync_remotes(&server, &all).await;
        let wanted = local::wanted(&server.registry().table());
        let mut again = false;
        for (name, service) in &wanted {
            let written = match all.get(name) {
                None => inward::call(&server, Method::POST, PATH, service).await,
                Some(own) => match local::changed(own, service) {
                    Some(new) => inward::call(&server, Method::PUT, &format!("{PATH}/{name}"), &new).await,
                    None => continue,
                },
            };
            again |= failed(name, written);
        }
        for (name, service) in
            all.iter().filter(|(name, own)| !wanted.contains_key(*name) && local::goes(own))
        {
            if service["metadata"]["deletionTimestamp"].is_null() {
                let deleted =
                    inward::call(&server, Method::DELETE, &format!("{PATH}/{name}"), &Value::Null).await;
                again |= failed(name, deleted);
            }
        }
        again
    }

    async fn sync_remotes(&mut self, server: &Arc<Server>, all: &BTreeMap<String, Value>) {
        let wanted: BTreeMap<&String, Spec> =
            all.iter().filter_map(|(name, own)| Some((name, Spec::of(own)?))).collect();
        let gone: Vec<String> =
            self.remotes.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for name in gone {
            if let Some(running) = self.remotes.remove(&name) {
                server.registry().delegate(&running.spec.group, &running.spec.version, None).await;
            }
        }
        for (name, spec) in wanted {
            if self.remotes.get(name).is_some_and(|running| running.spec == spec) {
                continue;
            }
            let remote = Remote::new(
                self.server.clone(),
                spec.clone(),
                self.front_proxy.clone(),
                self.streams.clone(),
            );
            let task = tokio::spawn(follow(self.server.clone(), name.clone(), Arc::new(remote)));
            self.remotes.insert(name.clone(), Running { spec, task });
        }
    }
}

/// Whether a write must be tried again. Who was faster made a change that is heard of.
fn failed(name: &str, written: Result<Value, Status>) -> bool {
    match written {
        Ok(_) => false,
        Err(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found() => false,
        Err(status) => {
            tracing::warn!(%status, name, "an APIService cannot be written");
            true
        }
    }
}

/// Checks a remote as long as it is wanted, and tells what it finds.
async fn follow(server: Weak<Server>, name: String, remote: Arc<Remote>) {
    let mut told: Option<Finding> = None;
    // What it had when it was last there: discovery shows that on.
    let mut resources = Arc::new(Value::Null);
    loop {
        let finding = remote.check().await;
        let Some(server) = server.upgrade() else { return };
        if told.as_ref() != Some(&finding) {
            if finding.is_available {
                resources = Arc::new(finding.resources.clone());
            }
            let (handler, is_available) = (remote.clone(), finding.is_available);
            let delegate = Delegate { handler, resources: resources.clone(), is_available };
            server.registry().delegate(&remote.spec.group, &remote.spec.version, Some(delegate)).await;
            told = tell(&server, &name, &finding).await.then(|| finding.clone());
        }
        let wait = if finding.is_available { CHECK_EVERY } else { CHECK_AGAIN_EVERY };
        let cache = server.registry().table().cache("discovery.k8s.io", "endpointslices").cloned();
        let interest = Interest { namespace: remote.spec.namespace.as_str().into(), ..Interest::default() };
        let watch = cache.and_then(|cache| cache.watch_now(interest).ok());
        let endpoints = async {
            match watch {
                Some((_, mut changes)) => {
                    changes.next().await;
                }
                None => std::future::pending().await,
            }
        };
        let stop = server.stop_token();
        drop(server);
        tokio::select! {
            () = endpoints => {}
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Says in the APIService how its server is. Whether it says so now.
async fn tell(server: &Arc<Server>, name: &str, finding: &Finding) -> bool {
    let path = format!("{PATH}/{name}");
    let Ok(mut service) = inward::call(server, Method::GET, &path, &Value::Null).await else { return false };
    let status = if finding.is_available { "True" } else { "False" };
    let conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    let old = conditions.into_iter().find(|own| own["type"] == "Available").cloned().unwrap_or(Value::Null);
    let since = match old["status"] == status {
        true => old["lastTransitionTime"].clone(),
        false => crate::metadata::time(Timestamp::now()),
    };
    let condition = json!({
        "type": "Available", "status": status, "reason": finding.reason, "message": finding.message,
        "lastTransitionTime": since,
    });
    if condition == old {
        return true;
    }
    service["status"]["conditions"] = json!([condition]);
    inward::call(server, Method::PUT, &format!("{path}/status"), &service).await.is_ok()
}
