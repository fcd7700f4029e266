//! The sockets: UDP and TCP on one address, and the node's own servers for other names.

use super::answer::{Answer, Zone};
use super::source::CacheSource;
use client::Caches;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Queries at once that wait for another server. Names of the cluster are answered at once and need no bound.
const FORWARDS_MAX: usize = 1000;
/// Connections at once.
const CONNECTIONS_MAX: usize = 512;
/// How long another server may take.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may be silent.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// What an answer over UDP may have without EDNS.
const UDP_BYTES_MIN: usize = 512;
/// What we take and give over UDP at most, so that nothing is fragmented.
const UDP_BYTES_MAX: usize = 1232;
/// What a query or an answer may have at all.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// Where to listen and what to answer.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of UDP and TCP; the cluster's DNS address, port 53.
    pub listen: SocketAddr,
    /// Such as `cluster.local`.
    pub domain: String,
    /// The node's own servers, for names of other domains; may be empty.
    pub forward_to: Vec<SocketAddr>,
}

struct Server {
    zone: Zone,
    source: CacheSource,
    forward_to: Vec<SocketAddr>,
    forwards: Semaphore,
}

/// Serves until its future is dropped.
///
/// # Errors
/// The address cannot be bound, or the domain is no name.
pub async fn run(caches: Caches, options: Options) -> std::io::Result<()> {
    let zone = Zone::new(&options.domain).map_err(std::io::Error::other)?;
    let udp = Arc::new(UdpSocket::bind(options.listen).await?);
    let tcp = TcpListener::bind(options.listen).await?;
    let source = CacheSource::new(&caches);
    source.synced(&caches).await;
    let server = Arc::new(Server {
        zone,
        source,
        forward_to: options.forward_to,
        forwards: Semaphore::new(FORWARDS_MAX),
    });
    tokio::select! {
        () = serve_udp(server.clone(), udp) => {}
        () = serve_tcp(server, tcp) => {}
    }
    Ok(())
}

async fn serve_udp(server: Arc<Server>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; UDP_BYTES_MAX * 2];
    loop {
        // Errors here are those of earlier answers (an unreachable client), not of the socket.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        if query.metadata.message_type != MessageType::Query {
            continue;
        }
        let bytes_max = query.edns.as_ref().map_or(UDP_BYTES_MIN, |own| usize::from(own.max_payload()));
        let bytes_max = bytes_max.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX);
        if let Some(reply) = server.local(&query) {
            send(&socket, &reply, bytes_max, from).await;
            continue;
        }
        let (server, socket) = (server.clone(), socket.clone());
        tokio::spawn(async move {
            let reply = server.elsewhere(&query).await;
            send(&socket, &reply, bytes_max, from).await;
        });
    }
}

async fn send(socket: &UdpSocket, reply: &Message, bytes_max: usize, to: SocketAddr) {
    let bytes = match reply.to_vec() {
        Ok(bytes) if bytes.len() <= bytes_max => bytes,
        Ok(_) => match reply.truncate().to_vec() {
            Ok(bytes) => bytes,
            Err(_) => return,
        },
        Err(_) => return,
    };
    let _ = socket.send_to(&bytes, to).await;
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = server.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // A client that breaks off or sends nonsense ends its own connection only.
            let _ = connection(server, stream).await;
        });
    }
}

async fn connection(server: Arc<Server>, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let query = match tokio::time::timeout(TCP_IDLE, read_message(&mut stream)).await {
            Ok(query) => query?,
            Err(_) => return Ok(()),
        };
        let reply = match server.local(&query) {
            Some(reply) => reply,
            None => server.elsewhere(&query).await,
        };
        let bytes = reply.to_vec().map_err(std::io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    }
}

async fn read_message(stream: &mut TcpStream) -> std::io::Result<Message> {
    let length = usize::from(stream.read_u16().await?);
    let mut bytes = vec![0; length.min(MESSAGE_BYTES_MAX)];
    stream.read_exact(&mut bytes).await?;
    Message::from_vec(&bytes).map_err(std::io::Error::other)
}

/// The head of a reply to a query.
pub(crate) fn reply_to(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries = query.queries.clone();
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX as u16);
        reply.edns = Some(edns);
    }
    reply
}

impl Server {
    /// The reply, where no other server has to be asked.
    fn local(&self, query: &Message) -> Option<Message> {
        if query.metadata.op_code != OpCode::Query {
            return Some(reply_to(query, ResponseCode::NotImp));
        }
        let [question] = query.queries.as_slice() else {
            return Some(reply_to(query, ResponseCode::FormErr));
        };
        let answer =
            self.zone.answer(question.name(), question.query_type(), &self.source, self.source.serial())?;
        if answer.follow.as_ref().is_some_and(|name| self.is_elsewhere(name)) && !self.forward_to.is_empty() {
            return None;
        }
        Some(self.shape(query, question.query_type(), answer))
    }

    fn is_elsewhere(&self, name: &Name) -> bool {
        !self.zone.domain.zone_of(&name.to_lowercase())
    }

    fn shape(&self, query: &Message, kind: RecordType, answer: Answer) -> Message {
        let mut reply = reply_to(query, answer.code);
        reply.metadata.authoritative = true;
        reply.answers = answer.answers;
        reply.authorities = answer.authorities;
        reply.additionals = answer.additionals;
        if let Some(name) = answer.follow.filter(|name| !self.is_elsewhere(name))
            && let Some(more) = self.zone.answer(&name, kind, &self.source, self.source.serial())
        {
            reply.answers.extend(more.answers);
        }
        reply
    }

    /// The reply for a name that other servers know, or an alias that points to one.
    async fn elsewhere(&self, query: &Message) -> Message {
        let Some(question) = query.queries.first() else { return reply_to(query, ResponseCode::FormErr) };
        let Ok(_permit) = self.forwards.try_acquire() else { return reply_to(query, ResponseCode::ServFail) };
        let own =
            self.zone.answer(question.name(), question.query_type(), &self.source, self.source.serial());
        let alias = own.and_then(|answer| Some((answer.follow.clone()?, answer)));
        let mut asked = query.clone();
        if let Some((target, _)) = &alias {
            asked.queries[0].set_name(target.clone());
        }
        for server in &self.forward_to {
            let found = tokio::time::timeout(FORWARD_TIMEOUT, ask(*server, &asked)).await;
            let Ok(Ok(mut found)) = found else { continue };
            found.metadata.id = query.metadata.id;
            found.queries = query.queries.clone();
            if let Some((_, answer)) = alias {
                found.answers = answer.answers.into_iter().chain(found.answers).collect();
            }
            return found;
        }
        match alias {
            Some((_, answer)) => self.shape(query, question.query_type(), answer),
            None => reply_to(query, ResponseCode::ServFail),
        }
    }
}

/// Asks one server over UDP, and over TCP if the answer does not fit.
async fn ask(server: SocketAddr, query: &Message) -> std::io::Result<Message> {
    let bytes = query.to_vec().map_err(std::io::Error::other)?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX * 4];
    let reply = loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(reply) if reply.metadata.id == query.metadata.id && reply.queries == query.queries => {
                break reply;
            }
            // Not the answer to this question: somebody guesses, or an old answer comes late.
            _ => {}
        }
    };
    if !reply.metadata.truncation {
        return Ok(reply);
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    read_message(&mut stream).await
}
