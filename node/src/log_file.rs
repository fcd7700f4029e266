//! Logs of containers, in the CRI format: `TIME STREAM TAG TEXT`, one line of the program per `F` or several `P` and an `F`.
//! Upstream: `cri-client` `logs`.

use api::Timestamp;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a file is read at once, backwards and forwards.
const BLOCK_BYTES: usize = 64 * 1024;
/// Characters of a termination message. Upstream: `MaxContainerTerminationMessageLength`.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;
/// Characters of a termination message that comes from the log. Upstream: `MaxContainerTerminationMessageLogLength`.
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
/// Lines of it. Upstream: `MaxContainerTerminationMessageLogLines`.
const MESSAGE_LOG_LINES_MAX: usize = 80;

/// Which of a program's outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// When it was written, as it stands in the file.
    pub time: &'a str,
    /// Where it came from.
    pub stream: Stream,
    /// Whether the program's line goes on in the next one.
    pub partial: bool,
    /// What was written, without the line's end.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its end. `None` where it is not one.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let tag = parts.next()?;
        let partial = tag.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Self { time, stream, partial, text: parts.next().unwrap_or_default() })
    }

    /// When it was written.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Where the last `lines` lines of a file start. A last line without an end counts.
pub(crate) fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let mut found = 0;
    let mut end = length;
    let mut block = vec![0; BLOCK_BYTES];
    while end > 0 {
        let size = BLOCK_BYTES.min(usize::try_from(end).unwrap_or(BLOCK_BYTES));
        let start = end - size as u64;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            let at = start + index as u64;
            // The end of the last line starts no further line.
            if block[index] == b'\n' && at + 1 != length {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// The last lines that a container wrote, for its termination message.
pub(crate) fn last_lines(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let start = tail_start(&mut file, MESSAGE_LOG_LINES_MAX as u64)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // 80 lines of a log are bounded by the runtime's line length; the cap is for files that somebody else wrote.
    file.take((MESSAGE_LOG_LINES_MAX * 32 * 1024) as u64).read_to_end(&mut bytes)?;
    let mut text = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').filter_map(Line::parse) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let excess = text.len().saturating_sub(MESSAGE_LOG_BYTES_MAX);
    Ok(String::from_utf8_lossy(&text[excess..]).into_owned())
}

/// What a container wrote to the file for its termination message.
pub(crate) fn message_file(path: &Path) -> Result<Option<String>, String> {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES_MAX as u64)))?;
        let mut bytes = Vec::new();
        file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if std::io::Error::kind(&error) == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("Error on reading termination log {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = Line::parse(b"2026-01-02T03:04:05.123456789Z stderr F a b").unwrap();
        assert_eq!((line.stream, line.partial, line.text), (Stream::Stderr, false, &b"a b"[..]));
        assert_eq!(line.at().unwrap().subsec_nanosecond(), 123_456_789);
        assert!(Line::parse(b"2026-01-02T03:04:05Z stdout P x").unwrap().partial);
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z stdout F").unwrap().text, b"");
        assert_eq!(Line::parse(b"2026-01-02T03:04:05Z both F x"), None);
        assert_eq!(Line::parse(b""), None);
    }

    #[test]
    fn tails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let check = |text: &str, lines: u64, expect: &str| {
            std::fs::write(&path, text).unwrap();
            let start = tail_start(&mut File::open(&path).unwrap(), lines).unwrap();
            assert_eq!(&text[usize::try_from(start).unwrap()..], expect, "{lines}");
        };
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\nb\n", 5, "a\nb\n");
        check("a\nb\n", 0, "");
        check("", 1, "");
        let long = format!("{}\nend\n", "x".repeat(BLOCK_BYTES * 2));
        check(&long, 1, "end\n");
        check(&long, 2, &long);
    }

    #[test]
    fn messages_come_from_the_file_or_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("message");
        assert_eq!(message_file(&path), Ok(None));
        std::fs::write(&path, "x".repeat(MESSAGE_BYTES_MAX + 1) + "END").unwrap();
        let message = message_file(&path).unwrap().unwrap();
        assert!(message.len() == MESSAGE_BYTES_MAX && message.ends_with("END"));
        let lines: String = (0..100).map(|n| format!("2026-01-02T03:04:05Z stdout F line {n}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        let message = last_lines(&path).unwrap();
        assert!(message.starts_with("line 20\n") && message.ends_with("line 99\n"), "{message}");
    }
}
