//! References, destinations and delivery, which several kinds have. Upstream: knative.dev/pkg `apis/duck/v1/{destination,
//! knative_reference}.go`, `pkg/apis/duck/v1/delivery_types.go`.

use super::kinds::text;
use crate::knative::faults::Faults;
use api::period;
use serde_json::Value;

/// A reference without namespace is to the object's own.
pub(super) fn default_namespace(destination: &mut Value, namespace: &str) {
    if let Some(reference) = destination.get_mut("ref").filter(|own| own.is_object())
        && text(reference, "namespace").is_empty()
    {
        reference["namespace"] = namespace.into();
    }
}

/// The rules of a reference to an object.
pub(super) fn check_reference(reference: &Value, faults: &mut Faults) {
    for field in ["name", "apiVersion", "kind"] {
        if text(reference, field).is_empty() {
            faults.missing(field);
        }
    }
}

/// The rules of where events go.
pub(super) fn check(destination: &Value, faults: &mut Faults) {
    let (reference, uri) = (&destination["ref"], text(destination, "uri"));
    let is_absolute =
        uri.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    match (reference.is_object(), uri) {
        (false, "") => faults.add("expected at least one, got none", &["ref", "uri"], ""),
        (true, _) if is_absolute => {
            let message = "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present";
            faults.add(message, &["[apiVersion, kind, name]", "ref", "uri"], "");
        }
        (false, _) if !is_absolute => {
            faults.invalid(
                "Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent",
                "uri",
                "",
            );
        }
        (true, "") => faults.at("ref", |faults| check_reference(reference, faults)),
        _ => {}
    }
}

/// Whether nothing is said.
pub(super) fn is_empty(destination: &Value) -> bool {
    destination.as_object().is_none_or(serde_json::Map::is_empty)
}

/// The rules of how events are delivered.
pub(super) fn check_delivery(delivery: &Value, faults: &mut Faults) {
    if !delivery.is_object() {
        return;
    }
    if !is_empty(&delivery["deadLetterSink"]) {
        faults.at("deadLetterSink", |faults| check(&delivery["deadLetterSink"], faults));
    }
    if let Some(retry) = delivery["retry"].as_i64().filter(|retry| *retry < 0) {
        faults.invalid(retry, "retry", "");
    }
    for (field, may_be_zero) in [("timeout", false), ("backoffDelay", true)] {
        if let Some(own) = delivery[field].as_str()
            && period::parse(own).is_none_or(|own| own.is_zero() && !may_be_zero)
        {
            faults.invalid(own, field, "");
        }
    }
    for (field, allowed) in [("backoffPolicy", ["linear", "exponential"]), ("format", ["binary", "json"])] {
        if let Some(own) = delivery[field].as_str().filter(|own| !allowed.contains(own)) {
            faults.invalid(own, field, "");
        }
    }
    if delivery["retryAfterMax"].is_string() {
        faults.disallowed(&["retryAfterMax"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knative::faults::told;
    use serde_json::json;

    #[test]
    fn destinations_have_a_reference_or_a_uri() {
        let check_one =
            |value: Value, expect: &str| assert_eq!(told(|faults| check(&value, faults)), expect, "{value}");
        let reference = json!({"apiVersion": "v1", "kind": "Service", "name": "a"});
        check_one(json!({"ref": reference}), "");
        check_one(json!({"uri": "http://a.b"}), "");
        check_one(json!({"ref": reference, "uri": "/path"}), "");
        check_one(json!({}), "expected at least one, got none: ref, uri");
        check_one(
            json!({"uri": "/path"}),
            "invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: uri",
        );
        check_one(json!({"ref": {"kind": "Service"}}), "missing field(s): ref.apiVersion, ref.name");
    }

    #[test]
    fn deliveries_are_checked() {
        let check_one = |value: Value, expect: &str| {
            assert_eq!(told(|faults| check_delivery(&value, faults)), expect, "{value}");
        };
        check_one(
            json!({"retry": 3, "backoffPolicy": "linear", "backoffDelay": "PT1S", "timeout": "PT5S"}),
            "",
        );
        check_one(json!({"retry": -1}), "invalid value: -1: retry");
        check_one(json!({"timeout": "PT0S"}), "invalid value: PT0S: timeout");
        check_one(json!({"backoffPolicy": "none"}), "invalid value: none: backoffPolicy");
        check_one(json!({"retryAfterMax": "PT1S"}), "must not set the field(s): retryAfterMax");
    }
}
