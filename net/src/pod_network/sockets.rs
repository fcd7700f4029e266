//! Sockets of this process inside the network namespaces of pods: what listens there answers on the pod's address although no
//! process of the pod does.

use super::PodNetwork;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use tokio::net::{TcpSocket, TcpStream};

/// Connections that wait to be accepted.
const BACKLOG_MAX: i32 = 1024;
/// The stack of the thread that makes a socket.
const STACK_BYTES: usize = 64 << 10;

impl PodNetwork {
    /// Listens on a port of every address of the pod. The socket does not block.
    ///
    /// # Errors
    /// `NotFound` if the pod has no network, else what the system refuses, such as a port that the pod itself has taken.
    pub async fn listen(&self, id: &str, port: u16) -> io::Result<TcpListener> {
        let socket = self.socket(id).await?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        socket.listen(BACKLOG_MAX)?;
        Ok(socket.into())
    }

    /// Connects to a port of the pod's own loopback interface.
    ///
    /// # Errors
    /// As [`PodNetwork::listen`]; what nobody listens on is refused.
    pub async fn connect(&self, id: &str, port: u16) -> io::Result<TcpStream> {
        let socket = TcpSocket::from_std_stream(self.socket(id).await?.into());
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
    }

    async fn socket(&self, id: &str) -> io::Result<Socket> {
        let attached = self.get(id).await.ok_or(io::ErrorKind::NotFound)?;
        make(attached.namespace_path).await
    }
}

/// A socket belongs to the namespace of the thread that makes it, for ever: a thread of its own goes there, makes it and ends.
async fn make(path: PathBuf) -> io::Result<Socket> {
    let (done, made) = tokio::sync::oneshot::channel();
    let run = move || {
        let socket = File::open(&path).and_then(|namespace| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        // Who asked may have gone.
        let _ = done.send(socket);
    };
    std::thread::Builder::new().name("pod-socket".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    made.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}
