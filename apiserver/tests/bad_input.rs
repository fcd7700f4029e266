//! What a client sends that it should not: a clear refusal each, and nothing is lost.
//!
//! | input | where it is shown |
//! |---|---|
//! | malformed JSON, YAML and protobuf, invalid UTF-8 | `what_cannot_be_read_is_refused` |
//! | malformed headers | `headers_that_cannot_be_met_are_refused` |
//! | oversized bodies | `a_body_has_a_bound` |
//! | unknown fields | `unknown_fields_are_told` |
//! | wrong types, huge names | `what_is_read_but_wrong_is_refused` |
//! | deep nesting | `nesting_has_a_bound`, and `nesting_is_bounded` of `api` for each coding |
//! | a damaged store file, a torn write, a full disk | `store/tests/embedded.rs` |
//! | a body that does not go on | `a_body_that_does_not_go_on_is_given_up` of `codec/body.rs` |
//! | slow watchers | `a_slow_watcher_is_ended_and_holds_up_nobody` of `watch_cache.rs` |
//! | a truncated image, a hostile tarball | `runtime/src/image/unpack_tests.rs`, `tarball.rs` |

mod common;

use common::Api;
use serde_json::{Value, json};

const URL: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A server with an object that every refusal must leave as it is.
async fn server() -> Api {
    let api = Api::new(resources::all()).await;
    let kept = json!({"metadata": {"name": "kept"}, "data": {"a": "b"}});
    api.post(URL, kept).await.expect(201);
    api
}

/// Sends a body that must be refused with this code, reason and words.
async fn refused(api: &Api, media: &str, body: &[u8], expect: (u16, &str, &str)) {
    let answer = api.with_headers("POST", URL, &[("content-type", media)], body.to_vec()).await;
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let (code, reason, words) = expect;
    assert_eq!(answer.code, code, "{media} {shown}: {}", answer.json);
    assert_eq!((&answer.json["kind"], &answer.json["reason"]), (&json!("Status"), &json!(reason)), "{shown}");
    let message = answer.json["message"].as_str().unwrap_or_default();
    assert!(message.contains(words), "{media} {shown}: {message}");
    let list = api.get(URL).await.expect(200);
    assert_eq!(common::names(&list), ["kept"], "{shown}");
    assert_eq!(list["items"][0]["data"], json!({"a": "b"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused() {
    let api = server().await;
    let bad = |words| (400, "BadRequest", words);
    refused(&api, JSON, b"", bad("unexpected end of JSON input")).await;
    refused(&api, JSON, b"{", bad("unexpected end of JSON input")).await;
    refused(&api, JSON, b"{]", bad("invalid character ']'")).await;
    refused(&api, JSON, b"[]", bad("cannot unmarshal array")).await;
    refused(&api, JSON, br#"{"metadata":{"name":"x"}} y"#, bad("invalid character 'y'")).await;
    refused(&api, YAML, b"a: [", bad("unrecognized")).await;
    refused(&api, YAML, b"- a\n", bad("cannot unmarshal array")).await;
    refused(&api, YAML, b"a: \xff", bad("unrecognized")).await;
    refused(&api, PROTOBUF, b"", bad("")).await;
    refused(&api, PROTOBUF, b"nothing", bad("protobuf")).await;
    refused(&api, PROTOBUF, b"k8s\0\xff\xff\xff\xff", bad("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_cannot_be_met_are_refused() {
    let api = server().await;
    refused(&api, "text/plain", b"{}", (415, "UnsupportedMediaType", "media types include")).await;
    let answer = api.with_headers("GET", URL, &[("accept", "image/png")], Vec::new()).await;
    assert_eq!((answer.code, &answer.json["reason"]), (406, &json!("NotAcceptable")), "{}", answer.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_bound() {
    let api = server().await;
    let body = json!({"metadata": {"name": "x"}, "data": {"a": "x".repeat(4 << 20)}}).to_string();
    let expect = (413, "RequestEntityTooLarge", "limit is 3145728");
    refused(&api, JSON, body.as_bytes(), expect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_are_told() {
    let api = server().await;
    let body = json!({"metadata": {"name": "x"}, "datum": {}});
    let strict = api.post(&format!("{URL}?fieldValidation=Strict"), body.clone()).await.expect(400);
    let message = strict["message"].as_str().unwrap();
    assert!(message.contains(r#"unknown field "datum""#), "{message}");
    let warned = api.post(URL, body).await;
    let warning =
        warned.headers.get("warning").and_then(|text| text.to_str().ok()).unwrap_or_default().to_owned();
    assert!(warning.contains("unknown field"), "{warning}");
    assert_eq!(warned.expect(201).get("datum"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_but_wrong_is_refused() {
    let api = server().await;
    let wrong_type = json!({"metadata": {"name": "x"}, "data": {"a": 5}}).to_string();
    refused(&api, JSON, wrong_type.as_bytes(), (400, "BadRequest", "cannot unmarshal number")).await;
    for name in ["x".repeat(254), "x".repeat(100_000), "a/b".to_owned(), "\u{e9}".to_owned()] {
        let body = json!({"metadata": {"name": name}}).to_string();
        refused(&api, JSON, body.as_bytes(), (422, "Invalid", "metadata.name")).await;
    }
    // Nothing at all is an object without a name.
    refused(&api, JSON, b"null", (422, "Invalid", "name or generateName is required")).await;
    refused(&api, YAML, b"", (422, "Invalid", "name or generateName is required")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_has_a_bound() {
    let api = server().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let inner = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let body = format!(r#"{{"metadata":{{"name":"x"}},"data":{inner}}}"#);
        refused(&api, JSON, body.as_bytes(), (400, "BadRequest", "")).await;
        refused(&api, YAML, body.as_bytes(), (400, "BadRequest", "")).await;
    }
    let answer: Value = api.get(URL).await.expect(200);
    assert_eq!(common::names(&answer), ["kept"]);
}
