//! Traffic of routes. Upstream: `pkg/apis/serving/v1/route_{defaults,validation}.go`.

use super::template::drop_nulls;
use crate::knative::faults::Faults;
use api::names;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Fills in the targets. Within a service, there is a configuration to go to by default.
pub(super) fn default(spec: &mut Value, in_service: bool) {
    if !spec.is_object() {
        *spec = json!({});
    }
    let is_empty = spec["traffic"].as_array().is_none_or(Vec::is_empty);
    if is_empty && in_service {
        spec["traffic"] = json!([{"percent": 100, "latestRevision": true}]);
    }
    for target in spec.get_mut("traffic").and_then(Value::as_array_mut).into_iter().flatten() {
        if !target.is_object() {
            continue;
        }
        if target.get("latestRevision").is_none_or(Value::is_null) {
            target["latestRevision"] = text(target, "revisionName").is_empty().into();
        }
        if target.get("percent").is_none_or(Value::is_null) {
            target["percent"] = 0.into();
        }
    }
    drop_nulls(spec);
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// What must be true of the targets.
pub(super) fn validate(spec: &Value, in_service: bool, faults: &mut Faults) {
    let targets = spec["traffic"].as_array().map_or(&[][..], Vec::as_slice);
    faults.at("traffic", |faults| {
        let (mut tags, mut sum) = (BTreeMap::new(), 0);
        for (index, target) in targets.iter().enumerate() {
            faults.index(index, |faults| validate_target(target, in_service, faults));
            sum += target["percent"].as_i64().unwrap_or(0);
            let tag = text(target, "tag");
            if tag.is_empty() {
                continue;
            }
            let wrong = names::dns_1035_label(tag);
            if !wrong.is_empty() {
                let why = format!("not a DNS 1035 label: [{}]", wrong.join(" "));
                faults.invalid(why, &format!("tag[{index}]"), "");
            }
            match tags.get(tag) {
                Some(first) => faults.add(
                    format!("Multiple definitions for {tag:?}"),
                    &[&format!("[{index}].tag"), &format!("[{first}].tag")],
                    "",
                ),
                None => {
                    tags.insert(tag, index);
                }
            }
        }
        if sum != 100 {
            faults.generic(format!("Traffic targets sum to {sum}, want 100"), "");
        }
    });
}

fn validate_target(target: &Value, in_service: bool, faults: &mut Faults) {
    let (revision, configuration) = (text(target, "revisionName"), text(target, "configurationName"));
    if let Some(latest) = target["latestRevision"].as_bool()
        && latest != revision.is_empty()
    {
        let why = format!("may not set revisionName {revision:?} when latestRevision is {latest}");
        faults.generic(why, "latestRevision");
    }
    let check = |faults: &mut Faults, name: &str, field: &str| {
        let wrong = names::qualified(name);
        if !wrong.is_empty() {
            faults.invalid_key(name, field, &wrong.join(", "));
        }
    };
    match (in_service, configuration, revision) {
        (true, configuration, _) if !configuration.is_empty() => faults.disallowed(&["configurationName"]),
        (_, configuration, revision) if !revision.is_empty() && !configuration.is_empty() => {
            faults.several_of(&["revisionName", "configurationName"]);
        }
        (_, _, revision) if !revision.is_empty() => check(faults, revision, "revisionName"),
        (_, configuration, _) if !configuration.is_empty() => {
            check(faults, configuration, "configurationName")
        }
        (true, ..) => {}
        _ => faults.missing_one_of(&["revisionName", "configurationName"]),
    }
    if let Some(percent) = target["percent"].as_i64().filter(|own| !(0..=100).contains(own)) {
        faults.out_of_bounds(percent, 0, 100, "percent");
    }
    if !text(target, "url").is_empty() {
        faults.disallowed(&["url"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mut spec: Value, in_service: bool, expect: Option<&str>) {
        default(&mut spec, in_service);
        let mut faults = Faults::default();
        validate(&spec, in_service, &mut faults);
        assert_eq!(faults.text().as_deref(), expect, "{spec}");
    }

    #[test]
    fn targets_follow_upstreams_rules() {
        check(json!({}), true, None);
        check(json!({}), false, Some("Traffic targets sum to 0, want 100: traffic"));
        check(json!({"traffic": [{"configurationName": "a", "percent": 100}]}), false, None);
        check(
            json!({"traffic": [{"configurationName": "a", "percent": 100}]}),
            true,
            Some("must not set the field(s): traffic[0].configurationName"),
        );
        check(
            json!({"traffic": [{"percent": 100}]}),
            false,
            Some("expected exactly one, got neither: traffic[0].configurationName, traffic[0].revisionName"),
        );
        check(
            json!({"traffic": [{"revisionName": "a", "percent": 60, "tag": "x"}, {"percent": 40, "tag": "x"}]}),
            true,
            Some("Multiple definitions for \"x\": traffic[0].tag, traffic[1].tag"),
        );
        check(
            json!({"traffic": [{"revisionName": "a", "latestRevision": true, "percent": 100}]}),
            true,
            Some("may not set revisionName \"a\" when latestRevision is true: traffic[0].latestRevision"),
        );
        check(
            json!({"traffic": [{"percent": 101}, {"percent": -1}]}),
            true,
            Some("expected 0 <= -1 <= 100: traffic[1].percent\nexpected 0 <= 101 <= 100: traffic[0].percent"),
        );
    }
}
