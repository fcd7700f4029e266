//! The cluster's DNS: names of services and pods from the caches, everything else from the node's own servers.
//!
//! [`answer`] decides, purely, what a name has; [`server`] holds the sockets; [`source`] reads the caches.

pub mod answer;
pub mod server;
pub mod source;

pub use answer::{Endpoint, Port, Service, ServiceKind, Source};
pub use server::{Options, run};
