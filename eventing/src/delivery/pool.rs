//! The connections over which events go out.

use super::REPLY_BYTES_MAX;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a connection may take to be made.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long a connection is kept without use.
pub const IDLE_MAX: Duration = Duration::from_secs(90);

/// The most connections that are kept for one host. Upstream: `defaultMaxIdleConnectionsPerHost` of the filter.
pub const IDLE_PER_HOST_MAX: usize = 100;

/// How often a request is sent again at once because its connection had been closed by the other side, which kept connections have
/// no way to know. Go's client does the same. A consumer may see such an event twice.
pub const STALE_MAX: usize = 2;

/// Finds the address of a host, names of the cluster included.
pub trait Resolve: Send + Sync + 'static {
    /// An address to connect to.
    ///
    /// # Errors
    /// `NotFound` for a name that nobody has.
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<SocketAddr>>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Only `http` is spoken.
    #[error("scheme {scheme:?} is not supported")]
    Scheme {
        /// The scheme of the URI.
        scheme: String,
    },
    /// No connection, or one that broke.
    #[error("{reason}")]
    Transport {
        /// What the layers below say.
        reason: String,
    },
    /// The body of the answer is larger than [`REPLY_BYTES_MAX`], or it broke off.
    #[error("the body of the answer cannot be read: {reason}")]
    Body {
        /// What the layers below say.
        reason: String,
    },
}

/// Sends a request and brings the whole answer. Redirects are answers like any other.
pub trait Post: Send + Sync + 'static {
    /// Sends it.
    fn post(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>>;
}

/// Pooled connections of HTTP/1.1.
#[derive(Clone)]
pub struct Pool {
    client: Client<Connector, Full<Bytes>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Without connections so far.
    pub fn new(resolve: Arc<dyn Resolve>) -> Pool {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(Connector { resolve });
        Pool { client }
    }
}

/// An error with its sources: what a dead letter says about it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(own) = next {
        text.push_str(": ");
        text.push_str(&own.to_string());
        next = own.source();
    }
    text
}

/// Whether a connection that had been made ended before its answer.
fn is_stale(error: &hyper_util::client::legacy::Error) -> bool {
    let mut next = Some(error as &(dyn std::error::Error + 'static)).filter(|_| !error.is_connect());
    while let Some(own) = next {
        let incomplete = own.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
        let reset = own.downcast_ref::<io::Error>().is_some_and(|own| {
            matches!(own.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        });
        if incomplete || reset {
            return true;
        }
        next = own.source();
    }
    false
}

impl Post for Pool {
    fn post(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, PostError>> {
        let client = self.client.clone();
        Box::pin(async move {
            let scheme = request.uri().scheme_str().unwrap_or_default();
            if scheme != "http" {
                return Err(PostError::Scheme { scheme: scheme.to_owned() });
            }
            let mut stale = 0;
            let answer = loop {
                match client.request(request.clone().map(Full::new)).await {
                    Err(error) if stale < STALE_MAX && is_stale(&error) => stale += 1,
                    own => break own,
                }
            };
            let (head, body) =
                answer.map_err(|own| PostError::Transport { reason: whole(&own) })?.into_parts();
            let body = Limited::new(body, REPLY_BYTES_MAX).collect().await;
            let body = body.map_err(|own| PostError::Body { reason: whole(own.as_ref()) })?.to_bytes();
            Ok(Response::from_parts(head, body))
        })
    }
}

#[derive(Clone)]
struct Connector {
    resolve: Arc<dyn Resolve>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let resolve = self.resolve.clone();
        Box::pin(async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let connect = async {
                let address = resolve.resolve(&host, uri.port_u16().unwrap_or(80)).await?;
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(TokioIo::new(stream))
            };
            match tokio::time::timeout(CONNECT_MAX, connect).await {
                Ok(own) => own,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}
