//! A server of SPDY/3.1 over one connection: streams that the other side opens, each a pair of byte channels.
//!
//! What clients of Kubernetes need and no more: no pushed streams, no priorities. Windows of flow control are given back at once,
//! but not waited for: the clients in use (moby/spdystream) never send updates. What bounds memory is the length of each
//! stream's queue; while one is full, the whole connection waits, as theirs does.

mod dictionary;
pub(crate) mod frame;
mod header;

use bytes::{Bytes, BytesMut};
use frame::{Frame, FrameReader, FrameWriter, OutFrame};
pub(crate) use header::Headers;
use std::collections::HashMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Streams of a connection at once: port forwarding opens two for each connection that it carries.
const STREAMS_MAX: usize = 1024;
/// Pieces of data that wait in each direction of a stream.
pub(crate) const PIECES_MAX: usize = 16;
/// Frames that wait to be written.
const FRAMES_MAX: usize = 64;
/// The largest piece of data that is written as one frame.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Status of a stream that is refused.
const REFUSED: u32 = 3;

/// A stream that the other side opened.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its headers, names in lower case.
    pub headers: Headers,
    /// What comes; ends with the other side's last frame.
    pub input: mpsc::Receiver<Bytes>,
    /// What goes; dropping it ends our side.
    pub output: mpsc::Sender<Bytes>,
}

/// Serves a connection until it ends. Streams are handed to `streams`; when nobody takes them any more, new ones are refused.
/// Returns when the other side has gone or `done` (all streams were let go after the taker ended).
pub(crate) async fn serve<S>(io: S, streams: mpsc::Sender<Stream>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut reading, mut writing) = tokio::io::split(io);
    let (frames, mut outgoing) = mpsc::channel::<OutFrame>(FRAMES_MAX);
    let writer = async move {
        let (mut writer, mut buffer) = (FrameWriter::default(), BytesMut::new());
        while let Some(frame) = outgoing.recv().await {
            writer.write(&frame, &mut buffer);
            while let Ok(frame) = outgoing.try_recv() {
                writer.write(&frame, &mut buffer);
            }
            if writing.write_all(&buffer.split()).await.is_err() || writing.flush().await.is_err() {
                break;
            }
        }
        let _ = writing.shutdown().await;
    };
    let reader = async move {
        let mut session =
            Session { frames, streams: Some(streams), inputs: HashMap::new(), open: mpsc::channel(1) };
        let mut reader = FrameReader::default();
        let mut piece = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                read = reading.read(&mut piece) => read,
                // All streams and their taker are gone: the work is done.
                () = session.finished() => return,
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(read) => reader.push(&piece[..read]),
            }
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => session.take(frame).await,
                    Ok(None) => break,
                    Err(error) => return tracing::debug!(%error, "a SPDY connection is broken off"),
                }
            }
        }
    };
    tokio::join!(writer, reader);
}

struct Session {
    frames: mpsc::Sender<OutFrame>,
    streams: Option<mpsc::Sender<Stream>>,
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    /// Every stream's writer holds the sender: the receiver ends with the last of them.
    open: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl Session {
    /// Waits until nobody takes streams any more and the last writer of a stream has ended.
    async fn finished(&mut self) {
        if let Some(streams) = &self.streams {
            streams.closed().await;
            self.streams = None;
            // From here on only the streams' writers hold it.
            let (unused, _) = mpsc::channel(1);
            self.open.0 = unused;
        }
        let _ = self.open.1.recv().await;
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, fin } => self.open(stream, headers, fin).await,
            Frame::Data { stream, data, fin } => self.data(stream, data, fin).await,
            Frame::Reset { stream } => {
                self.inputs.remove(&stream);
            }
            Frame::MoreHeaders { stream, fin } => {
                if fin {
                    self.inputs.remove(&stream);
                }
            }
            // Only answers to our own pings would be even; we send none.
            Frame::Ping { id } => self.send(OutFrame::Ping { id }).await,
            Frame::GoAway | Frame::Ignored => {}
        }
    }

    async fn send(&self, frame: OutFrame) {
        // The writer ends with the connection, which the reader then finds out by itself.
        let _ = self.frames.send(frame).await;
    }

    async fn open(&mut self, stream: u32, headers: Headers, fin: bool) {
        let known = self.inputs.contains_key(&stream);
        let Some(taker) = self.streams.as_ref().filter(|taker| !taker.is_closed()) else {
            return self.send(OutFrame::Reset { stream, status: REFUSED }).await;
        };
        if known || self.inputs.len() >= STREAMS_MAX {
            return self.send(OutFrame::Reset { stream, status: REFUSED }).await;
        }
        let (input, from_client) = mpsc::channel(PIECES_MAX);
        let (to_client, output) = mpsc::channel(PIECES_MAX);
        let taken = taker.send(Stream { headers, input: from_client, output: to_client }).await.is_ok();
        if !taken {
            return self.send(OutFrame::Reset { stream, status: REFUSED }).await;
        }
        if !fin {
            self.inputs.insert(stream, input);
        }
        self.send(OutFrame::Reply { stream }).await;
        tokio::spawn(write_stream(stream, output, self.frames.clone(), self.open.0.clone()));
    }

    async fn data(&mut self, stream: u32, data: Bytes, fin: bool) {
        let bytes = u32::try_from(data.len()).unwrap_or(0);
        let Some(input) = self.inputs.get(&stream) else { return };
        if bytes > 0 {
            // Nobody reads it any more: the rest of the stream is thrown away.
            let _ = input.send(data).await;
            for stream in [0, stream] {
                self.send(OutFrame::Window { stream, bytes }).await;
            }
        }
        if fin {
            self.inputs.remove(&stream);
        }
    }
}

/// Writes one stream until nobody writes to it any more, then ends our side of it.
async fn write_stream(
    stream: u32,
    mut output: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<OutFrame>,
    _open: mpsc::Sender<()>,
) {
    while let Some(mut data) = output.recv().await {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
            if frames.send(OutFrame::Data { stream, data: piece, fin: false }).await.is_err() {
                return;
            }
        }
    }
    let _ = frames.send(OutFrame::Data { stream, data: Bytes::new(), fin: true }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_the_connection_ends_after_the_last() {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (streams, mut taken) = mpsc::channel(4);
        let served = tokio::spawn(serve(server, streams));
        let (mut reading, mut writing) = tokio::io::split(client);
        let mut started = false;
        writing.write_all(&frame::tests::open(1, &[("streamtype", "data")], &mut started)).await.unwrap();
        writing.write_all(&[0, 0, 0, 1, 1, 0, 0, 4, b'p', b'i', b'n', b'g']).await.unwrap();
        let mut stream = taken.recv().await.unwrap();
        assert_eq!(stream.headers["streamtype"], "data");
        assert_eq!(stream.input.recv().await.as_deref(), Some(&b"ping"[..]));
        assert_eq!(stream.input.recv().await, None);
        stream.output.send(Bytes::from_static(b"pong")).await.unwrap();
        drop((stream, taken));
        let mut reader = FrameReader::default();
        let (mut data, mut ended) = (Vec::new(), false);
        let mut piece = [0; 1024];
        while !ended {
            let read = reading.read(&mut piece).await.unwrap();
            reader.push(&piece[..read]);
            while let Some(frame) = reader.next_frame().unwrap() {
                if let Frame::Data { data: own, fin, .. } = frame {
                    data.extend_from_slice(&own);
                    ended |= fin;
                }
            }
        }
        assert_eq!(data, b"pong");
        served.await.unwrap();
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (streams, _taken) = mpsc::channel(1);
        let served = tokio::spawn(serve(server, streams));
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client.write_all(&[0xff; 64]).await.unwrap();
        served.await.unwrap();
    }
}
