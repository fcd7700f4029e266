//! LIST and WATCH as clients see them.

mod common;

use api::resource::{Column, Field};
use api::{Resource, Scope};
use common::{Api, names};
use serde_json::{Value, json};

const THINGS: &str = "/apis/example.com/v1/namespaces/a/things";
const ALL: &str = "/apis/example.com/v1/things";

fn things() -> Vec<Resource> {
    let row = |version: &str| {
        Resource::new("example.com", version, "Thing", "things", Scope::Namespaced)
            .fields(vec![Field::new("spec.node")])
            .columns(vec![Column::new("Node", "/spec/node"), Column::age()])
            .shares("example.com", "things", "v1")
    };
    vec![row("v1"), row("v2"), Resource::new("", "v1", "Other", "others", Scope::Cluster)]
}

fn thing(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": node}}, "spec": {"node": node}})
}

async fn with_things(count: usize) -> Api {
    let api = Api::new(things()).await;
    for index in 0..count {
        api.post(THINGS, thing(&format!("t{index}"), ["x", "y"][index % 2])).await.expect(201);
    }
    api
}

fn revision(value: &Value) -> u64 {
    value["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn pages_are_consistent_while_others_write() {
    let api = with_things(5).await;
    let first = api.get(&format!("{THINGS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["t0", "t1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    api.call("DELETE", &format!("{THINGS}/t2"), Value::Null).await.expect(200);
    api.post(THINGS, thing("t9", "x")).await.expect(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = api.get(&format!("{THINGS}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["t2", "t3"]);
    assert_eq!(revision(&second), revision(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = api.get(&format!("{ALL}?limit=2&continue={token}")).await.expect(200);
    assert_eq!(names(&third), ["t4"]);
    assert_eq!(third["metadata"].get("continue"), None);
    assert_eq!(names(&api.get(THINGS).await.expect(200)), ["t0", "t1", "t3", "t4", "t9"]);
}

#[tokio::test]
async fn a_page_whose_revision_is_forgotten_offers_to_go_on() {
    let api = with_things(3).await;
    let first = api.get(&format!("{THINGS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    api.server.registry().storage().compact(revision(&first) + 1).await;
    let refused = api.get(&format!("{THINGS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(refused["reason"], "Expired");
    let token = refused["metadata"]["continue"].as_str().unwrap();
    api.post(THINGS, thing("t11", "x")).await.expect(201);
    let rest = api.get(&format!("{THINGS}?continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["t1", "t11", "t2"]);
}

#[tokio::test]
async fn selectors_and_revisions_of_lists() {
    let api = with_things(4).await;
    let list = api.get(&format!("{THINGS}?labelSelector=app%3Dx")).await.expect(200);
    assert_eq!(names(&list), ["t0", "t2"]);
    let list = api.get(&format!("{ALL}?fieldSelector=spec.node%3Dy")).await.expect(200);
    assert_eq!(names(&list), ["t1", "t3"]);
    let list = api.get(&format!("{ALL}?fieldSelector=spec.node!%3Dy,metadata.name!%3Dt0")).await.expect(200);
    assert_eq!(names(&list), ["t2"]);
    let list = api.get(&format!("{THINGS}?fieldSelector=metadata.name%3Dt3")).await.expect(200);
    assert_eq!(names(&list), ["t3"]);
    let page = api.get(&format!("{THINGS}?limit=1&labelSelector=app%3Dx")).await.expect(200);
    assert_eq!((names(&page), page["metadata"].get("remainingItemCount")), (vec!["t0"], None));
    api.get(&format!("{THINGS}?fieldSelector=spec.other%3Dy")).await.expect(400);

    let early = revision(&api.get(&format!("{THINGS}/t1")).await.expect(200));
    let list =
        api.get(&format!("{THINGS}?resourceVersion={early}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!((names(&list), revision(&list)), (vec!["t0", "t1"], early));
    let list = api.get(&format!("{THINGS}?resourceVersion={early}")).await.expect(200);
    assert_eq!(names(&list).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes_is_refused_in_time() {
    let api = with_things(1).await;
    let refused = api.get(&format!("{THINGS}?resourceVersion=1000000")).await.expect(504);
    assert!(refused["message"].as_str().unwrap().starts_with("Too large resource version: 1000000"));
    assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_watch_resumes_and_sees_objects_come_and_go() {
    let api = with_things(1).await;
    let from = revision(&api.get(THINGS).await.expect(200));
    let mut watch =
        api.watch(&format!("{THINGS}?watch=1&resourceVersion={from}&labelSelector=app%3Dx")).await;
    api.post(THINGS, thing("u", "y")).await.expect(201);
    let mut changed = api.get(&format!("{THINGS}/u")).await.expect(200);
    changed["metadata"]["labels"]["app"] = "x".into();
    let changed = api.call("PUT", &format!("{THINGS}/u"), changed).await.expect(200);
    assert_eq!(watch.short().await, "ADDED u");
    let mut again = changed.clone();
    again["metadata"]["labels"]["more"] = "1".into();
    let mut again = api.call("PUT", &format!("{THINGS}/u"), again).await.expect(200);
    assert_eq!(watch.short().await, "MODIFIED u");
    again["metadata"]["labels"]["app"] = "y".into();
    let gone = api.call("PUT", &format!("{THINGS}/u"), again).await.expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    // The last version in sight, with the revision at which it went.
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x");
    assert_eq!(revision(&event["object"]), revision(&gone));
    api.call("DELETE", &format!("{THINGS}/t0"), Value::Null).await.expect(200);
    assert_eq!(watch.short().await, "DELETED t0");
}

#[tokio::test]
async fn the_objects_bytes_are_a_frame_of_their_own() {
    let api = with_things(1).await;
    let mut watch = api.watch(&format!("{THINGS}?watch=1")).await;
    watch.next().await.unwrap();
    let object = api.get(&format!("{THINGS}/t0")).await;
    assert_eq!(&watch.pieces[0][..], b"{\"type\":\"ADDED\",\"object\":");
    assert_eq!(watch.pieces[1], object.bytes);
    assert_eq!(&watch.pieces[2][..], b"}\n");
}

#[tokio::test(start_paused = true)]
async fn watch_list_and_bookmarks() {
    let api = with_things(2).await;
    let url = format!(
        "{THINGS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=100"
    );
    let mut watch = api.watch(&url).await;
    assert_eq!(watch.short().await, "ADDED t0");
    assert_eq!(watch.short().await, "ADDED t1");
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(revision(&end["object"]), revision(&api.get(THINGS).await.expect(200)));
    // A write elsewhere moves the bookmark of a quiet watch along.
    let other = api.post("/api/v1/others", json!({"metadata": {"name": "o"}})).await.expect(201);
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(revision(&bookmark["object"]), revision(&other));
    assert_eq!(bookmark["object"]["metadata"].get("annotations"), None);
    // One more before it ends in time.
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK");
    assert_eq!(watch.short().await, "END");
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_says_so() {
    let first = with_things(2).await;
    // The caches of a new server begin with what the store has when it is opened.
    let server = apiserver::Server::builder(first.store.clone()).resources(things()).build().await.unwrap();
    let api = Api { server, store: first.store };
    let mut watch = api.watch(&format!("{THINGS}?watch=1&resourceVersion=0")).await;
    assert_eq!(watch.short().await, "ADDED t0");
    let mut watch = api.watch(&format!("{THINGS}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((event["type"].as_str().unwrap(), event["object"]["code"].as_u64()), ("ERROR", Some(410)));
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert_eq!(watch.short().await, "END");
}

#[tokio::test]
async fn versions_that_share_a_home_show_the_same_objects() {
    let api = with_things(1).await;
    let v2 = "/apis/example.com/v2/namespaces/a/things";
    let mut watch = api.watch(&format!("{v2}?watch=1&fieldSelector=spec.node%3Dx")).await;
    let object = api.get(&format!("{v2}/t0")).await.expect(200);
    assert_eq!(
        (object["apiVersion"].as_str(), &object["spec"]["node"]),
        (Some("example.com/v2"), &json!("x"))
    );
    assert_eq!(watch.next().await.unwrap()["object"]["apiVersion"], "example.com/v2");
    api.post(v2, thing("w", "x")).await.expect(201);
    assert_eq!(api.get(&format!("{THINGS}/w")).await.expect(200)["apiVersion"], "example.com/v1");
    let list = api.get(v2).await.expect(200);
    assert_eq!(list["items"][1]["apiVersion"], "example.com/v2");
    assert_eq!(watch.next().await.unwrap()["object"]["apiVersion"], "example.com/v2");
    api.call("DELETE", &format!("{THINGS}/w"), Value::Null).await.expect(200);
    let gone = watch.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["apiVersion"]), (&json!("DELETED"), &json!("example.com/v2")));
}

#[tokio::test]
async fn tables_and_metadata() {
    let api = with_things(2).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let list = api.with_headers("GET", THINGS, &[("accept", table)], Vec::new()).await.expect(200);
    assert_eq!((&list["kind"], &list["rows"][1]["cells"][1]), (&json!("Table"), &json!("y")));
    assert_eq!(list["columnDefinitions"][0]["name"], "Name");
    assert_eq!(list["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = api
        .with_headers("GET", &format!("{THINGS}/t0?includeObject=Object"), &[("accept", table)], Vec::new())
        .await
        .expect(200);
    assert_eq!(one["rows"][0]["object"]["kind"], "Thing");
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = api.with_headers("GET", THINGS, &[("accept", metadata)], Vec::new()).await.expect(200);
    assert_eq!((&list["kind"], list["items"][0].get("spec")), (&json!("PartialObjectMetadataList"), None));
    let response = api.send("GET", &format!("{THINGS}?watch=1"), &[("accept", table)], Vec::new()).await;
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.iter().filter(|byte| **byte == b'\n').count() < 2 {
        use http_body_util::BodyExt;
        text.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let events: Vec<Value> =
        text.split(|byte| *byte == b'\n').take(2).map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert!(events[0]["object"]["columnDefinitions"].is_array());
    assert!(events[1]["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn encodings() {
    let api = with_things(1).await;
    let one = format!("{THINGS}/t0");
    assert_eq!(api.with_headers("GET", &one, &[("accept", "text/html")], Vec::new()).await.code, 406);
    // A kind without a protobuf form is sent as what else the client accepts.
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    let answer = api.with_headers("GET", &one, &[("accept", accept)], Vec::new()).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let accept = "application/vnd.kubernetes.protobuf";
    assert_eq!(api.with_headers("GET", &one, &[("accept", accept)], Vec::new()).await.code, 406);
    let pretty = api.get(&format!("{one}?pretty=true")).await;
    assert!(pretty.bytes.starts_with(b"{\n  \""));
    let answer = api.with_headers("POST", THINGS, &[("content-type", "text/plain")], b"{}".to_vec()).await;
    assert_eq!((answer.code, &answer.json["reason"]), (415, &json!("UnsupportedMediaType")));
    assert!(answer.headers.contains_key("audit-id"));
    let mut large = thing("large", "x");
    large["data"] = "z".repeat(200 << 10).into();
    api.post(THINGS, large.clone()).await.expect(201);
    let zipped =
        api.with_headers("GET", &format!("{THINGS}/large"), &[("accept-encoding", "gzip")], Vec::new()).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert!(zipped.bytes.len() < 10 << 10);
    large["data"] = "z".repeat(4 << 20).into();
    api.post(THINGS, large).await.expect(413);
}

/// Objects that live for two minutes.
struct Mortal;

impl api::DynStrategy for Mortal {
    fn default(&self, _: &mut Value) -> Result<(), api::Status> {
        Ok(())
    }
    fn create(
        &self,
        _: &mut Value,
        _: &mut api::FieldErrors,
        _: &api::Context<'_>,
    ) -> Result<api::strategy::Outcome, api::Status> {
        Ok(Default::default())
    }
    fn update(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut api::FieldErrors,
        _: &api::Context<'_>,
    ) -> Result<api::strategy::Outcome, api::Status> {
        Ok(Default::default())
    }
    fn update_status(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut api::FieldErrors,
        _: &api::Context<'_>,
    ) -> Result<api::strategy::Outcome, api::Status> {
        Ok(Default::default())
    }
    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, api::Status> {
        Ok(None)
    }
    fn ttl_seconds(&self) -> Option<u32> {
        Some(120)
    }
    fn may_lose(&self, _: &Value, _: Option<&Value>) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_lived_its_time_goes() {
    let row = Resource::new("", "v1", "Fly", "flies", Scope::Cluster).rules(Mortal);
    let api = Api::new(vec![row]).await;
    let mut watch = api.watch("/api/v1/flies?watch=1&timeoutSeconds=600").await;
    api.post("/api/v1/flies", json!({"metadata": {"name": "f"}})).await.expect(201);
    assert_eq!(watch.short().await, "ADDED f");
    let born = tokio::time::Instant::now();
    assert_eq!(watch.short().await, "DELETED f");
    assert!(born.elapsed().as_secs() >= 120);
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn protobuf_clients() {
    let api = Api::new(resources::all()).await;
    let maps = "/api/v1/namespaces/a/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}});
    let body = api::protobuf::encode(&map).unwrap();
    let headers = [("content-type", PROTOBUF), ("accept", PROTOBUF)];
    let answer = api.with_headers("POST", maps, &headers, body).await;
    assert_eq!((answer.code, answer.headers["content-type"].to_str().unwrap()), (201, PROTOBUF));
    assert_eq!(api::protobuf::decode(&answer.bytes).unwrap()["data"]["k"], "v");
    let list = api.with_headers("GET", maps, &headers[1..], Vec::new()).await;
    assert_eq!(api::protobuf::decode(&list.bytes).unwrap()["items"][0]["metadata"]["name"], "c");
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = api.with_headers("GET", maps, &[("accept", &metadata)], Vec::new()).await;
    let list = api::protobuf::decode(&list.bytes).unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("c"))
    );
    let missing = api.with_headers("GET", &format!("{maps}/none"), &headers[1..], Vec::new()).await;
    assert_eq!(
        (missing.code, api::protobuf::decode(&missing.bytes).unwrap()["reason"].clone()),
        (404, json!("NotFound"))
    );

    let watch = format!("{PROTOBUF};stream=watch");
    let response = api.send("GET", &format!("{maps}?watch=1"), &[("accept", &watch)], Vec::new()).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let frame = http_body_util::BodyExt::frame(&mut response.into_body())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap());
    assert_eq!(len as usize, frame.len() - 4);

    for version in ["v1", "apps/v1"] {
        let options =
            json!({"apiVersion": version, "kind": "DeleteOptions", "preconditions": {"uid": "other"}});
        let body = api::protobuf::encode(&options).unwrap();
        let refused = api.with_headers("DELETE", &format!("{maps}/c"), &headers[..1], body).await.expect(409);
        assert!(
            refused["message"].as_str().unwrap().contains("the UID in the precondition (other)"),
            "{version}"
        );
    }
    api.call("DELETE", "/api/v1/configmaps", Value::Null).await.expect(405);
}
