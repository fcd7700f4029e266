//! Every row of the table through every verb, under its own rules.

mod common;

use api::Resource;
use api::resource::Home;
use common::Api;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How often a write is tried again that met another one: the server writes a definition's status a few times, then rests.
const CONFLICTS_MAX: usize = 10;

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
    // The server has its own say in some first, which would come between the requests below.
    let own_say = match resource.plural.as_str() {
        "customresourcedefinitions" => Some("Established"),
        "apiservices" => Some("Available"),
        _ => None,
    };
    if let Some(condition) = own_say {
        // The watch ends by itself if it never has.
        let url = format!("{all}?watch=1&timeoutSeconds=20&fieldSelector=metadata.name%3D{name}");
        let mut events = api.watch(&url).await;
        loop {
            let event = events.next().await.ok_or(format!("it was never {condition}"))?;
            let conditions = event["object"]["status"]["conditions"].as_array();
            if conditions.into_iter().flatten().any(|own| own["type"] == condition) {
                break;
            }
        }
    }
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
    // Kinds that come with a definition are custom resources to clients: JSON only, and nothing to merge by.
    let is_custom = resource.strategy.published_schema().is_some();
    let code = if is_custom { 415 } else { 200 };
    let strategic = check("strategic patch", api.with_headers("PATCH", &one, &strategic, bytes).await, code)?;
    let patched = if is_custom {
        check("merge patch", api.merge(&one, json!({"metadata": {"labels": {"row": "y"}}})).await, 200)?
    } else {
        strategic
    };
    let mut stale = made.clone();
    stale["metadata"]["labels"] = json!({"row": "z"});
    check("stale update", api.call("PUT", &one, stale).await, 409)?;
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let shown = check("table", api.with_headers("GET", &all, &table, Vec::new()).await, 200)?;
    let (cells, columns) = (&shown["rows"][0]["cells"], &shown["columnDefinitions"]);
    let own_name = resource.columns.iter().any(|column| column.name == "Name");
    let expect = resource.columns.len() + usize::from(!own_name);
    if [cells, columns].iter().any(|own| own.as_array().map(Vec::len) != Some(expect)) {
        return Err(format!("table: {shown}"));
    }
    let binary = [("accept", "application/vnd.kubernetes.protobuf")];
    let answer = api.with_headers("GET", &one, &binary, Vec::new()).await;
    if is_custom {
        check("protobuf", answer, 406)?;
    } else {
        let decoded = api::protobuf::decode(&answer.bytes).map_err(|error| format!("protobuf: {error}"))?;
        if decoded["metadata"]["uid"] != patched["metadata"]["uid"] {
            return Err(format!("protobuf: {decoded}"));
        }
    }
    if resource.has_status {
        let status = check("get status", api.get(&format!("{one}/status")).await, 200)?;
        check("update status", api.call("PUT", &format!("{one}/status"), status).await, 200)?;
    }
    check("delete", api.call("DELETE", &format!("{one}?gracePeriodSeconds=0"), Value::Null).await, 200)?;
    let mut last = api.get(&one).await;
    for _ in 0..CONFLICTS_MAX {
        if last.code != 200 {
            break;
        }
        // Something holds it: let go, unless the server does so at the same moment.
        let freed = if resource.plural == "namespaces" {
            let mut free = last.json.clone();
            free["spec"].as_object_mut().map(|spec| spec.remove("finalizers"));
            api.call("PUT", &format!("{one}/finalize"), free).await
        } else {
            api.merge(&one, json!({"metadata": {"finalizers": null}})).await
        };
        last = api.get(&one).await;
        match freed.code {
            404 => break,
            // The server wrote the definition's status in between: a client reads and tries again.
            409 => continue,
            _ => check("letting go", freed, 200)?,
        };
        break;
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
    let rows = || resources::table().into_iter();
    let api = Api::new(rows().collect()).await;
    let samples = samples();
    let mut wrong = Vec::new();
    for resource in rows() {
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
