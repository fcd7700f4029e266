//! Streams to and from programs in containers.

use super::container::Container;
use super::link::{CallError, Link};
use super::{Engine, plan};
use crate::error::{Error, Result};
use crate::session::{ExecRequest, Session, TerminalSize, timed_out};
use crate::status::ContainerState;
use shim::{Call, Streams};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Our ends of three pipes, and the other ends.
#[derive(Default)]
struct Pipes {
    stdin: Option<pipe::Sender>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    streams: Streams,
    theirs: Vec<OwnedFd>,
}

impl Pipes {
    fn open(streams: Streams) -> std::io::Result<Self> {
        let mut pipes = Self { streams, ..Self::default() };
        if streams.stdin {
            let (ours, theirs) = pipe::pipe()?;
            pipes.stdin = Some(ours);
            pipes.theirs.push(theirs.into_blocking_fd()?);
        }
        for (wanted, place) in [(streams.stdout, &mut pipes.stdout), (streams.stderr, &mut pipes.stderr)] {
            if wanted {
                let (theirs, ours) = pipe::pipe()?;
                *place = Some(ours);
                pipes.theirs.push(theirs.into_blocking_fd()?);
            }
        }
        Ok(pipes)
    }
}

impl Engine {
    pub(super) async fn exec_in(&self, id: &str, request: ExecRequest) -> Result<Session> {
        let container = self.shared.container(id)?;
        if container.life.borrow().state() != ContainerState::Running {
            return Err(container.wrong_state());
        }
        if request.argv.is_empty() {
            return Err(Error::Invalid { field: "argv", reason: "no command specified".to_owned() });
        }
        let sandbox = self.shared.sandbox(&container.record.sandbox)?;
        let link = sandbox.link()?;
        let seccomp = self.shared.seccomp_filter(&container.record.spec)?;
        let mut process = plan::process(&container.record, &sandbox.record.spec, seccomp.as_deref())?;
        process.argv = request.argv;
        process.tty = request.tty;
        if request.tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
            process.env.push("TERM=xterm".to_owned());
        }
        let streams = match request.tty {
            true => Streams::default(),
            false => Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr },
        };
        let mut pipes = Pipes::open(streams).map_err(Error::io("opening", "pipes"))?;
        let cgroup = self.shared.cgroups.for_shim(&container.cgroup(&sandbox))?;
        let exec = shim::Exec { container: id.to_owned(), process, cgroup, streams };
        let theirs = std::mem::take(&mut pipes.theirs);
        let started = link.exec(exec, theirs).await.map_err(|error| match error {
            CallError::Failed(failure) => {
                Error::Exec { message: failure.message, exit_code: failure.exit_code }
            }
            gone => sandbox.error(gone),
        })?;
        let lost = sandbox.record.id.clone();
        let (number, exit, timeout) = (started.number, started.exit, request.timeout);
        let exit = Box::pin(async move {
            let ended = async { exit.await.map_err(|_| Error::ShimGone { sandbox: lost }) };
            let Some(timeout) = timeout else { return ended.await };
            match tokio::time::timeout(timeout, ended).await {
                Ok(ended) => ended,
                Err(_) => {
                    // Whether it still ran is of no matter: its time was up.
                    let _ = link.call(Call::KillExec { exec: number }, Vec::new()).await;
                    Err(timed_out(timeout))
                }
            }
        });
        match started.master {
            Some(master) => terminal(master, request.stdin, exit),
            None => Ok(session(pipes, None, exit)),
        }
    }

    pub(super) async fn attach_to(&self, id: &str) -> Result<Session> {
        let container = self.shared.container(id)?;
        if container.life.borrow().state() != ContainerState::Running {
            return Err(container.wrong_state());
        }
        let sandbox = self.shared.sandbox(&container.record.sandbox)?;
        let link = sandbox.link()?;
        let spec = &container.record.spec;
        let mut pipes = Pipes::open(Streams { stdin: spec.stdin, stdout: true, stderr: !spec.tty })
            .map_err(Error::io("opening", "pipes"))?;
        let theirs = std::mem::take(&mut pipes.theirs);
        let call = Call::Attach { container: id.to_owned(), streams: pipes.streams };
        link.call(call, theirs).await.map_err(|error| sandbox.error(error))?;
        let resize = spec.tty.then(|| resize_container(link, id.to_owned()));
        let exit = Box::pin(exit_code(container));
        Ok(session(pipes, resize, exit))
    }
}

async fn exit_code(container: Arc<Container>) -> Result<i32> {
    Ok(container.exited().await.code)
}

fn session(
    pipes: Pipes,
    resize: Option<watch::Sender<TerminalSize>>,
    exit: futures::future::BoxFuture<'static, Result<i32>>,
) -> Session {
    Session {
        stdin: pipes.stdin.map(|stream| Box::new(stream) as _),
        stdout: pipes.stdout.map(|stream| Box::new(stream) as _),
        stderr: pipes.stderr.map(|stream| Box::new(stream) as _),
        resize,
        exit,
    }
}

/// Sizes go to the shim, which has the container's terminal.
fn resize_container(link: Arc<Link>, container: String) -> watch::Sender<TerminalSize> {
    let (sizes, mut changes) = watch::channel(TerminalSize::default());
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let TerminalSize { width, height } = *changes.borrow_and_update();
            let call = Call::Resize { container: container.clone(), width, height };
            if link.call(call, Vec::new()).await.is_err() {
                return; // it has ended
            }
        }
    });
    sizes
}

/// A session over a terminal's controlling side, which we have ourselves.
fn terminal(
    master: OwnedFd,
    stdin: bool,
    exit: futures::future::BoxFuture<'static, Result<i32>>,
) -> Result<Session> {
    let open = |master: OwnedFd| -> std::io::Result<Arc<AsyncFd<OwnedFd>>> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Arc::new(super::watched(master, Interest::READABLE | Interest::WRITABLE)?))
    };
    let master = open(master).map_err(Error::io("opening", "a terminal"))?;
    let (sizes, mut changes) = watch::channel(TerminalSize::default());
    let resized = master.clone();
    tokio::spawn(async move {
        while changes.changed().await.is_ok() {
            let TerminalSize { width, height } = *changes.borrow_and_update();
            let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
            if rustix::termios::tcsetwinsize(resized.get_ref(), size).is_err() {
                return; // it has ended
            }
        }
    });
    Ok(Session {
        stdin: stdin.then(|| Box::new(Terminal(master.clone())) as _),
        stdout: Some(Box::new(Terminal(master))),
        stderr: None,
        resize: Some(sizes),
        exit,
    })
}

/// The controlling side of a terminal, as a stream.
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // No process holds the other side any more: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), buffer)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal's input has no end of its own; the program sees the last of it when the session is over.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
