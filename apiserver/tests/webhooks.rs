//! Webhooks over real TLS connections: admission and conversion.

mod common;

use base64::Engine as _;
use common::Api;
use common::tls::{Answer, TlsServer};
use serde_json::{Value, json};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook's server and how it is reached.
struct Webhook(TlsServer);

impl Webhook {
    /// Answers every review as `answer` does, given the path.
    async fn new(answer: Answer) -> Self {
        Self(TlsServer::new("localhost", answer).await)
    }

    fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.0.port), "caBundle": self.0.bundle})
    }

    fn hook(&self, name: &str, path: &str, resources: &[&str]) -> Value {
        json!({"name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": self.client(path),
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]})
    }
}

fn admission(head: &http::request::Parts, review: &Value) -> Value {
    let path = head.uri.path();
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let patch = |operations: Value| base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    match path {
        "/deny" => {
            response["allowed"] = false.into();
            response["status"] = json!({"message": format!("{} {}", request["operation"].as_str().unwrap(), request["object"]["data"]), "code": 403});
        }
        "/first" | "/second" => {
            let step = &path[1..];
            // Each adds its own and what it sees of the other.
            let data = &request["object"]["data"];
            let other = if step == "first" { "second" } else { "first" };
            let mut operations = vec![json!({"op": "add", "path": format!("/data/{step}"), "value": "yes"})];
            if !data[other].is_null() {
                operations
                    .push(json!({"op": "add", "path": format!("/data/{step}-saw-{other}"), "value": "yes"}));
            }
            response["patch"] = patch(json!(operations)).into();
            response["patchType"] = "JSONPatch".into();
            response["warnings"] = json!([format!("{step} was here")]);
        }
        "/spec" => {
            response["patch"] =
                patch(json!([{"op": "add", "path": "/spec", "value": {"color": "black", "unknown": 1}}]))
                    .into();
            response["patchType"] = "JSONPatch".into();
        }
        _ => {}
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

async fn cluster() -> Api {
    let api = Api::built(|builder| builder.resources(resources::all())).await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.expect(201);
    api
}

async fn configure(api: &Api, plural: &str, name: &str, hooks: Value) {
    let body = json!({"metadata": {"name": name}, "webhooks": hooks});
    api.post(&format!("{CONFIGURATIONS}/{plural}"), body).await.expect(201);
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

#[tokio::test]
async fn a_validating_webhook_refuses_what_it_is_asked_about() {
    let (api, webhook) = (cluster().await, Webhook::new(admission).await);
    let mut hook = webhook.hook("deny", "/deny", &["configmaps"]);
    hook["objectSelector"] = json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    configure(&api, "validatingwebhookconfigurations", "v", json!([hook])).await;
    let refused = api.post(MAPS, map("a")).await.expect(403);
    assert_eq!(
        refused["message"],
        "admission webhook \"deny.example.com\" denied the request: CREATE {\"a\":\"b\"}"
    );
    let mut skipped = map("a");
    skipped["metadata"]["labels"] = json!({"skip": "me"});
    api.post(MAPS, skipped).await.expect(201);
    api.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.expect(201);
    // Never about itself: a cluster must not lock itself out.
    api.merge(&format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v"), json!({"webhooks": []}))
        .await
        .expect(200);
    api.post(MAPS, map("b")).await.expect(201);
}

#[tokio::test]
async fn mutating_webhooks_see_each_other() {
    let (api, webhook) = (cluster().await, Webhook::new(admission).await);
    let mut first = webhook.hook("first", "/first", &["configmaps"]);
    first["reinvocationPolicy"] = "IfNeeded".into();
    let hooks = json!([first, webhook.hook("second", "/second", &["configmaps"])]);
    configure(&api, "mutatingwebhookconfigurations", "m", hooks).await;
    let made = api.post(MAPS, map("a")).await;
    let warnings: Vec<_> = made.headers.get_all("warning").iter().collect();
    assert_eq!(warnings, ["299 - \"first was here\"", "299 - \"second was here\""]);
    let expect = json!({"a": "b", "first": "yes", "first-saw-second": "yes", "second": "yes", "second-saw-first": "yes"});
    assert_eq!(made.expect(201)["data"], expect);
}

#[tokio::test]
async fn what_cannot_be_asked_fails_or_is_ignored() {
    let (api, webhook) = (cluster().await, Webhook::new(admission).await);
    let mut slow = webhook.hook("slow", "/never", &["configmaps"]);
    slow["timeoutSeconds"] = 1.into();
    configure(&api, "validatingwebhookconfigurations", "v", json!([slow])).await;
    let refused = api.post(MAPS, map("a")).await.expect(500);
    let expect = format!(
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \"https://localhost:{}/never?timeout=1s\": context deadline exceeded",
        webhook.0.port
    );
    assert_eq!(refused["message"], expect);
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let (url, headers) = (
        format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v"),
        [("content-type", "application/json-patch+json")],
    );
    api.with_headers("PATCH", &url, &headers, ignore.to_string().into_bytes()).await.expect(200);
    api.post(MAPS, map("a")).await.expect(201);

    let mut untrusted = webhook.hook("untrusted", "/", &["configmaps"]);
    untrusted["clientConfig"]["caBundle"] = Webhook::new(admission).await.0.bundle.clone().into();
    configure(&api, "validatingwebhookconfigurations", "w", json!([untrusted])).await;
    let refused = api.post(MAPS, map("b")).await.expect(500);
    assert!(refused["message"].as_str().unwrap().contains("tls: failed to verify certificate"), "{refused}");
}

#[tokio::test]
async fn a_patch_of_a_custom_object_is_pruned() {
    let (api, webhook) = (cluster().await, Webhook::new(admission).await);
    let definition = json!({
        "metadata": {"name": "cats.zoo.example"},
        "spec": {"group": "zoo.example", "scope": "Cluster", "names": {"plural": "cats", "kind": "Cat"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"color": {"type": "string"}}}}}}},
        ]},
    });
    let mut table = api.server.registry().changes_of_table();
    api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.expect(201);
    while api.server.registry().table().find("zoo.example", "v1", "cats").is_none() {
        table.changed().await.unwrap();
    }
    configure(&api, "mutatingwebhookconfigurations", "m", json!([webhook.hook("spec", "/spec", &["cats"])]))
        .await;
    let made = api
        .post(
            "/apis/zoo.example/v1/cats",
            json!({"apiVersion": "zoo.example/v1", "kind": "Cat", "metadata": {"name": "tom"}}),
        )
        .await;
    assert_eq!(made.expect(201)["spec"], json!({"color": "black"}));
}

/// Between `spec.name` of v1 and `spec.title` of v2.
fn conversion(_: &http::request::Parts, review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let (from, to) = if wanted.ends_with("v2") { ("name", "title") } else { ("title", "name") };
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        object["spec"][to] = object["spec"][from].clone();
        object["spec"].as_object_mut().unwrap().remove(from);
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}})
}

#[tokio::test]
async fn a_conversion_webhook_translates_versions() {
    let (api, webhook) = (cluster().await, Webhook::new(conversion).await);
    let version = |name: &str, field: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {field: {"type": "string"}}}}}}})
    };
    let definition = json!({
        "metadata": {"name": "books.zoo.example"},
        "spec": {"group": "zoo.example", "scope": "Cluster", "names": {"plural": "books", "kind": "Book"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": webhook.client("/"), "conversionReviewVersions": ["v1"]}},
            "versions": [version("v1", "name", true), version("v2", "title", false)]},
    });
    let mut table = api.server.registry().changes_of_table();
    api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.expect(201);
    while api.server.registry().table().find("zoo.example", "v2", "books").is_none() {
        table.changed().await.unwrap();
    }
    let book = |version: &str, name: &str, spec: Value| json!({"apiVersion": format!("zoo.example/{version}"), "kind": "Book", "metadata": {"name": name}, "spec": spec});
    api.post("/apis/zoo.example/v1/books", book("v1", "a", json!({"name": "A"}))).await.expect(201);
    api.post("/apis/zoo.example/v2/books", book("v2", "b", json!({"title": "B"}))).await.expect(201);
    for (version, field) in [("v1", "name"), ("v2", "title")] {
        let list = api.get(&format!("/apis/zoo.example/{version}/books")).await.expect(200);
        let titles: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|own| own["spec"][field].as_str()).collect();
        assert_eq!(titles, [Some("A"), Some("B")], "{version}");
    }
    let mut events = api.watch("/apis/zoo.example/v2/books?watch=true&fieldSelector=metadata.name%3Da").await;
    assert_eq!(events.next().await.unwrap()["object"]["spec"]["title"], "A");
    api.merge("/apis/zoo.example/v1/books/a", json!({"spec": {"name": "AA"}})).await.expect(200);
    assert_eq!(events.next().await.unwrap()["object"]["spec"]["title"], "AA");
}
