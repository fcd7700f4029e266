//! One watch: the log up to now, then what the hub tells.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use super::core::{Core, closed};
use super::hub::{Batch, Queue};
use crate::{Error, Event, Key, Result, Revision};

struct Watch {
    core: Arc<Core>,
    prefix: Key,
    /// Everything up to here was given out, or is in `ready`.
    reached: Revision,
    ready: VecDeque<Event>,
    phase: Phase,
}

enum Phase {
    /// Not in the hub.
    Apart,
    /// In the hub; the log is read up to the revision at which the watch joined.
    Replay(Arc<Queue>, Revision),
    Live(Arc<Queue>),
    Ended,
}

/// Every write after `after` to keys under `prefix`.
pub(super) fn watch(core: Arc<Core>, prefix: Key, after: Revision) -> BoxStream<'static, Result<Event>> {
    let watch = Watch { core, prefix, reached: after, ready: VecDeque::new(), phase: Phase::Apart };
    stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        if item.is_err() {
            watch.phase = Phase::Ended;
        }
        Some((item, watch))
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            match &self.phase {
                Phase::Ended => return None,
                Phase::Apart => {
                    let (queue, published) = self.core.hub.join(&self.prefix);
                    if self.reached > published {
                        return Some(Err(Error::Future { asked: self.reached, newest: published }));
                    }
                    self.phase = Phase::Replay(queue, published);
                }
                Phase::Replay(queue, upto) if self.reached >= *upto => {
                    self.phase = Phase::Live(queue.clone())
                }
                Phase::Replay(_, upto) => {
                    let (core, prefix, after, upto) =
                        (self.core.clone(), self.prefix.clone(), self.reached, *upto);
                    let read = move || core.read(|state| state.replay(&prefix, after, upto));
                    match tokio::task::spawn_blocking(read).await {
                        Ok(Ok(replay)) => (self.ready, self.reached) = (replay.events, replay.reached),
                        Ok(Err(error)) => return Some(Err(error)),
                        Err(error) => return Some(Err(Error::Unavailable { message: error.to_string() })),
                    }
                }
                Phase::Live(queue) => match queue.next().await {
                    Batch::Events(events) => {
                        self.reached = events.back().map_or(self.reached, |event| event.revision);
                        self.ready = events;
                    }
                    Batch::Overflown => self.phase = Phase::Apart,
                    Batch::Closed => return Some(Err(closed())),
                },
            }
        }
    }
}
