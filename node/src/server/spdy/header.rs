//! Header blocks of SPDY/3: pairs of texts with lengths, compressed by zlib over the whole connection with a known dictionary.

use super::dictionary::DICTIONARY;
use bytes::{Buf, BufMut, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use std::collections::BTreeMap;

/// Headers of a stream, with names in lower case.
pub(crate) type Headers = BTreeMap<String, String>;

/// The largest block, unpacked. Streams have a handful of short headers.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// The most headers of a stream.
const HEADERS_MAX: u32 = 128;
/// Bytes of a zlib stream's head, with the mark of its dictionary.
const ZLIB_HEAD_BYTES: usize = 6;

/// Unpacks the header blocks of a connection, in their order.
pub(crate) struct HeaderReader {
    inflate: Decompress,
    /// What is still missing of the stream's head.
    head_left: usize,
}

impl Default for HeaderReader {
    fn default() -> Self {
        let mut inflate = Decompress::new(false);
        prime(&mut inflate);
        Self { inflate, head_left: ZLIB_HEAD_BYTES }
    }
}

/// Puts the dictionary into the window: a stored block of a raw deflate stream is just that.
fn prime(inflate: &mut Decompress) {
    let length = DICTIONARY.len() as u16;
    let mut block = vec![0];
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(DICTIONARY);
    let mut out = vec![0; DICTIONARY.len() + 1];
    let (mut read, mut written) = (0, 0);
    while read < block.len() {
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let result = inflate.decompress(&block[read..], &mut out[written..], FlushDecompress::Sync);
        read += (inflate.total_in() - before_in) as usize;
        written += (inflate.total_out() - before_out) as usize;
        if result.is_err() || inflate.total_in() == before_in {
            break;
        }
    }
}

impl HeaderReader {
    /// Unpacks and reads one block. `None` where it is malformed or too large; then no later block can be read.
    pub(crate) fn read(&mut self, block: &[u8]) -> Option<Headers> {
        let mut block = block;
        if self.head_left == ZLIB_HEAD_BYTES && block.len() >= 2 {
            let plain = block[1] & 0x20 == 0;
            // Deflate, and a check sum over both bytes. Without the mark of a dictionary the head is shorter.
            let good = block[0] & 0x0f == 8 && (u16::from(block[0]) << 8 | u16::from(block[1])) % 31 == 0;
            if !good {
                return None;
            }
            if plain {
                self.head_left = 2;
            }
        }
        let skip = self.head_left.min(block.len());
        block = &block[skip..];
        self.head_left -= skip;
        let text = self.inflate(block)?;
        parse(&text)
    }

    fn inflate(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut read = 0;
        let mut piece = [0; 4096];
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&block[read..], &mut piece, FlushDecompress::Sync).ok()?;
            read += (self.inflate.total_in() - before_in) as usize;
            let written = (self.inflate.total_out() - before_out) as usize;
            out.extend_from_slice(&piece[..written]);
            if out.len() > BLOCK_BYTES_MAX {
                return None;
            }
            let stuck = self.inflate.total_in() == before_in && written == 0;
            if stuck || status == Status::StreamEnd || (read == block.len() && written < piece.len()) {
                return Some(out);
            }
        }
    }
}

fn parse(mut text: &[u8]) -> Option<Headers> {
    let number = |text: &mut &[u8]| (text.remaining() >= 4).then(|| text.get_u32());
    let count = number(&mut text)?;
    if count > HEADERS_MAX {
        return None;
    }
    let mut headers = Headers::new();
    for _ in 0..count {
        let mut take = || {
            let length = usize::try_from(number(&mut text)?).ok()?;
            let (own, rest) = text.split_at_checked(length)?;
            text = rest;
            String::from_utf8(own.to_vec()).ok()
        };
        let (name, value) = (take()?, take()?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Some(headers)
}

/// Writes a block in stored form: a zlib stream without a dictionary that every reader takes. The empty block at the end makes
/// readers hand out what they have.
pub(crate) fn write_headers(headers: &[(String, String)], started: &mut bool, out: &mut BytesMut) {
    let mut text = BytesMut::new();
    text.put_u32(u32::try_from(headers.len()).unwrap_or(0));
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        text.put_u32(u32::try_from(part.len()).unwrap_or(0));
        text.put_slice(part.as_bytes());
    }
    if !std::mem::replace(started, true) {
        out.put_slice(&[0x78, 0x01]);
    }
    let mut block = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        out.put_u8(0);
        out.put_u16_le(length);
        out.put_u16_le(!length);
        out.put_slice(&bytes[..usize::from(length)]);
    };
    block(&text);
    block(&[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_go_s_compressor_are_read() {
        // Written by moby/spdystream's framer: two streams of one connection.
        let first = unhex(FIRST);
        let second = unhex(SECOND);
        let mut reader = HeaderReader::default();
        let expect = |kind: &str| Headers::from([("streamtype".to_owned(), kind.to_owned())]);
        assert_eq!(reader.read(&first), Some(expect("error")));
        assert_eq!(reader.read(&second), Some(expect("stdin")));
    }

    #[test]
    fn own_blocks_are_read_and_nonsense_is_not() {
        let (mut started, mut reader) = (false, HeaderReader::default());
        for value in ["1", "2"] {
            let mut out = BytesMut::new();
            write_headers(&[("a".into(), value.into())], &mut started, &mut out);
            assert_eq!(reader.read(&out), Some(Headers::from([("a".into(), value.into())])));
        }
        assert_eq!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(parse(&[0, 0, 0, 0]), Some(Headers::new()));
        assert_eq!(HeaderReader::default().read(&[1, 2, 3]), None);
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    const FIRST: &str = "78f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff";
    const SECOND: &str = "c22e555c92929907000000ffff";
}
