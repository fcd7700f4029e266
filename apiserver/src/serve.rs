//! The socket: TLS, HTTP/1.1 and HTTP/2 around a [`Service`].

use crate::hooks::{PeerCertificates, RemoteAddress};
use crate::{Body, Request, Response, Service};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;

/// Connections at once. Each costs a few tens of KB; a node, its pods and people together stay far below.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a client may take to shake hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Bytes of headers of one request; what upstream's Go server allows too.
const HEAD_BYTES_MAX: u32 = 1 << 20;
/// Requests at once over one HTTP/2 connection. Upstream: `--http2-max-streams-per-connection`.
const STREAMS_MAX: u32 = 250;
/// A silent HTTP/2 client is asked for a sign of life after this long, and given as long to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long requests may go on after shutdown was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Pause after `accept` fails for lack of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Which one.
        what: &'static str,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The parts do not fit together.
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The CA of clients cannot be used.
    #[error("the certificate authority of clients cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A TLS configuration: the server's certificate chain and key, and the CA whose client certificates are accepted. A client
/// without a certificate may still show a token.
///
/// # Errors
/// See [`TlsError`].
pub fn tls(chain_pem: &str, key_pem: &str, client_ca_pem: &str) -> Result<ServerConfig, TlsError> {
    let certificates = |what, pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem { what, source })
    };
    let chain = certificates("server certificate", chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|source| TlsError::Pem { what: "server key", source })?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates("client CA", client_ca_pem)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves until `shutdown` resolves, then lets requests end for a while and closes.
///
/// # Flow
/// accept → handshake (bounded in time) → requests. New connections use the configuration that `tls` holds at that moment:
/// a renewed certificate needs no restart. Whoever is over the bound of connections waits in the kernel's queue.
pub async fn serve(
    service: Service,
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    shutdown: impl Future<Output = ()>,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let config = tls.load_full();
                tokio::spawn(connection(service.clone(), stream, from, config, graceful.watcher(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown()).await.is_err() {
        tracing::info!("some requests did not end in time");
    }
}

async fn connection(
    service: Service,
    stream: TcpStream,
    from: SocketAddr,
    config: Arc<ServerConfig>,
    graceful: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // Answers are small and whole: waiting for more to send only adds latency.
    let _ = stream.set_nodelay(true);
    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "the handshake failed"),
        Err(_) => return tracing::debug!(%from, "the handshake took too long"),
    };
    let peer = stream.get_ref().1.peer_certificates().map(|chain| {
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        PeerCertificates(chain.into())
    });
    let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (mut head, body) = request.into_parts();
        // Nothing from the wire may carry an identity.
        head.extensions.remove::<api::UserInfo>();
        head.extensions.insert(RemoteAddress(from));
        if let Some(peer) = &peer {
            head.extensions.insert(peer.clone());
        }
        let body: Body = body.map_err(Into::into).boxed_unsync();
        call(service.clone(), Request::from_parts(head, body))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_INTERVAL)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
    let watched = graceful.watch(connection.into_owned());
    if let Err(error) = watched.await {
        tracing::debug!(%from, %error, "the connection ended");
    }
}

/// The future is boxed by name: the compiler does not see through `oneshot` that it is `Send` for every body.
fn call(service: Service, request: Request) -> BoxFuture<'static, Result<Response, Infallible>> {
    Box::pin(service.oneshot(request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Pki {
        ca_pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Pki {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let ca_pem = params.self_signed(&key).unwrap().pem();
            Self { issuer: Issuer::from_ca_cert_pem(&ca_pem, key).unwrap(), ca_pem }
        }

        fn leaf(&self, name: &str) -> (String, String) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        fn connector(&self, client: Option<(String, String)>) -> tokio_rustls::TlsConnector {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = match client {
                None => builder.with_no_client_auth(),
                Some((chain, key)) => builder
                    .with_client_auth_cert(
                        vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                    )
                    .unwrap(),
            };
            tokio_rustls::TlsConnector::from(Arc::new(config))
        }
    }

    /// Answers whether it saw a certificate, an address, and an identity.
    fn mirror() -> Service {
        Service::new(tower::service_fn(|request: Request| async move {
            let seen = request.extensions();
            let text = format!(
                "certificates={} address={} identity={}",
                seen.get::<PeerCertificates>().is_some(),
                seen.get::<RemoteAddress>().is_some(),
                seen.get::<api::UserInfo>().is_some()
            );
            let body = http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync();
            Ok(http::Response::new(body))
        }))
    }

    async fn get(pki: &Pki, at: SocketAddr, client: Option<(String, String)>) -> std::io::Result<String> {
        let stream = TcpStream::connect(at).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = pki.connector(client).connect(name, stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn certificates_are_optional_but_must_be_ours_and_shutdown_ends_it() {
        let pki = Pki::new();
        let (chain, key) = pki.leaf("localhost");
        let config = Arc::new(ArcSwap::from_pointee(tls(&chain, &key, &pki.ca_pem).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(mirror(), listener, config, async {
            let _ = stopped.await;
        }));
        assert_eq!(get(&pki, at, None).await.unwrap(), "certificates=false address=true identity=false");
        let known = Some(pki.leaf("admin"));
        assert_eq!(get(&pki, at, known).await.unwrap(), "certificates=true address=true identity=false");
        let stranger = Some(Pki::new().leaf("admin"));
        assert!(get(&pki, at, stranger).await.is_err());
        // Garbage instead of a handshake harms nobody else.
        TcpStream::connect(at).await.unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert!(get(&pki, at, None).await.is_ok());
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(TcpStream::connect(at).await.is_err());
    }

    #[test]
    fn wrong_pem_is_told_by_name() {
        let error = tls("nonsense", "nonsense", "nonsense").unwrap_err().to_string();
        assert!(error.contains("server key"), "{error}");
    }
}
