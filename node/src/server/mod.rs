//! The HTTPS API of the node, which the API server and scrapers use. Upstream: `pkg/kubelet/server`.
//!
//! Every request is authenticated and authorised ([`auth`]) before anything else. `exec`, `attach` and `portForward` take the connection
//! over ([`streams`]).

mod auth;
mod command;
mod logs;
mod machine_logs;
mod port_forward;
pub(crate) mod spdy;
mod streams;
mod usage;
pub(crate) mod websocket;

use crate::context::{NodeContext, PodView};
use crate::kubelet::Error;
use crate::options::ServerOptions;
use crate::pods::Pods;
use crate::worker::WorkerHandle;
use api::UserInfo;
use auth::Gate;
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use port_forward::Place;
use runtime::{ExecRequest, Network};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use streams::Wanted;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once; each may be an `exec` that stays for hours.
const CONNECTIONS_MAX: usize = 2048;
/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pieces of a log that wait for a slow client.
const LOG_PIECES_MAX: usize = 16;
/// Arguments of a command in a query.
const ARGUMENTS_MAX: usize = 4096;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    typed(code, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

fn typed(code: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn json_answer(value: &Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", Bytes::from(value.to_string()))
}

struct Server {
    node: Arc<NodeContext>,
    pods: Arc<Pods>,
    gate: Gate,
    rates: usage::Rates,
}

/// Opens the port and serves in the background until `shutdown`.
pub(crate) async fn serve(
    node: Arc<NodeContext>,
    pods: Arc<Pods>,
    options: ServerOptions,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let address = options.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let server = Arc::new(Server { node, pods, gate: Gate::default(), rates: usage::Rates::default() });
    let tls = options.tls;
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
                () = shutdown.cancelled() => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: others have to close some first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, acceptor) = (server.clone(), TlsAcceptor::from(tls.borrow().clone()));
            tokio::spawn(async move {
                let _place = place;
                server.connection(stream, acceptor).await;
            });
        }
    });
    Ok(())
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let user = certificates.and_then(|list| list.first()).and_then(|own| auth::certificate_user(own));
        let service = hyper::service::service_fn(move |request| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(server.request(request, user).await) }
        });
        let builder = Builder::new(TokioExecutor::new());
        if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn request(&self, request: Request<Incoming>, certificate: Option<UserInfo>) -> Response<Body> {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let user = match self.gate.who(&self.node, certificate.as_ref(), authorization).await {
            Ok(user) => user,
            Err(code) => return text(code, "Unauthorized"),
        };
        let attributes = auth::attributes(request.method(), request.uri().path());
        if let Err(why) = self.gate.may(&self.node, &user, &attributes).await {
            return text(StatusCode::FORBIDDEN, why);
        }
        self.route(request).await
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let decoded: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let get = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz", ..] if get => text(StatusCode::OK, "ok"),
            ["pods"] if get => self.list_pods(),
            ["configz"] if get => self.config(),
            ["metrics"] if get => metrics(usage::own_metrics(&self.node, &self.pods)),
            ["metrics", "resource"] if get => metrics(usage::resource_metrics(&self.node, &self.pods).await),
            ["metrics", "cadvisor"] if get => metrics(usage::cadvisor_metrics(&self.node, &self.pods).await),
            ["stats", "summary"] if get => {
                let brief =
                    query(&request).any(|(name, value)| name == "only_cpu_and_memory" && value == "true");
                json_answer(&usage::summary(&self.node, &self.pods, &self.rates, brief).await)
            }
            ["containerLogs", namespace, pod, container] if get => {
                self.container_logs(&request, namespace, pod, container)
            }
            ["logs", rest @ ..] if get => machine_logs::serve(&rest.join("/")),
            ["exec", namespace, pod, container] => self.exec(request, namespace, pod, None, container).await,
            ["exec", namespace, pod, uid, container] => {
                self.exec(request, namespace, pod, Some(uid), container).await
            }
            ["attach", namespace, pod, container] => {
                self.attach(request, namespace, pod, None, container).await
            }
            ["attach", namespace, pod, uid, container] => {
                self.attach(request, namespace, pod, Some(uid), container).await
            }
            ["portForward", namespace, pod] => self.port_forward(request, namespace, pod, None).await,
            ["portForward", namespace, pod, uid] => {
                self.port_forward(request, namespace, pod, Some(uid)).await
            }
            ["run", namespace, pod, container] => self.run(&request, namespace, pod, None, container).await,
            ["run", namespace, pod, uid, container] => {
                self.run(&request, namespace, pod, Some(uid), container).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn list_pods(&self) -> Response<Body> {
        let items: Vec<Value> = self
            .pods
            .views()
            .iter()
            .filter_map(|view| {
                let mut pod = serde_json::to_value(&*view.def.pod).ok()?;
                pod["status"] = serde_json::to_value(&view.status).ok()?;
                Some(pod)
            })
            .collect();
        json_answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    fn config(&self) -> Response<Body> {
        let options = &self.node.options;
        let dns: Vec<String> = options.cluster_dns.iter().map(IpAddr::to_string).collect();
        let disk = crate::node_object::disk(&options.volume_directory).unwrap_or_default();
        let disk_bytes_min = options.eviction.disk_bytes_min(disk.bytes);
        json_answer(&json!({"kubeletconfig": {
            "clusterDNS": dns,
            "clusterDomain": options.cluster_domain,
            "maxPods": options.pods_max,
            "seccompDefault": options.seccomp_default,
            "allowedUnsafeSysctls": options.unsafe_sysctls,
            "cgroupRoot": options.cgroup_parent,
            "resolvConf": options.resolv_conf.to_string_lossy(),
            "systemReserved": options.reserved,
            "evictionHard": {
                "memory.available": options.eviction.memory_bytes_min.to_string(),
                "nodefs.available": disk_bytes_min.to_string(),
                "nodefs.inodesFree": format!("{}%", options.eviction.inodes_percent_min),
            },
            "imageGCHighThresholdPercent": options.eviction.image_percent_high,
            "imageGCLowThresholdPercent": options.eviction.image_percent_low,
        }}))
    }

    fn container_logs(
        &self,
        request: &Request<Incoming>,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Response<Body> {
        let pairs: Vec<(String, String)> = query(request).collect();
        let options = match logs::LogOptions::parse(
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
        ) {
            Ok(options) => options,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        let Some(worker) = self.pods.find(namespace, pod, None) else {
            return text(StatusCode::NOT_FOUND, format!("pod \"{pod}\" does not exist"));
        };
        let view = worker.view.borrow().clone();
        if view.def.container(container).is_none() {
            return text(
                StatusCode::NOT_FOUND,
                format!("container \"{container}\" not found in pod \"{pod}\""),
            );
        }
        let id = match logs::instance(&view, container, options.previous) {
            Ok(id) => id,
            Err(why) => return text(StatusCode::BAD_REQUEST, why),
        };
        let Some(path) = view.observed.by_id(&id).and_then(|seen| seen.log_path.clone()) else {
            let why =
                format!("unable to retrieve container logs for {}{id}", crate::observed::CONTAINER_ID_SCHEME);
            return text(StatusCode::BAD_REQUEST, why);
        };
        let (sender, receiver) = mpsc::channel(LOG_PIECES_MAX);
        tokio::spawn(logs::read(path, id, options, self.node.clock.now(), worker.view.clone(), sender));
        let pieces = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut response =
            Response::new(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        response
    }

    /// A pod and the running instance of one of its containers.
    fn running(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Result<String, Response<Body>> {
        let Some(worker) = self.pods.find(namespace, pod, uid) else {
            return Err(text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}_{namespace}")));
        };
        let view = worker.view.borrow().clone();
        let seen = view.observed.latest(container).filter(|seen| seen.is_running());
        seen.map(|seen| seen.id.clone()).ok_or_else(|| {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{container}\")"))
        })
    }

    async fn exec(
        &self,
        mut request: Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Response<Body> {
        let (wanted, argv) = command_options(&request);
        if argv.is_empty() || argv.len() > ARGUMENTS_MAX {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
        }
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
        }
        let id = match self.running(namespace, pod, uid, container) {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let (upgrade, answer) = match streams::negotiate_command(&mut request) {
            Ok(pair) => pair,
            Err((code, why)) => return text(code, why),
        };
        let runtime = self.node.runtime.clone();
        tokio::spawn(async move {
            let Some(streams) = upgrade.streams(wanted).await else { return };
            let Wanted { stdin, stdout, stderr, tty } = wanted;
            let request =
                ExecRequest { argv, tty, stdin, stdout, stderr: stderr && !tty, ..ExecRequest::default() };
            command::connect(runtime.exec(&id, request).await, streams, wanted).await;
        });
        answer.map(|()| empty())
    }

    async fn attach(
        &self,
        mut request: Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Response<Body> {
        let (asked, _) = command_options(&request);
        let id = match self.running(namespace, pod, uid, container) {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        // Whether there is a terminal is the container's own matter.
        let tty = self
            .pods
            .find(namespace, pod, uid)
            .is_some_and(|worker| has_terminal(&worker.view.borrow(), container));
        let wanted = Wanted { tty, ..asked };
        let (upgrade, answer) = match streams::negotiate_command(&mut request) {
            Ok(pair) => pair,
            Err((code, why)) => return text(code, why),
        };
        let runtime = self.node.runtime.clone();
        tokio::spawn(async move {
            let Some(streams) = upgrade.streams(wanted).await else { return };
            command::connect(runtime.attach(&id).await, streams, wanted).await;
        });
        answer.map(|()| empty())
    }

    async fn port_forward(
        &self,
        mut request: Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
    ) -> Response<Body> {
        let Some(worker) = self.pods.find(namespace, pod, uid) else {
            return text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}_{namespace}"));
        };
        let place = match self.place(&worker).await {
            Ok(place) => place,
            Err(why) => return text(StatusCode::INTERNAL_SERVER_ERROR, why),
        };
        let mut ports = Vec::new();
        for (name, value) in query(&request).filter(|(name, _)| name == "port" || name == "ports") {
            for one in value.split(',') {
                match one.parse::<u16>() {
                    Ok(port) if port > 0 => ports.push(port),
                    _ => return text(StatusCode::BAD_REQUEST, format!("invalid {name} \"{one}\"")),
                }
            }
        }
        let negotiated = streams::negotiate(&mut request, &port_forward::WEBSOCKETS, &[port_forward::SPDY]);
        let (upgrade, answer) = match negotiated {
            Ok(pair) => pair,
            Err((code, why)) => return text(code, why),
        };
        tokio::spawn(port_forward::serve(upgrade, place, ports));
        answer.map(|()| empty())
    }

    /// The network that a pod is in.
    async fn place(&self, worker: &WorkerHandle) -> Result<Place, String> {
        let view = worker.view.borrow().clone();
        let name = view.def.label();
        let Some(sandbox) = view.observed.sandbox.as_ref().filter(|sandbox| sandbox.ready) else {
            return Err(format!("pod not found (\"{name}\")"));
        };
        match self.node.runtime.sandbox(&sandbox.id).await.map_err(|error| error.to_string())?.spec.network {
            Network::Host => Ok(Place::Host),
            Network::Path(path) => Ok(Place::Namespace(path)),
        }
    }

    async fn run(
        &self,
        request: &Request<Incoming>,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: &str,
    ) -> Response<Body> {
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        }
        let id = match self.running(namespace, pod, uid, container) {
            Ok(id) => id,
            Err(answer) => return answer,
        };
        let command =
            query(request).find(|(name, _)| name == "cmd").map(|(_, value)| value).unwrap_or_default();
        let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if argv.is_empty() {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
        }
        match self.node.runtime.exec_output(&id, argv, None).await {
            Ok(output) => {
                let bytes = [output.stdout, output.stderr].concat();
                let code =
                    if output.exit_code == 0 { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
                typed(code, "text/plain; charset=utf-8", Bytes::from(bytes))
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

fn metrics(out: String) -> Response<Body> {
    typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(out))
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn has_terminal(view: &PodView, container: &str) -> bool {
    view.def.container(container).is_some_and(|container| container.spec.tty.unwrap_or(false))
}

/// The pairs of a query, decoded.
fn query<B>(request: &Request<B>) -> impl Iterator<Item = (String, String)> + use<B> {
    let text = request.uri().query().unwrap_or_default().to_owned();
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs: Vec<(String, String)> = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    pairs.into_iter()
}

/// Streams and command of `exec` and `attach`, in the kubelet's words (`input`, `output`, `error`) or the API's.
fn command_options<B>(request: &Request<B>) -> (Wanted, Vec<String>) {
    let (mut wanted, mut argv) = (Wanted::default(), Vec::new());
    for (name, value) in query(request) {
        let on = matches!(value.as_str(), "1" | "true");
        match name.as_str() {
            "input" | "stdin" => wanted.stdin = on,
            "output" | "stdout" => wanted.stdout = on,
            "error" | "stderr" => wanted.stderr = on,
            "tty" => wanted.tty = on,
            "command" => argv.push(value),
            _ => {}
        }
    }
    if wanted.tty {
        wanted.stderr = false;
    }
    (wanted, argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let check = |query: &str, wanted: (bool, bool, bool, bool), argv: &[&str]| {
            let request = Request::builder().uri(format!("/exec/a/b/c?{query}")).body(()).unwrap();
            let (found, arguments) = command_options(&request);
            assert_eq!((found.stdin, found.stdout, found.stderr, found.tty), wanted, "{query}");
            assert_eq!(arguments, argv, "{query}");
        };
        check(
            "command=sh&command=-c&command=echo+a%20b%26c&output=1&error=1",
            (false, true, true, false),
            &["sh", "-c", "echo a b&c"],
        );
        check("stdin=true&stdout=true&stderr=true&tty=true&command=sh", (true, true, false, true), &["sh"]);
        check("", (false, false, false, false), &[]);
    }
}
