//! What fuzzing reaches of this crate's insides.

use crate::server::spdy::frame::{Frame, FrameError, FrameReader};
use crate::server::websocket::{self, Encoding};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

fn frames(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for piece in pieces {
        reader.push(piece.as_ref());
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Frames of SPDY: the same ones, however they arrive.
pub fn spdy(bytes: &[u8]) {
    assert_eq!(frames([bytes].iter()), frames(bytes.chunks(7)));
}

/// Messages over a WebSocket, in both encodings.
pub fn websocket(bytes: &[u8]) {
    futures::executor::block_on(async {
        let (near, mut far) = tokio::io::duplex(bytes.len().max(1) + (64 << 10));
        // What comes is all there before anybody looks, so that nobody waits; answers fit in the pipe or break it.
        let _ = far.write_all(bytes).await;
        let _ = far.shutdown().await;
        let mut socket = websocket::open(near).await;
        while let Some(Ok(message)) = socket.next().await {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                if let Some((channel, data)) = encoding.decode(message.clone()) {
                    let again = encoding.decode(encoding.encode(channel, &data));
                    assert!(channel > 9 || again == Some((channel, data)));
                }
            }
        }
    });
}
