//! The rules of sources. Upstream: `pkg/apis/sources/v1/{apiserver,container,sinkbinding}_{defaults,validation}.go`; of all of
//! them, knative.dev/pkg `apis/duck/v1/source_types.go`; of subjects, `tracker/interface.go`.

use super::destination;
use super::kinds::text;
use crate::knative::faults::Faults;
use crate::knative::native::Rules;
use api::Context;
use api::names::{self, dns_label, qualified};
use serde_json::{Value, json};

/// The rules of what every source has: where its events go, and what is written over them.
pub(super) fn check_source(spec: &Value, faults: &mut Faults) {
    faults.at("sink", |faults| destination::check(&spec["sink"], faults));
    faults.at("ceOverrides.extensions", |faults| {
        for name in spec["ceOverrides"]["extensions"].as_object().into_iter().flat_map(serde_json::Map::keys)
        {
            if name.is_empty() {
                faults.invalid_key(name, "", "keys MUST NOT be empty");
            } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                faults.invalid_key(name, "", "keys are expected to be alphanumeric");
            }
        }
    });
}

/// A sink without namespace is in the source's own.
pub(super) fn default_source(object: &mut Value) {
    let namespace = text(&object["metadata"], "namespace").to_owned();
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    if let Some(sink) = object["spec"].get_mut("sink") {
        destination::default_namespace(sink, &namespace);
    }
}

pub(super) struct ApiServerSource;

impl Rules for ApiServerSource {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        default_source(object);
        for (field, value) in [("mode", "Reference"), ("serviceAccountName", "default")] {
            if text(&object["spec"], field).is_empty() {
                object["spec"][field] = value.into();
            }
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        faults.at("spec", |faults| check_api_server_source(&object["spec"], faults));
    }
}

fn check_api_server_source(spec: &Value, faults: &mut Faults) {
    let mode = text(spec, "mode");
    if !["Reference", "Resource"].contains(&mode) {
        faults.invalid(mode, "mode", "");
    }
    let resources = spec["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    if resources.is_empty() {
        faults.missing("resources");
    }
    for (index, own) in resources.iter().enumerate() {
        faults.at(format!("resources[{index}]"), |faults| check_kind(own, faults));
    }
    if spec["owner"].is_object() {
        faults.at("owner", |faults| check_kind(&spec["owner"], faults));
    }
    check_source(spec, faults);
    if spec["filters"].as_array().is_some_and(|own| !own.is_empty()) {
        // The feature is off, as it is upstream until somebody turns it on.
        faults.at("filters", |faults| {
            faults.generic("Filters is not empty but the NewAPIServerFilters feature is disabled.", "");
        });
    }
}

fn check_kind(own: &Value, faults: &mut Faults) {
    let version = text(own, "apiVersion");
    if version.matches('/').count() > 1 {
        faults.invalid(version, "apiVersion", "");
    }
    if text(own, "kind").trim().is_empty() {
        faults.missing("kind");
    }
}

pub(super) struct ContainerSource;

impl Rules for ContainerSource {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let name = text(&object["metadata"], "name").to_owned();
        default_source(object);
        let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        for (index, own) in containers.into_iter().flatten().enumerate() {
            if text(own, "name").is_empty() && own.is_object() {
                own["name"] = format!("{name}-{index}").into();
            }
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        faults.at("spec", |faults| {
            let containers = spec.pointer("/template/spec/containers").and_then(Value::as_array);
            let containers = containers.map(Vec::as_slice).unwrap_or_default();
            if containers.is_empty() {
                faults.missing("containers");
            }
            for (index, own) in containers.iter().enumerate() {
                faults.at(format!("containers[{index}]"), |faults| {
                    for field in ["name", "image"] {
                        if text(own, field).is_empty() {
                            faults.missing(field);
                        }
                    }
                });
            }
            check_source(spec, faults);
        });
    }
}

pub(super) struct SinkBinding;

impl Rules for SinkBinding {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let namespace = text(&object["metadata"], "namespace").to_owned();
        default_source(object);
        let spec = &mut object["spec"];
        if !spec["subject"].is_object() {
            spec["subject"] = json!({});
        }
        if text(&spec["subject"], "namespace").is_empty() {
            spec["subject"]["namespace"] = namespace.into();
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let (spec, own) = (&object["spec"], text(&object["metadata"], "namespace"));
        faults.at("spec", |faults| {
            faults.at("subject", |faults| check_subject(&spec["subject"], faults));
            check_source(spec, faults);
        });
        let namespace = text(&spec["subject"], "namespace");
        if namespace != own && !namespace.is_empty() {
            faults.invalid(namespace, "spec.subject.namespace", "");
        }
    }
}

fn check_subject(subject: &Value, faults: &mut Faults) {
    let is_identifier = |own: &str| {
        !own.starts_with(|c: char| c.is_ascii_digit())
            && own.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut check = |field: &str, fault: Option<String>| match (text(subject, field), fault) {
        ("", _) => faults.missing(field),
        (_, Some(fault)) => faults.invalid(fault, field, ""),
        _ => {}
    };
    check("apiVersion", joined(qualified(text(subject, "apiVersion"))));
    let kind = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
    check("kind", (!is_identifier(text(subject, "kind"))).then(|| kind.to_owned()));
    check("namespace", joined(dns_label(text(subject, "namespace"))));
    match (subject["selector"].is_object(), text(subject, "name")) {
        (true, "") => {}
        (true, _) => faults.several_of(&["name", "selector"]),
        (false, "") => faults.missing_one_of(&["name", "selector"]),
        (false, name) => {
            if let Some(fault) = joined(dns_label(name)) {
                faults.invalid(fault, "name", "");
            }
        }
    }
}

fn joined(faults: names::Faults) -> Option<String> {
    (!faults.is_empty()).then(|| faults.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knative::faults::told;

    #[test]
    fn api_server_sources_say_what_they_watch_and_how() {
        let check = |extra: Value, expect: &str| {
            let mut spec = json!({"sink": {"uri": "http://a.b"}, "mode": "Reference",
                "resources": [{"apiVersion": "v1", "kind": "Event"}]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            assert_eq!(told(|faults| check_api_server_source(&spec, faults)), expect, "{spec}");
        };
        check(json!({}), "");
        check(json!({"mode": "Some"}), "invalid value: Some: mode");
        check(json!({"resources": []}), "missing field(s): resources");
        check(
            json!({"resources": [{"apiVersion": "a/b/c", "kind": " "}]}),
            "invalid value: a/b/c: resources[0].apiVersion\nmissing field(s): resources[0].kind",
        );
        check(json!({"owner": {"apiVersion": "v1"}}), "missing field(s): owner.kind");
        check(
            json!({"ceOverrides": {"extensions": {"a-b": "x"}}}),
            "invalid key name \"a-b\": ceOverrides.extensions\nkeys are expected to be alphanumeric",
        );
    }

    #[test]
    fn subjects_have_a_name_or_a_selector() {
        let check = |extra: Value, expect: &str| {
            let mut subject = json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a"});
            subject.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            assert_eq!(told(|faults| check_subject(&subject, faults)), expect, "{subject}");
        };
        check(json!({"name": "x"}), "");
        check(json!({"selector": {"matchLabels": {"a": "b"}}}), "");
        check(json!({}), "expected exactly one, got neither: name, selector");
        check(json!({"name": "x", "selector": {}}), "expected exactly one, got both: name, selector");
        check(json!({"name": "x", "kind": ""}), "missing field(s): kind");
        assert!(
            told(|faults| check_subject(
                &json!({"apiVersion": "v1", "kind": "9", "namespace": "a", "name": "x"}),
                faults
            ))
            .starts_with("invalid value: a valid C identifier")
        );
    }
}
