//! A container's log in the CRI format: `2016-10-06T00:17:09.669794202Z stdout F text`.
//!
//! `F` ends a line, `P` is a part of one: it was longer than [`LINE_BYTES_MAX`], or the stream ended within it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

/// A longer line is told in parts, as upstream's runtimes do: whoever reads a log bounds its buffer by this.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// The two streams of a log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// What a program prints.
    Stdout,
    /// What a program complains.
    Stderr,
}

/// A log that lines are cut for.
pub struct Log {
    path: Option<String>,
    file: Option<File>,
    partial: [Vec<u8>; 2],
    batch: Vec<u8>,
}

impl Log {
    /// Opens the log at `path`, appending; `None` discards.
    pub fn open(path: Option<String>) -> std::io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        Ok(Self { path, file, partial: [Vec::new(), Vec::new()], batch: Vec::new() })
    }

    /// Opens the path anew, after somebody moved the file.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        self.file = self.path.as_deref().map(open).transpose()?;
        Ok(())
    }

    /// Takes what a stream said.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now_ns: i64) {
        if self.file.is_none() {
            return;
        }
        let time = timestamp(now_ns);
        let mut batch = std::mem::take(&mut self.batch);
        let partial = &mut self.partial[stream as usize];
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - partial.len();
            match bytes.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(end) => {
                    partial.extend_from_slice(&bytes[..end]);
                    if partial.last() == Some(&b'\r') {
                        partial.pop();
                    }
                    line(&mut batch, &time, stream, 'F', partial);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    partial.extend_from_slice(&bytes[..room]);
                    line(&mut batch, &time, stream, 'P', partial);
                    bytes = &bytes[room..];
                }
                None => {
                    partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        self.flush(batch);
    }

    /// Tells what is left of a stream that ended.
    pub fn end(&mut self, stream: Stream, now_ns: i64) {
        let mut batch = std::mem::take(&mut self.batch);
        let partial = &mut self.partial[stream as usize];
        if !partial.is_empty() {
            line(&mut batch, &timestamp(now_ns), stream, 'P', partial);
        }
        self.partial[stream as usize] = Vec::new();
        self.flush(batch);
        self.batch = Vec::new();
    }

    fn flush(&mut self, mut batch: Vec<u8>) {
        if let Some(file) = &mut self.file
            && !batch.is_empty()
        {
            // A full disk costs lines; it must not stop the program.
            let _ = file.write_all(&batch);
        }
        batch.clear();
        batch.shrink_to(LINE_BYTES_MAX);
        self.batch = batch;
    }
}

fn open(path: &str) -> std::io::Result<File> {
    std::fs::OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

fn line(batch: &mut Vec<u8>, time: &str, stream: Stream, tag: char, text: &mut Vec<u8>) {
    let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    // Writing to memory does not fail.
    let _ = write!(batch, "{time} {name} {tag} ");
    batch.extend_from_slice(text);
    batch.push(b'\n');
    text.clear();
}

/// RFC 3339 in UTC with nine digits.
fn timestamp(ns: i64) -> String {
    let (seconds, fraction) = (ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 1970 to a date: eras of 400 years that begin in March, so that the leap day comes last.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        fn check(ns: i64, expect: &str) {
            assert_eq!(timestamp(ns), expect);
        }
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(1_475_713_029_669_794_202, "2016-10-06T00:17:09.669794202Z");
        check(951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z");
        check(1_798_761_599_999_999_999, "2026-12-31T23:59:59.999999999Z");
    }

    fn logged(writes: &[(Stream, &[u8])]) -> String {
        let name = format!("shim-log-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let mut log = Log::open(Some(path.to_str().unwrap().to_owned())).unwrap();
        for (stream, bytes) in writes {
            log.write(*stream, bytes, 0);
        }
        log.end(Stream::Stdout, 0);
        log.end(Stream::Stderr, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        text.replace("1970-01-01T00:00:00.000000000Z ", "")
    }

    #[test]
    fn streams_are_cut_into_lines() {
        fn check(writes: &[(Stream, &[u8])], expect: &str) {
            assert_eq!(logged(writes), expect);
        }
        use Stream::{Stderr, Stdout};
        check(&[], "");
        check(&[(Stdout, b"a\nb\n")], "stdout F a\nstdout F b\n");
        check(&[(Stdout, b"a"), (Stderr, b"x\n"), (Stdout, b"b\n")], "stderr F x\nstdout F ab\n");
        check(&[(Stdout, b"\n\r\nno end")], "stdout F \nstdout F \nstdout P no end\n");
        let long = [b'z'; LINE_BYTES_MAX + 2];
        let z = "z".repeat(LINE_BYTES_MAX);
        check(&[(Stdout, &long), (Stdout, b"\n")], &format!("stdout P {z}\nstdout F zz\n"));
        check(&[(Stdout, &long[2..]), (Stdout, b"\n")], &format!("stdout F {z}\n"));
    }
}
