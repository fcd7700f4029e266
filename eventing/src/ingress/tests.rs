use super::*;
use crate::delivery::{Format, Resolve, Retry};
use crate::dispatch::{Eventing, Reply, Source, Subscriber, Table};
use crate::event::Event;
use crate::filter::Filter;
use crate::log::testing::FaultDirectory;
use client::Clock;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Every name is this address.
struct Only(SocketAddr);

impl Resolve for Only {
    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<SocketAddr>> {
        assert_eq!((host, port), ("sink.ns.svc", 80));
        let address = self.0;
        Box::pin(async move { Ok(address) })
    }
}

/// A sink that answers 503 to the first request, then 200.
async fn sink() -> (SocketAddr, mpsc::UnboundedReceiver<Event>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let failed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (sender, failed) = (sender.clone(), failed.clone());
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let (sender, failed) = (sender.clone(), failed.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let mut answer = Response::new(Full::<Bytes>::default());
                    if failed.swap(true, std::sync::atomic::Ordering::SeqCst) {
                        sender.send(binding::decode(&head.headers, body).unwrap().remove(0)).unwrap();
                    } else {
                        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    (address, receiver)
}

fn table() -> Table {
    let subscriber = Subscriber {
        uid: "one".to_owned(),
        namespace: "ns".to_owned(),
        name: "one".to_owned(),
        uri: Some("http://sink.ns.svc/x".to_owned()),
        filter: Filter::Everything,
        reply: Reply::Dropped,
        retry: Retry { retry: 3, ..Retry::default() },
        format: Format::Binary,
        dead_letter: None,
        in_flight_max: 1,
    };
    let name = |kind, name: &str| Name { kind, namespace: "ns".to_owned(), name: name.to_owned() };
    Table::from([
        (name(Kind::Broker, "b"), Source { uid: "b".to_owned(), subscribers: vec![subscriber] }),
        (name(Kind::Channel, "c"), Source { uid: "c".to_owned(), subscribers: Vec::new() }),
    ])
}

async fn eventing(directory: &FaultDirectory, sink: SocketAddr) -> Eventing {
    let eventing = Eventing::open(Arc::new(directory.clone()), Arc::new(Only(sink)), Clock::system());
    eventing.set(table()).await.unwrap();
    eventing
}

const EVENT: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

fn request(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn exact_answers() {
    let (address, _kept) = sink().await;
    let eventing = eventing(&FaultDirectory::default(), address).await;
    let check = async |method: &str, host: &str, path: &str, headers: &[(&str, &str)], status: u16| {
        let answer = answer(&eventing.0, request(method, host, path, headers, "x")).await;
        assert_eq!(answer.status().as_u16(), status, "{method} {host} {path} {headers:?}");
        assert_eq!(answer.headers()[ALLOW], "POST, OPTIONS");
        answer
    };
    let broker = "broker-ingress.knative-eventing.svc.cluster.local";
    let options = check("OPTIONS", broker, "/ns/b", &[], 200).await;
    assert_eq!(options.headers()["webhook-allowed-origin"], "*");
    assert_eq!(options.headers()["webhook-allowed-rate"], "*");
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        check(method, broker, "/ns/b", &EVENT, 405).await;
    }
    check("POST", broker, "/", &EVENT, 404).await;
    check("POST", broker, "/ns", &EVENT, 400).await;
    check("POST", broker, "/ns/b/c", &EVENT, 400).await;
    check("POST", broker, "/ns/other", &EVENT, 404).await;
    check("POST", broker, "/ns/other", &[], 400).await;
    check("POST", broker, "/ns/b", &[], 400).await;
    check("POST", broker, "/ns/b", &EVENT[..3], 400).await;
    check("POST", broker, "/ns/b", &EVENT, 202).await;
    check("POST", broker, "/ns/b/", &EVENT, 202).await;
    let hops = |own| [EVENT[0], EVENT[1], EVENT[2], EVENT[3], ("ce-knativebrokerttl", own)];
    check("POST", broker, "/ns/b", &hops("1"), 400).await;
    check("POST", broker, "/ns/b", &hops("2"), 202).await;
    check("POST", broker, "/ns/b", &[("content-type", binding::STRUCTURED)], 400).await;
    let channel = "c-kn-channel.ns.svc.cluster.local:80";
    check("OPTIONS", channel, "/", &[], 200).await;
    check("GET", channel, "/", &EVENT, 405).await;
    check("POST", channel, "/", &EVENT, 202).await;
    check("POST", "C-kn-channel.ns.svc", "/", &EVENT, 202).await;
    check("POST", channel, "/x", &EVENT, 400).await;
    check("POST", channel, "/", &[], 400).await;
    check("POST", "other-kn-channel.ns.svc", "/", &[], 404).await;
    let large = [("content-length", "99999999")];
    check("POST", broker, "/ns/b", &large, 413).await;
    let body = "x".repeat(REQUEST_BYTES_MAX + 1);
    let answered = answer(&eventing.0, request("POST", broker, "/ns/b", &EVENT, &body)).await;
    assert_eq!(answered.status(), 413);
}

#[tokio::test]
async fn from_producer_to_sink_over_the_network() {
    let (address, mut arrived) = sink().await;
    let eventing = eventing(&FaultDirectory::default(), address).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (eventing, stop) = (eventing.clone(), stop.clone());
        async move { eventing.serve(listener, stop).await }
    });
    let stream = TokioIo::new(tokio::net::TcpStream::connect(ours).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let batch = r#"[{"specversion":"1.0","id":"2","source":"/s","type":"t","data":{"a":1}},
        {"specversion":"0.3","id":"3","source":"/s","type":"t"}]"#;
    let requests = [
        request("POST", "broker", "/ns/b", &EVENT, "x"),
        request("POST", "broker", "/ns/b", &[(CONTENT_TYPE.as_str(), binding::BATCH)], batch),
    ];
    for own in requests {
        assert_eq!(sender.send_request(own).await.unwrap().status(), 202);
    }
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(arrived.recv().await.unwrap());
    }
    let ids: Vec<_> = all.iter().map(|own| (own.id.as_str(), own.version.as_str())).collect();
    assert_eq!(ids, [("1", "1.0"), ("2", "1.0"), ("3", "0.3")]);
    assert_eq!(all[1].data.as_deref(), Some(&br#"{"a":1}"#[..]));
    drop(sender);
    stop.cancel();
    serving.await.unwrap();
    eventing.stop().await;
}

#[tokio::test]
async fn a_disk_that_fails_refuses() {
    let (address, _arrived) = sink().await;
    let directory = FaultDirectory::default();
    let eventing = eventing(&directory, address).await;
    let post = async || answer(&eventing.0, request("POST", "broker", "/ns/b", &EVENT, "x")).await;
    directory.set_capacity(Some(0));
    assert_eq!(post().await.status(), 507);
    directory.set_capacity(None);
    assert_eq!(post().await.status(), 202);
    directory.fail_syncs(1);
    let refused = post().await;
    assert_eq!(
        (refused.status(), &refused.headers()[RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("5"))
    );
}

/// A body that never comes.
struct Never;

impl Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_not_waited_for() {
    let eventing = eventing(&FaultDirectory::default(), "127.0.0.1:9".parse().unwrap()).await;
    let began = tokio::time::Instant::now();
    let request = request("POST", "broker", "/ns/b", &EVENT, "").map(|_| Never);
    assert_eq!(answer(&eventing.0, request).await.status(), 408);
    assert_eq!(began.elapsed().as_secs(), REQUEST_MAX.as_secs());
}

#[test]
fn hosts_of_channels() {
    let check = |host: &str, wanted: Option<(&str, &str)>| {
        let found = channel_of(host).map(|own| (own.namespace, own.name));
        assert_eq!(found, wanted.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())), "{host}");
    };
    check("c-kn-channel.ns.svc.cluster.local", Some(("ns", "c")));
    check("c-kn-channel.ns.svc:8080", Some(("ns", "c")));
    check("c-kn-channel.ns.svc.cluster.local.", Some(("ns", "c")));
    check("c-kn-channel", None);
    check("c.ns.svc", None);
    check("", None);
}
