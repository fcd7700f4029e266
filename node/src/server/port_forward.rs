//! Ports of pods: pairs of streams (data and errors) to connections inside the pod's network namespace.
//! Over SPDY, SPDY inside a WebSocket, or plain WebSocket channels. Upstream: `cri-streaming` `portforward`.

use super::spdy::{self, Stream};
use super::streams::{CREATION_TIMEOUT, PIECES_MAX, Upgrade, stream_type};
use super::websocket::{self, Encoding};
use bytes::Bytes;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Port forwarding over SPDY.
pub(crate) const SPDY: &str = "portforward.k8s.io";
/// The same inside a WebSocket.
pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Port forwarding over plain WebSocket channels.
pub(crate) const WEBSOCKETS: [&str; 3] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// Halves of pairs that wait for each other.
const HALVES_MAX: usize = 256;
/// Ports of one WebSocket; its channels are numbered by a byte.
const PORTS_MAX: usize = 127;

/// Which network a pod is in.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The machine's.
    Host,
    /// The one at this path.
    Namespace(PathBuf),
}

/// Opens a connection to a port of the pod's own loopback interface.
async fn dial(place: &Place, port: u16) -> std::io::Result<TcpStream> {
    let path = match place {
        Place::Host => return TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await,
        Place::Namespace(path) => path.clone(),
    };
    // A socket belongs to the namespace of the thread that makes it, for ever: the thread goes there, makes it and ends.
    let socket = tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(&path)?;
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)?;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        })
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread in the namespace broke")))
    });
    let socket = socket.await.map_err(std::io::Error::other)??;
    let socket = tokio::net::TcpSocket::from_std_stream(socket.into());
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// Serves an upgraded connection. `ports` are those that a WebSocket request names.
pub(crate) async fn serve(upgrade: Upgrade, place: Place, ports: Vec<u16>) {
    let (websocket, protocol) = (upgrade.websocket, upgrade.protocol);
    let io = match upgrade.connection().await {
        Ok(io) => io,
        Err(error) => return tracing::debug!(%error, "a connection could not be upgraded"),
    };
    match (websocket, protocol) {
        (false, _) => serve_spdy(io, place).await,
        (true, TUNNEL) => serve_spdy(websocket::tunnel(io), place).await,
        (true, protocol) => {
            let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
            serve_channels(io, encoding, place, ports).await;
        }
    }
}

async fn serve_spdy<S>(io: S, place: Place)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut streams) = mpsc::channel(8);
    let connection = tokio::spawn(spdy::serve(io, sender));
    // Halves by request: clients open the error stream first, and tell by a number which data stream belongs to it.
    let mut halves: HashMap<String, (Stream, tokio::time::Instant)> = HashMap::new();
    while let Some(stream) = streams.recv().await {
        halves.retain(|_, (_, since)| since.elapsed() < CREATION_TIMEOUT);
        let Some(port) =
            stream.headers.get("port").and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0)
        else {
            continue;
        };
        let request = match stream.headers.get("requestid") {
            Some(id) => id.clone(),
            // Old clients give none: then a port has one request at a time.
            None => format!("port {port}"),
        };
        let (data, error) = match (stream_type(&stream.headers), halves.remove(&request)) {
            ("data", Some((other, _))) if stream_type(&other.headers) == "error" => (stream, other),
            ("error", Some((other, _))) if stream_type(&other.headers) == "data" => (other, stream),
            ("data" | "error", _) if halves.len() < HALVES_MAX => {
                halves.insert(request, (stream, tokio::time::Instant::now()));
                continue;
            }
            _ => continue,
        };
        tokio::spawn(forward(place.clone(), port, data.input, data.output, error.output));
    }
    connection.abort();
}

async fn serve_channels<S>(io: S, encoding: Encoding, place: Place, ports: Vec<u16>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut forwards = Vec::new();
    for (index, port) in ports.into_iter().take(PORTS_MAX).enumerate() {
        let channel = u8::try_from(index * 2).unwrap_or(0);
        let (input, from_client) = mpsc::channel(PIECES_MAX);
        let (to_client, output) = mpsc::channel(PIECES_MAX);
        let (errors, error_output) = mpsc::channel(PIECES_MAX);
        inputs.push((channel, input));
        outputs.extend([(channel, output), (channel + 1, error_output)]);
        // Both channels start with the port, so that the client knows which is which.
        for sender in [&to_client, &errors] {
            let _ = sender.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        forwards.push(tokio::spawn(forward(place.clone(), port, from_client, to_client, errors)));
    }
    websocket::run(io, encoding, 0, inputs, outputs).await;
    for forward in forwards {
        forward.abort();
    }
}

/// Carries one connection, or tells why there is none.
async fn forward(
    place: Place,
    port: u16,
    from_client: mpsc::Receiver<Bytes>,
    to_client: mpsc::Sender<Bytes>,
    errors: mpsc::Sender<Bytes>,
) {
    match dial(&place, port).await {
        Ok(connection) => carry(connection, from_client, to_client).await,
        Err(error) => {
            let text = format!(
                "error forwarding port {port} to pod: failed to connect to localhost:{port} inside namespace: {error}"
            );
            // Who has gone does not need to know.
            let _ = errors.send(Bytes::from(text)).await;
        }
    }
}

async fn carry<S>(connection: S, mut from_client: mpsc::Receiver<Bytes>, to_client: mpsc::Sender<Bytes>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let (mut reading, mut writing) = tokio::io::split(connection);
    let inward = async {
        while let Some(data) = from_client.recv().await {
            if writing.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = writing.shutdown().await;
    };
    let outward = async {
        let mut piece = vec![0; 32 * 1024];
        while let Ok(read) = reading.read(&mut piece).await {
            if read == 0 || to_client.send(Bytes::copy_from_slice(&piece[..read])).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(inward);
    tokio::pin!(outward);
    // The pod's side ends the connection; the client's only its own direction.
    tokio::select! {
        () = &mut outward => {}
        () = &mut inward => outward.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_until_the_pod_ends_the_connection() {
        let (near, mut peer) = tokio::io::duplex(64);
        let (input, from_client) = mpsc::channel(4);
        let (to_client, mut output) = mpsc::channel(4);
        let carried = tokio::spawn(carry(near, from_client, to_client));
        input.send(Bytes::from_static(b"ping")).await.unwrap();
        let mut got = [0; 4];
        peer.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        drop(input);
        assert_eq!(peer.read(&mut got).await.unwrap(), 0, "the client's end reaches the pod");
        peer.write_all(b"pong").await.unwrap();
        drop(peer);
        assert_eq!(output.recv().await.as_deref(), Some(&b"pong"[..]));
        carried.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_cannot_be_reached_is_told() {
        let (_input, from_client) = mpsc::channel(1);
        let (to_client, _output) = mpsc::channel(1);
        let (errors, mut told) = mpsc::channel(1);
        forward(Place::Namespace("/nowhere".into()), 80, from_client, to_client, errors).await;
        let text = String::from_utf8(told.recv().await.unwrap().to_vec()).unwrap();
        assert!(
            text.starts_with("error forwarding port 80 to pod: failed to connect to localhost:80"),
            "{text}"
        );
    }
}
