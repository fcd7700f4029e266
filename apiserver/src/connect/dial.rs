//! Opening a connection, sending one request over it, and splicing what follows an upgrade.

use crate::serve::TlsError;
use crate::{Body, BodyError, Request, Response};
use api::Status;
use futures::future::BoxFuture;
use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long TCP and TLS may take together. Upstream dials with 30 s; a node or pod answers at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the head of an answer may take.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// Bytes under way in one direction of a spliced stream.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// Where to, and whether by TLS.
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Whom the certificate must name, where that is not the address.
    pub(crate) name: Option<String>,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("dial tcp {to}: {source}")]
    Connect { to: SocketAddr, source: std::io::Error },
    #[error("dial tcp {to}: i/o timeout")]
    Timeout { to: SocketAddr },
    #[error("tls: {source}")]
    Tls { source: std::io::Error },
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Silent,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn open(to: &Destination) -> Result<Box<dyn Io>, DialError> {
    let address = SocketAddr::new(to.address, to.port);
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|source| DialError::Connect { to: address, source })?;
    // Whole messages are written: waiting for more only adds latency.
    let _ = stream.set_nodelay(true);
    let Some(config) = &to.tls else { return Ok(Box::new(stream)) };
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    let name = match &to.name {
        Some(name) => ServerName::try_from(name.clone())
            .map_err(|error| DialError::Tls { source: std::io::Error::other(error) })?,
        None => ServerName::IpAddress(to.address.into()),
    };
    let stream = connector.connect(name, stream).await.map_err(|source| DialError::Tls { source })?;
    Ok(Box::new(stream))
}

/// Sends one request over a connection of its own. The connection ends with the answer's body, or lives on after an
/// upgrade.
pub(crate) fn send(
    to: Destination,
    request: Request,
) -> BoxFuture<'static, Result<http::Response<hyper::body::Incoming>, DialError>> {
    Box::pin(async move {
        let address = SocketAddr::new(to.address, to.port);
        let opened = tokio::time::timeout(CONNECT_MAX, open(&to)).await;
        let stream = opened.map_err(|_| DialError::Timeout { to: address })??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a node or pod ended");
            }
        });
        let sent = tokio::time::timeout(HEAD_MAX, sender.send_request(request)).await;
        Ok(sent.map_err(|_| DialError::Silent)??)
    })
}

/// An answer with our type of body.
pub(crate) fn answer(response: http::Response<hyper::body::Incoming>) -> Response {
    response.map(|body| body.map_err(|error| Box::new(error) as BodyError).boxed_unsync())
}

/// Whether the client asks to change the protocol.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Headers that are about one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes out what is about one connection only, including what `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The head of a request that goes on: no credentials, no impersonation, the destination as host. An upgrade is kept.
pub(crate) fn forwarded(headers: &HeaderMap, to: &Destination) -> HeaderMap {
    let mut own = headers.clone();
    let upgrade = headers.get(UPGRADE).filter(|_| is_upgrade(headers)).cloned();
    strip_hop_by_hop(&mut own);
    if let Some(upgrade) = upgrade {
        own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        own.insert(UPGRADE, upgrade);
    }
    crate::auth::token::bearer::strip(&mut own);
    crate::auth::impersonation::strip(&mut own);
    own.remove(HOST);
    if let Ok(host) = HeaderValue::from_str(&SocketAddr::new(to.address, to.port).to_string()) {
        own.insert(HOST, host);
    }
    own
}

/// Sends the request on and, if the other side changes the protocol, splices both connections. `request` must have its
/// final URI and headers.
pub(crate) async fn upgrade(
    to: &Destination,
    mut client: Request,
    request: Request,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Result<Response, DialError> {
    let on_client = hyper::upgrade::on(&mut client);
    let mut response = send(to.clone(), request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = answer(response);
        strip_hop_by_hop(response.headers_mut());
        return Ok(response);
    }
    let on_node = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let _permit = permit;
        let (client, node) = match tokio::try_join!(on_client, on_node) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "a stream could not be upgraded");
                return;
            }
        };
        let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
        let copied =
            tokio::io::copy_bidirectional_with_sizes(&mut client, &mut node, BUFFER_BYTES, BUFFER_BYTES);
        if let Err(error) = copied.await {
            tracing::debug!(%error, "a stream ended");
        }
    });
    let (head, _) = response.into_parts();
    let body: Body = crate::codec::body::full(bytes::Bytes::new());
    Ok(Response::from_parts(head, body))
}

/// 503 as upstream says it of a backend that does not answer.
pub(crate) fn unreachable(error: &DialError) -> Status {
    Status::unavailable(format!("error trying to reach service: {error}"))
}

/// Accepts any certificate: what is proxied to by `https:` has no name that could be checked. Upstream's proxy transport
/// skips verification too.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS towards nodes: which certificates of theirs are trusted, and the one to show them. All in PEM.
///
/// # Errors
/// See [`TlsError`].
pub fn tls(ca_pem: &str, chain_pem: &str, key_pem: &str) -> Result<ClientConfig, TlsError> {
    let certificates = |what, pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem { what, source })
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates("CA of nodes", ca_pem)? {
        roots.add(certificate)?;
    }
    let chain = certificates("client certificate", chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|source| TlsError::Pem { what: "client key", source })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(config)
}

/// TLS towards whoever is there, without a certificate of ours.
pub(crate) fn tls_unverified() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// TLS towards who has a certificate below `roots`, or towards whoever is there; `shown` is a certificate of ours and its
/// key, in PEM.
///
/// # Errors
/// See [`TlsError`].
pub(crate) fn tls_towards(
    roots: Option<Vec<CertificateDer<'static>>>,
    shown: Option<(&str, &str)>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(certificates) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(certificates);
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider))),
    };
    let Some((chain, key)) = shown else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what: "client certificate", source })?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|source| TlsError::Pem { what: "client key", source })?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("impersonate-user", "jane"),
            ("connection", "Upgrade, x-own"),
            ("upgrade", "SPDY/3.1"),
            ("x-own", "1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("host", "api"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let to = Destination { address: [10, 0, 0, 1].into(), port: 10250, name: None, tls: None };
        let own = forwarded(&headers, &to);
        let mut names: Vec<_> =
            own.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "connection=Upgrade",
                "host=10.0.0.1:10250",
                "upgrade=SPDY/3.1",
                "x-stream-protocol-version=v4.channel.k8s.io"
            ]
        );
        headers.remove(CONNECTION);
        assert!(!forwarded(&headers, &to).contains_key(UPGRADE));
    }
}
