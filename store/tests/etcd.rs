//! etcd: the suite, on real ones that these tests start on the loopback interface.
//!
//! `cargo xtask test` builds etcd first and names it in `CLIPPER_TEST_ETCD`; then it must be there. Otherwise the kit's is used, and
//! where that is not built the tests say so and end: `cargo test` alone has no way to build it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use store::conformance;
use store::etcd::{Etcd, Options};
use store::{Change, Error, Expect, Key, Page, Store, Told};

/// How long etcd may take to start.
const START_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a start is tried: somebody else may take the port that was free.
const STARTS_MAX: usize = 5;

/// The program, or `None` after saying what is missing.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CLIPPER_TEST_ETCD") {
        return Some(path.into());
    }
    let kit = PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/clipper-kit/bin/etcd");
    if kit.exists() {
        return Some(kit);
    }
    println!("not tested: there is no etcd at {} and CLIPPER_TEST_ETCD names none", kit.display());
    None
}

/// A running etcd. Dropped, it is gone.
struct Server {
    program: PathBuf,
    folder: tempfile::TempDir,
    process: Option<Child>,
    port: u16,
    certificates: Option<Certificates>,
}

#[derive(Clone)]
struct Certificates {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

impl Server {
    async fn start(program: PathBuf, certificates: Option<Certificates>) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Server { program, folder, process: None, port: 0, certificates };
        for _ in 0..STARTS_MAX {
            server.port = free_port();
            server.spawn();
            if server.is_ready().await {
                return server;
            }
        }
        panic!("etcd does not start: {}", server.log());
    }

    fn spawn(&mut self) {
        let client = self.url();
        let peer = format!("http://127.0.0.1:{}", free_port());
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut command = Command::new(&self.program);
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(["--max-request-bytes", "4194304", "--log-level", "warn"]);
        if let Some(own) = &self.certificates {
            let file = |name: &str, pem: &str| {
                let path = self.folder.path().join(name);
                std::fs::write(&path, pem).expect("a file");
                path
            };
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(file("ca.pem", &own.ca))
                .arg("--cert-file")
                .arg(file("server.pem", &own.server.0))
                .arg("--key-file")
                .arg(file("server.key", &own.server.1));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(child.unwrap_or_else(|error| panic!("{}: {error}", self.program.display())));
    }

    fn url(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn options(&self) -> Options {
        Options {
            endpoints: vec![self.url()],
            ca_pem: self.certificates.as_ref().map(|own| own.ca.clone()),
            identity_pem: self.certificates.as_ref().map(|own| own.client.clone()),
        }
    }

    async fn is_ready(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START_WAIT_MAX {
            if Etcd::open(&self.options()).await.is_ok() {
                return true;
            }
            let ended = self.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if ended.is_some() {
                return false;
            }
        }
        false
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn open(&self) -> Arc<Etcd> {
        Etcd::open(&self.options()).await.expect("a store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn put(value: &str) -> Change {
    Change::Put(Bytes::copy_from_slice(value.as_bytes()))
}

fn certificates() -> Certificates {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = Issuer::new(authority, authority_key);
    let pair = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (leaf.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    Certificates { ca, server: pair("127.0.0.1"), client: pair("clipper") }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite() {
    let Some(program) = program() else { return };
    let server = Server::start(program, None).await;
    conformance::all(server.open().await, "/suite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_shown_and_asked_for() {
    let Some(program) = program() else { return };
    let server = Server::start(program, Some(certificates())).await;
    let store = server.open().await;
    conformance::writes_take_growing_revisions(&*store, &"/tls/".into()).await;
    let nobody = Options { identity_pem: None, ..server.options() };
    assert!(matches!(Etcd::open(&nobody).await, Err(Error::Unavailable { .. })));
    let stranger = Options { ca_pem: Some(certificates().ca), ..server.options() };
    assert!(matches!(Etcd::open(&stranger).await, Err(Error::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_is_left() {
    let Some(program) = program() else { return };
    let server = Server::start(program, None).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let store = Etcd::open(&Options { endpoints: vec![nobody, server.url()], ..Options::default() }).await;
    conformance::a_watch_tells_every_later_write_once(&*store.expect("a store"), &"/two/".into()).await;
}

/// What happens elsewhere in etcd moves the revision on, and a watch says so when somebody asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_tells_how_far_it_is() {
    let Some(program) = program() else { return };
    let server = Server::start(program, None).await;
    let (store, other) = (server.open().await, server.open().await);
    assert!(store.is_shared());
    let start = store.revision().await.expect("a revision");
    let mut told = store.follow(&"/ours/".into(), start);
    let ours = store.write(&"/ours/a".into(), Expect::Absent, put("1")).await.expect("a write");
    let Told::Write(event) = told.next().await.expect("open").expect("told") else { panic!("a write") };
    assert_eq!(event.revision, ours);
    let theirs = other.write(&"/theirs/a".into(), Expect::Absent, put("1")).await.expect("a write");
    let waiting = tokio::spawn(async move { (told.next().await, told) });
    assert_eq!(store.revision().await.expect("a revision"), theirs);
    let (next, _) = waiting.await.expect("no panic");
    assert_eq!(next.expect("open").expect("told"), Told::Reached(theirs));
}

/// etcd dies and comes back under a watch and a writer: nothing that was acknowledged is lost or told twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_loses_nothing() {
    const ROUNDS: u64 = 3;
    const WRITES: u64 = 20;
    let Some(program) = program() else { return };
    let mut server = Server::start(program, None).await;
    let store = server.open().await;
    let mut expect = Vec::new();
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch(&"/k/".into(), start);
    for round in 0..ROUNDS {
        for write in 0..WRITES {
            let key = Key::from(format!("/k/{round}-{write}"));
            let revision = store.write(&key, Expect::Absent, put("v")).await.expect("a write");
            expect.push((key, revision));
        }
        // Half of it is read before, half after.
        let told = expect.len() - (WRITES / 2) as usize;
        for (key, revision) in expect.drain(..told) {
            let event = watch.next().await.expect("open").expect("an event");
            assert_eq!((event.key, event.revision), (key, revision));
        }
        server.kill();
        let lost = store.write(&"/k/lost".into(), Expect::At(1), put("v")).await;
        assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
        server.spawn();
        assert!(server.is_ready().await, "{}", server.log());
    }
    for (key, revision) in expect {
        let event = watch.next().await.expect("open").expect("an event");
        assert_eq!((event.key, event.revision), (key, revision));
    }
    let listing = store.list(&"/k/".into(), Page::default()).await.expect("a listing");
    assert_eq!(listing.entries.len() as u64, ROUNDS * WRITES);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_etcd_is_refused() {
    let missing =
        Options { endpoints: vec![format!("http://127.0.0.1:{}", free_port())], ..Options::default() };
    assert!(matches!(Etcd::open(&missing).await, Err(Error::Unavailable { .. })));
}
