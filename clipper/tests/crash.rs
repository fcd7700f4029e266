//! The real binary, killed while people write: what was acknowledged or shown is there after the restart.
//!
//! `cargo xtask crash --rounds N` says how often; each round kills at another moment, and goes on with what the rounds before left.

use api::Status;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use client::{Client, DeleteParams, Identity, ListParams, Remote, ResourceRef, WatchEvent, WatchParams};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::testing::Dice;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// How often unless somebody says otherwise.
const ROUNDS: u64 = 2;
/// How long a start may take.
const READY_MAX: Duration = Duration::from_secs(120);
/// People who write at once.
const WRITERS: u64 = 8;
/// Names that each of them uses.
const NAMES: u64 = 4;
/// Acknowledged writes before the process is killed: at least, and up to so many more.
const WRITES: (u64, u64) = (40, 200);
const NAMESPACE: &str = "default";
/// Not on any interface: everything is spoken over the loopback one.
const NODE_IP: &str = "172.31.0.1";

struct Server {
    binary: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Server {
    fn new() -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        Server { binary: env!("CARGO_BIN_EXE_clipper").into(), folder, port, process: None }
    }

    /// Starts it, waits until it is ready, and says how to speak with it.
    async fn start(&mut self) -> Client {
        let mut child = Command::new(&self.binary)
            .args(["server", "--node-ip", NODE_IP, "--node-name", "crash"])
            .args(["--api-port", &self.port.to_string(), "--data-dir"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        self.process = Some(child);
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("clipper is ready") {
                    return;
                }
            }
            panic!("the server ended before it was ready");
        };
        tokio::time::timeout(READY_MAX, ready).await.expect("ready in time");
        let text = std::fs::read_to_string(self.folder.path().join("kubeconfig")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        let pem = |pointer: &str| BASE64.decode(config.pointer(pointer).unwrap().as_str().unwrap()).unwrap();
        Client::remote(Remote {
            server: format!("https://127.0.0.1:{}", self.port),
            ca: pem("/clusters/0/cluster/certificate-authority-data"),
            identity: Identity::Certificate {
                certificates: pem("/users/0/user/client-certificate-data"),
                key: pem("/users/0/user/client-key-data"),
            },
        })
        .unwrap()
    }

    /// SIGKILL.
    async fn kill(&mut self) {
        self.process.take().unwrap().kill().await.unwrap();
    }
}

/// What is known of an object: its value (a number) and revision.
type Known = Option<(u64, u64)>;

/// What was acknowledged of an object, and what may have happened since.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    acknowledged: Known,
    /// A write without an answer: the value that it would make.
    unanswered: Option<Option<u64>>,
    /// The newest revision in which a watch showed it.
    shown: u64,
}

#[derive(Default)]
struct World {
    fates: Mutex<BTreeMap<(&'static str, String), Fate>>,
    count: AtomicU64,
    is_killed: AtomicBool,
    enough: Notify,
}

fn kinds() -> [(&'static str, ResourceRef); 2] {
    [
        ("configmaps", ResourceRef::new("", "v1", "configmaps", "ConfigMap")),
        ("secrets", ResourceRef::new("", "v1", "secrets", "Secret")),
    ]
}

fn object(kind: &str, name: &str, value: u64, revision: Option<u64>) -> Bytes {
    let mut object = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "annotations": {"value": value.to_string()}},
    });
    if let Some(revision) = revision {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    object.to_string().into()
}

fn value_of(object: &api::Object) -> u64 {
    let value: Value = serde_json::from_slice(&object.json).unwrap();
    value["metadata"]["annotations"]["value"].as_str().unwrap().parse().unwrap()
}

impl World {
    /// Writes until the process is gone.
    async fn write(self: Arc<Self>, client: Client, writer: u64, mut dice: Dice, enough: u64) {
        for value in 1.. {
            let (plural, resource) = kinds()[dice.roll(2) as usize].clone();
            let name = format!("w{writer}-{}", dice.roll(NAMES));
            let api = client.dynamic(resource.clone(), NAMESPACE);
            let key = (plural, name.clone());
            let before = self.fates.lock().entry(key.clone()).or_default().acknowledged;
            let is_removal = before.is_some() && dice.roll(4) == 0;
            self.set(&key, |fate| fate.unanswered = Some((!is_removal).then_some(value)));
            let done = match before {
                None => api.create(object(&resource.kind, &name, value, None)).await,
                Some(_) if is_removal => api.delete(&name, &DeleteParams::default()).await,
                Some((_, at)) => api.replace(&name, "", object(&resource.kind, &name, value, Some(at))).await,
            };
            match done {
                Ok(object) => {
                    let known = (!is_removal).then_some((value, object.meta.resource_version));
                    self.set(&key, |fate| (fate.acknowledged, fate.unanswered) = (known, None));
                    if self.count.fetch_add(1, Ordering::AcqRel) + 1 == enough {
                        self.enough.notify_one();
                    }
                }
                Err(status) => return self.expect_killed(&status),
            }
        }
    }

    fn set(&self, key: &(&'static str, String), change: impl FnOnce(&mut Fate)) {
        change(self.fates.lock().entry(key.clone()).or_default());
    }

    fn expect_killed(&self, status: &Status) {
        assert!(self.is_killed.load(Ordering::Acquire), "nobody was killed: {status:?}");
    }

    /// Remembers what is shown until the process is gone.
    async fn watch(self: Arc<Self>, client: Client, plural: &'static str, resource: ResourceRef) {
        let api = client.dynamic(resource, NAMESPACE);
        let mut events = match api.watch(&WatchParams::default()).await {
            Ok(events) => events,
            Err(status) => return self.expect_killed(&status),
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    let key = (plural, object.meta.key.name.to_string());
                    let shown = object.meta.resource_version;
                    self.set(&key, |fate| fate.shown = fate.shown.max(shown));
                }
                Ok(_) => {}
                Err(status) => return self.expect_killed(&status),
            }
        }
    }

    /// What is there must be what was acknowledged, or what was under way; from now on it is what is known.
    async fn settle(&self, client: &Client) {
        for (plural, resource) in kinds() {
            let listing = client.dynamic(resource, NAMESPACE).list(&ListParams::default()).await.unwrap();
            let newest: u64 = listing.resource_version.parse().unwrap();
            let mut found: BTreeMap<String, (u64, u64)> = listing
                .items
                .iter()
                .filter(|object| object.meta.key.name.starts_with('w'))
                .map(|object| {
                    (object.meta.key.name.to_string(), (value_of(object), object.meta.resource_version))
                })
                .collect();
            let mut fates = self.fates.lock();
            for ((_, name), fate) in fates.iter_mut().filter(|((of, _), _)| *of == plural) {
                let found = found.remove(name);
                let as_acknowledged = found == fate.acknowledged;
                let as_unanswered =
                    fate.unanswered.is_some_and(|value| value == found.map(|(value, _)| value));
                assert!(as_acknowledged || as_unanswered, "{plural}/{name} is {found:?}: {fate:?}");
                assert!(newest >= fate.shown, "{plural}/{name} was shown at {}, now is {newest}", fate.shown);
                if let Some((_, revision)) = found {
                    assert!(revision >= fate.shown, "{plural}/{name} is {found:?}: {fate:?}");
                }
                *fate = Fate { acknowledged: found, unanswered: None, shown: fate.shown };
            }
            assert!(found.is_empty(), "nobody wrote {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_outlive_the_process() {
    let rounds = std::env::var("CLIPPER_CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let mut server = Server::new();
    let mut world = Arc::new(World::default());
    for round in 1..=rounds {
        let client = server.start().await;
        world.settle(&client).await;
        let mut dice = Dice::new(round);
        let enough = WRITES.0 + dice.roll(WRITES.1);
        let mut tasks = tokio::task::JoinSet::new();
        for (plural, resource) in kinds() {
            tasks.spawn(world.clone().watch(client.clone(), plural, resource));
        }
        for writer in 0..WRITERS {
            let dice = Dice::new(round * WRITERS + writer);
            tasks.spawn(world.clone().write(client.clone(), writer, dice, enough));
        }
        // A task that ends before is one that failed.
        tokio::select! {
            () = world.enough.notified() => {}
            Some(ended) = tasks.join_next() => panic!("{ended:?}"),
        }
        world.is_killed.store(true, Ordering::Release);
        server.kill().await;
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        let written = world.count.load(Ordering::Acquire);
        println!("round {round}: killed after {written} acknowledged writes");
        let fates = std::mem::take(&mut *world.fates.lock());
        world = Arc::new(World { fates: Mutex::new(fates), ..World::default() });
    }
    let client = server.start().await;
    world.settle(&client).await;
    server.kill().await;
}
