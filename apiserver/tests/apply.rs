//! Server-side apply and field managers as clients see them.

mod common;

use common::{Answer, Api};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const SETS: &str = "/apis/apps/v1/namespaces/a/replicasets";

async fn apply(api: &Api, url: &str, manager: &str, query: &str, body: &str) -> Answer {
    let url = format!("{url}?fieldManager={manager}{query}");
    api.with_headers("PATCH", &url, &[("content-type", "application/apply-patch+yaml")], body.into()).await
}

/// Managers with their operation and subresource.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value| {
        let part = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", part("manager"), part("operation"), part("subresource")).trim_end().to_owned()
    };
    entries.iter().map(text).collect()
}

async fn api() -> Api {
    let rows = resources::all();
    let api = Api::new(rows).await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "a"}})).await.expect(201);
    api
}

#[tokio::test]
async fn an_apply_creates_changes_and_removes_what_it_owns() {
    let api = api().await;
    let url = format!("{MAPS}/m");
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n";
    let made = apply(&api, &url, "one", "", &format!("{head}data: {{a: '1', b: '1'}}")).await.expect(201);
    assert_eq!(managers(&made), ["one Apply"]);
    let again = apply(&api, &url, "one", "", &format!("{head}data: {{a: '1', b: '1'}}")).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let changed = apply(&api, &url, "one", "", &format!("{head}data: {{a: '2'}}")).await.expect(200);
    assert_eq!(changed["data"], json!({"a": "2"}));

    let conflict = apply(&api, &url, "two", "", &format!("{head}data: {{a: '3'}}")).await;
    assert_eq!((conflict.code, conflict.json["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(conflict.json["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    assert_eq!(conflict.json["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced =
        apply(&api, &url, "two", "&force=true", &format!("{head}data: {{a: '3'}}")).await.expect(200);
    assert_eq!(
        (forced["data"].clone(), managers(&forced)),
        (json!({"a": "3"}), vec!["two Apply".to_owned()])
    );
}

#[tokio::test]
async fn other_writes_take_what_they_change() {
    let api = api().await;
    let body = json!({"metadata": {"name": "m"}, "data": {"a": "1", "b": "1"}});
    let url = format!("{MAPS}/m");
    let made = api.post(&format!("{MAPS}?fieldManager=maker"), body).await.expect(201);
    assert_eq!(managers(&made), ["maker Update"]);
    assert_eq!(
        made["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}})
    );
    let patched =
        api.merge(&format!("{url}?fieldManager=patcher"), json!({"data": {"a": "2"}})).await.expect(200);
    assert_eq!(managers(&patched), ["maker Update", "patcher Update"]);
    assert_eq!(patched["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {".": {}, "f:b": {}}}));
    let same =
        api.merge(&format!("{url}?fieldManager=patcher"), json!({"data": {"a": "2"}})).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn the_status_is_applied_apart() {
    let api = api().await;
    let body = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.post(SETS, body).await.expect(201);
    let status = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: s}\nspec: {replicas: 7}\nstatus: {replicas: 3}";
    let applied = apply(&api, &format!("{SETS}/s/status"), "loop", "", status).await.expect(200);
    assert_eq!((&applied["status"]["replicas"], &applied["spec"]["replicas"]), (&json!(3), &json!(1)));
    assert!(managers(&applied).contains(&"loop Apply status".to_owned()), "{:?}", managers(&applied));
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let api = api().await;
    let url = format!("{MAPS}/m");
    let refused =
        apply(&api, &url, "one", "", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\nfoo: 1").await;
    assert_eq!(refused.code, 500);
    assert!(refused.json["message"].as_str().unwrap().contains(".foo: field not declared in schema"));
    let refused = apply(&api, &url, "one", "", "apiVersion: v1\nkind: Secret\nmetadata: {name: m}").await;
    assert_eq!(refused.code, 400);
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a: '1'\n  a: '2'";
    let refused = apply(&api, &url, "one", "&fieldValidation=Strict", twice).await;
    assert_eq!(
        refused.json["message"],
        "error strict decoding patch: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map"
    );
    let warned = apply(&api, &url, "one", "", twice).await;
    assert_eq!((warned.code, warned.headers.get_all("warning").iter().count()), (201, 1));
}
