//! Streams to and from a program: what `exec` and `attach` answer.

use crate::error::{Error, Result};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A program to run in a running container, with the container's user, environment and working directory.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Give it a terminal. `stdout` then carries both of its outputs.
    pub tty: bool,
    /// Give it an input that the session's `stdin` feeds.
    pub stdin: bool,
    /// Hand its output out.
    pub stdout: bool,
    /// Hand its errors out. Without meaning where `tty` is set.
    pub stderr: bool,
    /// Kill it when it runs longer.
    pub timeout: Option<Duration>,
}

/// A program's streams. Dropping a stream closes it; dropping the session does not end the program.
pub struct Session {
    /// Feeds the program. Shutting it down is end of input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it prints.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// What it complains.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Where there is a terminal: its size follows what is sent here.
    pub resize: Option<watch::Sender<TerminalSize>>,
    /// The exit code, once the program has ended; 128 + n where signal n ended it.
    pub exit: BoxFuture<'static, Result<i32>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("tty", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// What a program that was run to its end left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub exit_code: i32,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained.
    pub stderr: Vec<u8>,
}

impl ExecOutput {
    /// No more of each stream is kept: a probe's output is shown to people, not processed.
    pub const STREAM_BYTES_MAX: usize = 1 << 20;
}

/// How long outputs are read after the program has ended. They end with it, unless it left children behind that hold them: those must not
/// keep a probe from its answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a session to its end.
pub(crate) async fn collect(mut session: Session) -> Result<ExecOutput> {
    drop(session.stdin.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit_code = {
        let (output, errors) = (session.stdout.take(), session.stderr.take());
        let drained = async { tokio::join!(drain(output, &mut stdout), drain(errors, &mut stderr)) };
        tokio::pin!(drained);
        tokio::select! {
            exit = &mut session.exit => {
                let exit_code = exit?;
                // Late output of others is dropped.
                let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
                exit_code
            }
            _ = &mut drained => session.exit.await?,
        }
    };
    Ok(ExecOutput { exit_code, stdout, stderr })
}

async fn drain(stream: Option<Box<dyn AsyncRead + Send + Unpin>>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = ExecOutput::STREAM_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// The error of a program that ran out of time.
pub(crate) fn timed_out(timeout: Duration) -> Error {
    Error::Timeout { seconds: timeout.as_secs() }
}
