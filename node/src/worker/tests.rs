//! The worker against a recorder of the runtime and of the API: what it asks for, in which order, and what it tells.

use super::*;
use crate::admission::Accounts;
use crate::context::Machine;
use crate::network::{Attached, NetworkError, PodAttachment, PodNetwork};
use crate::objects::tests::Fixed;
use crate::observed::tests::at;
use crate::options::NodeOptions;
use crate::volume::token::{Token, TokenFor, Tokens};
use crate::volume::{Directories, VolumeError};
use client::{Body, Caches, Client, Clock, EventRecorder, full};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use runtime::*;
use serde_json::json;
use std::convert::Infallible;
use tokio::sync::oneshot;

/// What a recorded container should do.
#[derive(Default)]
struct Script {
    calls: Vec<String>,
    sandboxes: BTreeMap<String, SandboxStatus>,
    containers: BTreeMap<String, ContainerStatus>,
    missing_image: bool,
    next: u32,
    /// The next look at a container is answered only then, with what it was before.
    answers_late: Option<oneshot::Receiver<()>>,
}

#[derive(Default)]
struct Recorder {
    script: Mutex<Script>,
    clock: Mutex<Option<Clock>>,
}

impl Recorder {
    fn call(&self, text: impl Into<String>) {
        self.script.lock().calls.push(text.into());
    }

    fn now(&self) -> Timestamp {
        self.clock.lock().as_ref().map_or(at(0), Clock::now)
    }

    fn exit(&self, id: &str, code: i32) -> runtime::Event {
        let now = self.now();
        let mut script = self.script.lock();
        let one = script.containers.get_mut(id).unwrap();
        let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
        let exit = Exit { code, reason, message: String::new() };
        (one.state, one.finished_at, one.exit) =
            (runtime::ContainerState::Exited, Some(now), Some(exit.clone()));
        runtime::Event::Exited { sandbox: one.sandbox.clone(), container: id.to_owned(), exit, at: now }
    }

    fn running(&self) -> Vec<String> {
        let script = self.script.lock();
        let running = |one: &&ContainerStatus| one.state == runtime::ContainerState::Running;
        script.containers.values().filter(running).map(|one| one.id.clone()).collect()
    }
}

fn unsupported<T: Send + 'static>(feature: &str) -> BoxFuture<'static, Result<T>> {
    let feature = feature.to_owned();
    Box::pin(async move { Err(Error::Unsupported { feature }) })
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T>> {
    Box::pin(async move { Ok(value) })
}

impl Runtime for Recorder {
    fn pull_image(&self, request: PullRequest) -> BoxFuture<'_, Result<Pulled>> {
        self.call(format!("pull {}", request.reference));
        match self.script.lock().missing_image {
            true => Box::pin(async move { Err(Error::ImageUnknown { reference: request.reference }) }),
            false => done(Pulled {
                image: Image { id: "sha256:1".into(), ..Default::default() },
                from: PulledFrom::Registry,
            }),
        }
    }
    fn resolve_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<String>> {
        unsupported("resolve")
    }
    fn import_images<'a>(&'a self, _: &'a std::path::Path) -> BoxFuture<'a, Result<Vec<Image>>> {
        unsupported("import")
    }
    fn image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        let missing = self.script.lock().missing_image;
        done((!missing).then(|| Image { id: "sha256:1".into(), ..Default::default() }))
    }
    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        done(Vec::new())
    }
    fn remove_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        unsupported("remove image")
    }
    fn image_usage(&self) -> BoxFuture<'_, Result<ImageUsage>> {
        done(ImageUsage::default())
    }
    fn create_sandbox(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<String>> {
        self.call("create sandbox");
        let now = self.now();
        let mut script = self.script.lock();
        script.next += 1;
        let id = format!("s{}", script.next);
        let status = SandboxStatus { id: id.clone(), ready: true, created_at: now, spec, pid: None };
        script.sandboxes.insert(id.clone(), status);
        done(id)
    }
    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call("stop sandbox");
        if let Some(sandbox) = self.script.lock().sandboxes.get_mut(id) {
            sandbox.ready = false;
        }
        done(())
    }
    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call("remove sandbox");
        self.script.lock().sandboxes.remove(id);
        done(())
    }
    fn sandbox<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<SandboxStatus>> {
        unsupported("sandbox")
    }
    fn sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>>> {
        done(self.script.lock().sandboxes.values().cloned().collect())
    }
    fn update_sandbox<'a>(&'a self, _: &'a str, _: &'a Limits) -> BoxFuture<'a, Result<()>> {
        self.call("update sandbox");
        done(())
    }
    fn create_container<'a>(
        &'a self,
        sandbox: &'a str,
        spec: ContainerSpec,
    ) -> BoxFuture<'a, Result<String>> {
        let name = spec.labels["io.kubernetes.container.name"].clone();
        self.call(format!("create {name}"));
        let now = self.now();
        let mut script = self.script.lock();
        script.next += 1;
        let id = format!("{name}{}", script.next);
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.to_owned(),
            image_id: spec.image.clone(),
            state: runtime::ContainerState::Created,
            created_at: now,
            started_at: None,
            finished_at: None,
            exit: None,
            pid: None,
            runs_as: None,
            spec,
            stop_signal: "SIGTERM".into(),
            writable_layer: Default::default(),
        };
        script.containers.insert(id.clone(), status);
        done(id)
    }
    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        let now = self.now();
        let mut script = self.script.lock();
        let one = script.containers.get_mut(id).unwrap();
        (one.state, one.started_at) = (runtime::ContainerState::Running, Some(now));
        done(())
    }
    fn stop_container<'a>(
        &'a self,
        id: &'a str,
        _: Option<&'a str>,
        grace: Duration,
    ) -> BoxFuture<'a, Result<()>> {
        let name = self.script.lock().containers[id].spec.labels["io.kubernetes.container.name"].clone();
        self.call(format!("stop {name} {}", grace.as_secs()));
        self.exit(id, 0);
        done(())
    }
    fn kill_container<'a>(&'a self, _: &'a str, _: i32) -> BoxFuture<'a, Result<()>> {
        done(())
    }
    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        self.call("remove container");
        self.script.lock().containers.remove(id);
        done(())
    }
    fn container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ContainerStatus>> {
        let mut script = self.script.lock();
        let (found, late) = (script.containers.get(id).cloned(), script.answers_late.take());
        Box::pin(async move {
            if let Some(late) = late {
                late.await.unwrap();
            }
            found.ok_or(Error::NotFound { what: runtime::error::What::Container, id: id.to_owned() })
        })
    }
    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        done(self.script.lock().containers.values().cloned().collect())
    }
    fn update_container<'a>(&'a self, _: &'a str, _: &'a Limits) -> BoxFuture<'a, Result<()>> {
        self.call("update container");
        done(())
    }
    fn container_stats<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Stats>> {
        unsupported("stats")
    }
    fn sandbox_stats<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Stats>> {
        unsupported("stats")
    }
    fn container_disk<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<DiskUsage>> {
        unsupported("disk")
    }
    fn exec<'a>(&'a self, _: &'a str, _: ExecRequest) -> BoxFuture<'a, Result<Session>> {
        unsupported("exec")
    }
    fn attach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Session>> {
        unsupported("attach")
    }
    fn reopen_log<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        done(())
    }
    fn events(&self) -> BoxStream<'static, runtime::Event> {
        Box::pin(futures::stream::pending())
    }
    fn remove_all(&self) -> BoxFuture<'_, Result<()>> {
        done(())
    }
}

struct Net(Arc<Recorder>);

impl PodNetwork for Net {
    fn attach<'a>(
        &'a self,
        _: &'a PodAttachment,
    ) -> BoxFuture<'a, std::result::Result<Attached, NetworkError>> {
        self.0.call("attach");
        Box::pin(async {
            Ok(Attached { namespace_path: "/n".into(), addresses: vec!["10.0.0.1".parse().unwrap()] })
        })
    }
    fn detach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, std::result::Result<(), NetworkError>> {
        self.0.call("detach");
        Box::pin(async { Ok(()) })
    }
    fn attached(&self) -> BoxFuture<'_, std::result::Result<Vec<String>, NetworkError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

struct NoTokens;

impl Tokens for NoTokens {
    fn token<'a>(
        &'a self,
        _: TokenFor,
        _: Timestamp,
    ) -> BoxFuture<'a, std::result::Result<Token, VolumeError>> {
        Box::pin(async { Err(VolumeError::Token(api::Status::unavailable("none"))) })
    }
    fn forget(&self, _: &str) {}
}

/// The API as one pod that takes status patches.
#[derive(Default)]
struct ApiServer {
    status: Value,
    revision: u64,
    writes: Vec<Value>,
    deleted: bool,
}

fn merge(status: &mut Value, patch: &Value) {
    for (field, value) in patch.as_object().unwrap() {
        match (field.as_str(), value) {
            ("conditions", Value::Array(changes)) => {
                let mut list = status[field].as_array().cloned().unwrap_or_default();
                for change in changes {
                    list.retain(|own| own["type"] != change["type"]);
                    let mut change = change.clone();
                    change.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                    if change.get("$patch").is_none() {
                        list.push(change);
                    }
                }
                status[field] = Value::Array(list);
            }
            (_, Value::Null) => {
                status.as_object_mut().unwrap().remove(field);
            }
            (_, value) => status[field] = value.clone(),
        }
    }
}

async fn answer(
    server: Arc<Mutex<ApiServer>>,
    request: Request<Body>,
) -> std::result::Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut server = server.lock();
    let pod = match (
        head.method.as_str(),
        head.uri.path().ends_with("/pods/p/status"),
        head.uri.path().ends_with("/pods/p"),
    ) {
        ("PATCH", true, _) => {
            let patch: Value = serde_json::from_slice(&body).unwrap();
            if server.status.is_null() {
                server.status = json!({});
            }
            let mut status = server.status.take();
            merge(&mut status, &patch["status"]);
            server.writes.push(status.clone());
            server.status = status;
            server.revision += 1;
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": server.revision.to_string()}, "status": server.status})
        }
        ("DELETE", _, true) => {
            server.deleted = true;
            json!({"kind": "Status", "status": "Success"})
        }
        _ => {
            let status = serde_json::to_vec(&api::Status::unavailable("not here")).unwrap();
            return Ok(Response::builder().status(503).body(full(bytes::Bytes::from(status))).unwrap());
        }
    };
    Ok(Response::new(full(bytes::Bytes::from(serde_json::to_vec(&pod).unwrap()))))
}

struct Bench {
    _root: tempfile::TempDir,
    recorder: Arc<Recorder>,
    server: Arc<Mutex<ApiServer>>,
    node: Arc<NodeContext>,
    on_end: mpsc::Sender<String>,
    ended: mpsc::Receiver<String>,
    revision: u64,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let clock = Clock::starting_at(at(1000));
        let recorder = Arc::new(Recorder::default());
        *recorder.clock.lock() = Some(clock.clone());
        let server = Arc::new(Mutex::new(ApiServer::default()));
        let shared = server.clone();
        let service = tower::service_fn(move |request| answer(shared.clone(), request));
        let client =
            Client::in_process(tower::util::BoxCloneSyncService::new(service), api::UserInfo::node("n"));
        let options = NodeOptions::new("n", root.path(), "/parent");
        let node = NodeContext {
            directories: Directories { disk: root.path().join("disk"), memory: root.path().join("memory") },
            events: EventRecorder::new(client.clone(), clock.clone(), "kubelet", "n"),
            runtime_classes: Caches::new(client.clone()).of(),
            runtime: recorder.clone(),
            network: Arc::new(Net(recorder.clone())),
            objects: Arc::new(Fixed::default()),
            tokens: Arc::new(NoTokens),
            host_addresses: vec!["192.168.0.1".to_owned()],
            machine: Machine { cpus: 2, memory_bytes: 1 << 30 },
            allocatable: Default::default(),
            accounts: Accounts::default(),
            pulls: tokio::sync::Semaphore::new(1),
            sandboxes: Mutex::default(),
            options,
            client,
            clock,
        };
        let (on_end, ended) = mpsc::channel(1);
        Self { _root: root, recorder, server, node: Arc::new(node), on_end, ended, revision: 0 }
    }

    fn def(&self, spec: Value, extra: Value) -> PodDef {
        let mut object =
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}, "spec": spec});
        for (key, value) in extra.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        let status = self.server.lock().status.clone();
        if !status.is_null() {
            object["status"] = status;
        }
        crate::spec::tests::pod(object)
    }

    fn start(&self, spec: Value, observed: Observed) -> WorkerHandle {
        start(self.node.clone(), self.def(spec, json!({})), 0, observed, None, self.on_end.clone())
    }

    async fn tell(&mut self, worker: &WorkerHandle, spec: Value, extra: Value) {
        self.revision = self.server.lock().revision + 1;
        self.server.lock().revision = self.revision;
        let def = self.def(spec, extra);
        worker.messages.send(Message::Update(Box::new(def), self.revision)).await.unwrap();
    }

    /// Waits until the API shows what `what` looks for.
    async fn until(&self, what: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..10_000 {
            let status = self.server.lock().status.clone();
            if what(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never shown: {:#} {:?}", self.server.lock().status, self.recorder.script.lock().calls);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.recorder.script.lock().calls)
    }
}

fn ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|own| own["type"] == "Ready" && own["status"] == "True")
}

fn phase(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["phase"] == wanted
}

fn spec(policy: &str, names: &[&str]) -> Value {
    let list: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "i:1"})).collect();
    json!({"restartPolicy": policy, "containers": list, "terminationGracePeriodSeconds": 7})
}

#[tokio::test(start_paused = true)]
async fn a_pod_comes_up_with_one_write_and_goes_away_without_a_trace() {
    let mut bench = Bench::new();
    let worker = bench.start(spec("Always", &["a", "b"]), Observed::default());
    let status = bench.until(ready).await;
    assert_eq!((&status["phase"], &status["podIP"]), (&json!("Running"), &json!("10.0.0.1")));
    assert_eq!(bench.server.lock().writes.len(), 1);
    assert_eq!(bench.calls(), ["attach", "create sandbox", "create a", "create b"]);
    let extra = json!({"deletionTimestamp": "1970-01-01T00:17:00Z", "deletionGracePeriodSeconds": 5});
    bench.tell(&worker, spec("Always", &["a", "b"]), extra).await;
    assert_eq!(bench.ended.recv().await.as_deref(), Some("u"));
    let mut calls = bench.calls();
    calls[..2].sort();
    assert_eq!(calls, ["stop a 5", "stop b 5", "stop sandbox", "detach", "remove sandbox"]);
    let server = bench.server.lock();
    assert!(server.deleted);
    assert_eq!(server.status["phase"], "Succeeded");
    assert!(!bench.node.directories.pod("u").exists());
}

#[tokio::test(start_paused = true)]
async fn what_crashes_is_restarted_and_then_has_to_wait() {
    let bench = Bench::new();
    let worker = bench.start(spec("Always", &["a"]), Observed::default());
    bench.until(ready).await;
    for count in 1..=2 {
        let id = bench.recorder.running().remove(0);
        let event = bench.recorder.exit(&id, 1);
        worker.messages.send(Message::Runtime(event)).await.unwrap();
        if count == 1 {
            bench.until(|status| status["containerStatuses"][0]["restartCount"] == 1 && ready(status)).await;
        }
    }
    let status = bench
        .until(|status| status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        .await;
    let one = &status["containerStatuses"][0];
    assert_eq!(one["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(one["state"]["waiting"]["message"], "back-off 10s restarting failed container=a pod=p_ns(u)");
    assert_eq!(status["phase"], "Running");
    bench.until(|status| status["containerStatuses"][0]["restartCount"] == 2 && ready(status)).await;
    // One ended instance is kept for its logs.
    assert_eq!(bench.calls().iter().filter(|call| *call == "remove container").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_runs_already_is_adopted() {
    let bench = Bench::new();
    let first = bench.start(spec("Always", &["a"]), Observed::default());
    bench.until(ready).await;
    bench.calls();
    // The process ends: its messages stop, its containers do not.
    drop(first);
    let list = |recorder: &Recorder| {
        let script = recorder.script.lock();
        let (sandboxes, containers): (Vec<_>, Vec<_>) =
            (script.sandboxes.values().cloned().collect(), script.containers.values().cloned().collect());
        crate::observed::by_pod(&sandboxes, &containers)
    };
    let observed = list(&bench.recorder).remove("u").unwrap();
    let writes = bench.server.lock().writes.len();
    let second = bench.start(spec("Always", &["a"]), observed);
    let event = bench.recorder.exit(&bench.recorder.running()[0], 3);
    second.messages.send(Message::Runtime(event)).await.unwrap();
    let status = bench.until(|status| status["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(bench.calls(), ["create a"]);
    assert!(bench.server.lock().writes.len() > writes);
}

#[tokio::test(start_paused = true)]
async fn pods_that_run_to_an_end_keep_their_containers_for_the_logs() {
    let bench = Bench::new();
    let worker = bench.start(spec("Never", &["a"]), Observed::default());
    bench.until(ready).await;
    let event = bench.recorder.exit(&bench.recorder.running()[0], 2);
    worker.messages.send(Message::Runtime(event)).await.unwrap();
    let status = bench.until(phase("Failed")).await;
    assert_eq!(status["podIP"], "10.0.0.1");
    bench.until(|_| bench.recorder.script.lock().calls.iter().any(|call| call == "detach")).await;
    assert_eq!(bench.calls(), ["attach", "create sandbox", "create a", "stop sandbox", "detach"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_while_its_start_is_looked_at_has_ended() {
    let bench = Bench::new();
    let (answer, late) = oneshot::channel();
    bench.recorder.script.lock().answers_late = Some(late);
    let worker = bench.start(spec("Never", &["a"]), Observed::default());
    // Time goes on only when nobody has anything to do: the start waits for its answer then, and later the worker has heard all.
    let settled = || tokio::time::sleep(Duration::from_millis(1));
    while bench.recorder.script.lock().answers_late.is_some() {
        settled().await;
    }
    let id = bench.recorder.running()[0].clone();
    let sandbox = bench.recorder.script.lock().containers[&id].sandbox.clone();
    let started = runtime::Event::Started { sandbox, container: id.clone(), at: bench.recorder.now() };
    worker.messages.send(Message::Runtime(started)).await.unwrap();
    worker.messages.send(Message::Runtime(bench.recorder.exit(&id, 0))).await.unwrap();
    settled().await;
    answer.send(()).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = bench.until(|_| true).await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 0, "{status}");
    bench.until(|_| bench.recorder.script.lock().calls.iter().any(|call| call == "detach")).await;
    assert_eq!(bench.calls(), ["attach", "create sandbox", "create a", "stop sandbox", "detach"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_told_and_tried_again() {
    let bench = Bench::new();
    bench.recorder.script.lock().missing_image = true;
    let _worker = bench.start(spec("Always", &["a"]), Observed::default());
    let waits = |reason: &'static str| {
        move |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    bench.until(waits("ErrImagePull")).await;
    let status = bench.until(waits("ImagePullBackOff")).await;
    assert_eq!(status["phase"], "Pending");
    bench.recorder.script.lock().missing_image = false;
    bench.until(ready).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_may_not_be_pulled_keeps_its_reason() {
    let bench = Bench::new();
    bench.recorder.script.lock().missing_image = true;
    let mut pod = spec("Always", &["a"]);
    pod["containers"][0]["imagePullPolicy"] = json!("Never");
    let _worker = bench.start(pod, Observed::default());
    let waits = |status: &Value| status["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    bench.until(|status| waits(status) == "ErrImageNeverPull").await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let written: Vec<_> = bench.server.lock().writes.iter().map(waits).collect();
    assert!(!written.iter().any(|reason| reason == "ImagePullBackOff"), "{written:?}");
    bench.recorder.script.lock().missing_image = false;
    bench.until(ready).await;
}

#[tokio::test(start_paused = true)]
async fn sidecars_start_first_and_end_last() {
    let mut bench = Bench::new();
    let mut pod = spec("Always", &["a"]);
    pod["initContainers"] =
        json!([{"name": "s", "image": "i:1", "restartPolicy": "Always"}, {"name": "x", "image": "i:1"}]);
    let worker = bench.start(pod.clone(), Observed::default());
    bench.until(|status| status["initContainerStatuses"][1]["state"]["running"].is_object()).await;
    assert_eq!(bench.calls(), ["attach", "create sandbox", "create s", "create x"]);
    let init = bench.recorder.running().into_iter().find(|id| id.starts_with('x')).unwrap();
    let event = bench.recorder.exit(&init, 0);
    worker.messages.send(Message::Runtime(event)).await.unwrap();
    bench.until(ready).await;
    assert_eq!(bench.calls(), ["create a"]);
    bench
        .tell(
            &worker,
            pod,
            json!({"deletionTimestamp": "1970-01-01T00:17:00Z", "deletionGracePeriodSeconds": 5}),
        )
        .await;
    bench.ended.recv().await;
    assert_eq!(bench.calls()[..2], ["stop a 5".to_owned(), "stop s 5".to_owned()]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_may_not_run_longer_than_its_deadline() {
    let bench = Bench::new();
    let mut pod = spec("Always", &["a"]);
    pod["activeDeadlineSeconds"] = json!(30);
    let _worker = bench.start(pod, Observed::default());
    bench.until(ready).await;
    let status = bench.until(phase("Failed")).await;
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert!(bench.calls().contains(&"stop a 7".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_pod_never_starts() {
    let bench = Bench::new();
    let verdict = Verdict { reason: "OutOfcpu".into(), message: "Pod was rejected: no".into() };
    let def = bench.def(spec("Always", &["a"]), json!({}));
    let _worker = start(bench.node.clone(), def, 0, Observed::default(), Some(verdict), bench.on_end.clone());
    let status = bench.until(phase("Failed")).await;
    assert_eq!((&status["reason"], &status["message"]), (&json!("OutOfcpu"), &json!("Pod was rejected: no")));
    assert!(!bench.calls().iter().any(|call| call.starts_with("create")));
}
