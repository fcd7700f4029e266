//! The only door to the API: every component reads and writes through this crate.
//!
//! [`Client`] speaks to an API server over any tower service: the one in the same process (no socket, no copy of
//! watched bytes) or a remote one over TLS. On top of it: typed and untyped access ([`Api`], [`DynamicApi`]), the
//! shared caches of a process ([`Caches`]), work queues ([`Queue`]), the runtime of control loops ([`Controller`]),
//! [`Expectations`], events ([`EventRecorder`]), leader election ([`Election`]) and the [`Clock`].
//!
//! It never decides anything about a kind, never polls (a quiet cluster costs no wake-up) and never keeps typed
//! objects. Start at [`Client`], then [`Caches::of`], then [`Controller`].

mod api_access;
mod backoff;
mod body;
mod cache;
mod client;
mod clock;
mod controller;
mod discovery;
mod dynamic;
mod events;
mod expectations;
mod gone;
mod lease;
mod params;
mod queue;
mod remote;
mod resource;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
mod watch;

pub use api_access::Api;
pub use backoff::Backoff;
pub use body::{Body, BoxError, empty, full};
pub use cache::{AnyCache, Cache, Caches, Delta, Form, Projection, Selection, Subscription};
pub use client::{Client, Service};
pub use clock::{Clock, time};
pub use controller::{Context, Controller, Error, Next};
pub use discovery::{Discovered, Served};
pub use dynamic::{DynamicApi, Listing};
pub use events::{EventRecorder, EventType, reference};
pub use expectations::Expectations;
pub use gone::gone_is_fine;
pub use lease::{Election, ElectionTimes};
pub use params::{DeleteParams, ListParams, Patch, Propagation, WatchParams};
pub use queue::Queue;
pub use remote::{Identity, Remote, RemoteError};
pub use resource::{Kind, ResourceRef, controller_reference};
pub use watch::{WatchEvent, WatchStream};
