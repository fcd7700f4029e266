//! Channels over WebSocket: the first byte of a message names the channel. Upstream: `apimachinery` `util/httpstream/wsstream`.

use super::streams::{PIECES_MAX, Streams, Wanted};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, handshake};

/// The largest message that is taken. kubectl sends at most 32 KiB at once.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// In protocol v5: the next byte names a channel that ends.
const CHANNEL_CLOSE: u8 = 255;
/// Channels of `exec` and `attach`.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are; the channel is a byte.
    Binary,
    /// As base64 text; the channel is a digit.
    Base64,
}

impl Encoding {
    pub(crate) fn encode(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.put_u8(channel);
                message.put_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => Message::text(format!("{channel}{}", STANDARD.encode(data))),
        }
    }

    /// Channel and data. `None` where the message has no channel.
    pub(crate) fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        let mut data = message.into_data();
        if data.is_empty() {
            return None;
        }
        let channel = data.split_to(1)[0];
        match self {
            Self::Binary => Some((channel, data)),
            Self::Base64 => Some((channel.checked_sub(b'0')?, STANDARD.decode(&data).ok()?.into())),
        }
    }
}

/// The answer to a client's key.
pub(crate) fn accept_key(key: &[u8]) -> String {
    handshake::derive_accept_key(key)
}

/// A WebSocket on an upgraded connection, with bounds.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The streams of `exec` and `attach` over a WebSocket.
pub(crate) fn command_streams<S>(io: S, encoding: Encoding, wanted: Wanted, status_json: bool) -> Streams
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stdin_in, stdin) = mpsc::channel(PIECES_MAX);
    let (resize_in, resize) = mpsc::channel(PIECES_MAX);
    let inputs = vec![(STDIN, stdin_in), (RESIZE, resize_in)];
    let mut outputs = Vec::new();
    let mut output = |channel| {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        outputs.push((channel, receiver));
        sender
    };
    let stdout = wanted.stdout.then(|| output(STDOUT));
    let stderr = (wanted.stderr && !wanted.tty).then(|| output(STDERR));
    let error = output(ERROR);
    // An empty message says that the connection is there.
    let first = match (wanted.stdout, wanted.stderr) {
        (true, _) => STDOUT,
        (false, true) => STDERR,
        (false, false) => ERROR,
    };
    tokio::spawn(run(io, encoding, first, inputs, outputs));
    Streams {
        stdin: wanted.stdin.then_some(stdin),
        stdout,
        stderr,
        error,
        resize: wanted.tty.then_some(resize),
        status_json,
    }
}

/// Carries messages between a WebSocket and channels until all outputs have ended or the client has gone.
pub(crate) async fn run<S>(
    io: S,
    encoding: Encoding,
    first: u8,
    mut inputs: Vec<(u8, mpsc::Sender<Bytes>)>,
    outputs: Vec<(u8, mpsc::Receiver<Bytes>)>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut source) = open(io).await.split();
    let (gone, mut is_gone) = mpsc::channel::<Message>(4);
    let reader = async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Close(_) => break,
                // tungstenite answers pings itself when something is written; a quiet connection needs the nudge.
                Message::Ping(data) => {
                    let _ = gone.send(Message::Pong(data)).await;
                }
                Message::Pong(_) | Message::Frame(_) => {}
                message => take(encoding, message, &mut inputs).await,
            }
        }
    };
    let writer = async move {
        let mut outputs = merge(outputs);
        if sink.send(encoding.encode(first, &[])).await.is_err() {
            return;
        }
        loop {
            let message = tokio::select! {
                output = outputs.next() => match output {
                    Some((channel, data)) => encoding.encode(channel, &data),
                    None => break,
                },
                Some(message) = is_gone.recv() => message,
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ =
            sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await;
        let _ = sink.close().await;
    };
    tokio::pin!(reader);
    tokio::pin!(writer);
    tokio::select! {
        () = &mut writer => {}
        // The client has gone or only stopped sending: what is still printed is tried to be written.
        () = &mut reader => writer.await,
    }
}

fn merge(outputs: Vec<(u8, mpsc::Receiver<Bytes>)>) -> impl futures::Stream<Item = (u8, Bytes)> + Unpin {
    let streams = outputs.into_iter().map(|(channel, receiver)| {
        tokio_stream::wrappers::ReceiverStream::new(receiver).map(move |data| (channel, data)).boxed()
    });
    futures::stream::select_all(streams)
}

async fn take(encoding: Encoding, message: Message, inputs: &mut Vec<(u8, mpsc::Sender<Bytes>)>) {
    let Some((channel, data)) = encoding.decode(message) else { return };
    if channel == CHANNEL_CLOSE {
        if let Some(ended) = data.first() {
            inputs.retain(|(own, _)| own != ended);
        }
        return;
    }
    if let Some((_, input)) = inputs.iter().find(|(own, _)| *own == channel) {
        // Who does not read any more misses nothing.
        let _ = input.send(data).await;
    }
}

/// A WebSocket whose binary messages carry the bytes of another protocol (port forwarding's tunnel).
pub(crate) fn tunnel<S>(io: S) -> tokio::io::DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// What lies between the two protocols.
    const TUNNEL_BYTES: usize = 64 * 1024;
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    tokio::spawn(async move {
        let (mut sink, mut source) = open(io).await.split();
        let (mut reading, mut writing) = tokio::io::split(far);
        let inward = async move {
            while let Some(Ok(message)) = source.next().await {
                match message {
                    Message::Binary(data) if writing.write_all(&data).await.is_err() => {
                        break;
                    }
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            let _ = writing.shutdown().await;
        };
        let outward = async move {
            let mut piece = vec![0; 32 * 1024];
            while let Ok(read) = reading.read(&mut piece).await {
                if read == 0
                    || sink.send(Message::binary(Bytes::copy_from_slice(&piece[..read]))).await.is_err()
                {
                    break;
                }
            }
            let _ = sink.close().await;
        };
        tokio::pin!(inward);
        tokio::pin!(outward);
        tokio::select! {
            () = &mut inward => outward.await,
            () = &mut outward => {}
        }
    });
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let check = |encoding: Encoding, message: Message, expect: Option<(u8, &[u8])>| {
            let found = encoding.decode(message);
            assert_eq!(found.as_ref().map(|(channel, data)| (*channel, &data[..])), expect);
        };
        check(Encoding::Binary, Encoding::Binary.encode(2, b"x"), Some((2, b"x")));
        check(Encoding::Base64, Encoding::Base64.encode(1, b"hi"), Some((1, b"hi")));
        check(Encoding::Base64, Message::text("1!"), None);
        check(Encoding::Binary, Message::binary(Bytes::new()), None);
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn channels_over_a_socket() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        let mut streams = command_streams(server, Encoding::Binary, wanted, true);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        client.send(Encoding::Binary.encode(STDIN, b"in")).await.unwrap();
        client.send(Message::binary(vec![CHANNEL_CLOSE, STDIN])).await.unwrap();
        let mut stdin = streams.stdin.take().unwrap();
        assert_eq!(stdin.recv().await.as_deref(), Some(&b"in"[..]));
        assert_eq!(stdin.recv().await, None);
        streams.stdout.as_ref().unwrap().send(Bytes::from_static(b"out")).await.unwrap();
        let mut shown = Vec::new();
        for _ in 0..2 {
            shown.push(client.next().await.unwrap().unwrap().into_data().to_vec());
        }
        assert_eq!(shown, [vec![1], b"\x01out".to_vec()]);
        drop(streams);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
    }
}
