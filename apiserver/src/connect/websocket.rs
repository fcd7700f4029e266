//! A stream of bytes as WebSocket messages, for clients (browsers) that can read no other way.
//! Upstream: `k8s.io/streaming` `pkg/httpstream/wsstream`.

use crate::{Body, Request, Response};
use api::Status;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// What a client may send in one message: it has nothing to say.
const RECEIVED_BYTES_MAX: usize = 4096;

/// How bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Binary,
    Base64,
}

/// Whether a request wants a WebSocket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let websocket = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    super::dial::is_upgrade(headers) && websocket.is_some_and(|own| own.eq_ignore_ascii_case("websocket"))
}

/// The first subprotocol of the client's that we speak; a client that names none gets plain bytes.
fn choose(headers: &HeaderMap) -> Option<(Coding, Option<&'static str>)> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut offered = values.flat_map(|value| value.split(',')).map(str::trim).peekable();
    if offered.peek().is_none() {
        return Some((Coding::Binary, None));
    }
    offered.find_map(|name| match name {
        "binary.k8s.io" => Some((Coding::Binary, Some("binary.k8s.io"))),
        "base64.binary.k8s.io" => Some((Coding::Base64, Some("base64.binary.k8s.io"))),
        _ => None,
    })
}

fn message(coding: Coding, bytes: Bytes) -> Message {
    match coding {
        Coding::Binary => Message::Binary(bytes),
        Coding::Base64 => Message::Text(STANDARD.encode(&bytes).into()),
    }
}

/// Switches the request's connection to a WebSocket and copies `body` into it: an empty message first, so that the client knows that the
/// stream has begun, then what comes as it comes. Ends with the body, or when the client closes.
///
/// # Errors
/// The client shows no key or no subprotocol that we speak.
pub(super) fn send(
    mut request: Request,
    body: Body,
    permit: OwnedSemaphorePermit,
) -> Result<Response, Status> {
    let headers = request.headers();
    let key =
        headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| Status::bad_request("the websocket has no key"))?;
    let (coding, protocol) = choose(headers)
        .ok_or_else(|| Status::bad_request("no websocket subprotocol of these is supported"))?;
    let mut response = Response::new(crate::codec::body::full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes()).parse().map_err(Status::internal)?;
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(protocol));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let _permit = permit;
        let connection = match upgrade.await {
            Ok(connection) => TokioIo::new(connection),
            Err(error) => return tracing::debug!(%error, "a websocket could not be opened"),
        };
        let config = WebSocketConfig::default().max_message_size(Some(RECEIVED_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await;
        copy(socket, body, coding).await;
    });
    Ok(response)
}

async fn copy(socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, mut body: Body, coding: Coding) {
    let (mut to, mut from) = socket.split();
    // What the client says is not for us; it counts only that it closes.
    let closed = async { while let Some(Ok(_)) = from.next().await {} };
    let copied = async {
        to.send(message(coding, Bytes::new())).await?;
        while let Some(frame) = body.frame().await {
            // A body that breaks off ends the stream, as it ends a plain answer.
            let Ok(frame) = frame else { break };
            if let Ok(bytes) = frame.into_data() {
                to.send(message(coding, bytes)).await?;
            }
        }
        to.close().await
    };
    tokio::select! {
        () = closed => {}
        result = copied => if let Err(error) = result {
            tracing::debug!(%error, "a websocket ended");
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_subprotocol_is_chosen() {
        let check = |offered: &'static str, expect| {
            assert_eq!(choose(&headers(&[("sec-websocket-protocol", offered)])), expect, "{offered}");
        };
        check("v9.k8s.io, base64.binary.k8s.io", Some((Coding::Base64, Some("base64.binary.k8s.io"))));
        check("binary.k8s.io,base64.binary.k8s.io", Some((Coding::Binary, Some("binary.k8s.io"))));
        check("channel.k8s.io", None);
        assert_eq!(choose(&HeaderMap::new()), Some((Coding::Binary, None)));
    }

    #[test]
    fn only_websockets_are_wanted() {
        assert!(is_wanted(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!is_wanted(&headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!is_wanted(&headers(&[("upgrade", "websocket")])));
    }
}
