//! The netlink socket of netfilter: sends transactions, reads what the kernel says to them.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use super::Batch;

/// Bytes read at once. An error message repeats the header of what it is about, a dump fills its parts up to 32 KiB.
const READ_BYTES: usize = 64 << 10;
/// How long the kernel may take to answer. It works while `send` is running, so an answer is there at once.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetfilterError {
    /// The kernel refused message `message` of the transaction (from 0); nothing happened.
    #[error("the kernel refused message {message} of the transaction")]
    Refused {
        message: u32,
        #[source]
        source: io::Error,
    },
    #[error("netfilter cannot be reached")]
    Unreachable(#[from] io::Error),
}

/// A socket to netfilter in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netfilter {
    socket: OwnedFd,
    sequence: u32,
}

/// One netlink message of an answer.
struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages in what was read.
fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..16)?;
        let len = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let body = bytes.get(16..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            body,
        })
    })
}

/// The error in an answer; 0 is an acknowledgement.
fn errno(answer: &Answer<'_>) -> i32 {
    answer.body.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| -i32::from_ne_bytes(bytes))
}

impl Netfilter {
    pub fn open() -> io::Result<Netfilter> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WAIT_MAX))?;
        Ok(Netfilter { socket, sequence: 1 })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // The kernel counts more than the bytes.
        sockopt::set_socket_send_buffer_size_force(&self.socket, bytes.len() * 2 + (1 << 20))?;
        rustix::net::send(&self.socket, bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Does all of the batch, or nothing.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NetfilterError> {
        if batch.is_empty() {
            return Ok(());
        }
        let base = self.sequence;
        let (bytes, last) = batch.finish(base);
        // Late answers to an earlier batch are told apart by their numbers.
        self.sequence = last + 2;
        self.send(&bytes)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let (len, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())
                .map_err(io::Error::from)?;
            for answer in answers(&buffer[..len]) {
                if answer.kind != NLMSG_ERROR || answer.sequence < base {
                    continue;
                }
                match errno(&answer) {
                    0 if answer.sequence == last => return Ok(()),
                    0 => {}
                    code => {
                        let source = io::Error::from_raw_os_error(code);
                        return Err(NetfilterError::Refused { message: answer.sequence - base, source });
                    }
                }
            }
        }
    }

    /// Sends a request that is not part of a batch and calls `visit` with the body of each answer.
    pub fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        attributes: &[u8],
        mut visit: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(20 + attributes.len());
        bytes.extend_from_slice(&(20 + attributes.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[super::NFPROTO_IPV4, 0, 0, 0]);
        bytes.extend_from_slice(attributes);
        self.send(&bytes)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let (len, _) = rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty())?;
            for answer in answers(&buffer[..len]).filter(|answer| answer.sequence == sequence) {
                match answer.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => match errno(&answer) {
                        0 => return Ok(()),
                        code => return Err(io::Error::from_raw_os_error(code)),
                    },
                    _ => visit(answer.body),
                }
            }
        }
    }
}
