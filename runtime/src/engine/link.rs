//! The connection to a sandbox's shim.
//!
//! Two tasks own the socket: one writes whole frames, one reads them. So a caller may give up waiting at any time without leaving half a frame
//! behind.

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use shim::{Answer, Call, FRAME_BYTES_MAX, FRAME_FDS_MAX, Failure, Message, Notice, Reply, Request};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait to be written. The shim reads at once; more than this only wait for it to be scheduled.
const WAITING_MAX: usize = 64;

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// The shim is gone, or goes.
    Gone,
    /// It says no.
    Failed(Failure),
}

type Answered = std::result::Result<Answer, Failure>;

#[derive(Default)]
struct Expected {
    closed: bool,
    replies: BTreeMap<u64, Pending>,
    execs: BTreeMap<u64, oneshot::Sender<i32>>,
}

struct Pending {
    answer: oneshot::Sender<(Answered, Option<OwnedFd>)>,
    takes_fd: bool,
}

struct Frame {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A connection to a shim.
pub(super) struct Link {
    frames: mpsc::Sender<Frame>,
    numbers: AtomicU64,
    expected: Arc<Mutex<Expected>>,
}

/// A program on its way: its number, and its exit code once it has ended.
pub(super) struct ExecStarted {
    pub(super) number: u64,
    pub(super) master: Option<OwnedFd>,
    pub(super) exit: oneshot::Receiver<i32>,
}

/// Connects to the socket in `directory`, whose path may be longer than socket addresses can be.
pub(super) async fn connect(directory: &Path) -> Result<UnixStream> {
    use std::os::fd::AsRawFd;
    let directory = std::fs::File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/sock", directory.as_raw_fd())).await
}

impl Link {
    /// Starts both tasks. `notice` is called for each notice in order, and with `None` when the connection has ended.
    pub(super) fn start(
        stream: UnixStream,
        notice: impl Fn(Option<Notice>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (frames, queue) = mpsc::channel(WAITING_MAX);
        let expected = Arc::new(Mutex::new(Expected::default()));
        let stream = Arc::new(stream);
        let writer = tokio::spawn(write(stream.clone(), queue));
        let theirs = expected.clone();
        tokio::spawn(async move {
            // Whatever ends it, the other end is of no use any more.
            if let Err(error) = read(&stream, &theirs, &notice).await {
                tracing::debug!(%error, "the connection to a shim failed");
            }
            writer.abort();
            {
                let mut expected = theirs.lock();
                expected.closed = true;
                expected.replies.clear();
                expected.execs.clear();
            }
            notice(None);
        });
        Arc::new(Self { frames, numbers: AtomicU64::new(1), expected })
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> std::result::Result<Answer, CallError> {
        self.send(self.number(), call, fds, false).await.map(|(answer, _)| answer)
    }

    /// Asks for a program to be run.
    pub(super) async fn exec(
        &self,
        exec: shim::Exec,
        fds: Vec<OwnedFd>,
    ) -> std::result::Result<ExecStarted, CallError> {
        let number = self.number();
        let (tell, exit) = oneshot::channel();
        self.expected.lock().execs.insert(number, tell);
        let takes_fd = exec.process.tty;
        match self.send(number, Call::Exec(Box::new(exec)), fds, takes_fd).await {
            Ok((_, master)) => Ok(ExecStarted { number, master, exit }),
            Err(error) => {
                self.expected.lock().execs.remove(&number);
                Err(error)
            }
        }
    }

    async fn send(
        &self,
        id: u64,
        call: Call,
        fds: Vec<OwnedFd>,
        takes_fd: bool,
    ) -> std::result::Result<(Answer, Option<OwnedFd>), CallError> {
        let failed = |error: serde_json::Error| CallError::Failed(Failure::new(error.to_string()));
        let text = serde_json::to_vec(&Request { id, call }).map_err(failed)?;
        if text.len() > FRAME_BYTES_MAX {
            return Err(CallError::Failed(Failure::new("the request is too large")));
        }
        let mut bytes = (text.len() as u32).to_le_bytes().to_vec();
        bytes.extend(text);
        let (answer, answered) = oneshot::channel();
        {
            let mut expected = self.expected.lock();
            if expected.closed {
                return Err(CallError::Gone);
            }
            expected.replies.insert(id, Pending { answer, takes_fd });
        }
        self.frames.send(Frame { bytes, fds }).await.map_err(|_| CallError::Gone)?;
        match answered.await {
            Ok((Ok(answer), fd)) => Ok((answer, fd)),
            Ok((Err(failure), _)) => Err(CallError::Failed(failure)),
            Err(_) => Err(CallError::Gone),
        }
    }
}

async fn write(stream: Arc<UnixStream>, mut queue: mpsc::Receiver<Frame>) -> Result<()> {
    while let Some(Frame { bytes, mut fds }) = queue.recv().await {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                    return Err(ErrorKind::InvalidInput.into());
                }
                Ok(rustix::net::sendmsg(&*stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL)?)
            });
            match sent {
                Ok(sent) => {
                    rest = &rest[sent..];
                    fds.clear(); // they went with the first byte
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn read(
    stream: &UnixStream,
    expected: &Mutex<Expected>,
    notice: &(impl Fn(Option<Notice>) + Send + Sync),
) -> Result<()> {
    let mut received = BytesMut::new();
    let mut fds = VecDeque::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        stream.readable().await?;
        let read = stream.try_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [IoSliceMut::new(&mut buffer)];
            let read = rustix::net::recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(arrived) = message {
                    fds.extend(arrived);
                }
            }
            Ok(read.bytes)
        });
        match read {
            Ok(0) => return Ok(()),
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        while let Some(message) = next(&mut received)? {
            match message {
                Message::Reply(Reply { id, result }) => {
                    let pending = expected.lock().replies.remove(&id);
                    if let Some(Pending { answer, takes_fd }) = pending {
                        let fd = if takes_fd && result.is_ok() { fds.pop_front() } else { None };
                        // Who asked may have given up.
                        let _ = answer.send((result, fd));
                    }
                }
                Message::Notice(Notice::ExecEnded { exec, exit_code }) => {
                    if let Some(exit) = expected.lock().execs.remove(&exec) {
                        let _ = exit.send(exit_code);
                    }
                }
                Message::Notice(other) => notice(Some(other)),
            }
        }
    }
}

fn next(received: &mut BytesMut) -> Result<Option<Message>> {
    let Some(length) = received.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if received.len() < 4 + length {
        return Ok(None);
    }
    received.advance(4);
    let frame = received.split_to(length);
    serde_json::from_slice(&frame).map(Some).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}
