//! How fast the server is: GET, LIST of 500 and durable POST over TLS with keep-alive, load and server in one process.
//!
//! `cargo run --release -p apiserver --example load [SECONDS] [STORE-FILE]`

use api::{Resource, Scope};
use apiserver::hooks::{Authenticate, Identity};
use apiserver::{Server, serve};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::embedded::{Embedded, Options};

/// Everybody who has the token is an administrator.
struct Token;

impl Authenticate for Token {
    fn authenticate<'a>(
        &'a self,
        head: &'a http::request::Parts,
    ) -> BoxFuture<'a, Result<Option<Identity>, api::Status>> {
        let known = head.headers.get("authorization").is_some_and(|value| value == "Bearer load");
        let admin = api::UserInfo {
            name: "admin".to_owned(),
            groups: vec![api::user::GROUP_MASTERS.to_owned()],
            ..Default::default()
        };
        Box::pin(std::future::ready(Ok(known.then(|| admin.into()))))
    }
}

#[derive(Clone)]
struct Client {
    connector: tokio_rustls::TlsConnector,
    at: SocketAddr,
}

type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

impl Client {
    async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = tokio::net::TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

async fn send(
    sender: &mut Sender,
    method: &str,
    path: &str,
    body: Bytes,
) -> Result<(u16, usize), Box<dyn std::error::Error + Send + Sync>> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", "Bearer load")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        len += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok((code, len))
}

fn config_map(name: &str) -> Bytes {
    let text = "x".repeat(900);
    let object =
        serde_json::json!({"metadata": {"name": name, "labels": {"app": "load"}}, "data": {"text": text}});
    object.to_string().into()
}

/// Runs requests on so many connections for a while and prints how many there were in a second.
async fn measure(
    what: &str,
    client: &Client,
    connections: usize,
    seconds: f64,
    request: impl Fn(u64) -> (&'static str, String, Bytes) + Clone + Send + 'static,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (count, serial) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (mut sender, request) = (client.connect().await?, request.clone());
        let (count, serial) = (count.clone(), serial.clone());
        tasks.push(tokio::spawn(async move {
            let mut worst = Duration::ZERO;
            while start.elapsed().as_secs_f64() < seconds {
                let (method, path, body) = request(serial.fetch_add(1, Ordering::Relaxed));
                let began = Instant::now();
                match send(&mut sender, method, &path, body).await {
                    Ok((200 | 201, _)) => count.fetch_add(1, Ordering::Relaxed),
                    other => panic!("{method} {path}: {other:?}"),
                };
                worst = worst.max(began.elapsed());
            }
            worst
        }));
    }
    let mut worst = Duration::ZERO;
    for task in tasks {
        worst = worst.max(task.await?);
    }
    let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    println!("{what:<28} {rate:>9.0}/s   slowest {:.1} ms", worst.as_secs_f64() * 1e3);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let store = match arguments.next() {
        Some(path) => Embedded::open(path.as_ref(), Options::default())?,
        None => Embedded::memory()?,
    };
    let row = Resource::new("", "v1", "ConfigMap", "configmaps", Scope::Namespaced);
    let server = Server::builder(store).resources([row]).authenticate(Arc::new(Token)).build().await?;

    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    let pem = certificate.pem();
    let tls = serve::tls(&pem, &key.serialize_pem(), &pem)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let tls = Arc::new(ArcSwap::from_pointee(tls));
    tokio::spawn(serve::serve(server.service(), listener, tls, std::future::pending()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Client { connector: Arc::new(config).into(), at };

    let maps = "/api/v1/namespaces/load/configmaps";
    let mut sender = client.connect().await?;
    for index in 0..500 {
        send(&mut sender, "POST", maps, config_map(&format!("map-{index}"))).await?;
    }
    let (_, len) = send(&mut sender, "GET", maps, Bytes::new()).await?;
    println!("a list of 500 has {len} bytes");
    let get = move |index: u64| ("GET", format!("{maps}/map-{}", index % 500), Bytes::new());
    measure("GET, 32 connections", &client, 32, seconds, get).await?;
    let list = move |_| ("GET", maps.to_owned(), Bytes::new());
    measure("LIST of 500, 8 connections", &client, 8, seconds, list).await?;
    for connections in [1, 32] {
        let post = move |index: u64| {
            let path = format!("/api/v1/namespaces/post-{connections}/configmaps");
            ("POST", path, config_map(&format!("map-{index}")))
        };
        measure(&format!("POST, {connections} connections"), &client, connections, seconds, post).await?;
    }
    Ok(())
}
