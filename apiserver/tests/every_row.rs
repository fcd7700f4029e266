//! Every row of the table through every verb, under its own rules.

mod common;

use api::Resource;
use api::resource::Home;
use common::Api;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One valid object of each kind.
fn samples() -> BTreeMap<String, Value> {
    serde_json::from_str(include_str!("samples.json")).unwrap()
}

fn url(resource: &Resource) -> String {
    let root =
        if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let namespace = if resource.is_namespaced() { "/namespaces/rows" } else { "" };
    format!("{root}/{}{namespace}/{}", resource.version, resource.plural)
}

/// Where two values differ.
fn difference(path: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let get = |map: &serde_json::Map<String, Value>, key: &str| {
                map.get(key).cloned().unwrap_or(Value::Null)
            };
            keys.into_iter()
                .map(|key| difference(&format!("{path}/{key}"), &get(a, key), &get(b, key)))
                .collect()
        }
        _ if a == b => String::new(),
        _ => format!("{path}: {a} / {b}; "),
    }
}

/// What went wrong with a row, if something did.
async fn run(api: &Api, resource: &Resource, sample: Option<&Value>) -> Result<(), String> {
    let mut object = sample.cloned().unwrap_or_else(|| json!({}));
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "sample".into();
    }
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let (all, one) = (url(resource), format!("{}/{name}", url(resource)));
    let check = |what: &str, answer: common::Answer, code: u16| {
        if answer.code == code {
            Ok(answer.json)
        } else {
            Err(format!("{what}: {} {}", answer.code, answer.json))
        }
    };
    let mut watch = api.watch(&format!("{all}?watch=1&fieldSelector=metadata.name%3D{name}")).await;
    check("dry run", api.post(&format!("{all}?dryRun=All"), object.clone()).await, 201)?;
    check("strict create", api.post(&format!("{all}?fieldValidation=Strict"), object).await, 201)?;
    let made = check("get", api.get(&one).await, 200)?;
    if (&made["kind"], &made["apiVersion"]) != (&json!(resource.kind), &json!(resource.api_version())) {
        return Err(format!("get: {made}"));
    }
    check("create again", api.post(&all, json!({"metadata": {"name": name}})).await, 409).or_else(|why| {
        // Rules may refuse the empty object first.
        if why.starts_with("create again: 422") || why.starts_with("create again: 400") {
            Ok(Value::Null)
        } else {
            Err(why)
        }
    })?;
    let listed = check("list", api.get(&format!("{all}?fieldSelector=metadata.name%3D{name}")).await, 200)?;
    if listed["items"] != json!([made]) || listed["kind"] != resource.list_kind.as_str() {
        return Err(format!("list: {listed}"));
    }
    let same = check("update without a change", api.call("PUT", &one, made.clone()).await, 200)?;
    if same != made {
        return Err(format!("an update without a change changed {}", difference("", &made, &same)));
    }
    let label = json!({"metadata": {"labels": {"row": "x"}}});
    let patched = check("merge patch", api.merge(&one, label.clone()).await, 200)?;
    if patched["metadata"]["labels"]["row"] != "x"
        || patched["metadata"]["generation"] != made["metadata"]["generation"]
    {
        return Err(format!("merge patch: {patched}"));
    }
    let bytes = serde_json::to_vec(&json!({"metadata": {"labels": {"row": "y"}}})).unwrap();
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let patched = check("strategic patch", api.with_headers("PATCH", &one, &strategic, bytes).await, 200)?;
    let mut stale = made.clone();
    stale["metadata"]["labels"] = json!({"row": "z"});
    check("stale update", api.call("PUT", &one, stale).await, 409)?;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = check("table", api.with_headers("GET", &all, &table, Vec::new()).await, 200)?;
    if shown["rows"][0]["cells"].as_array().map(Vec::len) != Some(resource.columns.len() + 1) {
        return Err(format!("table: {shown}"));
    }
    let binary = [("accept", "application/vnd.kubernetes.protobuf")];
    let bytes = api.with_headers("GET", &one, &binary, Vec::new()).await.bytes;
    let decoded = api::protobuf::decode(&bytes).map_err(|error| format!("protobuf: {error}"))?;
    if decoded["metadata"]["uid"] != patched["metadata"]["uid"] {
        return Err(format!("protobuf: {decoded}"));
    }
    if resource.has_status {
        let status = check("get status", api.get(&format!("{one}/status")).await, 200)?;
        check("update status", api.call("PUT", &format!("{one}/status"), status).await, 200)?;
    }
    check("delete", api.call("DELETE", &format!("{one}?gracePeriodSeconds=0"), Value::Null).await, 200)?;
    let mut last = api.get(&one).await;
    if last.code == 200 {
        // Something holds it: let go.
        let mut free = last.json.clone();
        free["metadata"].as_object_mut().unwrap().remove("finalizers");
        free["spec"].as_object_mut().map(|spec| spec.remove("finalizers"));
        let path = if resource.plural == "namespaces" { format!("{one}/finalize") } else { one.clone() };
        check("letting go", api.call("PUT", &path, free).await, 200)?;
        last = api.get(&one).await;
    }
    check("get after delete", last, 404)?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|kind| kind != "DELETED") {
        let event = watch.next().await.ok_or("the watch ended")?;
        seen.push(event["type"].as_str().unwrap_or("").to_owned());
    }
    if seen.len() < 4 || seen[0] != "ADDED" || seen[1] != "MODIFIED" {
        return Err(format!("watch: {seen:?}"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stored_row_serves_every_verb() {
    let api = Api::new(resources::all()).await;
    let samples = samples();
    let mut wrong = Vec::new();
    for resource in resources::all() {
        if resource.home == Home::Computed || !resource.verbs.contains(&"create") {
            continue;
        }
        let name = format!("{} {}", resource.api_version(), resource.plural);
        let sample = samples.get(&name);
        if let Err(why) = run(&api, &resource, sample).await {
            wrong.push(format!("{name}: {}", why.chars().take(900).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}
