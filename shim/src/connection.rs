//! A connection to the daemon: frames in, frames out.

use crate::sys;
use serde::Serialize;
use shim::{FRAME_BYTES_MAX, Request};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A daemon that does not read this much is stuck: it is cut off, and finds everything when it connects again.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// A connection to the daemon.
pub struct Connection {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    received: Vec<u8>,
    received_fds: VecDeque<OwnedFd>,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    waiting_bytes: usize,
}

impl Connection {
    /// A fresh one.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            received: Vec::new(),
            received_fds: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether something waits to be sent.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reads what has come. `false` when the other side is gone.
    pub fn fill(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match sys::receive(self.socket.as_fd(), buffer) {
                Ok((0, _)) => return false,
                Ok((length, fds)) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    self.received_fds.extend(fds);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// The next whole request; an error where the other side does not speak our language.
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        let Some((length, rest)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let request =
            serde_json::from_slice(frame).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.received.drain(..4 + length);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Ok(Some(request))
    }

    /// The descriptors that came with the request just taken.
    pub fn take_streams(&mut self, streams: shim::Streams) -> [Option<OwnedFd>; 3] {
        [streams.stdin, streams.stdout, streams.stderr]
            .map(|given| if given { self.received_fds.pop_front() } else { None })
    }

    /// Queues a message. `false` when the other side has not read for too long.
    pub fn send(&mut self, message: &impl Serialize, fds: Vec<OwnedFd>) -> bool {
        let Ok(text) = serde_json::to_vec(message) else { return false };
        let mut frame = (text.len() as u32).to_le_bytes().to_vec();
        frame.extend(text);
        self.waiting_bytes += frame.len();
        self.waiting.push_back((frame, fds));
        self.flush() && self.waiting_bytes <= WAITING_BYTES_MAX
    }

    /// Sends what the other side takes. `false` when it is gone.
    pub fn flush(&mut self) -> bool {
        while let Some((bytes, fds)) = self.waiting.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match sys::send(self.socket.as_fd(), bytes, &borrowed) {
                Ok(sent) => {
                    self.waiting_bytes -= sent;
                    fds.clear();
                    bytes.drain(..sent);
                    if bytes.is_empty() {
                        self.waiting.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
