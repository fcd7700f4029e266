//! A request on its way through: a place in a pod, the pod's answer within its times, and the end of both.
//!
//! # Flow
//! counted → place in a pod (waiting for one where there is none) → sent → first byte → rest. The place and the count last until
//! the answer has ended, or the tunnel that an upgrade made of it.
//!
//! # Guarantees
//! Until its first byte an answer can be a 503 or 504 of ours with upstream's words; after it, an answer that stands still too
//! long is cut off.

use super::revisions::{Asked, Lease};
use super::views::RevisionView;
use super::{Body, BodyError, Inner, headers};
use crate::traffic::InFlight;
use api::ObjectName;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, timeout_at};

/// An answer of our own.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response
}

/// A body that is there already.
pub(super) fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What a request holds until its answer has ended.
struct Held {
    _lease: Lease,
    _in_flight: InFlight,
}

impl Inner {
    /// Brings a request to a revision: to one of its pods (by uid), or to any.
    pub(super) async fn to_revision(
        &self,
        name: &ObjectName,
        pod: Option<&str>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some(view) = self.views.revisions.get(&name.namespace, &name.name) else {
            return text(StatusCode::NOT_FOUND, "revision not found\n");
        };
        let requests = self.revisions.of(name);
        let in_flight = requests.begin();
        let deadline = Instant::now() + view.timeout;
        let asked = match pod {
            None => requests.ask(),
            Some(uid) => requests.ask_pod(uid),
        };
        let lease = match asked {
            Asked::Now(lease) => lease,
            Asked::Full => return text(StatusCode::SERVICE_UNAVAILABLE, "pending request queue full\n"),
            Asked::Later(comes) => {
                if pod.is_none() && requests.is_without_pods() {
                    self.revisions.wake(name);
                }
                match timeout_at(deadline, comes).await {
                    Ok(Ok(lease)) => lease,
                    Ok(Err(_)) => return text(StatusCode::SERVICE_UNAVAILABLE, "the pod is gone\n"),
                    Err(_) => return text(StatusCode::GATEWAY_TIMEOUT, "activator request timeout"),
                }
            }
        };
        let to = SocketAddr::new(lease.address, view.port);
        self.to_pod(&view, to, Held { _lease: lease, _in_flight: in_flight }, request, deadline).await
    }

    async fn to_pod(
        &self,
        view: &RevisionView,
        to: SocketAddr,
        held: Held,
        request: Request<Incoming>,
        deadline: Instant,
    ) -> Response<Body> {
        let now = Instant::now();
        let first = [view.start_timeout, view.idle_timeout].into_iter().flatten().map(|own| now + own);
        let first = first.fold(deadline, Instant::min);
        let exchange = self.exchange(to, view.is_h2c, request, held, |body, held| {
            let idle = view.idle_timeout.map(|most| (most, Box::pin(tokio::time::sleep(most))));
            Tracked { body, idle, _held: held }.boxed_unsync()
        });
        match timeout_at(first, exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => refusal.answer("the container did not answer\n"),
            Err(_) => text(StatusCode::GATEWAY_TIMEOUT, "request timeout"),
        }
    }

    /// Brings a request to an address that is no pod of a revision.
    pub(super) async fn to_address(&self, to: SocketAddr, request: Request<Incoming>) -> Response<Body> {
        let exchange =
            self.exchange(to, false, request, (), |body, ()| body.map_err(Into::into).boxed_unsync());
        exchange.await.unwrap_or_else(|refusal| refusal.answer("the service did not answer\n"))
    }

    /// Sends a request and takes the head of its answer. An upgrade becomes a tunnel, which has `held` then; else it is given to
    /// `body`.
    async fn exchange<H: Send + 'static>(
        &self,
        to: SocketAddr,
        is_h2c: bool,
        mut request: Request<Incoming>,
        held: H,
        body: impl FnOnce(Incoming, H) -> Body,
    ) -> Result<Response<Body>, Refusal> {
        let is_upgrade = request.version() != Version::HTTP_2 && headers::is_upgrade(request.headers());
        let client = is_upgrade.then(|| hyper::upgrade::on(&mut request));
        let is_h2c = is_h2c && !is_upgrade;
        let request = outgoing(request, to, is_h2c, is_upgrade).ok_or(Refusal::NoTarget)?;
        let mut response = self.backend.send(request, is_h2c).await.map_err(|error| {
            tracing::debug!(%to, error = &error as &dyn std::error::Error, "no answer");
            Refusal::NoAnswer
        })?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), client) {
            let server = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel(client, server, held));
            let (parts, _) = response.into_parts();
            return Ok(Response::from_parts(parts, whole(Bytes::new())));
        }
        let (mut parts, incoming) = response.into_parts();
        headers::end_hop(&mut parts.headers, false);
        parts.version = Version::default();
        Ok(Response::from_parts(parts, body(incoming, held)))
    }
}

/// Why there is no answer from where a request was to go.
enum Refusal {
    /// Nobody can say where in its server the request was to go.
    NoTarget,
    /// The connection could not be made, or broke off.
    NoAnswer,
}

impl Refusal {
    fn answer(self, no_answer: &'static str) -> Response<Body> {
        match self {
            Self::NoTarget => text(StatusCode::BAD_REQUEST, "the request has no valid target\n"),
            Self::NoAnswer => text(StatusCode::BAD_GATEWAY, no_answer),
        }
    }
}

/// The request as it goes on: to an address, in the version that is spoken there, with the headers that are meant for there.
fn outgoing(
    request: Request<Incoming>,
    to: SocketAddr,
    is_h2c: bool,
    is_upgrade: bool,
) -> Option<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    if !parts.headers.contains_key(http::header::HOST) {
        let host = parts.uri.authority()?.as_str().to_owned();
        headers::insert(&mut parts.headers, http::header::HOST, &host);
    }
    headers::to_container(&mut parts.headers);
    headers::end_hop(&mut parts.headers, is_upgrade);
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    parts.uri = Uri::builder().scheme("http").authority(to.to_string()).path_and_query(path).build().ok()?;
    parts.version = if is_h2c { Version::HTTP_2 } else { Version::HTTP_11 };
    Some(Request::from_parts(parts, body.map_err(Into::into).boxed_unsync()))
}

/// Bytes both ways until both ends have closed.
async fn tunnel<H>(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade, _held: H) {
    let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
    // Whoever breaks off has said all it wanted to.
    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
}

/// An answer stood still for longer than the revision's `idleTimeoutSeconds`.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
struct Idle(Duration);

/// The body of an answer, with what is held until it ends.
struct Tracked {
    body: Incoming,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    _held: Held,
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let Some((most, sleep)) = &mut self.idle else { return frame.map_err(Into::into) };
        match frame {
            Poll::Ready(frame) => {
                sleep.as_mut().reset(Instant::now() + *most);
                Poll::Ready(frame.map(|own| own.map_err(Into::into)))
            }
            Poll::Pending => match sleep.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Box::new(Idle(*most))))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
