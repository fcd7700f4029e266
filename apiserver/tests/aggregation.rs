//! Group versions that other servers serve.

mod common;

use apiserver::discovery::Discovery;
use apiserver::openapi::OpenApi;
use common::Api;
use common::tls::TlsServer;
use serde_json::{Value, json};
use std::sync::Arc;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

async fn cluster() -> Api {
    let rows = resources::all();
    let api = Api::built(|builder| {
        let documents = builder.path("/openapi", Arc::new(OpenApi::default()));
        documents.resources(rows).path("/apis", Arc::new(Discovery::default()))
    })
    .await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    api
}

/// Waits until an APIService says so; the watch ends by itself if it never does.
async fn wait_for(api: &Api, name: &str, done: impl Fn(&Value) -> bool) -> Value {
    let url = format!("{SERVICES}?watch=true&timeoutSeconds=20&fieldSelector=metadata.name={name}");
    let mut events = api.watch(&url).await;
    while let Some(event) = events.next().await {
        if done(&event["object"]) {
            return event["object"].clone();
        }
    }
    panic!("{name} never got there")
}

/// A server of flunders that shows who asks.
fn flunders(head: &http::request::Parts, body: &Value) -> Value {
    let header = |name: &str| {
        let values = head.headers.get_all(name).iter().map(|own| own.to_str().unwrap_or_default().to_owned());
        values.collect::<Vec<_>>()
    };
    match head.uri.path() {
        "/apis/zoo.example/v1" => {
            json!({"kind": "APIResourceList", "groupVersion": "zoo.example/v1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]})
        }
        path => json!({"method": head.method.as_str(), "path": path, "query": head.uri.query(), "body": body,
            "user": header("x-remote-user"), "groups": header("x-remote-group"), "host": header("host"), "authorization": header("authorization")}),
    }
}

fn service(bundle: &str) -> Value {
    json!({"metadata": {"name": "v1.zoo.example"}, "spec": {"group": "zoo.example", "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 10, "caBundle": bundle, "service": {"namespace": "n", "name": "zoo", "port": 443}}})
}

async fn expose(api: &Api, port: u16) {
    let own = json!({"metadata": {"name": "zoo"}, "spec": {"clusterIP": "None", "ports": [{"port": 443, "targetPort": 443}]}});
    api.post("/api/v1/namespaces/n/services", own).await.expect(201);
    let slice = json!({"metadata": {"name": "zoo-1", "labels": {"kubernetes.io/service-name": "zoo"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": port, "protocol": "TCP"}], "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    api.post("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices", slice).await.expect(201);
}

#[tokio::test]
async fn what_this_server_serves_is_listed() {
    let api = cluster().await;
    let apps = wait_for(&api, "v1.apps", |_| true).await;
    assert_eq!(apps["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(
        (apps["spec"]["groupPriorityMinimum"].as_i64(), apps["spec"]["versionPriority"].as_i64()),
        (Some(17800), Some(15))
    );
    wait_for(&api, "v1.", |own| own["spec"]["group"].as_str().unwrap_or_default().is_empty()).await;
}

#[tokio::test]
async fn requests_go_to_who_serves_the_group() {
    let api = cluster().await;
    let other = TlsServer::new("zoo.n.svc", flunders).await;
    api.post(SERVICES, service(&other.bundle)).await.expect(201);
    wait_for(&api, "v1.zoo.example", |own| own["status"]["conditions"][0]["reason"] == "ServiceNotFound")
        .await;
    let refused = api.get("/apis/zoo.example/v1/namespaces/n/flunders").await.expect(503);
    assert_eq!(refused["message"], "service unavailable");

    expose(&api, other.port).await;
    wait_for(&api, "v1.zoo.example", |own| own["status"]["conditions"][0]["status"] == "True").await;
    let path = "/apis/zoo.example/v1/namespaces/n/flunders";
    let headers =
        [("content-type", "application/json"), ("authorization", "Bearer secret"), ("x-remote-user", "root")];
    let answer =
        api.with_headers("POST", &format!("{path}?a=b"), &headers, b"{\"x\":1}".to_vec()).await.expect(200);
    assert_eq!(
        answer,
        json!({"method": "POST", "path": path, "query": "a=b", "body": {"x": 1}, "user": ["admin"], "groups": ["system:masters"],
            "host": ["zoo.n.svc"], "authorization": []})
    );
    let groups = api.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|own| own["name"] == "zoo.example"));
    assert_eq!(api.get("/apis/zoo.example/v1").await.expect(200)["resources"][0]["kind"], "Flunder");
    let index = api.get("/openapi/v3").await.expect(200);
    let url = "/openapi/v3/apis/zoo.example/v1";
    assert_eq!(index["paths"]["apis/zoo.example/v1"]["serverRelativeURL"], url);
    assert_eq!(api.get(url).await.expect(200)["path"], url);

    api.call("DELETE", &format!("{SERVICES}/v1.zoo.example"), Value::Null).await.expect(200);
    let mut table = api.server.registry().changes_of_table();
    while api.server.registry().table().delegates().next().is_some() {
        table.changed().await.unwrap();
    }
    api.get("/apis/zoo.example/v1").await.expect(404);
}

#[tokio::test]
async fn a_server_must_show_who_it_is() {
    let api = cluster().await;
    let other = TlsServer::new("zoo.n.svc", flunders).await;
    let stranger = TlsServer::new("zoo.n.svc", flunders).await;
    expose(&api, other.port).await;
    api.post(SERVICES, service(&stranger.bundle)).await.expect(201);
    let found =
        wait_for(&api, "v1.zoo.example", |own| own["status"]["conditions"][0]["status"] == "False").await;
    assert_eq!(found["status"]["conditions"][0]["reason"], "FailedDiscoveryCheck");
}
