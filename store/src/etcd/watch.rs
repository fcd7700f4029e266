//! One watch: a stream of its own to a member, opened again where it breaks.
//!
//! # Guarantees
//! `reached` grows only with whole revisions, so a stream that breaks within one begins with it again and nothing is told twice:
//! what came of a revision in parts is held until it is whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::client::{Client, header_revision, number};
use super::wire::event::EventType;
use super::wire::watch_request::RequestUnion;
use super::wire::{
    self, RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use super::{range_end, range_start};
use crate::{Error, Event, Key, Result, Revision, Told};

/// How often a stream is opened in vain before the watch fails.
const TRIES_MAX: u32 = 5;
/// How long to wait after the first; then twice that, and so on.
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// How often progress is asked for while somebody waits: a watch that is behind does not answer at all.
const PROGRESS_EVERY: Duration = Duration::from_millis(20);
/// Requests that wait to be sent.
const REQUESTS_MAX: usize = 4;

struct Watch {
    client: Arc<Client>,
    prefix: Key,
    /// Everything up to here was given out, or is in `ready`.
    reached: Revision,
    ready: VecDeque<Told>,
    wanted: watch::Receiver<Revision>,
    session: Option<Session>,
    failed: u32,
    is_over: bool,
}

/// One stream to one member.
struct Session {
    member: usize,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// The newest revision's events while more of them may come.
    held: Vec<Event>,
    /// When progress may be asked for again.
    asks_at: Instant,
}

/// Why a session ended.
enum End {
    /// The watch is over.
    Over(Error),
    /// It may be tried again.
    Broken(Error),
}

/// See [`crate::Store::follow`].
pub(super) fn follow(client: Arc<Client>, prefix: Key, after: Revision) -> BoxStream<'static, Result<Told>> {
    let watch = Watch {
        wanted: client.wanted(),
        client,
        prefix,
        reached: after,
        ready: VecDeque::new(),
        session: None,
        failed: 0,
        is_over: false,
    };
    stream::unfold(watch, |mut watch| async move {
        if watch.is_over {
            return None;
        }
        let item = watch.next().await;
        watch.is_over = item.is_err();
        Some((item, watch))
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Result<Told> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Ok(told);
            }
            match self.go_on().await {
                Ok(()) => {}
                Err(End::Over(error)) => return Err(error),
                Err(End::Broken(error)) => {
                    self.session = None;
                    self.failed += 1;
                    if self.failed >= TRIES_MAX {
                        return Err(error);
                    }
                    tracing::debug!(%error, "a watch of etcd broke off");
                    sleep(TRY_PAUSE * (1 << (self.failed - 1))).await;
                }
            }
        }
    }

    /// Opens the stream, or takes what comes from it.
    async fn go_on(&mut self) -> Result<(), End> {
        let Some(session) = &mut self.session else {
            self.session = Some(self.open().await?);
            return Ok(());
        };
        let wants = *self.wanted.borrow_and_update() > self.reached;
        tokio::select! {
            answer = session.answers.message() => match answer {
                Ok(Some(answer)) => self.take(answer),
                Ok(None) => Err(self.broken(&Status::unavailable("the stream ended"))),
                Err(status) => Err(self.broken(&status)),
            },
            () = sleep_until(session.asks_at), if wants => {
                session.asks_at = Instant::now() + PROGRESS_EVERY;
                let ask = RequestUnion::ProgressRequest(WatchProgressRequest {});
                // Where the queue is full, earlier questions are not sent yet: one more changes nothing.
                let _ = session.requests.try_send(WatchRequest { request_union: Some(ask) });
                Ok(())
            }
            changed = self.wanted.changed(), if !wants => match changed {
                Ok(()) => Ok(()),
                Err(_) => Err(End::Over(Error::Unavailable { message: "the store is closed".to_owned() })),
            },
        }
    }

    fn broken(&self, status: &Status) -> End {
        let member = self.session.as_ref().map_or(0, |session| session.member);
        End::Broken(self.client.watch_failed(member, status))
    }

    async fn open(&self) -> Result<Session, End> {
        self.check_start().await?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let create = RequestUnion::CreateRequest(WatchCreateRequest {
            key: range_start(&self.prefix),
            range_end: range_end(&self.prefix),
            start_revision: i64::try_from(self.reached + 1).unwrap_or(i64::MAX),
            progress_notify: true,
            prev_kv: true,
            watch_id: 0,
            fragment: true,
        });
        let _ = requests.try_send(WatchRequest { request_union: Some(create) });
        let mut request = Request::new(ReceiverStream::new(receiver));
        // A member that lost the others ends the stream instead of being silent.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let (mut client, member) = self.client.watch_client();
        match client.watch(request).await {
            Ok(answers) => Ok(Session {
                member,
                requests,
                answers: answers.into_inner(),
                held: Vec::new(),
                asks_at: Instant::now(),
            }),
            Err(status) => Err(End::Broken(self.client.watch_failed(member, &status))),
        }
    }

    /// etcd waits for revisions to come, and from the oldest on it does not know the values before: asked first, it says both.
    async fn check_start(&self) -> Result<(), End> {
        if self.reached == 0 {
            return Ok(());
        }
        let request = RangeRequest {
            key: range_start(&self.prefix),
            revision: i64::try_from(self.reached).unwrap_or(i64::MAX),
            limit: 1,
            keys_only: true,
            ..Default::default()
        };
        match self.client.range(request).await {
            Ok(_) => Ok(()),
            Err(error @ Error::Unavailable { .. }) => Err(End::Broken(error)),
            Err(error) => Err(End::Over(error)),
        }
    }

    fn take(&mut self, answer: WatchResponse) -> Result<(), End> {
        self.failed = 0;
        if answer.canceled {
            if answer.compact_revision > 0 {
                self.client.set_oldest(number(answer.compact_revision));
                return Err(End::Over(self.client.compacted(self.reached)));
            }
            return Err(self.broken(&Status::unavailable(answer.cancel_reason)));
        }
        if answer.created {
            return Ok(());
        }
        // Progress, of this watch or of all of the stream, which is the same here.
        if answer.events.is_empty() {
            let reached = header_revision(answer.header.as_ref());
            if reached > self.reached {
                self.reached = reached;
                self.ready.push_back(Told::Reached(reached));
            }
            return Ok(());
        }
        for event in answer.events {
            match read(event) {
                Some(event) if event.revision > self.reached => self.hold(event),
                Some(_) => {}
                None => return Err(End::Over(self.client.compacted(self.reached))),
            }
        }
        if !answer.fragment {
            self.release();
        }
        Ok(())
    }

    /// Keeps an event until its revision is whole.
    fn hold(&mut self, event: Event) {
        let held = self.session.as_ref().and_then(|session| session.held.last());
        if held.is_some_and(|held| held.revision != event.revision) {
            self.release();
        }
        if let Some(session) = &mut self.session {
            session.held.push(event);
        }
    }

    /// Gives out what is held.
    fn release(&mut self) {
        let Some(session) = &mut self.session else { return };
        if let Some(last) = session.held.last() {
            self.reached = last.revision;
        }
        self.ready.extend(session.held.drain(..).map(Told::Write));
    }
}

/// What happened; `None` where the value before is compacted.
fn read(event: wire::Event) -> Option<Event> {
    let is_put = event.r#type() == EventType::Put;
    let now = event.kv?;
    let revision = number(now.mod_revision);
    let is_new = is_put && now.version == 1;
    let previous = match (event.prev_kv, is_new) {
        (Some(previous), _) => Some(previous.value),
        (None, true) => None,
        (None, false) => return None,
    };
    Some(Event { key: now.key, value: is_put.then_some(now.value), previous, revision })
}
