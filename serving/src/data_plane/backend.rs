//! Connections to containers: kept alive, and by whichever address the application listens on.

use super::{Body, PodSockets};
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Idle connections that are kept to one pod.
const IDLE_LEN_MAX: usize = 100;
/// How long they are kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a container may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which pod has which address.
pub(super) type Addresses = RwLock<HashMap<IpAddr, String>>;

/// The connections.
pub(super) struct Backend {
    http1: Client<Connector, Body>,
    h2c: Client<Connector, Body>,
    connector: Connector,
}

impl Backend {
    pub(super) fn new(addresses: Arc<Addresses>, sockets: Arc<dyn PodSockets>) -> Self {
        let connector = Connector { addresses, sockets };
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_LEN_MAX);
        let http1 = builder.build(connector.clone());
        let h2c = builder.http2_only(true).build(connector.clone());
        Self { http1, h2c, connector }
    }

    /// Sends a request whose URI names address and port.
    pub(super) async fn send(
        &self,
        request: Request<Body>,
        is_h2c: bool,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let client = if is_h2c { &self.h2c } else { &self.http1 };
        client.request(request).await
    }

    /// Opens a connection of its own.
    pub(super) async fn connect(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        self.connector.connect(address, port).await
    }
}

#[derive(Clone)]
struct Connector {
    addresses: Arc<Addresses>,
    sockets: Arc<dyn PodSockets>,
}

impl Connector {
    /// What listens on the pod's loopback interface alone is reached too, as upstream's proxy within the pod reaches it.
    async fn connect(&self, address: IpAddr, port: u16) -> io::Result<TcpStream> {
        let connecting = async {
            match TcpStream::connect((address, port)).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let uid = self.addresses.read().get(&address).cloned();
                    match uid {
                        Some(uid) => self.sockets.connect(&uid, port).await,
                        None => Err(error),
                    }
                }
                other => other,
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let address = host.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            own.connect(address, uri.port_u16().unwrap_or(80)).await.map(TokioIo::new)
        })
    }
}
