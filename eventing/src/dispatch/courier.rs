//! Delivers the events of one stream to one subscriber.
//!
//! # Guarantees
//! The cursor passes an event only when it was taken, or was not wanted, or when its dead letter was taken or given up. A reply is
//! durable in the broker, or taken by whom it goes to, before that.
//!
//! # Order
//! With one delivery at a time events arrive in the order in which they were kept; while one is tried again the others wait.
//! With more, up to `in_flight_max` are under way, as upstream's channel has them all, and the cursor stays before the oldest.

use super::hops;
use super::stream::Stream;
use super::table::{IN_FLIGHT_MAX, Kind, Reply, Subscriber};
use crate::delivery::{self, Answer, Failure, Format, Parcel, Post, Replies};
use crate::event::record::{self, Kept};
use crate::log::{LogError, Position, Record};
use client::Clock;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long to wait after the log's files could not be read, or after a failure of this program.
const READ_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Courier {
    pub(super) post: Arc<dyn Post>,
    pub(super) clock: Clock,
    pub(super) stream: Arc<Stream>,
    /// Looked at anew before each attempt.
    pub(super) current: watch::Receiver<Arc<Subscriber>>,
}

impl Courier {
    fn subscriber(&self) -> Arc<Subscriber> {
        self.current.borrow().clone()
    }

    /// Delivers until it is dropped, whatever fails within: it begins again at the cursor.
    pub(super) async fn run_always(self) {
        loop {
            if AssertUnwindSafe(self.clone().run()).catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(source = %self.stream.name, subscriber = self.subscriber().name, "deliveries failed");
            self.clock.sleep(READ_PAUSE).await;
        }
    }

    /// Delivers until it is dropped.
    async fn run(self) {
        let uid = self.subscriber().uid.clone();
        let Some(mut read) = self.stream.log.cursor(&uid) else { return };
        let mut current = self.current.clone();
        let mut position = Some(Position::at(read));
        // At most one: whoever reads has the position.
        let mut reading: FuturesUnordered<BoxFuture<'static, (Position, Vec<Record>)>> =
            FuturesUnordered::new();
        let mut ahead: VecDeque<Record> = VecDeque::new();
        let mut unfinished = BTreeSet::new();
        let mut under_way: FuturesUnordered<BoxFuture<'static, u64>> = FuturesUnordered::new();
        loop {
            let room = self.subscriber().in_flight_max.clamp(1, IN_FLIGHT_MAX);
            while under_way.len() < room
                && let Some(record) = ahead.pop_front()
            {
                let sequence = record.sequence;
                if let Some(kept) = self.wanted(record) {
                    unfinished.insert(sequence);
                    let courier = self.clone();
                    under_way.push(async move { courier.deliver(kept).map(|()| sequence).await }.boxed());
                }
            }
            let seen = ahead.front().map_or(read, |own| own.sequence);
            self.stream.advance(&uid, unfinished.first().map_or(seen, |own| seen.min(*own)));
            if let Some(position) = position.take_if(|_| ahead.is_empty() && under_way.len() < room) {
                reading.push(self.clone().read(position).boxed());
            }
            tokio::select! {
                Some(sequence) = under_way.next() => drop(unfinished.remove(&sequence)),
                // It goes on while deliveries end: what has been read is never read again.
                Some((after, records)) = reading.next() => {
                    read = after.sequence;
                    position = Some(after);
                    ahead.extend(records);
                }
                // More or fewer may be under way now.
                Ok(()) = current.changed() => {}
            }
        }
    }

    /// The next records, as soon as there are any.
    async fn read(self, mut position: Position) -> (Position, Vec<Record>) {
        let start = position.sequence;
        if self.stream.log.watch().wait_for(|own| *own > start).await.is_err() {
            return std::future::pending().await;
        }
        let log = self.stream.log.clone();
        let read = tokio::task::spawn_blocking(move || {
            let records = log.read(&mut position)?;
            Ok::<_, LogError>((position, records))
        });
        match read.await {
            Ok(Ok(own)) => own,
            other => {
                let error = other.map(|own| own.map(drop));
                tracing::error!(source = %self.stream.name, ?error, "the log of events cannot be read");
                self.clock.sleep(READ_PAUSE).await;
                (Position::at(start), Vec::new())
            }
        }
    }

    /// The event of a record, if the subscriber wants it.
    fn wanted(&self, record: Record) -> Option<Kept> {
        let sequence = record.sequence;
        let kept = match record::decode(record.payload) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(source = %self.stream.name, sequence, %error, "an event is skipped");
                return None;
            }
        };
        self.subscriber().filter.takes(&kept.event).then_some(kept)
    }

    async fn deliver(mut self, kept: Kept) {
        let mut sent = kept.clone();
        let hops = match self.stream.name.kind {
            Kind::Broker => hops::leave(&mut sent),
            Kind::Channel => None,
        };
        let mut attempt = 0;
        let failed = loop {
            let Ok(subscriber) = self.current.wait_for(|own| own.uri.is_some()).await.map(|own| own.clone())
            else {
                return std::future::pending().await;
            };
            let Some(uri) = &subscriber.uri else { continue };
            let outcome = match self.attempt(&subscriber, uri, &sent).await {
                Ok(Answer::Done) => return,
                Ok(Answer::Reply(reply)) => self.reply(&subscriber, *reply, hops.as_deref()).await,
                Err(failure) => Err(Failed { destination: uri.clone(), failure, again: true }),
            };
            let Err(failed) = outcome else { return };
            let wait =
                subscriber.retry.wait(attempt, &failed.failure, self.clock.now()).filter(|_| failed.again);
            let Some(wait) = wait else { break failed };
            attempt += 1;
            self.clock.sleep(wait).await;
        };
        self.bury(kept, failed).await;
    }

    async fn attempt(&self, subscriber: &Subscriber, uri: &str, sent: &Kept) -> Result<Answer, Failure> {
        let parcel = Parcel {
            kept: sent,
            namespace: &subscriber.namespace,
            format: subscriber.format,
            wants_reply: true,
        };
        let replies = match subscriber.reply {
            Reply::Broker => Replies::EventsOnly,
            Reply::Dropped | Reply::To(_) => Replies::Anything,
        };
        delivery::post(&*self.post, parcel, uri, subscriber.retry.timeout, replies).await
    }

    /// Sends with all attempts that the subscriber's delivery has.
    async fn post_again(
        &self,
        subscriber: &Subscriber,
        kept: &Kept,
        uri: &str,
        format: Format,
    ) -> Result<(), Failure> {
        let parcel = Parcel { kept, namespace: &subscriber.namespace, format, wants_reply: false };
        delivery::post_again(&*self.post, &self.clock, parcel, uri, &subscriber.retry).await
    }

    /// Brings a reply to where it goes. A reply that the broker could not keep fails the delivery, which is then tried again.
    async fn reply(
        &self,
        subscriber: &Subscriber,
        mut reply: Kept,
        hops: Option<&str>,
    ) -> Result<(), Failed> {
        match &subscriber.reply {
            Reply::Dropped => Ok(()),
            Reply::To(uri) => {
                let posted = self.post_again(subscriber, &reply, uri, Format::Binary).await;
                posted.map_err(|failure| Failed { destination: uri.clone(), failure, again: false })
            }
            Reply::Broker => {
                // The reply goes on counting where the event was.
                if let Some(hops) = hops {
                    reply.event.extensions.insert(hops::HOPS.to_owned(), hops.to_owned());
                }
                let failed = |code, reason: &str, again| Failed {
                    destination: subscriber.uri.clone().unwrap_or_default(),
                    failure: Failure { code, again, ..Failure::without_answer(reason) },
                    again,
                };
                if !hops::enter(&mut reply, self.clock.now()) {
                    return Err(failed(400, "the reply has passed too many brokers", false));
                }
                match self.stream.keep(&[reply]).await {
                    Ok(()) => Ok(()),
                    Err(error @ LogError::TooLarge { .. }) => Err(failed(413, &error.to_string(), false)),
                    Err(error) => Err(failed(503, &error.to_string(), true)),
                }
            }
        }
    }

    /// The last thing that happens to an event that nobody took.
    async fn bury(&self, mut kept: Kept, failed: Failed) {
        let subscriber = self.subscriber();
        let Failed { destination, failure, .. } = failed;
        let Some(uri) = &subscriber.dead_letter else {
            tracing::warn!(
                source = %self.stream.name, subscriber = subscriber.name, event = kept.event.id, code = failure.code,
                "an event was not delivered and is dropped"
            );
            return;
        };
        delivery::mark_dead(&mut kept.event, &destination, &failure);
        if let Err(last) = self.post_again(&subscriber, &kept, uri, subscriber.format).await {
            tracing::warn!(
                source = %self.stream.name, subscriber = subscriber.name, event = kept.event.id, code = last.code,
                "an event was not taken as a dead letter either and is dropped"
            );
        }
    }
}

/// Where it failed, and how.
struct Failed {
    destination: String,
    failure: Failure,
    /// Whether the whole delivery may be tried again.
    again: bool,
}
