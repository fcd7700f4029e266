//! `/logs`: files of the machine's `/var/log`, and lists of its directories. Links do not lead out of it.

use super::{Body, text, typed};
use bytes::Bytes;
use http::{Response, StatusCode};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use std::fmt::Write;
use std::io::Read;

/// The directory that is served.
const ROOT: &str = "/var/log";
/// What is shown of a file; who wants more uses the machine's own tools.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Answers a path below the directory.
pub(super) fn serve(path: &str) -> Response<Body> {
    match read(path) {
        Ok(answer) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            text(StatusCode::NOT_FOUND, "404 page not found\n")
        }
        Err(error) => text(StatusCode::FORBIDDEN, format!("{error}\n")),
    }
}

fn read(path: &str) -> std::io::Result<Response<Body>> {
    let root =
        rustix::fs::openat(CWD, ROOT, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = path.trim_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), inside)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::Directory => {
            let mut names: Vec<String> = rustix::fs::Dir::read_from(&file)?
                .filter_map(Result::ok)
                .map(|entry| {
                    let slash = if entry.file_type() == FileType::Directory { "/" } else { "" };
                    format!("{}{slash}", entry.file_name().to_string_lossy())
                })
                .filter(|name| name != "./" && name != "../")
                .collect();
            names.sort();
            let mut page =
                "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n"
                    .to_owned();
            for name in names {
                let shown = name
                    .replace('&', "&amp;")
                    .replace('<', "&lt;")
                    .replace('>', "&gt;")
                    .replace('"', "&#34;");
                let link = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC);
                let link = link.to_string().replace("%2F", "/");
                let _ = writeln!(page, "<a href=\"{link}\">{shown}</a>");
            }
            page.push_str("</pre>\n");
            Ok(typed(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(page)))
        }
        FileType::RegularFile => {
            let mut bytes = Vec::new();
            std::fs::File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from(bytes)))
        }
        _ => Ok(text(StatusCode::FORBIDDEN, "not a file\n")),
    }
}
