//! AdmissionReview: what a webhook is asked, and what its answer means. Pure.
//! Upstream: apiserver `pkg/admission/plugin/webhook/{request,errors}`.

use super::hook::Asked;
use api::{AdmissionRequest, Reason, Status};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a webhook says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// The refusal, if it is one.
    pub(super) denied: Option<Status>,
    /// A JSON patch of the object, if there is one.
    pub(super) patch: Option<Vec<u8>>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// The question. `asked`, `kind`, `object` and `old` are those of the version that the webhook understands.
pub(super) fn question(
    uid: &str,
    request: &AdmissionRequest<'_>,
    asked: Asked<'_>,
    kind: (&str, &str, &str),
    object: &Value,
    old: Option<&Value>,
) -> Value {
    let kind_of = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
    let resource_of =
        |own: Asked<'_>| json!({"group": own.group, "version": own.version, "resource": own.plural});
    let row = request.resource;
    let own = Asked { group: &row.group, version: &row.version, plural: &row.plural };
    let user = request.user;
    let mut content = json!({
        "uid": uid,
        "kind": kind_of(kind),
        "resource": resource_of(asked),
        "requestKind": kind_of(request.kind),
        "requestResource": resource_of(own),
        "operation": request.operation.as_str(),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "object": object,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": if request.options.as_object().is_none_or(Map::is_empty) { &Value::Null } else { request.options },
    });
    for (field, value) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", request.namespace),
    ] {
        if !value.is_empty() {
            content[field] = value.into();
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": content})
}

/// Reads an answer.
///
/// # Errors
/// Upstream's text about what is wrong with it.
pub(super) fn answer(name: &str, uid: &str, review: &Value, may_patch: bool) -> Result<Answer, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let found = response["uid"].as_str().unwrap_or_default();
    if found != uid {
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    let (version, kind) =
        (review["apiVersion"].as_str().unwrap_or_default(), review["kind"].as_str().unwrap_or_default());
    if (version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
        ));
    }
    let strings = |field: &str| response[field].as_object().into_iter().flatten();
    let warnings = response["warnings"].as_array().into_iter().flatten();
    Ok(Answer {
        denied: (response["allowed"] != true).then(|| denial(name, &response["status"])),
        patch: patch(response, may_patch)?,
        warnings: warnings.filter_map(|own| own.as_str().map(str::to_owned)).collect(),
        annotations: strings("auditAnnotations")
            .map(|(key, value)| (format!("{name}/{key}"), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    })
}

fn patch(response: &Value, may_patch: bool) -> Result<Option<Vec<u8>>, String> {
    let patch = response["patch"].as_str().unwrap_or_default();
    let kind = response["patchType"].as_str();
    if !may_patch {
        return match (patch, kind) {
            ("", None) => Ok(None),
            ("", Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
            _ => Err("validating webhook may not return response.patch".to_owned()),
        };
    }
    match (patch, kind) {
        ("", None) => Ok(None),
        (_, None) => Err("webhook returned response.patch but not response.patchType".to_owned()),
        ("", Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (patch, Some("JSONPatch")) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(patch);
            bytes.map(Some).map_err(|error| format!("response.patch is no base64: {error}"))
        }
        (_, Some(kind)) => Err(format!("unsupported patch type {kind:?}")),
    }
}

/// The refusal of a webhook as the client gets it. Upstream: `ToStatusErr`.
pub(super) fn denial(name: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {name:?} denied the request");
    let text = |field: &str| result[field].as_str().unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
    let own_reason = serde_json::from_value(result["reason"].clone()).unwrap_or(Reason::Unknown);
    let reason = if code.is_none() && text("reason").is_empty() { Reason::BadRequest } else { own_reason };
    let mut status = Status::failure(code.unwrap_or(400), reason, message);
    status.details = serde_json::from_value(result["details"].clone()).ok();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: Value, may_patch: bool) -> Result<Answer, String> {
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        answer("a.b.c", "1", &review, may_patch)
    }

    #[test]
    fn answers() {
        let refused = |response| read(response, true).unwrap().denied.unwrap();
        assert_eq!(
            refused(json!({"uid": "1"})).message,
            "admission webhook \"a.b.c\" denied the request without explanation"
        );
        let status = refused(
            json!({"uid": "1", "allowed": false, "status": {"message": "no", "code": 403, "reason": "Forbidden"}}),
        );
        assert_eq!(
            (status.code, status.message.as_str()),
            (403, "admission webhook \"a.b.c\" denied the request: no")
        );
        let patched =
            read(json!({"uid": "1", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}), true)
                .unwrap();
        assert_eq!((patched.denied, patched.patch.as_deref()), (None, Some(&b"[]"[..])));
        for (response, may_patch, expect) in [
            (json!(null), true, "webhook response was absent"),
            (json!({"uid": "2"}), true, "expected response.uid=\"1\", got \"2\""),
            (
                json!({"uid": "1", "patch": "W10="}),
                true,
                "webhook returned response.patch but not response.patchType",
            ),
            (json!({"uid": "1", "patch": "W10=", "patchType": "X"}), true, "unsupported patch type \"X\""),
            (json!({"uid": "1", "patch": "W10="}), false, "validating webhook may not return response.patch"),
        ] {
            assert_eq!(read(response, may_patch).unwrap_err(), expect);
        }
    }
}
