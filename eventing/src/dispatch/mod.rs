//! Runs the data plane: which logs there are, and a courier per subscriber. Start at [`Eventing`].

mod courier;
pub mod hops;
mod stream;
mod table;

pub use stream::{REOPEN_PAUSE, SAVE_PAUSE};
pub use table::{IN_FLIGHT_MAX, Kind, Name, Reply, SOURCES_MAX, Source, Subscriber, Table};

use crate::delivery::{Pool, Post, Resolve};
use crate::log::{Directory, Log, LogError};
use client::Clock;
use courier::Courier;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
pub(crate) use stream::Stream;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why a table was not put into effect as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// More than [`SOURCES_MAX`].
    #[error("{count} brokers and channels are too many")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A UID that cannot name a folder, or one that two objects share.
    #[error("{source_name} has no UID of its own: {uid:?}")]
    Uid {
        /// Which broker or channel.
        source_name: Name,
        /// Its UID.
        uid: String,
    },
    /// A log failed. All others are in effect.
    #[error("the log of {source_name} failed")]
    Log {
        /// Which broker or channel.
        source_name: Name,
        /// What failed.
        source: LogError,
    },
    /// The directory of all logs failed.
    #[error("the directory of events failed")]
    Directory(#[source] io::Error),
}

/// The data plane of brokers and channels.
///
/// # Flow
/// [`Eventing::open`], then [`Eventing::set`] with everything that there is, whenever that changes, and
/// [`Eventing::serve`](crate::ingress) beside it.
///
/// # Caveats
/// What is not in a table is gone: its events are removed. The first table must therefore be complete, not what half-filled caches show.
#[derive(Clone)]
pub struct Eventing(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    directory: Arc<dyn Directory>,
    post: Arc<dyn Post>,
    pub(crate) clock: Clock,
    /// Where events can be sent.
    streams: RwLock<BTreeMap<Name, Arc<Stream>>>,
    /// One table at a time.
    running: Mutex<BTreeMap<Name, Running>>,
    stop: CancellationToken,
}

/// The tasks of one stream.
struct Running {
    stream: Arc<Stream>,
    subscribers: BTreeMap<String, Delivering>,
    saving: Task,
}

struct Delivering {
    current: watch::Sender<Arc<Subscriber>>,
    task: Task,
}

struct Task {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Task {
    /// Ends it and waits for that.
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.handle.await {
            tracing::error!(%error, "a task of the events' data plane failed");
        }
    }
}

impl Shared {
    pub(crate) fn stream(&self, name: &Name) -> Option<Arc<Stream>> {
        self.streams.read().get(name).cloned()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(LogError::Io(io::Error::other(error))))
}

fn is_folder_name(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 128 && uid.bytes().all(|own| own.is_ascii_alphanumeric() || own == b'-')
}

impl Eventing {
    /// With the logs in `directory`; nothing runs before the first table. Names of destinations are found by `resolve`.
    pub fn open(directory: Arc<dyn Directory>, resolve: Arc<dyn Resolve>, clock: Clock) -> Eventing {
        Self::with_post(directory, Arc::new(Pool::new(resolve)), clock)
    }

    /// As [`Eventing::open`], with another way to send.
    pub fn with_post(directory: Arc<dyn Directory>, post: Arc<dyn Post>, clock: Clock) -> Eventing {
        Eventing(Arc::new(Shared {
            directory,
            post,
            clock,
            streams: RwLock::default(),
            running: Mutex::default(),
            stop: CancellationToken::new(),
        }))
    }

    /// Puts a table into effect. When it returns `Ok`, every subscriber in it gets every event that is acknowledged from now on.
    ///
    /// # Errors
    /// See [`SetError`]; the caller sets the table again later.
    pub async fn set(&self, table: Table) -> Result<(), SetError> {
        if table.len() > SOURCES_MAX {
            return Err(SetError::TooMany { count: table.len() });
        }
        let mut uids = BTreeSet::new();
        for (name, source) in &table {
            if !is_folder_name(&source.uid) || !uids.insert(source.uid.clone()) {
                return Err(SetError::Uid { source_name: name.clone(), uid: source.uid.clone() });
            }
        }
        let mut running = self.0.running.lock().await;
        self.remove_gone(&mut running, &table).await;
        let removed = self.remove_folders(uids).await;
        let mut result = removed.map_err(SetError::Directory);
        for (name, source) in table {
            if let Err(error) = self.set_source(&mut running, name.clone(), source).await {
                tracing::error!(source = %name, %error, "the log of events failed");
                result = Err(SetError::Log { source_name: name, source: error });
            }
        }
        result
    }

    /// Ends what is no longer there, or is another object by now.
    async fn remove_gone(&self, running: &mut BTreeMap<Name, Running>, table: &Table) {
        let gone: Vec<Name> = running
            .iter()
            .filter(|(name, own)| table.get(*name).is_none_or(|source| source.uid != own.stream.uid))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.0.streams.write().remove(&name);
            if let Some(own) = running.remove(&name) {
                own.end().await;
            }
        }
    }

    async fn remove_folders(&self, uids: BTreeSet<String>) -> io::Result<()> {
        let directory = self.0.directory.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let names = directory.list()?;
            names.iter().filter(|own| !uids.contains(*own)).try_for_each(|own| directory.remove(own))
        });
        removed.await.map_err(io::Error::other)?
    }

    async fn set_source(
        &self,
        running: &mut BTreeMap<Name, Running>,
        name: Name,
        source: Source,
    ) -> Result<(), LogError> {
        let uids: Vec<String> = source.subscribers.iter().map(|own| own.uid.clone()).collect();
        if !running.contains_key(&name) {
            let (directory, uid) = (self.0.directory.clone(), source.uid.clone());
            let log = blocking(move || Log::open(directory.folder(&uid)?)).await?;
            let stream = Arc::new(Stream::new(name.clone(), source.uid.clone(), Arc::new(log)));
            let saving = self.task(|stop| stream.clone().save_until(stop));
            running.insert(name.clone(), Running { stream, subscribers: BTreeMap::new(), saving });
        }
        let Some(own) = running.get_mut(&name) else { return Ok(()) };
        let gone: Vec<String> = own.subscribers.keys().filter(|own| !uids.contains(own)).cloned().collect();
        for uid in gone {
            if let Some(delivering) = own.subscribers.remove(&uid) {
                delivering.task.end().await;
            }
        }
        let log = own.stream.log.clone();
        let wanted = !uids.is_empty();
        blocking(move || log.set_subscribers(&uids)).await?;
        // From here on events are kept for all of them, and only then are they taken.
        own.stream.wanted.store(wanted, Ordering::Release);
        for subscriber in source.subscribers {
            let subscriber = Arc::new(subscriber);
            match own.subscribers.get(&subscriber.uid) {
                Some(delivering) => drop(delivering.current.send_replace(subscriber)),
                None => {
                    let uid = subscriber.uid.clone();
                    own.subscribers.insert(uid, self.deliver(&own.stream, subscriber));
                }
            }
        }
        self.0.streams.write().insert(name, own.stream.clone());
        Ok(())
    }

    fn deliver(&self, stream: &Arc<Stream>, subscriber: Arc<Subscriber>) -> Delivering {
        let (current, receiver) = watch::channel(subscriber);
        let courier = Courier {
            post: self.0.post.clone(),
            clock: self.0.clock.clone(),
            stream: stream.clone(),
            current: receiver,
        };
        let task = self.task(|stop| async move {
            let _ = stop.run_until_cancelled(courier.run_always()).await;
        });
        Delivering { current, task }
    }

    fn task<F: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Task {
        let stop = self.0.stop.child_token();
        Task { handle: tokio::spawn(work(stop.clone())), stop }
    }

    /// Takes no more events, ends all deliveries and writes the cursors.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.streams.write().clear();
        for (_, own) in std::mem::take(&mut *self.0.running.lock().await) {
            own.end().await;
        }
    }

    /// How many events wait for the slowest subscriber of a broker or channel.
    pub fn backlog(&self, name: &Name) -> Option<u64> {
        self.0.stream(name).map(|own| own.log.backlog())
    }
}

impl Running {
    async fn end(self) {
        for (_, own) in self.subscribers {
            own.task.end().await;
        }
        self.saving.end().await;
    }
}

#[cfg(test)]
mod tests;
