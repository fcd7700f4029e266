//! Reading tar archives that nobody vouches for: ustar, with GNU and PAX extensions.
//!
//! Own, and not the `tar` crate, because that reads extension headers into memory as long as they claim to be, and unpacks by path.

use std::io::{Error, ErrorKind, Read, Result, Seek};

const BLOCK: usize = 512;

/// No extension header is larger: it holds a path, a link, and attributes of at most 64 KB.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// No file is longer for the kernel; with its padding such a length is still a number.
const MEMBER_BYTES_MAX: u64 = i64::MAX as u64;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// Character or block device.
    Device,
}

/// A member of an archive. Nothing in it is checked but its form.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, u32),
    pub(crate) bytes: u64,
    /// Where a link leads.
    pub(crate) target: Vec<u8>,
    pub(crate) attributes: Vec<(String, Vec<u8>)>,
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// What the extension headers before a member say about it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    bytes: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<(i64, u32)>,
    attributes: Vec<(String, Vec<u8>)>,
}

/// An archive, read from front to back.
pub(crate) struct Tarball<R> {
    inner: R,
    skip: fn(&mut R, u64) -> Result<u64>,
    /// Of the current member: what is left of its content, and of the padding behind.
    left: u64,
    padding: u64,
    offset: u64,
}

impl<'a> Tarball<&'a std::fs::File> {
    /// Skips by seeking: for a look at what is in a large archive.
    pub(crate) fn seeking(file: &'a std::fs::File) -> Self {
        let skip = |file: &mut &'a std::fs::File, bytes: u64| {
            let at = file.stream_position()?;
            let there = file.metadata()?.len().saturating_sub(at).min(bytes);
            file.seek(std::io::SeekFrom::Start(at + there))?;
            Ok(there)
        };
        Self { inner: file, skip, left: 0, padding: 0, offset: 0 }
    }
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(inner: R) -> Self {
        let skip = |inner: &mut R, bytes| std::io::copy(&mut inner.take(bytes), &mut std::io::sink());
        Self { inner, skip, left: 0, padding: 0, offset: 0 }
    }

    /// Where the current member's content begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member, skipping what was not read of the last. `None` at the end mark; an archive without one is truncated.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let mut header = [0; BLOCK];
            self.inner.read_exact(&mut header).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => damaged("the archive is truncated"),
                _ => error,
            })?;
            self.offset += BLOCK as u64;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            check_sum(&header)?;
            let header_bytes = number(&header[124..136])?;
            let kind = header[156];
            self.set_content(header_bytes)?;
            match kind {
                b'L' => extension.path = Some(without_end(self.extension()?)),
                b'K' => extension.target = Some(without_end(self.extension()?)),
                b'x' => {
                    let records = self.extension()?;
                    parse_records(&records, &mut extension)?;
                }
                b'g' => drop(self.extension()?), // comments of the archiver
                _ => {
                    self.set_content(extension.bytes.unwrap_or(header_bytes))?;
                    return member(&header, kind, self.left, extension).map(Some);
                }
            }
        }
    }

    fn set_content(&mut self, bytes: u64) -> Result<()> {
        if bytes > MEMBER_BYTES_MAX {
            return Err(damaged("a number is out of range"));
        }
        self.left = bytes;
        self.padding = bytes.wrapping_neg() % BLOCK as u64;
        Ok(())
    }

    fn skip(&mut self) -> Result<()> {
        let unread = self.left + self.padding;
        let skipped = (self.skip)(&mut self.inner, unread)?;
        self.offset += skipped;
        (self.left, self.padding) = (0, 0);
        if skipped == unread { Ok(()) } else { Err(damaged("the archive is truncated")) }
    }

    fn extension(&mut self) -> Result<Vec<u8>> {
        if self.left > EXTENSION_BYTES_MAX {
            return Err(damaged("an extension header is too large"));
        }
        let mut content = vec![0; self.left as usize];
        self.read_exact(&mut content).map_err(|_| damaged("the archive is truncated"))?;
        Ok(content)
    }

    /// Reads what follows the end mark, so that a digest over everything can be had.
    pub(crate) fn finish(mut self) -> Result<R> {
        std::io::copy(&mut self.inner, &mut std::io::sink())?;
        Ok(self.inner)
    }
}

/// The content of the current member. An archive that ends within is an error, not an end.
impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(damaged("the archive is truncated"));
        }
        self.left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let said = number(&header[148..156])?;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u64::from(*b) })
        .sum();
    if said == sum { Ok(()) } else { Err(damaged("not a tar archive, or damaged")) }
}

/// Octal digits, or GNU's base 256: the first bit marks it, the others are a number in two's complement, the highest byte first.
fn signed_number(field: &[u8]) -> Result<i64> {
    let no_number = || damaged("a number is not one");
    let Some((first, rest)) = field.split_first() else { return Err(no_number()) };
    if first & 0x80 != 0 {
        let mut value = i128::from((*first << 1) as i8 >> 1);
        for byte in rest {
            // A field has at most 12 bytes: 95 bits.
            value = value << 8 | i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| damaged("a number is out of range"));
    }
    let text = std::str::from_utf8(field).map_err(|_| no_number())?;
    match text.trim_matches(['\0', ' ']) {
        "" => Ok(0),
        digits if digits.starts_with(['+', '-']) => Err(no_number()),
        digits => i64::from_str_radix(digits, 8).map_err(|_| no_number()),
    }
}

/// A number that cannot be negative.
fn number(field: &[u8]) -> Result<u64> {
    u64::try_from(signed_number(field)?).map_err(|_| damaged("a number is out of range"))
}

/// A user or group. The highest number means "leave it" to the kernel, and is nobody's.
fn id(number: u64) -> Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(damaged("an owner is out of range")),
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn without_end(mut content: Vec<u8>) -> Vec<u8> {
    while content.last() == Some(&0) {
        content.pop();
    }
    content
}

/// PAX records: `LENGTH KEY=VALUE\n`.
fn parse_records(mut records: &[u8], extension: &mut Extension) -> Result<()> {
    while !records.is_empty() {
        let broken = || damaged("an extension header is damaged");
        let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length: usize = std::str::from_utf8(&records[..space])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(broken)?;
        let record = records
            .get(space + 1..length)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or_else(broken)?;
        records = &records[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let digits = || std::str::from_utf8(value).map_err(|_| broken());
        match key {
            b"path" => extension.path = Some(value.to_vec()),
            b"linkpath" => extension.target = Some(value.to_vec()),
            b"size" => extension.bytes = Some(digits()?.parse().map_err(|_| broken())?),
            b"uid" => extension.uid = Some(digits()?.parse().map_err(|_| broken())?),
            b"gid" => extension.gid = Some(digits()?.parse().map_err(|_| broken())?),
            b"mtime" => extension.modified = Some(time(digits()?).ok_or_else(broken)?),
            _ => {
                let key = String::from_utf8_lossy(key);
                if key.starts_with("GNU.sparse.") {
                    return Err(damaged("sparse files are not supported"));
                }
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    extension.attributes.push((name.to_owned(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

/// `1350244992.023960108`
fn time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

fn member(header: &[u8; BLOCK], kind: u8, bytes: u64, extension: Extension) -> Result<Member> {
    let kind = match kind {
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => return Err(damaged("sparse files are not supported")),
        _ => return Err(damaged("a member is of an unknown kind")),
    };
    let mut path = text(&header[..100]);
    let prefix = text(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        path = [prefix, vec![b'/'], path].concat();
    }
    let path = extension.path.unwrap_or(path);
    // Old archives have no kind for directories.
    let kind = if kind == Kind::File && path.last() == Some(&b'/') { Kind::Directory } else { kind };
    Ok(Member {
        kind,
        mode: number(&header[100..108])? as u32 & 0o7777,
        uid: id(extension.uid.map_or_else(|| number(&header[108..116]), Ok)?)?,
        gid: id(extension.gid.map_or_else(|| number(&header[116..124]), Ok)?)?,
        modified: extension.modified.map_or_else(|| signed_number(&header[136..148]).map(|s| (s, 0)), Ok)?,
        bytes,
        target: extension.target.unwrap_or_else(|| text(&header[157..257])),
        attributes: extension.attributes,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(7);
        builder.append_data(&mut header, path, content).unwrap();
    }

    #[test]
    fn members_are_read() {
        let long = "d/".repeat(90) + "file";
        let bytes = archive(|builder| {
            add(builder, "a", b"hello");
            builder
                .append_pax_extensions([("SCHILY.xattr.user.x", b"y".as_slice()), ("mtime", b"3.25")])
                .unwrap();
            add(builder, &long, &[1; 1000]);
        });
        let mut tarball = Tarball::new(bytes.as_slice());
        let first = tarball.next().unwrap().unwrap();
        assert_eq!(
            (first.path.as_slice(), first.bytes, first.mode, first.modified),
            (b"a".as_slice(), 5, 0o640, (7, 0))
        );
        let second = tarball.next().unwrap().unwrap();
        assert_eq!((second.path, second.modified), (long.into_bytes(), (3, 250_000_000)));
        assert_eq!(second.attributes, [("user.x".to_owned(), b"y".to_vec())]);
        let mut content = Vec::new();
        tarball.read_to_end(&mut content).unwrap();
        assert_eq!(content, [1; 1000]);
        assert!(tarball.next().unwrap().is_none());
    }

    #[test]
    fn damage_is_told() {
        let bytes = archive(|builder| add(builder, "a", &[0; 2000]));
        let check = |bytes: &[u8], expect: &str| {
            let mut tarball = Tarball::new(bytes);
            let error = loop {
                match tarball.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{expect}: no error"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.to_string(), expect);
        };
        check(&bytes[..600], "the archive is truncated");
        check(&bytes[..2560], "the archive is truncated");
        check(&[], "the archive is truncated");
        check(&[7; 1024], "a number is not one");
        let mut wrong = bytes.clone();
        wrong[0] = b'b';
        check(&wrong, "not a tar archive, or damaged");
        let mut huge = bytes;
        huge[156] = b'x';
        huge[124..136].copy_from_slice(b"77777777777\0");
        let sum: u32 =
            (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(huge[at]) }).sum();
        huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        check(&huge, "an extension header is too large");
    }

    /// The only member of an archive whose header has `field` at `at`.
    fn with_field(at: usize, field: &[u8]) -> Result<Member> {
        let mut bytes = archive(|builder| add(builder, "a", b""));
        bytes[at..at + field.len()].copy_from_slice(field);
        let sum: u32 =
            (0..512).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(bytes[at]) }).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Tarball::new(bytes.as_slice()).next().map(Option::unwrap)
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        const UID: usize = 108;
        const GID: usize = 116;
        const SIZE: usize = 124;
        const MODIFIED: usize = 136;
        let check = |at: usize, field: &[u8], expect: std::result::Result<i64, &str>| {
            let read = with_field(at, field).map(|member| match at {
                UID => i64::from(member.uid),
                GID => i64::from(member.gid),
                SIZE => member.bytes as i64,
                _ => member.modified.0,
            });
            assert_eq!(
                read.map_err(|error| error.to_string()),
                expect.map_err(str::to_owned),
                "{at} {field:x?}"
            );
        };
        let (no_number, out, owner) =
            ("a number is not one", "a number is out of range", "an owner is out of range");
        for at in [UID, GID] {
            check(at, b"0001750\0", Ok(1000));
            check(at, b"        ", Ok(0));
            check(at, &[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0], Ok(3_000_000));
            check(at, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe], Ok(4_294_967_294));
            check(at, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Err(owner));
            check(at, &[0x80, 0, 0, 1, 0, 0, 0, 0], Err(owner));
            check(at, &[0xbf; 8], Err(owner));
            check(at, &[0xff; 8], Err(out));
            check(at, b"+001750\0", Err(no_number));
            check(at, b"-000001\0", Err(no_number));
            check(at, b"0000009\0", Err(no_number));
            check(at, b"\x7f\xfe\0\0\0\0\0\0", Err(no_number));
        }
        check(SIZE, &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], Ok(2 << 32));
        check(SIZE, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Ok(i64::MAX));
        check(SIZE, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0], Err(out));
        check(SIZE, &[0xbf; 12], Err(out));
        check(SIZE, &[0xff; 12], Err(out));
        check(SIZE, b"7777777777777"[..12].as_ref(), Ok((1 << 36) - 1));
        check(MODIFIED, &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1], Ok((2 << 32) + 1));
        check(MODIFIED, &[0xff; 12], Ok(-1));
        check(MODIFIED, &[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Err(out));
        check(MODIFIED, b"garbage, yes", Err(no_number));
    }

    #[test]
    fn lengths_and_owners_of_extensions_have_the_same_bounds() {
        let check = |key: &str, value: &str, expect: &str| {
            let bytes = archive(|builder| {
                builder.append_pax_extensions([(key, value.as_bytes())]).unwrap();
                add(builder, "a", b"");
            });
            let error = Tarball::new(bytes.as_slice()).next().unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check("size", "18446744073709551615", "a number is out of range");
        check("uid", "4294967295", "an owner is out of range");
        check("gid", "99999999999", "an owner is out of range");
        check("uid", "-1", "an extension header is damaged");
    }
}
