//! The local control socket, `DATA_DIR/clipper.sock` (mode 0600): how commands on the same machine speak with the process that
//! owns a data directory.
//!
//! One request a connection, in lines of JSON. The client says `{"verb": …, "arguments": […]}`; the server answers any number of
//! `{"progress": "text"}` and then `{"done": value}` or `{"failed": "text"}`. What can be asked is a table of [`Verb`]s.

use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

const NAME: &str = "clipper.sock";
/// A line either way: arguments are paths and names, results are lists of images.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Requests at once; more wait.
const REQUESTS_MAX: usize = 16;
/// Words of progress that wait for a slow client; a verb then waits too.
const PROGRESS_MAX: usize = 64;

/// Where a verb says how far it is. Nobody may be listening.
pub type Progress = mpsc::Sender<String>;

/// Something that can be asked of the process.
pub trait Verb: Send + Sync {
    /// How the client calls it.
    fn name(&self) -> &'static str;
    /// Does it.
    fn run(&self, arguments: Vec<String>, progress: Progress) -> BoxFuture<'_, Result<Value>>;
}

#[derive(Deserialize, Serialize)]
struct Asked {
    verb: String,
    arguments: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Progress(String),
    Done(Value),
    Failed(String),
}

/// The socket, bound.
pub struct ControlSocket(UnixListener);

impl ControlSocket {
    /// Binds it. The caller owns the data directory, so whatever lies there is left over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn bind(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        // By way of the directory's descriptor: a path may be longer than a socket's address.
        let directory = File::open(data_dir)?;
        let bound = UnixListener::bind(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd()));
        let listener = bound.with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// Serves until its future is dropped.
    pub async fn serve(self, verbs: Vec<Arc<dyn Verb>>) {
        let (verbs, places) = (Arc::new(verbs), Arc::new(Semaphore::new(REQUESTS_MAX)));
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.0.accept().await else { continue };
            let verbs = verbs.clone();
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = answer(stream, &verbs).await {
                    tracing::debug!(error = format!("{error:#}"), "a local request broke off");
                }
            });
        }
    }
}

async fn read_line<T: for<'a> Deserialize<'a>>(
    from: &mut (impl AsyncBufReadExt + Unpin),
) -> Result<Option<T>> {
    let mut line = String::new();
    from.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

async fn write_line(to: &mut (impl AsyncWriteExt + Unpin), line: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(to.write_all(&bytes).await?)
}

async fn answer(stream: UnixStream, verbs: &[Arc<dyn Verb>]) -> Result<()> {
    let (from, mut to) = stream.into_split();
    let Some(asked) = read_line::<Asked>(&mut BufReader::new(from)).await? else { return Ok(()) };
    let Some(verb) = verbs.iter().find(|verb| verb.name() == asked.verb) else {
        return write_line(&mut to, &Told::Failed(format!("the process does not know {:?}", asked.verb)))
            .await;
    };
    let (progress, mut told) = mpsc::channel(PROGRESS_MAX);
    let mut work = verb.run(asked.arguments, progress);
    let result = loop {
        tokio::select! {
            biased;
            Some(text) = told.recv() => write_line(&mut to, &Told::Progress(text)).await?,
            result = &mut work => break result,
        }
    };
    while let Ok(text) = told.try_recv() {
        write_line(&mut to, &Told::Progress(text)).await?;
    }
    let last = result.map_or_else(|error| Told::Failed(format!("{error:#}")), Told::Done);
    write_line(&mut to, &last).await
}

/// Asks the process that owns a data directory. `Ok(None)`: there is none.
///
/// # Errors
/// What the process answered, or it went away.
pub async fn call(
    data_dir: &Path,
    verb: &str,
    arguments: Vec<String>,
    mut progress: impl FnMut(&str),
) -> Result<Option<Value>> {
    let Ok(directory) = File::open(data_dir) else { return Ok(None) };
    let stream = match UnixStream::connect(format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd())).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot speak with {}", data_dir.join(NAME).display()));
        }
    };
    let (from, mut to) = stream.into_split();
    write_line(&mut to, &Asked { verb: verb.to_owned(), arguments }).await?;
    let mut from = BufReader::new(from);
    loop {
        match read_line::<Told>(&mut from).await? {
            Some(Told::Progress(text)) => progress(&text),
            Some(Told::Done(value)) => return Ok(Some(value)),
            Some(Told::Failed(why)) => bail!("{why}"),
            None => bail!("the process that owns {} ended before it answered", data_dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Verb for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn run(&self, arguments: Vec<String>, progress: Progress) -> BoxFuture<'_, Result<Value>> {
            Box::pin(async move {
                for word in &arguments {
                    if word == "bad" {
                        bail!("a bad word");
                    }
                    progress.send(word.clone()).await?;
                }
                Ok(arguments.len().into())
            })
        }
    }

    #[tokio::test]
    async fn verbs_answer_with_progress_and_a_result_or_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        assert!(call(dir.path(), "echo", Vec::new(), |_| ()).await.unwrap().is_none());
        let socket = ControlSocket::bind(dir.path()).unwrap();
        let server = tokio::spawn(socket.serve(vec![Arc::new(Echo)]));
        let mut told = Vec::new();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let done =
            call(dir.path(), "echo", words(&["a", "b"]), |text| told.push(text.to_owned())).await.unwrap();
        assert_eq!((done, told), (Some(Value::from(2)), words(&["a", "b"])));
        let refused = call(dir.path(), "echo", words(&["bad"]), |_| ()).await.unwrap_err();
        assert_eq!(refused.to_string(), "a bad word");
        assert!(call(dir.path(), "fly", Vec::new(), |_| ()).await.unwrap_err().to_string().contains("fly"));
        let mode = std::fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        // Nobody listens any more, and the file that is left over is in nobody's way.
        assert!(call(dir.path(), "echo", Vec::new(), |_| ()).await.unwrap().is_none());
        ControlSocket::bind(dir.path()).unwrap();
    }
}
