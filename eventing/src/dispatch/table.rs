//! What is to be kept and delivered: plain data, which control loops make of objects.

use crate::delivery::{Format, Retry};
use crate::filter::Filter;
use std::collections::BTreeMap;
use std::fmt;

/// The most brokers and channels. Each has two or three open files while it is used.
pub const SOURCES_MAX: usize = 2000;

/// The most deliveries of one subscriber at the same time.
pub const IN_FLIGHT_MAX: usize = 64;

/// What events are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A broker: counts hops, and puts replies back.
    Broker,
    /// A channel.
    Channel,
}

/// Which broker or channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Which of both.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Broker => "broker",
            Kind::Channel => "channel",
        };
        write!(out, "{kind} {}/{}", self.namespace, self.name)
    }
}

/// A broker or channel.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The object's UID: a new object of the same name begins without the events of the old one.
    pub uid: String,
    /// Who gets its events.
    pub subscribers: Vec<Subscriber>,
}

/// Where an event goes that a subscriber answers with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// Nowhere: a subscription without `reply`. Bodies that are no events do not matter.
    #[default]
    Dropped,
    /// Into the broker that the event came from: a trigger. A body that is no event is a failure.
    Broker,
    /// To this URI: a subscription with `reply`.
    To(String),
}

/// A trigger or subscription.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The object's UID: the cursor hangs on it.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where events go. While it is `None` they are kept for it.
    pub uri: Option<String>,
    /// Which events.
    pub filter: Filter,
    /// Where answers go.
    pub reply: Reply,
    /// How often and how long it is tried.
    pub retry: Retry,
    /// In which form.
    pub format: Format,
    /// Where events go that could not be delivered; without one they are dropped.
    pub dead_letter: Option<String>,
    /// How many deliveries may be under way; 1 keeps the order of events, also while one is tried again. At most [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
}

/// Everything that there is.
pub type Table = BTreeMap<Name, Source>;
