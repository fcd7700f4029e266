//! Programs in containers: `exec`, `attach` and `run`, between a client's streams and the runtime's session.

use super::streams::{Streams, Wanted};
use bytes::Bytes;
use runtime::{Session, TerminalSize};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

/// After a program's end, how long its outputs may still be held open by what it left behind.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of output that are read at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Connects a session with a client until the program ends (or, for `attach`, the session does), and tells how it ended.
pub(crate) async fn connect(session: Result<Session, runtime::Error>, streams: Streams, wanted: Wanted) {
    let Streams { stdin, stdout, stderr, error, resize, status_json } = streams;
    let session = match session {
        Ok(session) => session,
        Err(failure) => return tell(&error, status_json, &end_of(&Err(failure))).await,
    };
    let Session { stdin: to_program, stdout: printed, stderr: complained, resize: terminal, exit } = session;
    let typing = tokio::spawn(feed(stdin, to_program));
    let sizing = tokio::spawn(follow_size(resize, terminal.filter(|_| wanted.tty)));
    let outputs = async { tokio::join!(copy(printed, stdout), copy(complained, stderr)) };
    tokio::pin!(outputs);
    let mut drained = false;
    tokio::pin!(exit);
    let ended = loop {
        tokio::select! {
            ended = &mut exit => break ended,
            _ = &mut outputs, if !drained => drained = true,
        }
    };
    if !drained {
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut outputs).await;
    }
    typing.abort();
    sizing.abort();
    tell(&error, status_json, &end_of(&ended)).await;
}

/// What the client typed goes to the program; the end of one is the end of the other.
async fn feed(stdin: Option<mpsc::Receiver<Bytes>>, program: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut stdin), Some(mut program)) = (stdin, program) else { return };
    while let Some(data) = stdin.recv().await {
        if program.write_all(&data).await.is_err() || program.flush().await.is_err() {
            return;
        }
    }
    let _ = program.shutdown().await;
}

async fn copy(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<mpsc::Sender<Bytes>>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            return;
        }
        if let Some(to) = &to
            && to.send(Bytes::copy_from_slice(&piece[..read])).await.is_err()
        {
            return;
        }
    }
}

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Sizes come as JSON objects one after the other, not always one per piece.
async fn follow_size(resize: Option<mpsc::Receiver<Bytes>>, terminal: Option<watch::Sender<TerminalSize>>) {
    /// An object of two numbers is far smaller.
    const PENDING_BYTES_MAX: usize = 4096;
    let (Some(mut resize), Some(terminal)) = (resize, terminal) else { return };
    let mut pending = Vec::new();
    while let Some(data) = resize.recv().await {
        pending.extend_from_slice(&data);
        if pending.len() > PENDING_BYTES_MAX {
            return;
        }
        let mut objects = serde_json::Deserializer::from_slice(&pending).into_iter::<Size>();
        while let Some(Ok(size)) = objects.next() {
            terminal.send_replace(TerminalSize { width: size.width, height: size.height });
        }
        let read = objects.byte_offset();
        pending.drain(..read);
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Success,
    Exit(i32),
    Failure(String),
}

fn end_of(ended: &Result<i32, runtime::Error>) -> End {
    match ended {
        Ok(0) => End::Success,
        Ok(code) => End::Exit(*code),
        // A program that cannot be found or run ends like a shell would have it.
        Err(runtime::Error::Exec { message, exit_code: _ }) => End::Failure(format!(
            "error executing command in container: failed to exec in container: {message}"
        )),
        Err(error) => End::Failure(format!("error executing command in container: {error}")),
    }
}

fn status(end: &End) -> serde_json::Value {
    match end {
        End::Success => json!({"metadata": {}, "status": "Success"}),
        End::Exit(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        End::Failure(message) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {message}"),
            "details": {"causes": [{"message": message}]},
        }),
    }
}

async fn tell(error: &mpsc::Sender<Bytes>, status_json: bool, end: &End) {
    let text = match (status_json, end) {
        (true, end) => status(end).to_string(),
        (false, End::Success) => return,
        (false, End::Exit(code)) => format!("command terminated with non-zero exit code: exit status {code}"),
        (false, End::Failure(message)) => message.clone(),
    };
    // Who has gone does not need to know.
    let _ = error.send(Bytes::from(text)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_is_connected_and_its_end_is_told() {
        let (stdin_in, stdin) = mpsc::channel(4);
        let (stdout, mut printed) = mpsc::channel(4);
        let (error, mut told) = mpsc::channel(4);
        let (resize_in, resize) = mpsc::channel(4);
        let (program, mut outside) = tokio::io::duplex(64);
        let (size, seen) = watch::channel(TerminalSize::default());
        let (ended, exit) = tokio::sync::oneshot::channel();
        let (reading, writing) = tokio::io::split(program);
        let session = Session {
            stdin: Some(Box::new(writing)),
            stdout: Some(Box::new(reading)),
            stderr: None,
            resize: Some(size),
            exit: Box::pin(async move { Ok(exit.await.unwrap()) }),
        };
        let streams = Streams {
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: None,
            error,
            resize: Some(resize),
            status_json: true,
        };
        let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        let connected = tokio::spawn(connect(Ok(session), streams, wanted));
        stdin_in.send(Bytes::from_static(b"hi")).await.unwrap();
        let mut typed = [0; 2];
        outside.read_exact(&mut typed).await.unwrap();
        assert_eq!(&typed, b"hi");
        outside.write_all(b"yo").await.unwrap();
        assert_eq!(printed.recv().await.as_deref(), Some(&b"yo"[..]));
        resize_in.send(Bytes::from_static(b"{\"Width\":80,")).await.unwrap();
        resize_in.send(Bytes::from_static(b"\"Height\":24}\n")).await.unwrap();
        seen.clone().wait_for(|size| size.width == 80 && size.height == 24).await.unwrap();
        drop(outside);
        ended.send(7).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&told.recv().await.unwrap()).unwrap();
        assert_eq!(status["details"]["causes"][0]["message"], "7");
        connected.await.unwrap();
        assert_eq!(told.recv().await, None);
    }
}
