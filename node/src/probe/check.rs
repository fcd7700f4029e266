//! One attempt of a probe. Also what lifecycle hooks use to speak HTTP and TCP.

use super::{Outcome, ProbeTarget};
use crate::env::expand_static;
use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What of an answer's body is read; upstream's bound.
const BODY_BYTES_MAX: usize = 10 * 1024;
/// Redirects to the same host that are followed; upstream's bound.
const REDIRECTS_MAX: usize = 10;
/// Characters of a command's output that an event repeats. Upstream: `prober.maxRespBodyLength`.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// Makes one attempt.
pub(crate) async fn attempt(target: &ProbeTarget, probe: &Probe, timeout: Duration) -> Outcome {
    if let Some(exec) = &probe.exec {
        return by_command(target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.clone());
        return by_http(&target.container.spec, get, &host, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let host =
            socket.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.clone());
        let Some(port) = resolve_port(&socket.port, &target.container.spec) else {
            return Outcome::Unknown(unknown_port(&socket.port));
        };
        return match connect(&host, port, timeout).await {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::Failure(error),
        };
    }
    if let Some(grpc) = &probe.grpc {
        let service = grpc.service.as_deref().unwrap_or_default();
        let Ok(port) = u16::try_from(grpc.port) else {
            return Outcome::Unknown(format!("invalid port number: {}", grpc.port));
        };
        return by_grpc(&target.address, port, service, timeout).await;
    }
    Outcome::Unknown(format!(
        "missing probe handler for {}_{}:{}",
        target.pod.metadata.name.as_deref().unwrap_or_default(),
        target.pod.metadata.namespace.as_deref().unwrap_or_default(),
        target.container.name()
    ))
}

async fn by_command(target: &ProbeTarget, command: &[String], timeout: Duration) -> Outcome {
    let env = target.container.spec.env.as_deref().unwrap_or_default();
    let argv = command.iter().map(|argument| expand_static(argument, env)).collect();
    match target.runtime.exec_output(&target.id, argv, Some(timeout)).await {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => {
            let mut text = output.stdout;
            text.extend_from_slice(&output.stderr);
            text.truncate(OUTPUT_BYTES_MAX);
            Outcome::Failure(String::from_utf8_lossy(&text).into_owned())
        }
        Err(error @ runtime::Error::Timeout { .. }) => {
            Outcome::Failure(format!("command timed out: {error}"))
        }
        // A program that does not exist is a failure of the container, not of the attempt.
        Err(error @ runtime::Error::Exec { .. }) => Outcome::Failure(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// A port by number or by its name in the container.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|own| own.name.as_deref() == Some(name));
            named.map(|own| own.container_port).or_else(|| name.parse().ok())?
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// The complaint about a port that does not exist.
pub(crate) fn unknown_port(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("invalid port number: {name}"),
    }
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = join(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            // A probe's socket is closed without lingering, so that ports are free again at once. Upstream: `probe.ProbeDialer`.
            let _ = stream.set_nodelay(true);
            let _ = stream.set_zero_linger();
            Ok(stream)
        }
        Ok(Err(error)) => Err(format!("dial tcp {address}: {}", dial_error(&error))),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// What Go says of an error while connecting.
fn dial_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What an HTTP request answered.
pub(crate) struct Answer {
    /// Status code.
    pub code: u16,
    /// The body, as far as it is read.
    pub body: String,
    /// `Location` of a redirect.
    location: Option<String>,
}

async fn by_http(container: &Container, get: &HTTPGetAction, host: &str, timeout: Duration) -> Outcome {
    let Some(port) = resolve_port(&get.port, container) else {
        return Outcome::Unknown(unknown_port(&get.port));
    };
    let attempt = follow(get, host, port, "probe");
    match tokio::time::timeout(timeout, attempt).await {
        Ok(Ok(answer)) => judge(&answer),
        Ok(Err(error)) => Outcome::Failure(error),
        Err(_) => Outcome::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            url(get, host, port)
        )),
    }
}

fn judge(answer: &Answer) -> Outcome {
    match answer.code {
        200..=299 => Outcome::Success,
        300..=399 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

fn url(get: &HTTPGetAction, host: &str, port: u16) -> String {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{}{slash}{path}", join(host, port))
}

/// Makes a GET request and follows redirects to the same host.
pub(crate) async fn follow(
    get: &HTTPGetAction,
    host: &str,
    port: u16,
    agent: &str,
) -> Result<Answer, String> {
    let mut target = url(get, host, port);
    for _ in 0..=REDIRECTS_MAX {
        let uri: Uri = target.parse().map_err(|error| format!("parse \"{target}\": {error}"))?;
        let answer = request(&uri, get, agent).await.map_err(|error| format!("Get \"{target}\": {error}"))?;
        let Some(location) = answer.location.clone().filter(|_| (300..400).contains(&answer.code)) else {
            return Ok(answer);
        };
        let next = match location.strip_prefix('/') {
            Some(path) => format!(
                "{}://{}/{path}",
                uri.scheme_str().unwrap_or("http"),
                uri.authority().map_or("", |own| own.as_str())
            ),
            None => location,
        };
        match next.parse::<Uri>() {
            Ok(next_uri) if next_uri.host() == uri.host() => target = next,
            _ => return Ok(answer),
        }
    }
    Err(format!("Get \"{target}\": stopped after {REDIRECTS_MAX} redirects"))
}

async fn request(uri: &Uri, get: &HTTPGetAction, agent: &str) -> Result<Answer, String> {
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {}: {}", join(host, port), dial_error(&error)))?;
    let _ = stream.set_zero_linger();
    let mut builder = Request::builder().uri(uri.path_and_query().map_or("/", |own| own.as_str()));
    let named =
        |name: &str| get.http_headers.iter().flatten().any(|header| header.name.eq_ignore_ascii_case(name));
    if !named("host") {
        builder = builder.header("Host", uri.authority().map_or(host, |own| own.as_str()));
    }
    if !named("user-agent") {
        builder = builder.header("User-Agent", format!("kube-{agent}/1.37"));
    }
    if !named("accept") {
        builder = builder.header("Accept", "*/*");
    }
    builder = builder.header("Connection", "close");
    for header in get.http_headers.iter().flatten() {
        builder = builder.header(&header.name, &header.value);
    }
    let request = builder.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    if tls {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(UNVERIFIED.clone())
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        return exchange(stream, request).await;
    }
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    let driver = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let response = sender.send_request(request).await.map_err(|error| describe(&error))?;
    let code = response.status().as_u16();
    let location =
        response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    drop(driver);
    // A body that is too long or breaks off says nothing about the status.
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    Ok(Answer { code, body, location })
}

fn describe(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() {
        return "EOF".to_owned();
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The connection's task ends with the request, also when that is given up.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Probes do not check certificates: pods rarely have ones that a node could check. Upstream does the same.
#[derive(Debug)]
struct NoVerification(rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

static UNVERIFIED: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS);
    // The default versions always fit the default provider.
    let builder = match builder {
        Ok(builder) => builder,
        Err(error) => unreachable!("the default TLS versions are not supported: {error}"),
    };
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

/// Asks `grpc.health.v1.Health/Check`. The two messages are a string and an enum: written and read by hand.
async fn by_grpc(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = join(host, port);
    let wait = crate::back_off::go_duration(timeout);
    let stream = match connect(host, port, timeout).await {
        Ok(stream) => stream,
        Err(error) if error.ends_with("i/o timeout") => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {wait}: context deadline exceeded"
            ));
        }
        Err(error) => {
            return Outcome::Failure(format!("error: failed to connect service at \"{address}\": {error}"));
        }
    };
    match tokio::time::timeout(timeout, health(stream, &address, service)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {wait}")),
    }
}

async fn health(stream: TcpStream, address: &str, service: &str) -> Outcome {
    let failed = |error: String| Outcome::Failure(format!("error: health rpc probe failed: {error}"));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return failed(describe(&error)),
    };
    let _driver = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("user-agent", "kube-probe/1.37")
        .header("te", "trailers")
        .body(Full::new(health_request(service)));
    let request = match request {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return failed(describe(&error)),
    };
    let (head, body) = response.into_parts();
    let collected = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => collected,
        Err(error) => return failed(error.to_string()),
    };
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let header = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    match (header("grpc-status").as_str(), header("grpc-message")) {
        ("0", _) => serving(&collected.to_bytes()),
        ("12", message) => Outcome::Failure(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        ("", _) => failed(format!("unexpected HTTP status code {}", head.status)),
        (code, message) => failed(format!("rpc error: code = {} desc = {message}", grpc_code(code))),
    }
}

fn grpc_code(code: &str) -> String {
    match code {
        "1" => "Canceled",
        "2" => "Unknown",
        "3" => "InvalidArgument",
        "4" => "DeadlineExceeded",
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        other => return format!("Code({other})"),
    }
    .to_owned()
}

fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.unsplit(message);
    frame.freeze()
}

/// Reads `HealthCheckResponse.status` out of a message frame.
fn serving(frame: &[u8]) -> Outcome {
    let status = match frame.get(5..) {
        Some([0x08, status, ..]) => *status,
        Some([]) => 0,
        _ => return Outcome::Failure("error: health rpc probe failed: the answer cannot be read".to_owned()),
    };
    match status {
        1 => Outcome::Success,
        2 => Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
        3 => Outcome::Failure("service unhealthy (responded with \"SERVICE_UNKNOWN\")".to_owned()),
        _ => Outcome::Failure("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), Outcome::Success);
        assert!(matches!(serving(&[0, 0, 0, 0, 2, 8, 2]), Outcome::Failure(_)));
        assert!(matches!(serving(&[0, 0, 0, 0, 2, 9]), Outcome::Failure(_)));
        assert!(matches!(serving(&[]), Outcome::Failure(_)));
    }

    #[test]
    fn urls_and_ports() {
        let get = |path: &str, scheme: Option<&str>| HTTPGetAction {
            path: Some(path.to_owned()),
            scheme: scheme.map(str::to_owned),
            ..Default::default()
        };
        assert_eq!(url(&get("/healthz?a=b", None), "10.0.0.1", 80), "http://10.0.0.1:80/healthz?a=b");
        assert_eq!(url(&get("x", Some("HTTPS")), "fd00::1", 443), "https://[fd00::1]:443/x");
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(resolve_port(&IntOrString::Int(1), &container), Some(1));
        assert_eq!(resolve_port(&IntOrString::String("web".into()), &container), Some(8080));
        assert_eq!(resolve_port(&IntOrString::String("nope".into()), &container), None);
        assert_eq!(resolve_port(&IntOrString::Int(70000), &container), None);
    }
}
