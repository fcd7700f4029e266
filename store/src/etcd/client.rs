//! Calls to whichever member answers.
//!
//! # Flow
//! Requests go to one member until it fails; then the next is tried, after each round of all of them a little later. What only
//! reads is tried again; what writes only where the request was never sent.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Status};

use super::Options;
use super::wire::kv_client::KvClient;
use super::wire::maintenance_client::MaintenanceClient;
use super::wire::watch_client::WatchClient;
use super::wire::{
    CompactionRequest, RangeRequest, RangeResponse, ResponseHeader, StatusRequest, TxnRequest, TxnResponse,
};
use crate::{Error, Result, Revision};

/// The largest answer that is read.
pub(super) const ANSWER_BYTES_MAX: usize = 512 << 20;
/// How long a connection may take to be made.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(15);
/// How often a connection in use is asked whether it is alive. etcd minds less than 5 s (`--grpc-keepalive-min-time`).
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a connection may be silent after that.
const PING_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often all members are tried before a call fails.
const ROUNDS_MAX: usize = 4;
/// How long to wait after the first round; then twice that, and so on.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// What etcd accepts unless told otherwise (`--max-request-bytes`); it does not say its own bound.
const REQUEST_BYTES_MAX_DEFAULT: usize = 3 << 19;
/// From these versions on a watch's progress is told after its writes, never before. Upstream:
/// `apiserver/pkg/storage/feature/feature_support_checker.go`.
const PROGRESS_SINCE: [(u64, u64, u64); 2] = [(3, 4, 31), (3, 5, 13)];

// What etcd says is a code and a text, which clients compare whole. Upstream: `etcd/api/v3rpc/rpctypes`.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const TOO_LARGE: &str = "etcdserver: request is too large";

/// The members and what is known of them.
pub(super) struct Client {
    members: Vec<(Endpoint, Channel)>,
    /// The member that answered last.
    current: AtomicUsize,
    /// The newest revision that somebody wants to see told.
    wanted: watch::Sender<Revision>,
    /// Revisions before this are known to be forgotten.
    oldest: AtomicU64,
}

/// A revision or version: etcd's are never negative.
pub(super) fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The revision of an answer.
pub(super) fn header_revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| number(header.revision))
}

fn endpoint(url: &str, options: &Options) -> Result<Endpoint> {
    let unopened = |message: String| Error::Unopened { path: url.to_owned(), message };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| unopened(format!("{error}: a URL such as https://10.0.0.1:2379 is needed")))?
        .connect_timeout(CONNECT_WAIT_MAX)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT_MAX)
        .tcp_nodelay(true);
    match (endpoint.uri().scheme_str(), &options.ca_pem, &options.identity_pem) {
        (Some("http"), None, None) => {}
        (Some("http"), ..) => {
            return Err(unopened("certificates are given but the URL is http, not https".to_owned()));
        }
        (Some("https"), Some(ca), identity) => {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
            if let Some((certificate, key)) = identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| unopened(chain(&error)))?;
        }
        (Some("https"), None, _) => {
            return Err(unopened("https needs the certificate of etcd's authority".to_owned()));
        }
        _ => return Err(unopened("the URL must begin with http:// or https://".to_owned())),
    }
    Ok(endpoint)
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Whether the request was never sent.
fn is_unsent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// What is tried again.
#[derive(Clone, Copy)]
enum Again {
    /// Reading: whatever happened to the request.
    Always,
    /// Writing: only what was not sent.
    Unsent,
}

impl Client {
    pub fn new(options: &Options) -> Result<Client> {
        let mut members = Vec::new();
        for url in &options.endpoints {
            let endpoint = endpoint(url, options)?;
            let channel = endpoint.connect_lazy();
            members.push((endpoint, channel));
        }
        if members.is_empty() {
            let message = "no endpoint is given".to_owned();
            return Err(Error::Unopened { path: "etcd".to_owned(), message });
        }
        Ok(Client {
            members,
            current: AtomicUsize::new(0),
            wanted: watch::Sender::new(0),
            oldest: AtomicU64::new(0),
        })
    }

    async fn call<T, F>(&self, again: Again, send: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let tries_max = ROUNDS_MAX * self.members.len();
        let mut pause = ROUND_PAUSE;
        for tried in 1.. {
            let current = self.current.load(Ordering::Acquire);
            let answer = tokio::time::timeout(ANSWER_WAIT_MAX, send(self.members[current].1.clone())).await;
            let status = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::unavailable(format!("no answer in {} s", ANSWER_WAIT_MAX.as_secs())),
            };
            if !matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown) {
                return Err(status);
            }
            tracing::debug!(member = %self.members[current].0.uri(), error = chain(&status), "etcd failed");
            self.leave(current);
            let may_go_on = matches!(again, Again::Always) || is_unsent(&status);
            if !may_go_on || tried >= tries_max {
                return Err(status);
            }
            if tried.is_multiple_of(self.members.len()) {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Err(Status::unavailable("no member"))
    }

    /// Goes on to the next member, unless somebody did so already.
    fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.current.compare_exchange(member, next, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What etcd's refusal means here. `asked` is the revision that the request was about.
    fn explain(&self, status: &Status, asked: Revision) -> Error {
        match (status.code(), status.message()) {
            (Code::OutOfRange, COMPACTED) => self.compacted(asked),
            (Code::OutOfRange, FUTURE) => Error::Future { asked, newest: asked.saturating_sub(1) },
            (Code::ResourceExhausted, NO_SPACE) => Error::Full,
            (Code::InvalidArgument, TOO_LARGE) => {
                Error::TooLarge { bytes: REQUEST_BYTES_MAX_DEFAULT + 1, bytes_max: REQUEST_BYTES_MAX_DEFAULT }
            }
            _ => Error::Unavailable { message: format!("etcd: {}", chain(status)) },
        }
    }

    /// `asked` is forgotten, and so is what is known to be.
    pub fn compacted(&self, asked: Revision) -> Error {
        let oldest = self.oldest.fetch_max(asked + 1, Ordering::AcqRel).max(asked + 1);
        Error::Compacted { asked, oldest }
    }

    /// Remembers how far etcd is compacted.
    pub fn set_oldest(&self, oldest: Revision) {
        self.oldest.fetch_max(oldest, Ordering::AcqRel);
    }

    /// Refuses an etcd that tells progress too early.
    pub async fn check_version(&self) -> Result<()> {
        let send = async |channel| MaintenanceClient::new(channel).status(StatusRequest::default()).await;
        let status = self.call(Again::Always, send).await;
        let version = status.map_err(|status| self.explain(&status, 0))?.version;
        if tells_progress_right(&version) {
            return Ok(());
        }
        let member = self.members[self.current.load(Ordering::Acquire)].0.uri().to_string();
        let message = format!("etcd {version:?} is too old: 3.4.31, 3.5.13 or newer is needed");
        Err(Error::Unopened { path: member, message })
    }

    /// Reads.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        let asked = number(request.revision);
        let send = async |channel| {
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            client.range(request.clone()).await
        };
        self.call(Again::Always, send).await.map_err(|status| self.explain(&status, asked))
    }

    /// Writes.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse> {
        let bytes = prost::Message::encoded_len(&request);
        let send = async |channel| {
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            client.txn(request.clone()).await
        };
        self.call(Again::Unsent, send).await.map_err(|status| match self.explain(&status, 0) {
            Error::TooLarge { bytes_max, .. } => Error::TooLarge { bytes, bytes_max },
            error => error,
        })
    }

    /// Forgets revisions before `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        let request =
            CompactionRequest { revision: i64::try_from(revision).unwrap_or(i64::MAX), physical: false };
        let send = async |channel| KvClient::new(channel).compact(request).await;
        let done = self.call(Again::Always, send).await;
        done.map_err(|status| self.explain(&status, revision))?;
        self.set_oldest(revision);
        Ok(())
    }

    /// A connection for one watch, which may be slow without stopping others.
    pub fn watch_client(&self) -> (WatchClient<Channel>, usize) {
        let current = self.current.load(Ordering::Acquire);
        let channel = self.members[current].0.connect_lazy();
        (WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX), current)
    }

    /// What a failed watch says, and that its member is left.
    pub fn watch_failed(&self, member: usize, status: &Status) -> Error {
        self.leave(member);
        self.explain(status, 0)
    }

    /// Asks all watches to tell when they have reached `revision`.
    pub fn want_progress(&self, revision: Revision) {
        self.wanted.send_if_modified(|wanted| {
            let is_newer = revision > *wanted;
            *wanted = revision.max(*wanted);
            is_newer
        });
    }

    /// The newest revision that somebody wants to see told.
    pub fn wanted(&self) -> watch::Receiver<Revision> {
        self.wanted.subscribe()
    }
}

/// Whether a version is one of [`PROGRESS_SINCE`] or newer.
fn tells_progress_right(version: &str) -> bool {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = release.split('.').map(|part| part.parse::<u64>().ok());
    let (Some(Some(major)), Some(Some(minor)), Some(Some(patch))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let [old, new] = PROGRESS_SINCE;
    let own = (major, minor, patch);
    own >= new || (own >= old && (major, minor) == (old.0, old.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for (version, expect) in [
            ("3.6.8", true),
            ("3.5.13", true),
            ("3.5.12", false),
            ("3.4.31", true),
            ("3.4.30", false),
            ("3.5.0", false),
            ("4.0.0-rc.1", true),
            ("3.7.0-alpha", true),
            ("", false),
            ("3.x.1", false),
        ] {
            assert_eq!(tells_progress_right(version), expect, "{version}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |url: &str, ca: Option<&str>| {
            let options = Options {
                endpoints: vec![url.to_owned()],
                ca_pem: ca.map(str::to_owned),
                ..Options::default()
            };
            Client::new(&options).err().expect("a refusal").to_string()
        };
        assert!(refused("http://a:1", Some("x")).contains("http, not https"));
        assert!(refused("https://a:1", None).contains("needs the certificate"));
        assert!(refused("a:1", None).contains("a:1"));
        assert!(refused("ftp://a:1", None).contains("must begin with"));
        assert!(Client::new(&Options::default()).is_err());
    }
}
