//! The way to webhooks: where a `clientConfig` leads, TLS with its certificates, and a few connections kept for the next
//! call. Upstream: apiserver `pkg/util/webhook/client.go`.

use crate::codec::body;
use crate::connect::proxy::endpoints_of;
use crate::{Body, BodyError};
use api::Lookup;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Connections that wait for the next call.
const IDLE_MAX: usize = 64;
/// How long one waits.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// TLS settings that are kept, one for each `caBundle`; beyond it all are made anew.
const TLS_MAX: usize = 256;
/// Text of an answer that is shown where it is an error.
const SHOWN_CHARS_MAX: usize = 1024;

/// Why a webhook gave no answer. The texts are those of Go's HTTP client, as clients and tests know them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The configuration leads nowhere.
    #[error("Post \"{url}\": {why}")]
    Place { url: String, why: String },
    /// There is no connection.
    #[error("Post \"{url}\": dial tcp {to}: connect: {source}")]
    Connect { url: String, to: SocketAddr, source: std::io::Error },
    /// The other side is not who it should be.
    #[error("Post \"{url}\": tls: failed to verify certificate: {source}")]
    Tls { url: String, source: std::io::Error },
    /// The connection broke.
    #[error("Post \"{url}\": {source}")]
    Http { url: String, source: hyper::Error },
    /// It took too long.
    #[error("Post \"{url}\": context deadline exceeded")]
    Timeout { url: String },
    /// The answer is no success.
    #[error("{text}")]
    Refused { code: u16, text: String },
    /// The answer is no JSON, or too long.
    #[error("{0}")]
    Answer(String),
}

/// Which connection a call may use.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Route {
    to: SocketAddr,
    name: String,
    bundle: String,
}

struct Idle {
    route: Route,
    sender: SendRequest<Body>,
    since: Instant,
}

/// Calls webhooks.
#[derive(Default)]
pub(crate) struct Webhooks {
    idle: Mutex<Vec<Idle>>,
    tls: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

/// Where a `clientConfig` leads.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// As errors show it, and as the request says it.
    url: String,
    host: String,
    port: u16,
    path: String,
    /// Namespace, name and port of a service.
    service: Option<(String, String, i64)>,
}

impl Place {
    fn of(config: &Value, seconds_max: Option<u64>) -> Self {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let query = seconds_max.map(|seconds| format!("?timeout={seconds}s")).unwrap_or_default();
        let service = &config["service"];
        if service.is_object() {
            let (namespace, name) = (text(service, "namespace"), text(service, "name"));
            let port = service["port"].as_i64().unwrap_or(443);
            let host = format!("{name}.{namespace}.svc");
            let path = format!("/{}{query}", text(service, "path").trim_start_matches('/'));
            return Self {
                url: format!("https://{host}:{port}{path}"),
                host,
                port: u16::try_from(port).unwrap_or(443),
                path,
                service: Some((namespace, name, port)),
            };
        }
        let url = text(config, "url");
        let rest = url.strip_prefix("https://").unwrap_or(&url);
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(443)),
            _ => (authority, 443),
        };
        let path = format!("{path}{query}");
        Self {
            url: format!("https://{authority}{path}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path,
            service: None,
        }
    }

    async fn resolve(&self, lookup: &dyn Lookup) -> Result<SocketAddr, CallError> {
        let lost = |why: String| CallError::Place { url: self.url.clone(), why };
        let Some((namespace, name, port)) = &self.service else {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
            let found = found.map_err(|error| lost(format!("dial tcp: lookup {}: {error}", self.host)))?;
            return found
                .into_iter()
                .next()
                .ok_or_else(|| lost(format!("dial tcp: lookup {}: no such host", self.host)));
        };
        let all = endpoints_of(lookup, namespace, name, *port).map_err(|status| lost(status.message))?;
        // Any will do; the hash of a new identifier spreads calls well enough.
        let index = uuid::Uuid::new_v4().as_u128() % all.len().max(1) as u128;
        let found = all.get(index as usize);
        let (address, port) =
            found.ok_or_else(|| lost(format!("no endpoints available for service \"{name}\"")))?;
        Ok(SocketAddr::new(*address, *port))
    }
}

impl Webhooks {
    /// Sends JSON to where `config` (a `clientConfig`) leads and reads the JSON that comes back. `tells_timeout`: whether the
    /// webhook is told how long it may take.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call(
        &self,
        lookup: &dyn Lookup,
        config: &Value,
        content: &Value,
        time_max: Duration,
        tells_timeout: bool,
    ) -> Result<Value, CallError> {
        let place = Place::of(config, tells_timeout.then_some(time_max.as_secs()));
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let bytes = Bytes::from(content.to_string());
        let work = self.exchange(lookup, &place, bundle, bytes);
        match tokio::time::timeout(time_max, work).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout { url: place.url }),
        }
    }

    async fn exchange(
        &self,
        lookup: &dyn Lookup,
        place: &Place,
        bundle: &str,
        content: Bytes,
    ) -> Result<Value, CallError> {
        let to = place.resolve(lookup).await?;
        let route = Route { to, name: place.host.clone(), bundle: bundle.to_owned() };
        let broken = |source| CallError::Http { url: place.url.clone(), source };
        if let Some(mut sender) = self.take(&route) {
            match sender.send_request(request(place, content.clone())?).await {
                Ok(response) => return self.finish(route, sender, response).await,
                // It was closed while nobody looked; anything else may have been understood already.
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(broken(error)),
            }
        }
        let mut sender = self.connect(place, &route).await?;
        let response = sender.send_request(request(place, content)?).await.map_err(broken)?;
        self.finish(route, sender, response).await
    }

    async fn connect(&self, place: &Place, route: &Route) -> Result<SendRequest<Body>, CallError> {
        let url = || place.url.clone();
        let stream = TcpStream::connect(route.to).await;
        let stream = stream.map_err(|source| CallError::Connect {
            url: url(),
            to: route.to,
            source: plain(source),
        })?;
        // Whole messages are written: waiting for more only adds latency.
        let _ = stream.set_nodelay(true);
        let refuse = |text: String| CallError::Tls { url: url(), source: std::io::Error::other(text) };
        let config = self.tls_of(&route.bundle).map_err(|error| refuse(error.to_string()))?;
        let name = ServerName::try_from(route.name.clone()).map_err(|error| refuse(error.to_string()))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|source| CallError::Tls { url: url(), source })?;
        let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| CallError::Http { url: url(), source })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a webhook ended");
            }
        });
        Ok(sender)
    }

    async fn finish(
        &self,
        route: Route,
        sender: SendRequest<Body>,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Value, CallError> {
        let (head, answer) = response.into_parts();
        let answer: Body = answer.map_err(|error| Box::new(error) as BodyError).boxed_unsync();
        let bytes =
            body::read(answer, ANSWER_BYTES_MAX).await.map_err(|status| CallError::Answer(status.message))?;
        if sender.is_ready() {
            self.keep(route, sender);
        }
        let code = head.status.as_u16();
        if !head.status.is_success() {
            return Err(refused(code, &bytes));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let text = String::from_utf8_lossy(&bytes);
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            CallError::Answer(format!("couldn't get version/kind; json parse error: {error} ({shown:?})"))
        })
    }

    fn take(&self, route: &Route) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        idle.retain(|own| own.since.elapsed() < IDLE_TIME_MAX && !own.sender.is_closed());
        let at = idle.iter().position(|own| own.route == *route && own.sender.is_ready())?;
        Some(idle.swap_remove(at).sender)
    }

    fn keep(&self, route: Route, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock();
        if idle.len() >= IDLE_MAX {
            idle.remove(0);
        }
        idle.push(Idle { route, sender, since: Instant::now() });
    }

    fn tls_of(&self, bundle: &str) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.tls.lock().get(bundle) {
            return Ok(config.clone());
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(super::certificates(bundle));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let mut kept = self.tls.lock();
        if kept.len() >= TLS_MAX {
            kept.clear();
        }
        kept.insert(bundle.to_owned(), config.clone());
        Ok(config)
    }
}

/// An error as Go says it: without the number.
fn plain(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => std::io::Error::new(error.kind(), "connection refused"),
        _ => error,
    }
}

fn request(place: &Place, content: Bytes) -> Result<http::Request<Body>, CallError> {
    let host = match place.port {
        443 => place.host.clone(),
        port => format!("{}:{port}", place.host),
    };
    http::Request::builder()
        .method(http::Method::POST)
        .uri(&place.path)
        .header(http::header::HOST, host)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json, */*")
        .header(http::header::USER_AGENT, "kube-apiserver-admission")
        .body(body::full(content))
        .map_err(|error| CallError::Place { url: place.url.clone(), why: error.to_string() })
}

/// What a client of ours would make of such an answer.
fn refused(code: u16, bytes: &[u8]) -> CallError {
    let text = String::from_utf8_lossy(bytes);
    let shown: String = text.trim().chars().take(SHOWN_CHARS_MAX).collect();
    let text = match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => "forbidden".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        code if code >= 500 => {
            format!("an error on the server ({shown:?}) has prevented the request from succeeding")
        }
        code => {
            format!("the server responded with the status code {code} but did not return more information")
        }
    };
    CallError::Refused { code, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn where_a_configuration_leads() {
        for (config, url, host, port) in [
            (
                json!({"service": {"name": "s", "namespace": "n"}}),
                "https://s.n.svc:443/?timeout=10s",
                "s.n.svc",
                443,
            ),
            (
                json!({"service": {"name": "s", "namespace": "n", "port": 8443, "path": "/a"}}),
                "https://s.n.svc:8443/a?timeout=10s",
                "s.n.svc",
                8443,
            ),
            (json!({"url": "https://h.example/a/b"}), "https://h.example/a/b?timeout=10s", "h.example", 443),
            (json!({"url": "https://[::1]:9443"}), "https://[::1]:9443/?timeout=10s", "::1", 9443),
        ] {
            let place = Place::of(&config, Some(10));
            assert_eq!((place.url.as_str(), place.host.as_str(), place.port), (url, host, port));
        }
    }
}
