//! Upgraded connections: which protocol the client speaks, and its streams as byte channels, whatever the protocol.
//!
//! `exec` and `attach` have numbered channels (stdin, stdout, stderr, error, resize), over WebSocket frames or SPDY streams.

use super::spdy::{self, Headers, Stream};
use super::websocket::{self, Encoding};
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a client has to open its streams. Upstream: `DefaultStreamCreationTimeout`.
pub(crate) const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Pieces that wait in each direction of a stream.
pub(crate) const PIECES_MAX: usize = spdy::PIECES_MAX;

/// The streams of `exec` and `attach`.
pub(crate) struct Streams {
    /// What the client types.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// What the program prints.
    pub stdout: Option<mpsc::Sender<Bytes>>,
    /// What it complains.
    pub stderr: Option<mpsc::Sender<Bytes>>,
    /// How it ended.
    pub error: mpsc::Sender<Bytes>,
    /// Sizes of the client's terminal, as JSON.
    pub resize: Option<mpsc::Receiver<Bytes>>,
    /// Whether the end is told as a `Status` (protocol v4 and later), else as text.
    pub status_json: bool,
}

/// Which streams a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Protocols of `exec` and `attach` over SPDY, best first.
const SPDY_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// And over WebSocket.
const WEBSOCKET_PROTOCOLS: [&str; 5] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];

/// A refusal of an upgrade.
pub(crate) type Refused = (StatusCode, String);

/// An upgrade that the client asked for and that we can do.
pub(crate) struct Upgrade {
    on_upgrade: OnUpgrade,
    /// The protocol on top, empty where none was named.
    pub protocol: &'static str,
    /// Whether it is a WebSocket.
    pub websocket: bool,
}

/// The values of a header that may be given several times and hold lists.
fn list<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(str::trim)
}

/// Chooses protocols and makes the answer. `websocket` and `spdy` are what the resource speaks.
pub(crate) fn negotiate<B>(
    request: &mut Request<B>,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> Result<(Upgrade, Response<()>), Refused> {
    let headers = request.headers();
    let upgrade = list(headers, UPGRADE.as_str()).next().unwrap_or_default().to_ascii_lowercase();
    let is_upgrade = list(headers, CONNECTION.as_str()).any(|own| own.eq_ignore_ascii_case("upgrade"));
    if !is_upgrade || upgrade.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
    }
    let mut answer =
        Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
    let (protocol, is_websocket) = match upgrade.as_str() {
        "websocket" => {
            let offered: Vec<&str> = list(headers, SEC_WEBSOCKET_PROTOCOL.as_str()).collect();
            let chosen = offered.iter().find_map(|own| websocket.iter().find(|known| *known == own)).copied();
            let protocol = match (chosen, offered.is_empty()) {
                (Some(chosen), _) => chosen,
                (None, true) => "",
                (None, false) => {
                    return Err((
                        StatusCode::BAD_REQUEST,
                        format!("no WebSocket protocol of {offered:?} is spoken here"),
                    ));
                }
            };
            let Some(key) = headers.get("sec-websocket-key") else {
                return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing".to_owned()));
            };
            answer = answer
                .header(UPGRADE, "websocket")
                .header("Sec-WebSocket-Accept", websocket::accept_key(key.as_bytes()));
            if !protocol.is_empty() {
                answer = answer.header(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
            (protocol, true)
        }
        "spdy/3.1" => {
            let offered: Vec<&str> = list(headers, "x-stream-protocol-version").collect();
            let chosen = spdy.iter().find(|known| offered.contains(known)).copied();
            let protocol = match (chosen, offered.is_empty()) {
                (Some(chosen), _) => chosen,
                // Clients from before there were versions speak the first one.
                (None, true) => spdy.last().copied().unwrap_or_default(),
                (None, false) => {
                    let text = format!(
                        "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {spdy:?}"
                    );
                    return Err((StatusCode::FORBIDDEN, text));
                }
            };
            answer = answer.header(UPGRADE, "SPDY/3.1").header("X-Stream-Protocol-Version", protocol);
            (protocol, false)
        }
        other => {
            return Err((StatusCode::BAD_REQUEST, format!("unable to upgrade: {other} is not spoken here")));
        }
    };
    let answer = answer.body(()).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((Upgrade { on_upgrade: hyper::upgrade::on(request), protocol, websocket: is_websocket }, answer))
}

/// The protocols of `exec` and `attach`.
pub(crate) fn negotiate_command<B>(request: &mut Request<B>) -> Result<(Upgrade, Response<()>), Refused> {
    negotiate(request, &WEBSOCKET_PROTOCOLS, &SPDY_PROTOCOLS)
}

impl Upgrade {
    /// Waits until the connection is ours.
    pub(crate) async fn connection(self) -> Result<TokioIo<hyper::upgrade::Upgraded>, hyper::Error> {
        Ok(TokioIo::new(self.on_upgrade.await?))
    }

    /// Opens the streams of `exec` and `attach`.
    pub(crate) async fn streams(self, wanted: Wanted) -> Option<Streams> {
        let (protocol, websocket) = (self.protocol, self.websocket);
        let io = match self.connection().await {
            Ok(io) => io,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be upgraded");
                return None;
            }
        };
        let status_json = protocol.starts_with("v4") || protocol.starts_with("v5");
        if websocket {
            let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
            return Some(websocket::command_streams(io, encoding, wanted, status_json));
        }
        let (sender, mut streams) = mpsc::channel(8);
        tokio::spawn(spdy::serve(io, sender));
        let resize = wanted.tty && protocol != "channel.k8s.io" && protocol != "v2.channel.k8s.io";
        let opened = tokio::time::timeout(CREATION_TIMEOUT, collect(&mut streams, wanted, resize)).await;
        match opened {
            Ok(Some(found)) => found.into_streams(status_json),
            _ => {
                tracing::debug!("a client did not open its streams");
                None
            }
        }
    }
}

#[derive(Default)]
struct Found {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

/// Waits for all streams that the request announced.
async fn collect(streams: &mut mpsc::Receiver<Stream>, wanted: Wanted, resize: bool) -> Option<Found> {
    let mut found = Found::default();
    let stderr = wanted.stderr && !wanted.tty;
    let mut missing =
        1 + [wanted.stdin, wanted.stdout, stderr, resize].into_iter().filter(|own| *own).count();
    while missing > 0 {
        let stream = streams.recv().await?;
        let place = match stream_type(&stream.headers) {
            "stdin" => &mut found.stdin,
            "stdout" => &mut found.stdout,
            "stderr" => &mut found.stderr,
            "error" => &mut found.error,
            "resize" => &mut found.resize,
            _ => continue,
        };
        if place.replace(stream).is_none() {
            missing -= 1;
        }
    }
    Some(found)
}

/// What a stream is for.
pub(crate) fn stream_type(headers: &Headers) -> &str {
    headers.get("streamtype").map(String::as_str).unwrap_or_default()
}

impl Found {
    fn into_streams(self, status_json: bool) -> Option<Streams> {
        // A stream that only goes one way has its other direction ended by being let go.
        Some(Streams {
            stdin: self.stdin.map(|stream| stream.input),
            stdout: self.stdout.map(|stream| stream.output),
            stderr: self.stderr.map(|stream| stream.output),
            error: self.error?.output,
            resize: self.resize.map(|stream| stream.input),
            status_json,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expect: Result<(&str, bool), StatusCode>) {
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let mut request = builder.body(()).unwrap();
        let found = negotiate_command(&mut request).map(|(upgrade, _)| (upgrade.protocol, upgrade.websocket));
        assert_eq!(found.map_err(|(code, _)| code), expect, "{headers:?}");
    }

    #[test]
    fn protocols_are_negotiated() {
        let spdy = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |more: &[(&'static str, &'static str)]| [&spdy[..], more].concat();
        check(
            &with(&[
                ("x-stream-protocol-version", "v2.channel.k8s.io"),
                ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ]),
            Ok(("v4.channel.k8s.io", false)),
        );
        check(&spdy, Ok(("channel.k8s.io", false)));
        check(&with(&[("x-stream-protocol-version", "v9.channel.k8s.io")]), Err(StatusCode::FORBIDDEN));
        let web = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&web[..], more].concat();
        check(
            &with(&[("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")]),
            Ok(("v5.channel.k8s.io", true)),
        );
        check(&web, Ok(("", true)));
        check(&with(&[("sec-websocket-protocol", "chat")]), Err(StatusCode::BAD_REQUEST));
        check(&[("connection", "close")], Err(StatusCode::BAD_REQUEST));
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], Err(StatusCode::BAD_REQUEST));
    }
}
