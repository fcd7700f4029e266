//! A server over real TLS, for what the API server calls.
#![allow(dead_code)] // every test binary uses its own part

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A server and how it is reached.
pub struct TlsServer {
    /// Where it listens, on loopback.
    pub port: u16,
    /// Its certificate, as a `caBundle`.
    pub bundle: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes an answer from the head and the JSON of a request.
pub type Answer = fn(&http::request::Parts, &Value) -> Value;

impl TlsServer {
    /// Answers everything but `/never` as `answer` does, under this name.
    pub async fn new(name: &str, answer: Answer) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let pem = made.cert.pem();
        let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(acceptor.clone(), stream, answer));
            }
        });
        Self { port, bundle: base64::engine::general_purpose::STANDARD.encode(pem), task }
    }
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, stream: tokio::net::TcpStream, answer: Answer) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            if head.uri.path() == "/never" {
                std::future::pending::<()>().await;
            }
            let reply = answer(&head, &serde_json::from_slice(&bytes).unwrap_or_default()).to_string();
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from(reply))))
        });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
