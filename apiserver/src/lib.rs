//! The API server: the verbs over any resource table. It decodes, authenticates, authorises, admits, validates, writes,
//! watches and encodes.
//!
//! It never names a kind in its verbs, codec and watch cache: what is special about a kind is in its row
//! ([`api::Resource`]), in its strategy, in admission, or in a [`hooks::Handler`].
//!
//! Start at [`server::Server`] (the composition) and [`pipeline`] (the way of a request); what others plug in is in
//! [`hooks`].

pub mod actions;
pub mod aggregate;
pub mod audit;
pub mod auth;
mod chain;
pub mod codec;
pub mod connect;
mod crd;
pub mod discovery;
pub mod encryption;
mod fields;
pub mod health;
pub mod hooks;
mod inward;
mod maintenance;
mod metadata;
pub mod openapi;
pub mod options;
pub mod path;
pub mod pipeline;
pub mod present;
pub mod registry;
pub mod serve;
pub mod server;
pub mod standard;
pub mod storage;
mod verbs;
pub mod watch_cache;
mod webhook;

use bytes::Bytes;

pub use server::{Builder, Config, Server};

/// The error type of bodies.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// Body of requests and responses, the same alias as in `client`.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;
/// A request as it travels through the server.
pub type Request = http::Request<Body>;
/// A response as it travels through the server.
pub type Response = http::Response<Body>;
/// The API server as a service: what `serve` puts behind TLS and what `client` calls in process.
pub type Service = tower::util::BoxCloneSyncService<Request, Response, std::convert::Infallible>;
