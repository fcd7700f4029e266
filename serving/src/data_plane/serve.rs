//! Accepting connections: HTTP/1.1 and HTTP/2 by prior knowledge on the same port, with bounds for whoever is slow or large.

use super::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at once over one entrance.
const CONNECTIONS_MAX: usize = 20_000;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of one request. More are refused.
const HEADERS_MAX: usize = 200;
/// Bytes of the headers of one request over HTTP/2; over HTTP/1.1 the buffer bounds them.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// What is read at once of a connection.
const BUFFER_BYTES_MAX: usize = 128 << 10;
/// Requests at once over one HTTP/2 connection. Upstream: 250, Go's default.
const STREAMS_MAX: u32 = 250;
/// A silent HTTP/2 client is asked for a sign of life after this long, and given as long to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long requests may go on after `stop`.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Pause after `accept` fails for lack of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then lets requests end for a while.
pub(super) async fn serve<F, R>(listener: TcpListener, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>, IpAddr) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let next = async {
            // The semaphore is never closed. Whoever is over the bound waits in the kernel's queue.
            let permit = connections.clone().acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! {
            Some(next) = next => next,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and whole: waiting for more to send only adds latency.
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let asked = Arc::new(AtomicBool::new(false));
        let asks = asked.clone();
        let service = hyper::service::service_fn(move |request| {
            asks.store(true, Ordering::Relaxed);
            let answer = answer(request, peer.ip().to_canonical());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            let mut watched = std::pin::pin!(watched);
            // Which version is spoken is found out before the time for a head begins: who says nothing at all must not stay.
            let ended = tokio::select! {
                ended = &mut watched => ended,
                () = tokio::time::sleep(HEAD_TIMEOUT) => match asked.load(Ordering::Relaxed) {
                    true => watched.await,
                    false => return tracing::debug!(%peer, "a connection asked for nothing"),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error = &*error, "a connection ended");
            }
        });
    }
    drop(listener);
    // Those that do not end in time are cut off with the process.
    let _ = tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}
