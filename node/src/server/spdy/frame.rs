//! Frames of SPDY/3.1: read from and written to bytes, without any I/O. Everything that comes from the other side is bounded here.

use super::header::{HeaderReader, Headers, write_headers};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest frame that is taken. Clients send at most 64 KiB of data at once; 16 MiB would be the format's own bound.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes before a frame's payload.
const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
/// The last frame of a stream's direction.
const FLAG_FIN: u8 = 0x01;

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Larger than we take.
    #[error("a frame of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another version of the protocol.
    #[error("SPDY version {version} is not spoken here")]
    Version {
        /// What was seen.
        version: u16,
    },
    /// The payload does not have the form of its type.
    #[error("a malformed frame of type {kind}")]
    Malformed {
        /// Its type.
        kind: u16,
    },
    /// The headers cannot be read, so that no later ones can be either.
    #[error("malformed headers")]
    Headers,
}

/// A frame from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream.
    Open { stream: u32, headers: Headers, fin: bool },
    /// An answer to a stream that we opened (we open none), or more headers of a stream.
    MoreHeaders { stream: u32, fin: bool },
    /// The stream is broken off.
    Reset { stream: u32 },
    /// Data of a stream.
    Data { stream: u32, data: Bytes, fin: bool },
    /// Is anybody there?
    Ping { id: u32 },
    /// No more streams will come.
    GoAway,
    /// Settings, window updates and what we do not know: without meaning for us.
    Ignored,
}

/// Reads frames out of what arrives.
#[derive(Default)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
    headers: HeaderReader,
}

impl FrameReader {
    /// Adds what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if it is complete.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<HEAD_BYTES>().copied() else { return Ok(None) };
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: length });
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        let fin = head[4] & FLAG_FIN != 0;
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if word >> 31 == 0 {
            return Ok(Some(Frame::Data { stream: word, data: payload, fin }));
        }
        let (version, kind) = ((word >> 16 & 0x7fff) as u16, word as u16);
        if version != VERSION {
            return Err(FrameError::Version { version });
        }
        self.control(kind, payload, fin).map(Some)
    }

    fn control(&mut self, kind: u16, mut payload: Bytes, fin: bool) -> Result<Frame, FrameError> {
        let number = |payload: &mut Bytes| match payload.remaining() {
            0..4 => Err(FrameError::Malformed { kind }),
            _ => Ok(payload.get_u32()),
        };
        match kind {
            1 => {
                let stream = number(&mut payload)? & 0x7fff_ffff;
                let _associated = number(&mut payload)?;
                if payload.remaining() < 2 {
                    return Err(FrameError::Malformed { kind });
                }
                payload.advance(2);
                let headers = self.headers.read(&payload).ok_or(FrameError::Headers)?;
                Ok(Frame::Open { stream, headers, fin })
            }
            2 | 8 => {
                let stream = number(&mut payload)? & 0x7fff_ffff;
                // Also what is not used must be read: the compression goes on from frame to frame.
                self.headers.read(&payload).ok_or(FrameError::Headers)?;
                Ok(Frame::MoreHeaders { stream, fin })
            }
            3 => Ok(Frame::Reset { stream: number(&mut payload)? & 0x7fff_ffff }),
            6 => Ok(Frame::Ping { id: number(&mut payload)? }),
            7 => Ok(Frame::GoAway),
            _ => Ok(Frame::Ignored),
        }
    }
}

/// A frame to the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutFrame {
    /// A stream is taken.
    Reply { stream: u32 },
    /// Data of a stream.
    Data { stream: u32, data: Bytes, fin: bool },
    /// A stream is refused or broken off.
    Reset { stream: u32, status: u32 },
    /// Here we are.
    Ping { id: u32 },
    /// What was read may be sent again (SPDY/3.1 flow control; most clients do not look at it).
    Window { stream: u32, bytes: u32 },
}

/// Writes frames. Headers are compressed over the whole connection, so there is one writer per connection.
#[derive(Default)]
pub(crate) struct FrameWriter {
    started: bool,
}

impl FrameWriter {
    /// Appends a frame.
    pub(crate) fn write(&mut self, frame: &OutFrame, out: &mut BytesMut) {
        let mut control = |kind: u16, payload: &[u8]| {
            out.put_u16(0x8000 | VERSION);
            out.put_u16(kind);
            out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX) & 0x00ff_ffff);
            out.put_slice(payload);
        };
        match frame {
            OutFrame::Reply { stream } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                write_headers(&[], &mut self.started, &mut payload);
                control(2, &payload);
            }
            OutFrame::Reset { stream, status } => {
                control(3, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
            }
            OutFrame::Ping { id } => control(6, &id.to_be_bytes()),
            OutFrame::Window { stream, bytes } => {
                control(9, &[stream.to_be_bytes(), bytes.to_be_bytes()].concat())
            }
            OutFrame::Data { stream, data, fin } => {
                out.put_u32(*stream & 0x7fff_ffff);
                let flags = u32::from(if *fin { FLAG_FIN } else { 0 }) << 24;
                out.put_u32(flags | (u32::try_from(data.len()).unwrap_or(u32::MAX) & 0x00ff_ffff));
                out.put_slice(data);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A frame that opens a stream, with headers stored plainly.
    pub(crate) fn open(stream: u32, headers: &[(&str, &str)], started: &mut bool) -> Vec<u8> {
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put_u32(0);
        payload.put_u16(0);
        let list: Vec<_> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        write_headers(&list, started, &mut payload);
        let mut frame = vec![0x80, 3, 0, 1];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(&payload);
        frame
    }

    #[test]
    fn frames_arrive_in_pieces() {
        let mut started = false;
        let mut bytes = open(1, &[("streamtype", "data"), ("port", "80")], &mut started);
        bytes.extend_from_slice(&[0, 0, 0, 1, 1, 0, 0, 2, b'h', b'i']);
        bytes.extend_from_slice(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            found.extend(reader.next_frame().unwrap());
        }
        let headers = Headers::from([("streamtype".into(), "data".into()), ("port".into(), "80".into())]);
        assert_eq!(
            found,
            [
                Frame::Open { stream: 1, headers, fin: false },
                Frame::Data { stream: 1, data: Bytes::from_static(b"hi"), fin: true },
                Frame::Ping { id: 9 },
            ]
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = BytesMut::new();
        let mut writer = FrameWriter::default();
        writer.write(&OutFrame::Data { stream: 5, data: Bytes::from_static(b"x"), fin: true }, &mut out);
        writer.write(&OutFrame::Reply { stream: 1 }, &mut out);
        writer.write(&OutFrame::Reply { stream: 3 }, &mut out);
        writer.write(&OutFrame::Reset { stream: 7, status: 1 }, &mut out);
        let mut reader = FrameReader::default();
        reader.push(&out);
        let mut next = || reader.next_frame().unwrap().unwrap();
        assert_eq!(next(), Frame::Data { stream: 5, data: Bytes::from_static(b"x"), fin: true });
        assert_eq!(next(), Frame::MoreHeaders { stream: 1, fin: false });
        assert_eq!(next(), Frame::MoreHeaders { stream: 3, fin: false });
        assert_eq!(next(), Frame::Reset { stream: 7 });
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8], expect: FrameError| {
            let mut reader = FrameReader::default();
            reader.push(bytes);
            assert_eq!(reader.next_frame(), Err(expect), "{bytes:?}");
        };
        check(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff], FrameError::TooLarge { bytes: 0xff_ffff });
        check(&[0x80, 2, 0, 1, 0, 0, 0, 0], FrameError::Version { version: 2 });
        check(&[0x80, 3, 0, 3, 0, 0, 0, 1, 0], FrameError::Malformed { kind: 3 });
        check(&[0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], FrameError::Headers);
        check(&[0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 9, 9, 9, 9], FrameError::Headers);
    }
}
