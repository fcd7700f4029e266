//! The rules of each kind. Upstream: `pkg/apis/{serving/v1,serving/v1beta1,autoscaling/v1alpha1}`, knative.dev/networking.

use super::annotations::{self, KPA};
use super::settings::{Autoscaler, Defaults, Features};
use super::{pod_spec, template, traffic};
use crate::knative::faults::{Faults, difference};
use crate::knative::native::Rules;
use api::{Context, names};
use serde_json::{Value, json};

const CREATOR: &str = "serving.knative.dev/creator";
const MODIFIER: &str = "serving.knative.dev/lastModifier";
const ROLLOUT: [&str; 2] = ["serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration"];
const PROGRESS_DEADLINE: [&str; 1] = ["serving.knative.dev/progress-deadline"];

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn is_owned(object: &Value) -> bool {
    object["metadata"]["ownerReferences"].as_array().is_some_and(|own| !own.is_empty())
}

/// Notes who made an object, and who changed its spec.
fn note_user(object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
    let changed = old.is_none_or(|old| old["spec"] != object["spec"]);
    if !changed {
        return;
    }
    let name = cx.user.name.as_str();
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    let own = &mut object["metadata"]["annotations"];
    if old.is_none() {
        own[CREATOR] = name.into();
    }
    own[MODIFIER] = name.into();
}

/// Who made an object cannot be changed, and who changed it only with its spec.
fn check_user(object: &Value, old: &Value, faults: &mut Faults) {
    let (new, before) = (&object["metadata"]["annotations"], &old["metadata"]["annotations"]);
    if text(new, CREATOR) != text(before, CREATOR) {
        faults.generic("annotation value is immutable", CREATOR);
    }
    if object["spec"] == old["spec"] && text(new, MODIFIER) != text(before, MODIFIER) {
        faults.invalid(text(new, MODIFIER), MODIFIER, "");
    }
}

/// A label that names an owner needs that owner.
fn check_owner_label(object: &Value, label: &str, kind: &str, faults: &mut Faults) {
    let value = text(&object["metadata"]["labels"], label);
    let owners = object["metadata"]["ownerReferences"].as_array();
    if !value.is_empty()
        && !owners.into_iter().flatten().any(|own| own["kind"] == kind && own["name"] == value)
    {
        faults.at("metadata.labels", |faults| faults.missing(label));
    }
}

/// Names of what gets a host name must be labels. Upstream: knative.dev/pkg `apis.ValidateObjectMetadata`.
fn check_name(object: &Value, faults: &mut Faults) {
    let (name, prefix) = (text(&object["metadata"], "name"), text(&object["metadata"], "generateName"));
    if !name.is_empty() {
        let wrong = names::dns_1035_label(name);
        if !wrong.is_empty() {
            faults.invalid(format!("not a DNS 1035 label: [{}]", wrong.join(" ")), "metadata.name", "");
        }
    }
    let trimmed = prefix.trim_end_matches('-');
    if !trimmed.is_empty() {
        let wrong = names::dns_1035_label(trimmed);
        if !wrong.is_empty() {
            let why = format!("not a DNS 1035 label prefix: [{}]", wrong.join(" "));
            faults.invalid(why, "metadata.generateName", "");
        }
    }
    if name.is_empty() && prefix.is_empty() {
        faults.add("name or generateName is required", &["metadata.name"], "");
    }
}

fn check_no_scaling(object: &Value, faults: &mut Faults) {
    faults.at("metadata.annotations", |faults| annotations::none(&object["metadata"]["annotations"], faults));
}

fn default_template(spec: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
    // A template that keeps its name must not be changed, and defaults would change it.
    let name = text(&spec["template"]["metadata"], "name").to_owned();
    let keeps_name = old.is_some_and(|old| text(&old["template"]["metadata"], "name") == name);
    if !name.is_empty() && keeps_name {
        return;
    }
    if !spec.is_object() {
        *spec = json!({});
    }
    if !spec["template"].is_object() {
        spec["template"] = json!({});
    }
    template::default(&mut spec["template"]["spec"], old.is_none(), cx);
}

fn check_revision_spec(spec: &Value, cx: &Context<'_>, faults: &mut Faults) {
    let defaults = Defaults::of(cx);
    pod_spec::validate(spec, &Features::of(cx), faults);
    if let Some(own) = spec["timeoutSeconds"].as_i64()
        && !(0..=defaults.max_timeout_seconds).contains(&own)
    {
        faults.out_of_bounds(own, 0, defaults.max_timeout_seconds, "timeoutSeconds");
    }
    let low = i64::from(!defaults.allow_container_concurrency_zero);
    if let Some(own) = spec["containerConcurrency"].as_i64()
        && !(low..=defaults.container_concurrency_max).contains(&own)
    {
        faults.out_of_bounds(own, low, defaults.container_concurrency_max, "containerConcurrency");
    }
}

fn check_template(object: &Value, cx: &Context<'_>, faults: &mut Faults) {
    let (parent, own) = (&object["metadata"], &object["spec"]["template"]);
    faults.at("spec.template", |faults| {
        faults.at("spec", |faults| check_revision_spec(&own["spec"], cx, faults));
        let notes = &own["metadata"]["annotations"];
        faults.at("metadata.annotations", |faults| {
            annotations::validate(notes, &Autoscaler::of(cx), faults);
            annotations::validate_seconds(notes, "progress-deadline", &PROGRESS_DEADLINE, faults);
        });
        let name = text(&own["metadata"], "name");
        if name.is_empty() {
            return;
        }
        let wrong = names::dns_1035_label(name);
        if !wrong.is_empty() {
            faults.invalid(format!("not a DNS 1035 label: [{}]", wrong.join(" ")), "metadata.name", "");
            return;
        }
        if text(parent, "name").is_empty() && !text(parent, "generateName").is_empty() {
            faults.disallowed(&["metadata.name"]);
            return;
        }
        let prefix = format!("{}-", text(parent, "name"));
        if !name.starts_with(&prefix) {
            faults.invalid(format!("{name:?} must have prefix {prefix:?}"), "metadata.name", "");
        }
    });
}

/// A template that changes needs another name, if it has one.
fn check_name_change(object: &Value, old: &Value, faults: &mut Faults) {
    let (new, before) = (&object["spec"]["template"], &old["spec"]["template"]);
    let name = text(&new["metadata"], "name");
    if name.is_empty() || name != text(&before["metadata"], "name") || new == before {
        return;
    }
    let mut lines = String::new();
    difference("", before, new, &mut lines);
    let message = "Saw the following changes without a name change (-old +new)";
    faults.at("spec.template", |faults| faults.add(message, &["metadata.name"], lines));
}

pub(super) struct Service;

impl Rules for Service {
    fn default(&self, object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
        default_template(&mut object["spec"], old.map(|own| &own["spec"]), cx);
        traffic::default(&mut object["spec"], true);
        note_user(object, old, cx);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, cx: &Context<'_>, faults: &mut Faults) {
        check_name(object, faults);
        check_no_scaling(object, faults);
        faults.at("metadata.annotations", |faults| {
            annotations::validate_seconds(
                &object["metadata"]["annotations"],
                "rollout-duration",
                &ROLLOUT,
                faults,
            );
        });
        check_template(object, cx, faults);
        faults.at("spec", |faults| traffic::validate(&object["spec"], true, faults));
        if let Some(old) = old {
            faults.at("metadata.annotations", |faults| check_user(object, old, faults));
            check_name_change(object, old, faults);
        }
    }
}

pub(super) struct Configuration;

impl Rules for Configuration {
    fn default(&self, object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
        default_template(&mut object["spec"], old.map(|own| &own["spec"]), cx);
        if !is_owned(object) {
            note_user(object, old, cx);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, cx: &Context<'_>, faults: &mut Faults) {
        check_name(object, faults);
        check_no_scaling(object, faults);
        check_owner_label(object, "serving.knative.dev/service", "Service", faults);
        check_template(object, cx, faults);
        if let Some(old) = old {
            if !is_owned(object) {
                faults.at("metadata.annotations", |faults| check_user(object, old, faults));
            }
            check_name_change(object, old, faults);
        }
    }
}

pub(super) struct Revision;

impl Rules for Revision {
    fn default(&self, object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
        if old.is_none() {
            template::default(&mut object["spec"], true, cx);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, cx: &Context<'_>, faults: &mut Faults) {
        check_name(object, faults);
        faults.at("metadata.annotations", |faults| {
            annotations::validate(&object["metadata"]["annotations"], &Autoscaler::of(cx), faults);
        });
        check_owner_label(object, "serving.knative.dev/configuration", "Configuration", faults);
        match old {
            None => faults.at("spec", |faults| check_revision_spec(&object["spec"], cx, faults)),
            Some(old) if old["spec"] != object["spec"] => {
                let mut lines = String::new();
                difference("", &old["spec"], &object["spec"], &mut lines);
                faults.add("Immutable fields changed (-old +new)", &["spec"], lines);
            }
            Some(_) => {}
        }
    }
}

pub(super) struct Route;

impl Rules for Route {
    fn default(&self, object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
        traffic::default(&mut object["spec"], false);
        if !is_owned(object) {
            note_user(object, old, cx);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        check_name(object, faults);
        check_no_scaling(object, faults);
        check_owner_label(object, "serving.knative.dev/service", "Service", faults);
        faults.at("metadata.annotations", |faults| {
            annotations::validate_seconds(
                &object["metadata"]["annotations"],
                "rollout-duration",
                &ROLLOUT,
                faults,
            );
        });
        faults.at("spec", |faults| traffic::validate(&object["spec"], false, faults));
        if let Some(old) = old.filter(|_| !is_owned(object)) {
            faults.at("metadata.annotations", |faults| check_user(object, old, faults));
        }
    }
}

pub(super) struct DomainMapping;

impl Rules for DomainMapping {
    fn default(&self, object: &mut Value, old: Option<&Value>, cx: &Context<'_>) {
        if object["spec"]["ref"].is_object() && text(&object["spec"]["ref"], "namespace").is_empty() {
            object["spec"]["ref"]["namespace"] = object["metadata"]["namespace"].clone();
        }
        note_user(object, old, cx);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let name = text(&object["metadata"], "name");
        faults.at("metadata", |faults| {
            if !text(&object["metadata"], "generateName").is_empty() {
                faults.disallowed(&["generateName"]);
            }
            let mut wrong = names::dns_subdomain(name);
            if wrong.is_empty() && !name.contains('.') {
                wrong.push("should be a domain with at least two segments separated by dots".to_owned());
            }
            if !wrong.is_empty() {
                let why = wrong.iter().map(|own| format!("name: Invalid value: {name:?}: {own}"));
                let why: Vec<String> = why.collect();
                faults.generic(format!("invalid name {name:?}: {}", why.join(", ")), "name");
            }
            if name.ends_with(".cluster.local") {
                let why = format!(
                    "invalid name {name:?}: must not be a subdomain of cluster local domain \"cluster.local\""
                );
                faults.generic(why, "name");
            }
            if let Some(old) = old {
                faults.at("annotations", |faults| check_user(object, old, faults));
            }
        });
        faults.at("spec.ref", |faults| {
            let own = &object["spec"]["ref"];
            for field in
                ["name", "kind", "apiVersion"].into_iter().filter(|field| text(own, field).is_empty())
            {
                faults.missing(field);
            }
            let namespace = text(&object["metadata"], "namespace");
            if text(own, "namespace") != namespace && !text(own, "namespace").is_empty() {
                let why = format!(
                    "parent namespace: {namespace:?} does not match ref: {:?}",
                    text(own, "namespace")
                );
                faults.add("mismatched namespaces", &["namespace"], why);
            }
        });
    }
}

pub(super) struct PodAutoscaler;

impl Rules for PodAutoscaler {
    fn default(&self, object: &mut Value, _: Option<&Value>, cx: &Context<'_>) {
        if !object["metadata"]["annotations"].is_object() {
            object["metadata"]["annotations"] = json!({});
        }
        let own = &mut object["metadata"]["annotations"];
        if own.get("autoscaling.knative.dev/class").is_none() {
            own["autoscaling.knative.dev/class"] = Autoscaler::of(cx).class.into();
        }
        if own.get("autoscaling.knative.dev/metric").is_none() {
            let metric = match text(own, "autoscaling.knative.dev/class") {
                KPA => "concurrency",
                annotations::HPA => "cpu",
                _ => "",
            };
            own["autoscaling.knative.dev/metric"] = metric.into();
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, cx: &Context<'_>, faults: &mut Faults) {
        faults.at("metadata.annotations", |faults| {
            annotations::validate(&object["metadata"]["annotations"], &Autoscaler::of(cx), faults);
        });
    }
}

pub(super) struct Ingress;

impl Rules for Ingress {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let rules = object.pointer_mut("/spec/rules").and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten() {
            if text(rule, "visibility").is_empty() {
                rule["visibility"] = "ExternalIP".into();
            }
            let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
            for path in paths.into_iter().flatten() {
                if let Some([one]) =
                    path.get_mut("splits").and_then(Value::as_array_mut).map(Vec::as_mut_slice)
                    && one["percent"].as_i64().unwrap_or(0) == 0
                {
                    one["percent"] = 100.into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_path() {
        let mut lines = String::new();
        difference("", &json!({"a": [{"b": 1}], "c": 1}), &json!({"a": [{"b": 2}]}), &mut lines);
        assert_eq!(lines, "a[0].b:\n\t-: 1\n\t+: 2\nc:\n\t-: 1\n\t+: null\n");
    }
}
