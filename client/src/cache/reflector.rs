//! Keeps a cache equal to the server: list, then watch, for ever.
//!
//! # Flow
//! One WatchList request gives all objects and then every change. Where the server does not know it: a list, then a watch
//! from its version. A watch that ends goes on from the last version seen; if that is too old, everything is read again
//! and only the differences are told.
//!
//! # Caveats
//! While the server cannot be reached the cache shows the past and says nothing about it.

use super::AnyCache;
use crate::backoff::Backoff;
use crate::params::{ListParams, WatchParams};
use crate::watch::{WatchEvent, WatchStream};
use api::{Object, Reason, Status};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::Instant;

/// Waits between tries. In one process the server is soon back; over the network many clients return at once.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A watch that lasted this long was no failure: the next one starts at once.
const WATCH_HEALTHY: Duration = Duration::from_secs(1);
/// Objects per page of a list.
const PAGE_LEN: u32 = 500;

/// Runs until the task is aborted.
pub(super) async fn run(cache: AnyCache) {
    let mut reflector = Reflector { cache, revision: None, watch_list: true };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let start = Instant::now();
        let outcome = reflector.round().await;
        match &outcome {
            Ok(()) => {}
            Err(status) if is_too_old(status) => reflector.revision = None,
            Err(status) if reflector.is_watch_list_refused(status) => {
                reflector.watch_list = false;
                continue;
            }
            Err(status) => {
                tracing::debug!(resource = %reflector.cache.resource().id(), %status, "watch failed");
            }
        }
        if start.elapsed() >= WATCH_HEALTHY {
            backoff.reset();
            if outcome.is_ok() {
                continue;
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

struct Reflector {
    cache: AnyCache,
    /// Where a watch may go on; `None` if everything must be read again.
    revision: Option<u64>,
    watch_list: bool,
}

impl Reflector {
    async fn round(&mut self) -> Result<(), Status> {
        let stream = match self.revision {
            Some(revision) => self.watch(Some(revision)).await?,
            None if self.watch_list => self.start_with_watch().await?,
            None => self.start_with_list().await?,
        };
        match stream {
            Some(stream) => self.follow(stream).await,
            None => Ok(()),
        }
    }

    async fn watch(&self, after: Option<u64>) -> Result<Option<WatchStream>, Status> {
        let selection = self.cache.selection();
        let params = WatchParams {
            labels: selection.labels.clone(),
            fields: selection.fields.clone(),
            resource_version: after.map(|revision| revision.to_string()),
            initial_events: after.is_none(),
            timeout_seconds: None,
        };
        self.cache.access().watch(&params).await.map(Some)
    }

    /// Reads everything at the start of a watch. `None` if the watch ended before everything was there.
    async fn start_with_watch(&mut self) -> Result<Option<WatchStream>, Status> {
        let Some(mut stream) = self.watch(None).await? else { return Ok(None) };
        // What changes meanwhile comes in the same stream: the last version of each name counts.
        let mut objects: Vec<Object> = Vec::new();
        let mut changed = false;
        while let Some(event) = stream.next().await {
            match event? {
                WatchEvent::Added(object) => objects.push(object),
                WatchEvent::Modified(object) => {
                    changed = true;
                    objects.push(object);
                }
                WatchEvent::Deleted(object) => {
                    changed = true;
                    objects.retain(|other| other.meta.key != object.meta.key);
                }
                WatchEvent::Bookmark { initial_events_end: false, .. } => {}
                WatchEvent::Bookmark { resource_version, .. } => {
                    if changed {
                        keep_last_of_each_name(&mut objects);
                    }
                    self.replace(objects, resource_version);
                    return Ok(Some(stream));
                }
            }
        }
        Ok(None)
    }

    async fn start_with_list(&mut self) -> Result<Option<WatchStream>, Status> {
        let selection = self.cache.selection();
        let mut params = ListParams {
            labels: selection.labels.clone(),
            fields: selection.fields.clone(),
            limit: Some(PAGE_LEN),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        let revision = loop {
            let page = self.cache.access().list(&params).await?;
            objects.extend(page.items);
            if page.continue_token.is_empty() {
                break page.resource_version;
            }
            params.continue_token = Some(page.continue_token);
        };
        self.replace(objects, revision.parse().unwrap_or(0));
        self.watch(self.revision).await
    }

    fn replace(&mut self, objects: Vec<Object>, revision: u64) {
        self.revision = Some(revision);
        self.cache.replace(objects, revision);
    }

    async fn follow(&mut self, mut stream: WatchStream) -> Result<(), Status> {
        while let Some(event) = stream.next().await {
            let revision = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let revision = object.meta.resource_version;
                    self.cache.change(object, true);
                    revision
                }
                WatchEvent::Deleted(object) => {
                    let revision = object.meta.resource_version;
                    self.cache.change(object, false);
                    revision
                }
                WatchEvent::Bookmark { resource_version, .. } => {
                    self.cache.reached(resource_version);
                    resource_version
                }
            };
            if revision > 0 {
                self.revision = Some(revision);
            }
        }
        Ok(())
    }

    fn is_watch_list_refused(&self, status: &Status) -> bool {
        self.watch_list && self.revision.is_none() && matches!(status.code, 400 | 422)
    }
}

fn keep_last_of_each_name(objects: &mut Vec<Object>) {
    let mut seen = std::collections::HashSet::new();
    objects.reverse();
    objects.retain(|object| seen.insert(object.meta.key.clone()));
    objects.reverse();
}

fn is_too_old(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason, Reason::Expired | Reason::Gone)
}
