//! The server.

use super::answer;
use crate::dispatch::Eventing;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most connections; further ones wait to be taken.
pub const CONNECTIONS_MAX: usize = 4096;

/// The most requests whose bodies are in memory at once; further ones wait.
pub const REQUESTS_MAX: usize = 256;

/// How long the head of a request may take.
pub const HEAD_MAX: Duration = Duration::from_secs(10);

/// The most bytes of a head.
pub const HEAD_BYTES_MAX: usize = 64 << 10;

/// The most headers of a request: attributes and what comes with every request.
pub const HEADERS_MAX: usize = 256;

/// The most requests at once on one connection of HTTP/2.
pub const STREAMS_MAX: u32 = 128;

/// How often a silent connection of HTTP/2 is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long requests may go on after `stop`.
pub const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the system refused a connection, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Eventing {
    /// Takes events until `stop`, then finishes the requests that are under way.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        let accepting = async {
            loop {
                let Ok(permit) = connections.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let connection =
                            connection(self.clone(), stream, graceful.watcher(), requests.clone(), permit);
                        drop(tokio::spawn(connection));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        let _ = stop.run_until_cancelled(accepting).await;
        drop(listener);
        if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
            tracing::info!("some requests did not end in time");
        }
    }
}

async fn connection(
    eventing: Eventing,
    stream: TcpStream,
    graceful: Watcher,
    requests: Arc<Semaphore>,
    _permit: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (eventing, requests) = (eventing.clone(), requests.clone());
        async move {
            let _permit = requests.acquire().await;
            Ok::<_, Infallible>(answer(&eventing.0, request).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = graceful.watch(connection.into_owned()).await {
        tracing::debug!(%error, "the connection ended");
    }
}
