//! The audit log as people read it, and secrets as the disk sees them.

mod common;

use api::{Resource, Scope, UserInfo};
use apiserver::Server;
use apiserver::audit::AuditLog;
use apiserver::audit::file::{Bounds, File};
use apiserver::audit::policy::Policy;
use apiserver::encryption::Encryption;
use apiserver::hooks::{Audit, RemoteAddress};
use common::Api;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use store::embedded::{Embedded, Options};
use tower::ServiceExt;

const THINGS: &str = "/apis/example.com/v1/namespaces/a/things";

fn rows() -> Vec<Resource> {
    vec![Resource::new("example.com", "v1", "Thing", "things", Scope::Namespaced)]
}

/// A server that records to `path`, and its log.
async fn recording(policy: Policy, path: &Path) -> (Api, Arc<AuditLog>) {
    let log = AuditLog::start(policy, File::open(path, Bounds::default()).unwrap());
    let audit: Arc<dyn Audit> = log.clone();
    (Api::built(|builder| builder.resources(rows()).audit(audit)).await, log)
}

/// A request of somebody elsewhere.
async fn call(api: &Api, method: &str, url: &str, body: Value) -> u16 {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    let body = Full::new(bytes::Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::builder().method(method).uri(url);
    let request = request.header("content-type", "application/json").header("user-agent", "test/1");
    let mut request = request.header("audit-id", "id-1").body(body).unwrap();
    let groups = vec!["system:masters".to_owned()];
    request.extensions_mut().insert(UserInfo { name: "ann".into(), groups, ..UserInfo::default() });
    request.extensions_mut().insert(RemoteAddress(([10, 1, 2, 3], 4567).into()));
    api.server.service().oneshot(request).await.unwrap().status().as_u16()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_recorded_when_it_is_done_and_a_refusal_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (api, log) = recording(Policy::standard(), &path).await;
    let thing = json!({"metadata": {"name": "x"}, "spec": {"secret": "hunter2"}});
    // As it comes over HTTP/2.
    assert_eq!(call(&api, "POST", &format!("https://10.0.0.1:6443{THINGS}"), thing.clone()).await, 201);
    assert_eq!(call(&api, "POST", THINGS, thing.clone()).await, 409);
    assert_eq!(call(&api, "GET", &format!("{THINGS}?watch=1&timeoutSeconds=1"), Value::Null).await, 200);
    // In process.
    api.post(THINGS, json!({"metadata": {"name": "own"}})).await.expect(201);
    log.close().await;
    assert_eq!(log.dropped(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("hunter2"), "no objects at level Metadata: {text}");
    let [made, refused] = lines(&path).try_into().unwrap();
    for (pointer, expect) in [
        ("/kind", json!("Event")),
        ("/apiVersion", json!("audit.k8s.io/v1")),
        ("/level", json!("Metadata")),
        ("/auditID", json!("id-1")),
        ("/stage", json!("ResponseComplete")),
        ("/requestURI", json!(THINGS)),
        ("/verb", json!("create")),
        ("/user", json!({"username": "ann", "groups": ["system:masters"]})),
        ("/sourceIPs", json!(["10.1.2.3"])),
        ("/userAgent", json!("test/1")),
        ("/objectRef/resource", json!("things")),
        ("/objectRef/namespace", json!("a")),
        ("/objectRef/apiGroup", json!("example.com")),
        ("/objectRef/apiVersion", json!("v1")),
        ("/responseStatus", json!({"metadata": {}, "code": 201})),
        ("/annotations/authorization.k8s.io~1decision", json!("allow")),
    ] {
        assert_eq!(made.pointer(pointer), Some(&expect), "{pointer} of {made}");
    }
    let stamp = made["stageTimestamp"].as_str().unwrap();
    assert_eq!((stamp.len(), &stamp[19..20], &stamp[26..]), (27, ".", "Z"), "{stamp}");
    assert_eq!(refused["responseStatus"]["code"], 409);
    assert_eq!(refused["responseStatus"]["reason"], "AlreadyExists");
    assert_eq!(refused["responseStatus"]["status"], "Failure");
}

#[tokio::test]
async fn a_policy_may_ask_for_objects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [{level: RequestResponse}]}";
    let (api, log) = recording(Policy::parse(policy).unwrap(), &path).await;
    let thing = json!({"metadata": {"name": "x"}, "spec": {"a": 1}});
    assert_eq!(call(&api, "POST", THINGS, thing).await, 201);
    log.close().await;
    let [received, done] = lines(&path).try_into().unwrap();
    assert_eq!(received["stage"], "RequestReceived");
    assert_eq!(received.get("responseStatus"), None);
    assert_eq!(done["requestObject"]["spec"]["a"], 1, "{done}");
    assert_eq!(done["responseObject"]["metadata"]["name"], "x", "{done}");
    assert_eq!(done["responseObject"]["metadata"].get("managedFields"), None);
}

/// What is encrypted is nowhere in the store's file, and is there again after a restart, also under a newer key.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_does_not_hold_a_secret() {
    const WORD: &str = "correct-horse-battery-staple";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = async |keys: &[(&str, u8)]| {
        let keys: Vec<_> = keys.iter().map(|(id, fill)| ((*id).to_owned(), vec![*fill; 32])).collect();
        let store = Embedded::open(&path, Options::default()).unwrap();
        let builder = Server::builder(store.clone()).resources(rows());
        let encryption = Arc::new(Encryption::new(&keys).unwrap());
        let server = builder.transform("example.com", "things", encryption).build().await.unwrap();
        Api { server, store }
    };
    let close = async |api: Api| {
        api.server.stop();
        api.store.close().await;
        std::fs::read(&path).unwrap()
    };
    let holds = |bytes: &[u8]| bytes.windows(WORD.len()).any(|part| part == WORD.as_bytes());
    let api = open(&[("one", 1)]).await;
    for name in ["x", "y"] {
        api.post(THINGS, json!({"metadata": {"name": name}, "spec": {"word": WORD}})).await.expect(201);
    }
    let url = format!("{THINGS}/x");
    api.merge(&url, json!({"spec": {"more": WORD}})).await.expect(200);
    assert!(!holds(&close(api).await));
    let api = open(&[("two", 2), ("one", 1)]).await;
    assert_eq!(api.get(&url).await.expect(200)["spec"], json!({"word": WORD, "more": WORD}));
    api.merge(&url, json!({"spec": {"more": null}})).await.expect(200);
    let bytes = close(api).await;
    assert!(!holds(&bytes) && bytes.windows(22).any(|part| part == b"k8s:enc:aesgcm:v1:two:"));
    // `y` is still under the old key: without it nothing is served, rather than an object less.
    let store = Embedded::open(&path, Options::default()).unwrap();
    let encryption = Encryption::new(&[("two".to_owned(), vec![2; 32])]).unwrap();
    let builder = Server::builder(store).resources(rows());
    let refused =
        builder.transform("example.com", "things", Arc::new(encryption)).build().await.err().unwrap();
    assert!(
        refused.message.contains("things/a/y cannot be decrypted: its key \"one\""),
        "{}",
        refused.message
    );
}
