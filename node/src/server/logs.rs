//! Logs of containers to clients: which file, from where, and following it as it grows, without polling.

use crate::context::PodView;
use crate::log_file::{Line, Stream, tail_start};
use crate::observed::CONTAINER_ID_SCHEME;
use api::Timestamp;
use bytes::{BufMut, Bytes, BytesMut};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use rustix::fs::inotify;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

/// Bytes that are read from a file and handed on at once.
const PIECE_BYTES: usize = 64 * 1024;
/// A line that is longer is handed on in parts. The runtime splits at 16 KiB.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a client wants of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since_seconds: Option<i64>,
    pub since_time: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub stream: Option<Stream>,
}

impl LogOptions {
    /// Reads a query.
    pub(super) fn parse<'a>(query: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, &'static str> {
        const BAD: &str = "{\"message\": \"Unable to decode query.\"}";
        const INVALID: &str = "{\"message\": \"Invalid request.\"}";
        let truth = |value: &str| matches!(value, "true" | "1" | "t" | "T" | "TRUE" | "True");
        let mut options = Self::default();
        for (name, value) in query {
            let number = || value.parse::<i64>().map_err(|_| BAD);
            match name {
                "follow" => options.follow = truth(value),
                "previous" => options.previous = truth(value),
                "timestamps" => options.timestamps = truth(value),
                "tail" if value == "all" => options.tail_lines = None,
                "tail" | "tailLines" => {
                    options.tail_lines = Some(u64::try_from(number()?).map_err(|_| INVALID)?)
                }
                "sinceSeconds" => options.since_seconds = Some(number()?).filter(|own| *own > 0),
                "sinceTime" => options.since_time = Some(value.parse().map_err(|_| BAD)?),
                "limitBytes" => {
                    options.limit_bytes =
                        Some(u64::try_from(number()?).ok().filter(|own| *own > 0).ok_or(INVALID)?)
                }
                "stream" => {
                    options.stream = match value {
                        "Stdout" => Some(Stream::Stdout),
                        "Stderr" => Some(Stream::Stderr),
                        "All" | "" => None,
                        _ => return Err(INVALID),
                    };
                }
                _ => {}
            }
        }
        Ok(options)
    }
}

/// The instance whose log is meant, by the status that the API shows. Upstream: `validateContainerLogStatus`.
pub(super) fn instance(view: &PodView, container: &str, previous: bool) -> Result<String, String> {
    let pod = view.def.name();
    let status = &view.status;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let own = |status: &&ContainerStatus| status.name == container;
    let Some(status) = lists.into_iter().flat_map(|list| list.iter().flatten()).find(own) else {
        return Err(format!("container \"{container}\" in pod \"{pod}\" is not available"));
    };
    let last = status
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref())
        .and_then(|last| last.container_id.clone());
    let state = status.state.clone().unwrap_or_default();
    let found = match (previous, state) {
        (true, _) => last.ok_or_else(|| {
            format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
        })?,
        (false, ContainerState { running: Some(_), .. }) => status.container_id.clone().unwrap_or_default(),
        (false, ContainerState { terminated: Some(terminated), .. }) => terminated
            .container_id
            .or(last)
            .ok_or_else(|| format!("container \"{container}\" in pod \"{pod}\" is terminated"))?,
        (false, state) => match (last, state.waiting) {
            (Some(last), _) => last,
            (None, Some(waiting)) => {
                let why = match waiting.reason.as_deref().unwrap_or_default() {
                    "ErrImagePull" => "image can't be pulled",
                    "ImagePullBackOff" => "trying and failing to pull image",
                    reason => reason,
                };
                return Err(format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}"));
            }
            (None, None) => {
                return Err(format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start - no logs yet"
                ));
            }
        },
    };
    Ok(found.strip_prefix(CONTAINER_ID_SCHEME).unwrap_or(&found).to_owned())
}

/// Turns lines of the file into what the client sees.
struct Formatter {
    timestamps: bool,
    stream: Option<Stream>,
    since: Option<Timestamp>,
    left: Option<u64>,
    /// Whether the last piece of a stream ended in the middle of the program's line.
    in_line: [bool; 2],
}

impl Formatter {
    /// Appends a line. Answers whether more may follow.
    fn add(&mut self, line: &Line<'_>, out: &mut BytesMut) -> bool {
        let new =
            !std::mem::replace(&mut self.in_line[usize::from(line.stream == Stream::Stderr)], line.partial);
        if self.stream.is_some_and(|stream| stream != line.stream) {
            return true;
        }
        if self.since.is_some_and(|since| line.at().is_some_and(|at| at < since)) {
            return true;
        }
        let start = out.len();
        if self.timestamps && new {
            out.put_slice(line.time.as_bytes());
            out.put_u8(b' ');
        }
        out.put_slice(line.text);
        if !line.partial {
            out.put_u8(b'\n');
        }
        let Some(left) = &mut self.left else { return true };
        let written = (out.len() - start) as u64;
        if written > *left {
            out.truncate(start + usize::try_from(*left).unwrap_or(0));
        }
        *left = left.saturating_sub(written);
        *left > 0
    }
}

/// Reads a log into `out`, to its end or, when following, until the instance has ended. Ends early when nobody listens.
pub(super) async fn read(
    path: PathBuf,
    id: String,
    options: LogOptions,
    now: Timestamp,
    view: watch::Receiver<Arc<PodView>>,
    out: mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    if let Err(error) = read_into(&path, &id, &options, now, view, &out).await {
        // What has been sent stays sent; the client sees its connection break.
        let _ = out.send(Err(error)).await;
    }
}

async fn read_into(
    path: &Path,
    id: &str,
    options: &LogOptions,
    now: Timestamp,
    mut view: watch::Receiver<Arc<PodView>>,
    out: &mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> std::io::Result<()> {
    let seconds = options.since_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let since = seconds.map(|seconds| now - Duration::from_secs(seconds)).or(options.since_time);
    let mut formatter = Formatter {
        timestamps: options.timestamps,
        stream: options.stream,
        since,
        left: options.limit_bytes,
        in_line: [false; 2],
    };
    // Watched before it is read, so that no change falls in between.
    let changes = if options.follow { Some(Changes::of(path)?) } else { None };
    let mut file = File::open(path)?;
    let start = match options.tail_lines {
        Some(lines) => tail_start(&mut file, lines)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start))?;
    let mut reader = Reader { file, pending: BytesMut::new() };
    loop {
        let running = view.borrow_and_update().observed.by_id(id).is_some_and(|seen| seen.is_running());
        if !reader.drain(&mut formatter, out).await? {
            return Ok(());
        }
        let Some(changes) = &changes else { return Ok(()) };
        if reader.follow_rotation(path)? {
            continue;
        }
        // Whatever it wrote was written before it ended, and has been read by now.
        if !running {
            return Ok(());
        }
        tokio::select! {
            changed = changes.next() => changed?,
            changed = view.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

struct Reader {
    file: File,
    pending: BytesMut,
}

impl Reader {
    /// Hands on all complete lines. Answers whether more are wanted.
    async fn drain(
        &mut self,
        formatter: &mut Formatter,
        out: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    ) -> std::io::Result<bool> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = self.file.read(&mut piece)?;
            if read == 0 {
                return Ok(true);
            }
            self.pending.put_slice(&piece[..read]);
            let mut text = BytesMut::new();
            let mut more = true;
            while let Some(end) = memchr(&self.pending) {
                let line = self.pending.split_to(end + 1);
                if let Some(line) = Line::parse(&line[..end]) {
                    more = formatter.add(&line, &mut text);
                }
                if !more {
                    break;
                }
            }
            if self.pending.len() > LINE_BYTES_MAX {
                // Not a line of ours: nobody can say where it belongs.
                self.pending.clear();
            }
            if !text.is_empty() && out.send(Ok(text.freeze())).await.is_err() {
                return Ok(false);
            }
            if !more {
                return Ok(false);
            }
        }
    }

    /// Goes on with the file that took the place of the one that was read. Answers whether there is one.
    fn follow_rotation(&mut self, path: &Path) -> std::io::Result<bool> {
        let Ok(new) = std::fs::metadata(path) else { return Ok(false) };
        let old = self.file.metadata()?;
        if (new.ino(), new.dev()) == (old.ino(), old.dev()) {
            return Ok(false);
        }
        self.file = File::open(path)?;
        Ok(true)
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// Puts a descriptor under the eyes of tokio's reactor.
#[allow(unsafe_code)]
fn register(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and stays the same one as long as it is owned, which the `AsyncFd` does from here on.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// Tells when files of a directory change.
struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    fn of(path: &Path) -> std::io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watcher = inotify::init(flags)?;
        let directory = path.parent().unwrap_or(path);
        let wanted =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watcher, directory, wanted)?;
        register(watcher).map(Self)
    }

    async fn next(&self) -> std::io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        // Only that something changed matters, so all that has been told is read away.
        while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::{at, exited, seen};
    use crate::observed::{Observed, State};
    use crate::spec::tests::pod;
    use serde_json::json;

    fn view(state: State) -> Arc<PodView> {
        let def =
            pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}}));
        let mut observed = Observed::default();
        observed.put(seen("a", 0, state));
        Arc::new(PodView { def, observed, status: Default::default() })
    }

    async fn collect(path: &Path, options: LogOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(64);
        let (_view, watching) = watch::channel(view(exited(0)));
        read(path.to_owned(), "a-0".to_owned(), options, at(100), watching, sender).await;
        let mut text = String::new();
        while let Some(piece) = receiver.recv().await {
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn options_shape_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let text = "1970-01-01T00:00:10Z stdout F one\n1970-01-01T00:00:20Z stderr P two\n1970-01-01T00:00:30Z stderr F -more\nnonsense\n\
            1970-01-01T00:00:40Z stdout F three\n";
        std::fs::write(&path, text).unwrap();
        let check = async |query: &[(&str, &str)], expect: &str| {
            let options = LogOptions::parse(query.iter().copied()).unwrap();
            assert_eq!(collect(&path, options).await, expect, "{query:?}");
        };
        check(&[], "one\ntwo-more\nthree\n").await;
        check(&[("follow", "true")], "one\ntwo-more\nthree\n").await;
        check(&[("tailLines", "1")], "three\n").await;
        check(&[("tail", "0")], "").await;
        check(&[("sinceTime", "1970-01-01T00:00:31Z")], "three\n").await;
        check(&[("sinceSeconds", "60")], "three\n").await;
        check(&[("stream", "Stderr")], "two-more\n").await;
        check(&[("limitBytes", "5")], "one\nt").await;
        check(&[("timestamps", "true"), ("stream", "Stderr")], "1970-01-01T00:00:20Z two-more\n").await;
        assert!(LogOptions::parse([("tailLines", "-1")].into_iter()).is_err());
        assert!(LogOptions::parse([("limitBytes", "x")].into_iter()).is_err());
    }

    #[tokio::test]
    async fn following_goes_over_rotation_and_ends_with_the_container() {
        use std::io::Write;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1970-01-01T00:00:10Z stdout F a\n").unwrap();
        let (sender, mut receiver) = mpsc::channel(64);
        let (state, watching) = watch::channel(view(State::Running));
        let options = LogOptions { follow: true, ..Default::default() };
        let reading = tokio::spawn(read(path.clone(), "a-0".to_owned(), options, at(100), watching, sender));
        let mut next = async || receiver.recv().await.unwrap().unwrap();
        assert_eq!(&next().await[..], b"a\n");
        file.write_all(b"1970-01-01T00:00:10Z stdout F b\n").unwrap();
        assert_eq!(&next().await[..], b"b\n");
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, b"1970-01-01T00:00:10Z stdout F c\n").unwrap();
        assert_eq!(&next().await[..], b"c\n");
        state.send_replace(view(exited(0)));
        reading.await.unwrap();
    }

    #[test]
    fn the_status_says_which_instance_is_meant() {
        let check = |status: serde_json::Value, previous: bool, expect: Result<&str, &str>| {
            let def = pod(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}));
            let status: k8s_openapi::api::core::v1::PodStatus =
                serde_json::from_value(json!({"containerStatuses": [status]})).unwrap();
            let view = PodView { def, observed: Observed::default(), status };
            assert_eq!(instance(&view, "a", previous), expect.map(str::to_owned).map_err(str::to_owned));
        };
        let of = |state: serde_json::Value, last: serde_json::Value| {
            json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "clipper://now",
                "state": state, "lastState": last})
        };
        let before = json!({"terminated": {"exitCode": 0, "containerID": "clipper://before"}});
        check(of(json!({"running": {}}), json!({})), false, Ok("now"));
        check(of(json!({"running": {}}), before.clone()), true, Ok("before"));
        check(
            of(json!({"running": {}}), json!({})),
            true,
            Err("previous terminated container \"a\" in pod \"p\" not found"),
        );
        check(of(json!({"waiting": {"reason": "CrashLoopBackOff"}}), before), false, Ok("before"));
        check(
            of(json!({"waiting": {"reason": "ErrImagePull"}}), json!({})),
            false,
            Err("container \"a\" in pod \"p\" is waiting to start: image can't be pulled"),
        );
    }
}
