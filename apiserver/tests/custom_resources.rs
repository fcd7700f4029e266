//! Custom resources from their definition to their end.

mod common;

use apiserver::discovery::Discovery;
use common::{Api, names};
use serde_json::{Value, json};
use std::sync::Arc;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CATS: &str = "/apis/zoo.example/v1/namespaces/default/cats";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cats.zoo.example"},
        "spec": {
            "group": "zoo.example", "scope": "Namespaced",
            "names": {"plural": "cats", "kind": "Cat", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.lives", "statusReplicasPath": ".status.lives"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "required": ["color"], "properties": {
                        "color": {"type": "string", "enum": ["black", "white"]},
                        "lives": {"type": "integer", "default": 9, "maximum": 9},
                        "toys": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}},
                    }},
                    "status": {"type": "object", "properties": {
                        "lives": {"type": "integer"},
                        "conditions": {"type": "array", "items": {"type": "object", "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}},
                    }},
                }}},
            }],
        },
    })
}

async fn zoo() -> Api {
    let rows = resources::all();
    let api =
        Api::built(|builder| builder.resources(rows).path("/apis", Arc::new(Discovery::default()))).await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.expect(201);
    api
}

/// Waits until a definition says so; the watch ends by itself if it never does.
async fn wait_for(api: &Api, name: &str, done: impl Fn(&Value) -> bool) -> Value {
    let url = format!("{CRDS}?watch=true&timeoutSeconds=20&fieldSelector=metadata.name={name}");
    let mut events = api.watch(&url).await;
    while let Some(event) = events.next().await {
        if done(&event) {
            return event["object"].clone();
        }
    }
    panic!("{name} never got there")
}

fn is(event: &Value, kind: &str, status: &str) -> bool {
    let conditions = event["object"]["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|own| own["type"] == kind && own["status"] == status)
}

async fn established(api: &Api, definition: Value) {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    api.post(CRDS, definition).await.expect(201);
    wait_for(api, &name, |event| is(event, "Established", "True")).await;
}

fn cat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "zoo.example/v1", "kind": "Cat", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn objects_follow_their_schema() {
    let api = zoo().await;
    established(&api, definition()).await;
    let made = api.post(CATS, cat("tom", json!({"color": "black", "x": 1}))).await;
    assert_eq!(made.headers["warning"], "299 - \"unknown field \\\"spec.x\\\"\"");
    let made = made.expect(201);
    assert_eq!(made["spec"], json!({"color": "black", "lives": 9}));
    assert_eq!(made["metadata"]["generation"], 1);

    let strict = api
        .post(&format!("{CATS}?fieldValidation=Strict"), cat("tim", json!({"color": "black", "x": 1})))
        .await;
    let message =
        "Cat in version \"v1\" cannot be handled as a Cat: strict decoding error: unknown field \"spec.x\"";
    assert_eq!(strict.expect(400)["message"], message);

    let refused = api.post(CATS, cat("tim", json!({"color": "red", "lives": 10}))).await.expect(422);
    let message = "Cat.zoo.example \"tim\" is invalid: [spec.color: Unsupported value: \"red\": supported values: \"black\", \"white\", spec.lives: Invalid value: 10: spec.lives in body should be less than or equal to 9]";
    assert_eq!(refused["message"], message);
    let refused = api
        .post(CATS, json!({"apiVersion": "zoo.example/v1", "kind": "Cat", "metadata": {"name": "tim"}}))
        .await
        .expect(422);
    assert_eq!(refused["message"], "Cat.zoo.example \"tim\" is invalid: spec: Required value");
    let toys = json!([{"name": "a"}, {"name": "a"}]);
    let refused = api.post(CATS, cat("tim", json!({"color": "black", "toys": toys}))).await.expect(422);
    assert_eq!(
        refused["message"],
        "Cat.zoo.example \"tim\" is invalid: spec.toys[1]: Duplicate value: {\"name\":\"a\"}"
    );
}

#[tokio::test]
async fn parts_are_written_apart() {
    let api = zoo().await;
    established(&api, definition()).await;
    let tom = format!("{CATS}/tom");
    api.post(CATS, cat("tom", json!({"color": "black"}))).await.expect(201);
    let changed = api.merge(&format!("{tom}/status"), json!({"spec": {"color": "white"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})).await.expect(200);
    assert_eq!(
        (changed["spec"]["color"].as_str(), changed["metadata"]["generation"].as_i64()),
        (Some("black"), Some(1))
    );
    let changed = api.merge(&tom, json!({"spec": {"color": "white"}, "status": null})).await.expect(200);
    assert_eq!(changed["status"]["conditions"][0]["status"], "True");
    assert_eq!(changed["metadata"]["generation"], 2);
    let refused = api.merge(&format!("{tom}/status"), json!({"status": {"lives": "x"}})).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("status.lives: Invalid value: \"string\": lives in body must be of type integer"),
        "{refused}"
    );

    let scale = api.get(&format!("{tom}/scale")).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 9);
    api.merge(&format!("{tom}/scale"), json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(api.get(&tom).await.expect(200)["spec"]["lives"], 3);

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.with_headers("GET", CATS, &table, Vec::new()).await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["tom", "white", "True"]));
    assert_eq!(names(&api.get(&format!("{CATS}?fieldSelector=spec.color=white")).await.expect(200)), ["tom"]);
    assert!(names(&api.get(&format!("{CATS}?fieldSelector=spec.color=black")).await.expect(200)).is_empty());
}

#[tokio::test]
async fn lists_are_applied_by_their_keys() {
    let api = zoo().await;
    established(&api, definition()).await;
    let apply = async |manager: &str, toys: Value| {
        let body = cat("tom", json!({"color": "black", "toys": toys})).to_string().into_bytes();
        let url = format!("{CATS}/tom?fieldManager={manager}&force=true");
        api.with_headers("PATCH", &url, &[("content-type", "application/apply-patch+yaml")], body).await
    };
    apply("one", json!([{"name": "a"}])).await.expect(201);
    let both = apply("two", json!([{"name": "b", "size": 2}])).await.expect(200);
    assert_eq!(both["spec"]["toys"], json!([{"name": "a"}, {"name": "b", "size": 2}]));
    let one = apply("two", json!([])).await.expect(200);
    assert_eq!(one["spec"]["toys"], json!([{"name": "a"}]));
}

#[tokio::test]
async fn discovery_knows_them_as_long_as_they_are_defined() {
    let api = zoo().await;
    established(&api, definition()).await;
    let list = api.get("/apis/zoo.example/v1").await.expect(200);
    let found: Vec<_> =
        list["resources"].as_array().unwrap().iter().map(|own| own["name"].as_str().unwrap()).collect();
    assert_eq!(found, ["cats", "cats/scale", "cats/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["ct"]));

    let mut body = cat("tom", json!({"color": "black"}));
    body["metadata"]["finalizers"] = json!(["zoo.example/x"]);
    api.post(CATS, body).await.expect(201);
    let deleted = api.call("DELETE", &format!("{CRDS}/cats.zoo.example"), Value::Null).await.expect(200);
    assert_eq!(deleted["status"]["conditions"].as_array().unwrap().last().unwrap()["type"], "Terminating");
    wait_for(&api, "cats.zoo.example", |event| {
        event["object"].to_string().contains("InstanceDeletionInProgress")
    })
    .await;
    let refused = api.post(CATS, cat("tim", json!({"color": "black"}))).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .ends_with("create not allowed while custom resource definition is terminating")
    );
    api.merge(&format!("{CATS}/tom"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    // The rows go right after the definition.
    let mut table = api.server.registry().changes_of_table();
    while api.server.registry().table().find("zoo.example", "v1", "cats").is_some() {
        table.changed().await.unwrap();
    }
    api.get("/apis/zoo.example/v1").await.expect(404);
    api.get(&format!("{CRDS}/cats.zoo.example")).await.expect(404);
}

#[tokio::test]
async fn names_are_held_by_one_definition() {
    let api = zoo().await;
    established(&api, definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = "cows.zoo.example".into();
    other["spec"]["names"] = json!({"plural": "cows", "kind": "Cow", "shortNames": ["ct"]});
    api.post(CRDS, other).await.expect(201);
    let refused = wait_for(&api, "cows.zoo.example", |event| is(event, "NamesAccepted", "False")).await;
    assert_eq!(refused["status"]["conditions"][0]["message"], "\"ct\" is already in use");
    api.get("/apis/zoo.example/v1/cows").await.expect(404);
    api.call("DELETE", &format!("{CRDS}/cats.zoo.example"), Value::Null).await.expect(200);
    wait_for(&api, "cows.zoo.example", |event| is(event, "Established", "True")).await;
    api.get("/apis/zoo.example/v1/cows").await.expect(200);
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let api = zoo().await;
    let mut own = definition();
    let mut second = own["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["deprecated"] = true.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["age"] =
        json!({"type": "integer", "default": 1});
    own["spec"]["versions"].as_array_mut().unwrap().push(second);
    established(&api, own).await;
    api.post(CATS, cat("tom", json!({"color": "black"}))).await.expect(201);
    let shown = api.get("/apis/zoo.example/v2/namespaces/default/cats/tom").await;
    assert_eq!(shown.headers["warning"], "299 - \"zoo.example/v2 Cat is deprecated\"");
    let shown = shown.expect(200);
    assert_eq!(
        (shown["apiVersion"].as_str(), shown["spec"]["age"].as_i64()),
        (Some("zoo.example/v2"), Some(1))
    );
    // A default added later is seen in objects that are there.
    let add = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/name", "value": {"type": "string", "default": "T"}}]);
    let headers = [("content-type", "application/json-patch+json")];
    let mut table = api.server.registry().changes_of_table();
    table.mark_unchanged();
    api.with_headers("PATCH", &format!("{CRDS}/cats.zoo.example"), &headers, add.to_string().into_bytes())
        .await
        .expect(200);
    while api.get(&format!("{CATS}/tom")).await.expect(200)["spec"]["name"] != "T" {
        table.changed().await.unwrap();
    }
}
