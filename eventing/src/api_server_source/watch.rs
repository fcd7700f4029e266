//! Watches the objects of a source and sends what happens to them.
//!
//! # Guarantees
//! Nothing is said of what was there before. What happens while nobody takes events waits; what the server no longer tells
//! (a version that is too old) is lost, as with upstream's adapter.

use super::event::{Change, Mode, event};
use crate::delivery::{self, Format, Parcel, Post, SOURCE_RETRY};
use crate::event::record::Kept;
use api::{Object, Status};
use client::{Client, Clock, DynamicApi, ListParams, ResourceRef, WatchEvent, WatchParams};
use futures::StreamExt;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a watch lasts before it is begun anew.
const WATCH_SECONDS: u32 = 300;
/// Before what failed is tried again; each further wait is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// The longest such wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a source watches, and where it sends events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Of the source.
    pub(super) namespace: String,
    pub(super) sink: String,
    /// Where the API server is.
    pub(super) address: String,
    pub(super) mode: Mode,
    /// An empty name is all of them.
    pub(super) namespaces: Vec<String>,
    pub(super) resources: Vec<Resource>,
    /// API version and kind of the managing controller that objects must have; an empty text is any.
    pub(super) owner: Option<(String, String)>,
    pub(super) extensions: Vec<(String, String)>,
}

/// Which objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    pub(super) api_version: String,
    pub(super) kind: String,
    /// A label selector in its text form.
    pub(super) labels: Option<String>,
}

impl Resource {
    /// The API group; empty for the core's.
    pub(super) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// Begins to watch, until `stop`.
pub(super) fn start(
    plan: &Plan,
    client: &Client,
    clock: &Clock,
    post: &Arc<dyn Post>,
    stop: &CancellationToken,
) {
    let plan = Arc::new(plan.clone());
    for resource in &plan.resources {
        let watcher = Watcher {
            plan: plan.clone(),
            resource: resource.clone(),
            client: client.clone(),
            clock: clock.clone(),
            post: post.clone(),
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(watcher.run()).await });
    }
}

/// Watches one resource.
struct Watcher {
    plan: Arc<Plan>,
    resource: Resource,
    client: Client,
    clock: Clock,
    post: Arc<dyn Post>,
}

impl Watcher {
    async fn run(self) {
        let (resource, is_namespaced) = self.find().await;
        let mut namespaces: Vec<&str> = self.plan.namespaces.iter().map(String::as_str).collect();
        if !is_namespaced {
            namespaces = vec![""];
        }
        let all = namespaces.into_iter().map(|namespace| {
            let access = self.client.dynamic(resource.clone(), namespace);
            async { self.follow(access).await }
        });
        futures::future::join_all(all).await;
    }

    /// Asks until the server serves the kind, which may come later.
    async fn find(&self) -> (ResourceRef, bool) {
        let mut wait = WAIT_FIRST;
        loop {
            match self.client.discover().await {
                Ok(served) => {
                    let found = served.resources.into_iter().find(|own| {
                        own.resource.api_version() == self.resource.api_version
                            && own.resource.kind == self.resource.kind
                            && own.can(&["list", "watch"])
                    });
                    if let Some(own) = found {
                        return (own.resource, own.namespaced);
                    }
                    tracing::info!(kind = self.resource.kind, "a source waits for a kind that is not served");
                }
                Err(error) => tracing::debug!(%error, "what is served is not known"),
            }
            self.clock.sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Watches for ever, from now on.
    async fn follow(&self, access: DynamicApi) {
        let mut wait = WAIT_FIRST;
        let mut from = None;
        loop {
            match self.watch(&access, &mut from).await {
                Ok(()) => wait = WAIT_FIRST,
                Err(error) => {
                    tracing::debug!(%error, kind = self.resource.kind, "a source's watch ended");
                    if error.code == 410 {
                        from = None;
                    }
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
            }
        }
    }

    /// One watch to its end. `from`: the version after which it begins; `None` for the present one.
    async fn watch(&self, access: &DynamicApi, from: &mut Option<String>) -> Result<(), Status> {
        let labels = self.resource.labels.clone();
        let version = match from {
            Some(version) => version.clone(),
            None => {
                let params = ListParams { labels: labels.clone(), limit: Some(1), ..ListParams::default() };
                access.list(&params).await?.resource_version
            }
        };
        *from = Some(version.clone());
        let params = WatchParams {
            labels,
            resource_version: Some(version),
            timeout_seconds: Some(WATCH_SECONDS),
            ..WatchParams::default()
        };
        let mut changes = access.watch(&params).await?;
        while let Some(change) = changes.next().await {
            let (change, object) = match change? {
                WatchEvent::Added(object) => (Change::Add, object),
                WatchEvent::Modified(object) => (Change::Update, object),
                WatchEvent::Deleted(object) => (Change::Delete, object),
                WatchEvent::Bookmark { resource_version, .. } => {
                    *from = Some(resource_version.to_string());
                    continue;
                }
            };
            self.tell(change, &object).await;
            *from = Some(object.meta.resource_version.to_string());
        }
        Ok(())
    }

    async fn tell(&self, change: Change, object: &Object) {
        if !self.is_wanted(object) {
            return;
        }
        let Ok(value) = object.decode::<Value>() else { return };
        let id = uuid::Uuid::new_v4().to_string();
        let mut event = event(self.plan.mode, change, &value, &self.plan.address, &id);
        for (name, value) in &self.plan.extensions {
            if let Err(error) = event.set(name, value.clone()) {
                tracing::warn!(name, %error, "an extension of a source is left out");
            }
        }
        let kept = Kept { event, headers: Vec::new() };
        let parcel = Parcel {
            kept: &kept,
            namespace: &self.plan.namespace,
            format: Format::Binary,
            wants_reply: false,
        };
        let sent = delivery::post_again(&*self.post, &self.clock, parcel, &self.plan.sink, &SOURCE_RETRY);
        if let Err(failure) = sent.await {
            tracing::warn!(
                sink = self.plan.sink,
                id,
                code = failure.code,
                "nobody took an event of a source"
            );
        }
    }

    /// Whether the object has the owner that the source asks for.
    fn is_wanted(&self, object: &Object) -> bool {
        let Some((api_version, kind)) = &self.plan.owner else { return true };
        object.meta.controller().is_some_and(|own| {
            (api_version.is_empty() || *own.api_version == **api_version)
                && (kind.is_empty() || *own.kind == **kind)
        })
    }
}
