//! The rules of flows. Upstream: `pkg/apis/flows/v1/{sequence,parallel}_{defaults,validation}.go`.

use super::destination;
use super::kinds::{check_channel_template, default_channel_template, default_delivery, text};
use crate::knative::faults::Faults;
use crate::knative::native::Rules;
use api::Context;
use serde_json::{Value, json};

/// What a flow has in any case.
fn default_flow(object: &mut Value, cx: &Context<'_>) -> String {
    let namespace = text(&object["metadata"], "namespace").to_owned();
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    default_channel_template(&mut object["spec"], &namespace, cx);
    if let Some(reply) = object["spec"].get_mut("reply") {
        destination::default_namespace(reply, &namespace);
    }
    namespace
}

fn is_wrong(destination: &Value) -> bool {
    let mut faults = Faults::default();
    destination::check(destination, &mut faults);
    faults.text().is_some()
}

/// An optional destination.
fn is_wrong_if_there(destination: &Value) -> bool {
    !destination.is_null() && is_wrong(destination)
}

fn check_reply(spec: &Value, faults: &mut Faults) {
    if !spec["reply"].is_null() {
        faults.at("reply", |faults| destination::check(&spec["reply"], faults));
    }
}

pub(super) struct Sequence;

impl Rules for Sequence {
    fn default(&self, object: &mut Value, _: Option<&Value>, cx: &Context<'_>) {
        let namespace = default_flow(object, cx);
        for step in object["spec"].get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
            destination::default_namespace(step, &namespace);
            if let Some(delivery) = step.get_mut("delivery") {
                default_delivery(delivery, &namespace);
            }
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        faults.at("spec", |faults| {
            let steps = spec["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
            if steps.is_empty() {
                faults.missing("steps");
            }
            for (index, step) in steps.iter().enumerate() {
                let mut delivery = Faults::default();
                destination::check_delivery(&step["delivery"], &mut delivery);
                if is_wrong(step) || delivery.text().is_some() {
                    faults.invalid(step, &format!("steps[{index}]"), "");
                }
            }
            check_channel_template(&spec["channelTemplate"], faults);
            check_reply(spec, faults);
        });
    }
}

pub(super) struct Parallel;

impl Rules for Parallel {
    fn default(&self, object: &mut Value, _: Option<&Value>, cx: &Context<'_>) {
        let namespace = default_flow(object, cx);
        let branches = object["spec"].get_mut("branches").and_then(Value::as_array_mut);
        for branch in branches.into_iter().flatten() {
            for field in ["filter", "subscriber", "reply"] {
                if let Some(own) = branch.get_mut(field) {
                    destination::default_namespace(own, &namespace);
                }
            }
            if let Some(delivery) = branch.get_mut("delivery") {
                default_delivery(delivery, &namespace);
            }
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        let spec = &object["spec"];
        faults.at("spec", |faults| {
            let branches = spec["branches"].as_array().map(Vec::as_slice).unwrap_or_default();
            if branches.is_empty() {
                faults.missing("branches");
            }
            for (index, branch) in branches.iter().enumerate() {
                let wrong = [
                    ("filter", is_wrong_if_there(&branch["filter"])),
                    ("subscriber", is_wrong(&branch["subscriber"])),
                    ("reply", is_wrong_if_there(&branch["reply"])),
                ];
                for (field, _) in wrong.into_iter().filter(|(_, is_wrong)| *is_wrong) {
                    faults.invalid(branch, &format!("branches.{field}[{index}]"), "");
                }
            }
            check_channel_template(&spec["channelTemplate"], faults);
            check_reply(spec, faults);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_lead_somewhere() {
        let check = |rules: &dyn Rules, spec: Value, expect: &[&str]| {
            let mut faults = Faults::default();
            let objects = crate::testing::Objects::default();
            crate::testing::with_context(&objects, |cx| {
                rules.validate(&json!({"spec": spec}), None, cx, &mut faults);
            });
            let text = faults.text().unwrap_or_default();
            assert_eq!(text.is_empty(), expect.is_empty(), "{spec}: {text}");
            expect.iter().for_each(|own| assert!(text.contains(own), "{spec}: {text}"));
        };
        let template = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"});
        let to = json!({"uri": "http://a.b"});
        check(&Sequence, json!({"steps": [to], "channelTemplate": template}), &[]);
        check(
            &Sequence,
            json!({"steps": [], "channelTemplate": {}}),
            &["missing field(s): spec.channelTemplate.apiVersion, spec.channelTemplate.kind, spec.steps"],
        );
        check(
            &Sequence,
            json!({"steps": [{}], "channelTemplate": template}),
            &["invalid value: {}: spec.steps[0]"],
        );
        check(
            &Parallel,
            json!({"branches": [{"subscriber": to}], "channelTemplate": template, "reply": to}),
            &[],
        );
        check(
            &Parallel,
            json!({"branches": [{"filter": {}, "subscriber": to}], "channelTemplate": template}),
            &["spec.branches.filter[0]"],
        );
        check(
            &Parallel,
            json!({"branches": [], "channelTemplate": template}),
            &["missing field(s): spec.branches"],
        );
    }
}
