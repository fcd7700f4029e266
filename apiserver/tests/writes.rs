//! Creates, updates and deletes as clients see them, over rows with the least rules.

mod common;

use api::strategy::{Context, DynStrategy, Outcome};
use api::{FieldErrors, Resource, Scope, Status};
use common::{Api, names};
use serde_json::{Value, json};

const THINGS: &str = "/apis/example.com/v1/namespaces/a/things";

/// Objects that take their time to end, and one at a time.
struct Slow;

impl DynStrategy for Slow {
    fn default(&self, object: &mut Value) -> Result<(), Status> {
        if object["spec"].get("size").is_none() {
            object["spec"]["size"] = 1.into();
        }
        Ok(())
    }
    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        if object["spec"]["size"].as_i64().unwrap_or(0) < 0 {
            errors.invalid("spec.size", object["spec"]["size"].clone(), "must be greater than or equal to 0");
        }
        // Takes the lowest number that nobody has.
        let taken: Vec<Option<i64>> = cx
            .lookup
            .list("example.com", "slows", "")
            .iter()
            .map(|other| other.decode::<Value>().unwrap()["spec"]["number"].as_i64())
            .collect();
        object["spec"]["number"] = (1..).find(|number| !taken.contains(&Some(*number))).unwrap_or(0).into();
        Ok(Outcome { warnings: vec!["slow".to_owned()] })
    }
    fn update(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }
    fn update_status(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }
    fn grace_seconds(&self, _: &Value, asked: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(Some(asked.unwrap_or(30)))
    }
    fn exclusive(&self) -> bool {
        true
    }
    fn returns_deleted(&self) -> bool {
        true
    }
}

fn rows() -> Vec<Resource> {
    vec![
        Resource::new("example.com", "v1", "Thing", "things", Scope::Namespaced)
            .status()
            .generation()
            .scale(Some("/spec/selector")),
        Resource::new("example.com", "v1", "Slow", "slows", Scope::Namespaced).generation().rules(Slow),
        Resource::new("", "v1", "Namespace", "namespaces", Scope::Cluster),
    ]
}

fn thing(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 1}, "status": {"made": "up"}})
}

#[tokio::test]
async fn what_a_new_object_gets() {
    let api = Api::new(rows()).await;
    let made = api.post(THINGS, thing("t")).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("example.com/v1"), &json!("Thing")));
    let metadata = &made["metadata"];
    assert_eq!((&metadata["namespace"], &metadata["generation"]), (&json!("a"), &json!(1)));
    assert!(
        metadata["uid"].as_str().unwrap().len() == 36
            && metadata["creationTimestamp"].as_str().unwrap().ends_with('Z')
    );
    assert_eq!(made.get("status"), None);
    assert_eq!(api.get(&format!("{THINGS}/t")).await.expect(200), made);

    let taken = api.post(THINGS, thing("t")).await.expect(409);
    assert_eq!(taken["message"], "things.example.com \"t\" already exists");
    assert_eq!(taken["details"], json!({"name": "t", "group": "example.com", "kind": "things"}));
    let generated = api.post(THINGS, json!({"metadata": {"generateName": "g-"}})).await.expect(201);
    let name = generated["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    let nameless = api.post(THINGS, json!({"metadata": {}})).await.expect(422);
    assert_eq!(
        nameless["message"],
        "Thing.example.com \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let elsewhere = json!({"metadata": {"name": "e", "namespace": "b"}});
    assert_eq!(
        api.post(THINGS, elsewhere).await.expect(400)["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let other = json!({"kind": "Other", "metadata": {"name": "o"}});
    api.post(THINGS, other).await.expect(400);
    let newer = json!({"apiVersion": "example.com/v2", "metadata": {"name": "o"}});
    assert_eq!(
        api.post(THINGS, newer).await.expect(400)["message"],
        "the API version in the data (example.com/v2) does not match the expected API version (example.com/v1)"
    );
    api.post(&format!("{THINGS}?dryRun=All"), thing("dry")).await.expect(201);
    api.get(&format!("{THINGS}/dry")).await.expect(404);
    api.post("/apis/example.com/v1/things", thing("x")).await.expect(405);
    api.post("/apis/example.com/v1/nothings", thing("x")).await.expect(404);
    api.post("/api/v1/namespaces/a/namespaces", thing("x")).await.expect(404);
}

#[tokio::test]
async fn an_update_replaces_the_version_it_read() {
    let api = Api::new(rows()).await;
    let first = api.post(THINGS, thing("t")).await.expect(201);
    let url = format!("{THINGS}/t");
    let mut second = first.clone();
    second["spec"]["replicas"] = 2.into();
    second["status"] = json!({"ignored": true});
    let second = api.call("PUT", &url, second).await.expect(200);
    assert_eq!((&second["metadata"]["generation"], second.get("status")), (&json!(2), None));
    let stale = api.call("PUT", &url, first.clone()).await.expect(409);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on things.example.com \"t\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a version the newest is replaced; without a change nothing is written.
    let mut blind = second.clone();
    blind["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(api.call("PUT", &url, blind.clone()).await.expect(200), second);
    blind["metadata"]["uid"] = "other".into();
    assert!(
        api.call("PUT", &url, blind).await.expect(409)["message"]
            .as_str()
            .unwrap()
            .contains("Precondition failed: UID")
    );
    let mut renamed = second.clone();
    renamed["metadata"]["name"] = "u".into();
    api.call("PUT", &url, renamed).await.expect(400);
    let mut labelled = second.clone();
    labelled["metadata"]["labels"] = json!({"-": "x"});
    api.call("PUT", &url, labelled).await.expect(422);
    api.call("PUT", &format!("{THINGS}/none"), json!({"metadata": {"name": "none"}})).await.expect(404);
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let api = Api::new(rows()).await;
    let mut object = api.post(THINGS, thing("t")).await.expect(201);
    object["status"] = json!({"replicas": 1});
    object["spec"]["replicas"] = 7.into();
    object["metadata"]["annotations"] = json!({"x": "y"});
    let after = api.call("PUT", &format!("{THINGS}/t/status"), object).await.expect(200);
    assert_eq!((&after["status"]["replicas"], &after["spec"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&after["metadata"]["generation"], &after["metadata"]["annotations"]["x"]),
        (&json!(1), &json!("y"))
    );

    let mut scale = api.get(&format!("{THINGS}/t/scale")).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    scale["spec"]["replicas"] = 3.into();
    let scale = api.call("PUT", &format!("{THINGS}/t/scale"), scale).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(3), &json!(1)));
    let object = api.get(&format!("{THINGS}/t")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(3), &json!(2)));
    assert_eq!(object["metadata"]["resourceVersion"], scale["metadata"]["resourceVersion"]);
    let negative = json!({"metadata": {"name": "t"}, "spec": {"replicas": -1}});
    api.call("PUT", &format!("{THINGS}/t/scale"), negative).await.expect(422);
    api.get(&format!("{THINGS}/t/other")).await.expect(404);
    api.call("DELETE", &format!("{THINGS}/t/scale"), Value::Null).await.expect(405);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let api = Api::new(rows()).await;
    let url = format!("{THINGS}/t");
    let mut object = thing("t");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let made = api.post(THINGS, object).await.expect(201);
    let wrong = json!({"preconditions": {"uid": "other"}});
    assert!(
        api.call("DELETE", &url, wrong).await.expect(409)["message"]
            .as_str()
            .unwrap()
            .contains("the UID in the precondition (other)")
    );
    let marked = api.call("DELETE", &url, Value::Null).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(
        (&marked["metadata"]["deletionGracePeriodSeconds"], &marked["metadata"]["generation"]),
        (&json!(0), &json!(2))
    );
    assert!(
        api.post(THINGS, thing("t")).await.expect(409)["message"]
            .as_str()
            .unwrap()
            .starts_with("object is being deleted: ")
    );
    let mut more = marked.clone();
    more["metadata"]["finalizers"] = json!(["example.com/hold", "example.com/more"]);
    api.call("PUT", &url, more).await.expect(422);
    let mut free = marked;
    free["metadata"].as_object_mut().unwrap().remove("finalizers");
    api.call("PUT", &url, free).await.expect(200);
    api.get(&url).await.expect(404);

    api.post(THINGS, thing("u")).await.expect(201);
    let held = api
        .call("DELETE", &format!("{THINGS}/u?propagationPolicy=Foreground"), Value::Null)
        .await
        .expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let done = api.post(THINGS, thing("v")).await.expect(201);
    let gone = api.call("DELETE", &format!("{THINGS}/v"), Value::Null).await.expect(200);
    assert_eq!((&gone["status"], &gone["details"]["uid"]), (&json!("Success"), &done["metadata"]["uid"]));
    assert_ne!(made["metadata"]["uid"], done["metadata"]["uid"]);
}

#[tokio::test]
async fn objects_that_need_time_to_end() {
    let api = Api::new(rows()).await;
    let slows = "/apis/example.com/v1/namespaces/a/slows";
    let answer = api.post(slows, json!({"metadata": {"name": "s"}})).await;
    assert_eq!(answer.headers["warning"], "299 - \"slow\"");
    assert_eq!(answer.expect(201)["spec"], json!({"size": 1, "number": 1}));
    assert_eq!(
        api.post(slows, json!({"metadata": {"name": "n"}, "spec": {"size": -1}})).await.expect(422)["details"]
            ["causes"][0]["field"],
        "spec.size"
    );
    let url = format!("{slows}/s");
    let marked = api.call("DELETE", &url, Value::Null).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = api.call("DELETE", &url, Value::Null).await.expect(200);
    assert_eq!(again, marked);
    let mut watch = api.watch(&format!("{slows}?watch=1")).await;
    assert_eq!(watch.short().await, "ADDED s");
    let gone =
        api.call("DELETE", &url, json!({"kind": "DeleteOptions", "gracePeriodSeconds": 0})).await.expect(200);
    assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!((watch.short().await, watch.short().await), ("MODIFIED s".to_owned(), "DELETED s".to_owned()));
    api.get(&url).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_never_given_twice() {
    let api = Api::new(rows()).await;
    let slows = "/apis/example.com/v1/namespaces/a/slows";
    let creates = (0..20).map(|index| api.post(slows, json!({"metadata": {"name": format!("s{index}")}})));
    let mut numbers: Vec<i64> = futures::future::join_all(creates)
        .await
        .into_iter()
        .map(|answer| answer.expect(201)["spec"]["number"].as_i64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let api = Api::new(rows()).await;
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = thing(name);
        object["metadata"]["labels"] = json!({"l": label});
        api.post(THINGS, object).await.expect(201);
    }
    let gone = api.call("DELETE", &format!("{THINGS}?labelSelector=l%3Dx"), Value::Null).await.expect(200);
    assert_eq!((&gone["kind"], names(&gone)), (&json!("ThingList"), vec!["a", "c"]));
    assert_eq!(names(&api.get(THINGS).await.expect(200)), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_of_one_version_one_wins() {
    let api = Api::new(rows()).await;
    let made = api.post(THINGS, thing("t")).await.expect(201);
    let url = format!("{THINGS}/t");
    let writes = (0..10).map(|index| {
        let mut object = made.clone();
        object["spec"]["replicas"] = (index + 10).into();
        api.call("PUT", &url, object)
    });
    let codes: Vec<u16> = futures::future::join_all(writes).await.iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 200).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 409)), "{codes:?}");
}

#[tokio::test]
async fn who_is_not_allowed_is_told_what() {
    use tower::ServiceExt;
    let api = Api::new(rows()).await;
    let request = http::Request::builder().uri(THINGS).body(apiserver::codec::body::full("")).unwrap();
    let response = api.server.service().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 403);
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        status["message"],
        "things.example.com is forbidden: User \"system:anonymous\" cannot list resource \"things\" in API group \"example.com\" in the namespace \"a\""
    );
}

#[tokio::test]
async fn patches() {
    let api = Api::new(rows()).await;
    api.post(THINGS, thing("t")).await.expect(201);
    let url = format!("{THINGS}/t");
    let merged = api
        .merge(&url, json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 2, "x": null}}))
        .await
        .expect(200);
    assert_eq!((&merged["spec"]["replicas"], &merged["metadata"]["labels"]["a"]), (&json!(2), &json!("b")));
    assert_eq!(api.merge(&url, json!({"spec": {"replicas": 2}})).await.expect(200), merged);
    let operations = json!([{"op": "test", "path": "/spec/replicas", "value": 2}, {"op": "add", "path": "/metadata/labels/c", "value": "d"}]);
    let bytes = serde_json::to_vec(&operations).unwrap();
    let json_patch = [("content-type", "application/json-patch+json")];
    let patched = api.with_headers("PATCH", &url, &json_patch, bytes).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"a": "b", "c": "d"}));
    let bytes = serde_json::to_vec(&json!([{"op": "remove", "path": "/spec/none"}])).unwrap();
    api.with_headers("PATCH", &url, &json_patch, bytes).await.expect(422);
    api.with_headers("PATCH", &url, &[("content-type", "application/json")], b"{}".to_vec())
        .await
        .expect(415);
    // A patch that names a version loses against a newer one.
    api.merge(&url, json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}})).await.expect(409);
    let scale = api.merge(&format!("{url}/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 5);
    let status = api
        .merge(&format!("{url}/status"), json!({"status": {"ready": 1}, "spec": {"replicas": 8}}))
        .await
        .expect(200);
    assert_eq!((&status["status"]["ready"], &status["spec"]["replicas"]), (&json!(1), &json!(5)));
    api.merge(&format!("{THINGS}/none"), json!({})).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_the_same_object_are_all_kept() {
    let api = Api::new(rows()).await;
    api.post(THINGS, thing("t")).await.expect(201);
    let url = format!("{THINGS}/t");
    let patches = (0..10).map(|index| api.merge(&url, json!({"spec": {format!("x{index}"): index}})));
    for answer in futures::future::join_all(patches).await {
        answer.expect(200);
    }
    assert_eq!(api.get(&url).await.expect(200)["spec"].as_object().unwrap().len(), 11);
}

const APPLY: [(&str, &str); 1] = [("content-type", "application/apply-patch+yaml")];

#[tokio::test]
async fn apply_creates_owns_and_refuses() {
    let api = Api::new(resources::all()).await;
    let url = "/api/v1/namespaces/a/configmaps/c";
    let text = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  key: {value}\n").into_bytes()
    };
    api.with_headers("PATCH", url, &APPLY, text("a")).await.expect(422);
    let one = format!("{url}?fieldManager=one");
    let made = api.with_headers("PATCH", &one, &APPLY, text("a")).await.expect(201);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = api.with_headers("PATCH", &one, &APPLY, text("a")).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let two = format!("{url}?fieldManager=two");
    let refused = api.with_headers("PATCH", &two, &APPLY, text("b")).await.expect(409);
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let taken = api.with_headers("PATCH", &format!("{two}&force=true"), &APPLY, text("b")).await.expect(200);
    assert_eq!(taken["data"]["key"], "b");
    // Who no longer applies a field that nobody else owns removes it.
    let empty = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n".to_vec();
    let bare = api.with_headers("PATCH", &two, &APPLY, empty).await.expect(200);
    assert_eq!(bare.get("data").and_then(|data| data.get("key")), None);
    let unknown = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\nnonsense: 1\n".to_vec();
    assert!(api.with_headers("PATCH", &two, &APPLY, unknown).await.code >= 400);
}

#[tokio::test]
async fn every_write_is_tracked() {
    let api = Api::new(resources::all()).await;
    let maps = "/api/v1/namespaces/a/configmaps";
    let agent = [("content-type", "application/json"), ("user-agent", "tester/1.0 (x)")];
    let body = serde_json::to_vec(&json!({"metadata": {"name": "c"}, "data": {"k": "v"}})).unwrap();
    let made = api.with_headers("POST", maps, &agent, body).await.expect(201);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"], &entry["apiVersion"]),
        (&json!("tester"), &json!("Update"), &json!("v1"))
    );
    assert_eq!(entry["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    let url = format!("{maps}/c?fieldManager=other");
    let changed = api.merge(&url, json!({"data": {"k": "w"}})).await.expect(200);
    let managers: Vec<_> = changed["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["manager"].clone())
        .collect();
    assert_eq!(managers, [json!("other"), json!("tester")]);
    // A write that changes nothing keeps the times too.
    assert_eq!(api.merge(&url, json!({"data": {"k": "w"}})).await.expect(200), changed);
    let strict = json!({"metadata": {"name": "s"}, "data": {}, "datas": {}});
    assert_eq!(
        api.post(&format!("{maps}?fieldValidation=Strict"), strict.clone()).await.expect(400)["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"datas\""
    );
    let warned = api.post(maps, strict).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"datas\\\"\"");
}
