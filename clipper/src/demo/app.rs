//! `clipper demo-app`: a page that says which pod answers and how often it has.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Where it listens.
pub const PORT: u16 = 8080;
/// Answers as long as it lives, and counts nothing.
pub const HEALTH_PATH: &str = "/healthz";
/// Connections at once; more wait.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After an `accept` that failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The port is taken.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
            .await
            .with_context(|| format!("port {PORT} cannot be bound"))?;
        let pod = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        println!("{pod} listens on port {PORT}");
        tokio::select! {
            () = serve(listener, pod.into()) => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        Ok(())
    })
}

async fn serve(listener: TcpListener, pod: Arc<str>) {
    let (count, places) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (pod, count) = (pod.clone(), count.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = answer(request.uri().path(), &pod, &count);
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // A client that goes away in the middle is nobody's trouble.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

fn answer(path: &str, pod: &str, count: &AtomicU64) -> Response<Full<Bytes>> {
    let (status, kind, text) = match path {
        HEALTH_PATH => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/" => {
            let requests = count.fetch_add(1, Ordering::Relaxed) + 1;
            (StatusCode::OK, "text/html; charset=utf-8", page(pod, requests))
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "there is only one page: /\n".to_owned()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// `pod` is a host name: nothing in it is markup.
fn page(pod: &str, requests: u64) -> String {
    format!(
        "<!doctype html>\n<title>Clipper</title>\n\
         <style>body {{ font: 1.2em sans-serif; margin: 4em auto; max-width: 32em }}</style>\n\
         <h1>It works</h1>\n<p>Pod <b>{pod}</b> has answered <b>{requests}</b> requests.</p>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn pages_are_counted_and_probes_are_not() {
        let count = AtomicU64::new(0);
        let text = async |path: &str| {
            let answer = answer(path, "demo-1", &count);
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        assert_eq!(text(HEALTH_PATH).await, (200, "ok\n".to_owned()));
        assert!(text("/").await.1.contains("<b>demo-1</b> has answered <b>1</b>"));
        assert!(text("/").await.1.contains("<b>2</b>"));
        assert_eq!(text("/other").await.0, 404);
    }
}
