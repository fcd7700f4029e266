//! An API server elsewhere: TLS, h2 or kept-alive h1 connections, credentials.

use crate::body::Body;
use crate::client::unreachable;
use api::Status;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection as Negotiated};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::ResolvesClientCert;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that does not answer a ping for this long while requests are open is dead. As client-go's default.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// A server that accepts no connection within this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are given back after this time.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// The largest token file that is believed: a token of a service account is about 1 KB.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Who the client is.
#[derive(Clone)]
pub enum Identity {
    /// Nobody.
    Anonymous,
    /// A client certificate and its key, both PEM.
    Certificate {
        /// The chain, leaf first.
        certificates: Vec<u8>,
        /// The private key.
        key: Vec<u8>,
    },
    /// A certificate that is renewed while the client lives.
    Renewed(Arc<dyn ResolvesClientCert>),
    /// A bearer token.
    Token(String),
    /// A file that holds a bearer token and is rewritten before the token expires; read for every request.
    TokenFile(PathBuf),
}

/// Where the server is and how both sides prove who they are.
#[derive(Clone)]
pub struct Remote {
    /// Such as `https://10.0.0.1:6443`.
    pub server: String,
    /// Certificates (PEM) that may have signed the server's.
    pub ca: Vec<u8>,
    /// Who we are.
    pub identity: Identity,
}

/// A remote server cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Not an `https` URL with a host.
    #[error("the server {server} is not a https URL")]
    Server {
        /// What was given.
        server: String,
    },
    /// A PEM file cannot be read.
    #[error("a certificate or key cannot be read")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The certificates cannot be used.
    #[error("the TLS configuration cannot be used")]
    Tls(#[from] rustls::Error),
}

impl Remote {
    pub(crate) fn connect(self) -> Result<Connection, RemoteError> {
        let wrong = || RemoteError::Server { server: self.server.clone() };
        let base: Uri = self.server.parse().map_err(|_| wrong())?;
        let host = base.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        if base.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Identity::Certificate { certificates, key } => {
                let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
            }
            Identity::Renewed(resolver) => builder.with_client_cert_resolver(resolver.clone()),
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let dial = Dial {
            tls: TlsConnector::from(Arc::new(config)),
            name,
            host,
            port: base.port_u16().unwrap_or(443),
        };
        let pool = Pool::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_adaptive_window(true)
            .build(dial);
        Ok(Connection { pool, base, identity: self.identity })
    }
}

/// The pool of connections to one server.
pub(crate) struct Connection {
    pool: Pool<Dial, Body>,
    base: Uri,
    identity: Identity,
}

impl Connection {
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = self.base.scheme().cloned();
        parts.authority = self.base.authority().cloned();
        *request.uri_mut() = Uri::from_parts(parts).map_err(Status::internal)?;
        if let Some(token) = self.token().await? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        match self.pool.request(request).await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(error) => Err(unreachable(&error)),
        }
    }

    async fn token(&self) -> Result<Option<HeaderValue>, Status> {
        let token = match &self.identity {
            Identity::Token(token) => token.clone(),
            Identity::TokenFile(path) => read_token(path).await.map_err(|error| unreachable(&error))?,
            _ => return Ok(None),
        };
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(Status::internal)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

async fn read_token(path: &std::path::Path) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(TOKEN_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}

/// Makes connections: TCP, then TLS with ALPN.
#[derive(Clone)]
struct Dial {
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
    port: u16,
}

impl tower::Service<Uri> for Dial {
    type Response = Stream;
    type Error = std::io::Error;
    type Future = futures::future::BoxFuture<'static, std::io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let connect = async {
                let tcp = TcpStream::connect((dial.host.as_str(), dial.port)).await?;
                tcp.set_nodelay(true)?;
                dial.tls.connect(dial.name, tcp).await
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
                Ok(stream) => Ok(Stream(TokioIo::new(stream?))),
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// A TLS connection that can tell which HTTP version was agreed on.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Negotiated for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
