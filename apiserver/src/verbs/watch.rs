//! WATCH: a stream of events, made from the cache's changes.
//! Upstream: `apiserver/pkg/endpoints/handlers/watch.go`, `storage/cacher`.
//!
//! Flow: the present objects (if asked), then every later change through the selection: what enters is ADDED, what
//! stays is MODIFIED, what leaves is DELETED. Bookmarks tell how far a quiet watch has come.

use super::Scope;
use super::selection::Selection;
use crate::codec::frame::{EventKind, Framer};
use crate::codec::reply::Reply;
use crate::codec::table;
use crate::options::ListOptions;
use crate::registry::Entry;
use crate::server::Server;
use crate::watch_cache::{Change, Interest, Item, Stale, Watch};
use crate::{Body, BodyError, Response};
use api::{Object, Status};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval};

/// How often a quiet watch gets a bookmark. Upstream: `cacher` (`bookmarkFrequency`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch gets its last bookmark. Upstream: `cache_watcher.go`.
const LAST_BOOKMARK_BEFORE: Duration = Duration::from_secs(2);
/// The annotation of the bookmark that ends the present objects.
pub(crate) const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Starts a watch.
pub(crate) async fn watch(scope: &Scope) -> Result<Reply, Status> {
    let options = ListOptions::parse(&scope.query, &scope.entry.resource, true)?;
    let selection = Selection::new(scope, &options)?;
    let include = table_include(scope)?;
    let framer = Framer::new(scope.entry.resource.clone(), scope.wanted, include)?;
    let content_type = framer.content_type();
    let seconds = options.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or_else(|| {
        let min = scope.server.config().watch_seconds_min;
        min + u64::from(uuid::Uuid::new_v4().as_fields().0) % min.max(1)
    });
    let mut stream = Stream {
        server: scope.server.clone(),
        entry: scope.entry.clone(),
        selection,
        framer,
        source: None,
        after: 0,
        pending: VecDeque::new(),
        bookmarks: options
            .bookmarks
            .then(|| tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY)),
        last_bookmark: None,
        ends: Instant::now() + Duration::from_secs(seconds),
        is_over: false,
    };
    stream.open(scope, &options).await?;
    let body = futures::stream::unfold(stream, |mut stream| async move {
        let bytes = stream.next().await?;
        Some((Ok::<_, BodyError>(Frame::data(bytes)), stream))
    });
    let body: Body = StreamBody::new(body).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(Reply::Response(response))
}

/// What of each object a table carries, from the query.
pub(crate) fn table_include(scope: &Scope) -> Result<table::Include, Status> {
    match scope.query.get("includeObject").unwrap_or("") {
        "None" => Ok(table::Include::None),
        "" | "Metadata" => Ok(table::Include::Metadata),
        "Object" => Ok(table::Include::Object),
        other => Err(Status::bad_request(format!(
            "includeObject: Invalid value: \"{other}\": must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

struct Stream {
    server: Arc<Server>,
    entry: Entry,
    selection: Selection,
    framer: Framer,
    source: Option<Watch>,
    /// Changes up to this revision are not told.
    after: u64,
    pending: VecDeque<Bytes>,
    bookmarks: Option<Interval>,
    last_bookmark: Option<Instant>,
    ends: Instant,
    is_over: bool,
}

impl Stream {
    /// Subscribes and queues what the watch begins with.
    async fn open(&mut self, scope: &Scope, options: &ListOptions) -> Result<(), Status> {
        let cache = scope.cache()?.clone();
        let interest = match self.entry.resource.strategy.converts() {
            true => Interest { field: None, ..self.selection.interest() },
            false => self.selection.interest(),
        };
        let from = options.revision.unwrap_or(0);
        let begins_with_objects = options.initial_events.unwrap_or(from == 0);
        if self.bookmarks.is_some() {
            self.last_bookmark = Some(self.ends - LAST_BOOKMARK_BEFORE.min(self.ends - Instant::now()));
        }
        if begins_with_objects {
            scope.server.registry().storage().at_least(from).await?;
            let (snapshot, watch) = cache.watch_now(interest).map_err(too_many)?;
            (self.source, self.after) = (Some(watch), snapshot.revision);
            for item in snapshot.range(self.selection.namespace(), None) {
                if self.selection.matches(&self.entry, item).await? {
                    let object = self.entry.present(item).await?;
                    self.framer.object(EventKind::Added, &object, &mut self.pending)?;
                }
            }
            if options.initial_events == Some(true) && options.bookmarks {
                self.framer.bookmark(snapshot.revision, Some(INITIAL_EVENTS_END), &mut self.pending)?;
            }
            return Ok(());
        }
        if from == 0 {
            // `sendInitialEvents=false` without a revision: from now on.
            let (snapshot, watch) = cache.watch_now(interest).map_err(too_many)?;
            (self.source, self.after) = (Some(watch), snapshot.revision);
            return Ok(());
        }
        match cache.watch_after(from, interest) {
            Ok(watch) => (self.source, self.after) = (Some(watch), from),
            Err(Stale::TooOld { asked, oldest }) => {
                let status = Status::expired(format!("too old resource version: {asked} ({oldest})"));
                self.framer.error(&status, &mut self.pending);
                self.is_over = true;
            }
            Err(stale) => return Err(too_many(stale)),
        }
        Ok(())
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            self.wait().await;
        }
    }

    /// Waits for a change, a bookmark's time or the end, and queues what follows from it.
    async fn wait(&mut self) {
        let Some(source) = &mut self.source else {
            self.is_over = true;
            return;
        };
        let bookmark_due = async {
            match &mut self.bookmarks {
                Some(interval) => {
                    interval.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        let last_due = async {
            match self.last_bookmark {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let stopping = self.server.stopping();
        tokio::select! {
            biased;
            change = source.next() => match change {
                Some(change) => self.tell(&change).await,
                None => self.is_over = true,
            },
            () = last_due => {
                self.last_bookmark = None;
                self.tell_bookmark().await;
            }
            () = tokio::time::sleep_until(self.ends) => self.is_over = true,
            _ = bookmark_due => self.tell_bookmark().await,
            () = stopping => self.is_over = true,
        }
    }

    async fn tell_bookmark(&mut self) {
        let Some(source) = &mut self.source else { return };
        let (changes, revision) = source.drain();
        for change in changes {
            self.tell(&change).await;
        }
        if let Err(status) = self.framer.bookmark(revision.max(self.after), None, &mut self.pending) {
            self.fail(&status);
        }
    }

    async fn tell(&mut self, change: &Change) {
        if change.revision <= self.after {
            return;
        }
        if let Err(status) = self.try_tell(change).await {
            self.fail(&status);
        }
    }

    async fn try_tell(&mut self, change: &Change) -> Result<(), Status> {
        let was = self.sees(change.old.as_deref()).await?.is_some();
        let is = self.sees(change.new.as_deref()).await?;
        let (kind, object): (_, Arc<Object>) = match (is, was) {
            (Some(item), false) => (EventKind::Added, self.entry.present(item).await?),
            (Some(item), true) => (EventKind::Modified, self.entry.present(item).await?),
            (None, true) => (EventKind::Deleted, self.entry.present_json(change.last_seen()).await?),
            (None, false) => return Ok(()),
        };
        self.framer.object(kind, &object, &mut self.pending)
    }

    /// The version, if it is in sight.
    async fn sees<'a>(&self, item: Option<&'a Item>) -> Result<Option<&'a Item>, Status> {
        match item {
            Some(item) if self.selection.matches(&self.entry, item).await? => Ok(Some(item)),
            _ => Ok(None),
        }
    }

    fn fail(&mut self, status: &Status) {
        self.framer.error(status, &mut self.pending);
        self.is_over = true;
    }
}

fn too_many(_: Stale) -> Status {
    Status::too_many_requests("too many watches of this resource, please try again later", 1)
}
