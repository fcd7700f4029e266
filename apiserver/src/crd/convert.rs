//! Converting custom objects between versions by a webhook. Upstream: apiextensions-apiserver
//! `pkg/apiserver/conversion/webhook_converter.go`.

use crate::present::Convert;
use crate::server::Server;
use api::{Reason, Status};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Weak;
use std::time::Duration;

/// How long a webhook may take. Upstream: the client's default.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Asks the webhook of one definition.
pub(super) struct WebhookConverter {
    pub(super) server: Weak<Server>,
    /// `clientConfig` of the definition.
    pub(super) client: Value,
}

/// What upstream calls a kind in its errors.
fn kind_text(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

fn failure(message: String) -> Status {
    Status::failure(500, Reason::InternalError, message)
}

impl Convert for WebhookConverter {
    fn convert<'a>(
        &'a self,
        objects: Vec<Value>,
        api_version: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        Box::pin(async move {
            let Some(first) = objects.first() else { return Ok(objects) };
            let about = format!("conversion webhook for {}", kind_text(first));
            let server = self.server.upgrade().ok_or_else(|| Status::unavailable("the server stops"))?;
            let uid = uuid::Uuid::new_v4().to_string();
            let review = json!({
                "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
                "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
            });
            let lookup = server.registry();
            let answer = server.webhooks.call(&**lookup, &self.client, &review, TIME_MAX, true).await;
            let answer = answer.map_err(|error| failure(format!("{about} failed: {error}")))?;
            let converted =
                converted(&uid, answer).map_err(|error| failure(format!("{about} failed: {error}")))?;
            if converted.len() != objects.len() {
                let (got, expected) = (converted.len(), objects.len());
                return Err(failure(format!("{about} returned {got} objects, expected {expected}")));
            }
            let pairs = objects.iter().zip(converted).enumerate();
            pairs
                .map(|(index, (original, converted))| {
                    restored(original, converted, api_version).map_err(|error| {
                        failure(format!(
                            "{about} returned invalid converted object at index {index}: {error}"
                        ))
                    })
                })
                .collect()
        })
    }
}

/// The objects of an answer.
fn converted(uid: &str, mut review: Value) -> Result<Vec<Value>, String> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let found = (text(&review, "apiVersion"), text(&review, "kind"));
    if (found.0.as_str(), found.1.as_str()) != ("apiextensions.k8s.io/v1", "ConversionReview") {
        let got = kind_text(&review);
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {got}"
        ));
    }
    let response = &mut review["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let found = text(response, "uid");
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let (status, message) = (text(&response["result"], "status"), text(&response["result"], "message"));
    match (status.as_str(), message.as_str()) {
        ("Success", _) => {}
        (_, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => return Err(message.to_owned()),
    }
    match response["convertedObjects"].take() {
        Value::Array(list) => Ok(list),
        _ => Ok(Vec::new()),
    }
}

/// A converted object with the metadata of the original: a webhook may change labels and annotations only.
fn restored(original: &Value, mut converted: Value, api_version: &str) -> Result<Value, String> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let version = text(&converted, "apiVersion");
    if version != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {version})"));
    }
    let (expected, got) = (text(original, "kind"), text(&converted, "kind"));
    if expected != got {
        return Err(format!("invalid kind (expected {expected}, received {got})"));
    }
    if !converted["metadata"].is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (text(&original["metadata"], field), text(&converted["metadata"], field));
        if before != after {
            return Err(format!("must have the same {name}: {before} != {after}"));
        }
    }
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let own =
            converted["metadata"].get(field).filter(|own| own.as_object().is_some_and(|map| !map.is_empty()));
        match (own, metadata.as_object_mut()) {
            (Some(own), _) if own.as_object().into_iter().flatten().any(|(_, value)| !value.is_string()) => {
                return Err(format!("metadata.{field} must be texts"));
            }
            (Some(own), _) => metadata[field] = own.clone(),
            (None, Some(map)) => {
                map.remove(field);
            }
            (None, None) => {}
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let review = |response: Value| json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        let ok = json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": [1]});
        assert_eq!(converted("1", review(ok)), Ok(vec![json!(1)]));
        for (response, expect) in [
            (json!(null), "no response provided"),
            (json!({"uid": "2"}), "expected response.uid=\"1\", got \"2\""),
            (json!({"uid": "1", "result": {"status": "Failed", "message": "no"}}), "no"),
            (json!({"uid": "1", "result": {}}), "response.result.status was '', not 'Success'"),
        ] {
            assert_eq!(converted("1", review(response)), Err(expect.to_owned()));
        }
    }

    #[test]
    fn metadata_stays_but_for_labels_and_annotations() {
        let object = |version: &str, metadata: Value| json!({"apiVersion": version, "kind": "X", "metadata": metadata});
        let original =
            object("g/v1", json!({"name": "a", "uid": "u", "labels": {"a": "1"}, "finalizers": ["x"]}));
        let found = restored(
            &original,
            object("g/v2", json!({"name": "a", "uid": "u", "labels": {"b": "2"}, "finalizers": []})),
            "g/v2",
        );
        assert_eq!(
            found,
            Ok(object("g/v2", json!({"name": "a", "uid": "u", "labels": {"b": "2"}, "finalizers": ["x"]})))
        );
        let renamed = restored(&original, object("g/v2", json!({"name": "b", "uid": "u"})), "g/v2");
        assert_eq!(renamed, Err("must have the same name: a != b".to_owned()));
        assert!(restored(&original, object("g/v1", json!({})), "g/v2").is_err());
    }
}
