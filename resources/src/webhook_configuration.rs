//! Mutating and ValidatingWebhookConfiguration. Upstream: `pkg/apis/admissionregistration/{v1/defaults.go,validation}`.
//!
//! What a configuration does is the API server's (`apiserver::webhook`).

use crate::webhook_client;
use api::strategy::{DynStrategy, Outcome};
use api::{Context, FieldErrors, LabelSelector, Status, names};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
/// Seconds that a webhook may take.
const TIMEOUT_SECONDS_MAX: i64 = 30;
/// Versions of AdmissionReview that this server speaks.
const REVIEWS: [&str; 1] = ["v1"];

/// The rules of both kinds.
pub(crate) struct Rules {
    /// Whether webhooks may change objects.
    pub(crate) mutating: bool,
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn fill(value: &mut Value, name: &str, default: Value) {
    if value.get(name).is_none_or(Value::is_null) {
        value[name] = default;
    }
}

impl Rules {
    fn check(&self, configuration: &Value, errors: &mut FieldErrors) {
        let hooks = list(configuration, "webhooks");
        for (index, hook) in hooks.iter().enumerate() {
            errors.at(&format!("webhooks[{index}]"), |errors| {
                self.check_hook(hook, errors);
                let name = text(hook, "name");
                if !name.is_empty() && hooks[..index].iter().any(|other| text(other, "name") == name) {
                    errors.duplicate("name", name);
                }
            });
        }
    }

    fn check_hook(&self, hook: &Value, errors: &mut FieldErrors) {
        let name = text(hook, "name");
        let faults = names::dns_subdomain(name);
        if name.is_empty() {
            errors.required("name", "");
        } else if !faults.is_empty() {
            names::report(errors, "name", name, faults);
        } else if name.split('.').count() < 3 {
            errors.invalid("name", name, "should be a domain with at least three segments separated by dots");
        }
        for (index, rule) in list(hook, "rules").iter().enumerate() {
            errors.at(&format!("rules[{index}]"), |errors| check_rule(rule, errors));
        }
        names::check_one_of(errors, "failurePolicy", text(hook, "failurePolicy"), &["Fail", "Ignore"]);
        names::check_one_of(errors, "matchPolicy", text(hook, "matchPolicy"), &["Equivalent", "Exact"]);
        match hook.get("sideEffects").and_then(Value::as_str) {
            None => errors.required("sideEffects", "must specify one of None, NoneOnDryRun"),
            Some(own) => names::check_one_of(errors, "sideEffects", own, &["None", "NoneOnDryRun"]),
        }
        if self.mutating {
            let policy = text(hook, "reinvocationPolicy");
            names::check_one_of(errors, "reinvocationPolicy", policy, &["IfNeeded", "Never"]);
        }
        if let Some(seconds) = hook.get("timeoutSeconds").and_then(Value::as_i64)
            && !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds)
        {
            errors.invalid("timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds");
        }
        for name in ["namespaceSelector", "objectSelector"] {
            if let Some(selector) = hook.get(name).and_then(|own| serde_json::from_value(own.clone()).ok()) {
                names::check_selector(errors, name, Some(&selector));
                debug_assert!(!errors.is_empty() || LabelSelector::from_object(&selector).is_ok());
            }
        }
        // Certificates may be put in by somebody else later; without good ones the calls fail.
        errors.at("clientConfig", |errors| webhook_client::check(&hook["clientConfig"], false, errors));
        if !list(hook, "matchConditions").is_empty() {
            let why = "conditions in CEL are not supported by this server yet; remove them and use rules and selectors";
            errors.forbidden("matchConditions", why);
        }
        let versions = &hook["admissionReviewVersions"];
        webhook_client::check_review_versions("admissionReviewVersions", versions, &REVIEWS, errors);
    }
}

fn check_rule(rule: &Value, errors: &mut FieldErrors) {
    let own = |name: &str| -> Vec<&str> { list(rule, name).iter().filter_map(Value::as_str).collect() };
    let operations = own("operations");
    if operations.is_empty() {
        errors.required("operations", "");
    }
    for (index, operation) in operations.iter().enumerate() {
        names::check_one_of(errors, &format!("operations[{index}]"), operation, &OPERATIONS);
    }
    for (name, what) in
        [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")]
    {
        let values = own(name);
        if values.is_empty() && name != "operations" {
            errors.required(name, "");
        }
        if values.len() > 1 && values.contains(&"*") {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.invalid(name, rule[name].clone(), why);
        }
    }
    for (index, version) in own("apiVersions").iter().enumerate().filter(|(_, own)| own.is_empty()) {
        errors.required(&format!("apiVersions[{index}]"), *version);
    }
    check_resources(&own("resources"), &rule["resources"], errors);
    names::check_one_of(errors, "scope", text(rule, "scope"), &SCOPES);
}

fn check_resources(resources: &[&str], shown: &Value, errors: &mut FieldErrors) {
    if resources.is_empty() {
        errors.required("resources", "");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    for (index, own) in resources.iter().enumerate() {
        let at = format!("resources[{index}]");
        if own.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let Some((resource, part)) = own.split_once('/') else { continue };
        if whole.contains(resource) {
            errors.invalid(&at, *own, format!("if '{resource}/*' is present, must not specify {own}"));
        }
        if everywhere.contains(part) {
            errors.invalid(&at, *own, format!("if '*/{part}' is present, must not specify {own}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(part);
        }
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        errors.invalid("resources", shown.clone(), "if '*/*' is present, must not specify other resources");
    }
    let has_plain = resources.iter().any(|own| *own != "*" && !own.contains('/'));
    if resources.contains(&"*") && has_plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid("resources", shown.clone(), why);
    }
}

impl DynStrategy for Rules {
    fn default(&self, configuration: &mut Value) -> Result<(), Status> {
        let hooks = configuration.get_mut("webhooks").and_then(Value::as_array_mut);
        for hook in hooks.into_iter().flatten() {
            fill(hook, "failurePolicy", "Fail".into());
            fill(hook, "matchPolicy", "Equivalent".into());
            fill(hook, "namespaceSelector", json!({}));
            fill(hook, "objectSelector", json!({}));
            fill(hook, "timeoutSeconds", 10.into());
            if self.mutating {
                fill(hook, "reinvocationPolicy", "Never".into());
            }
            for rule in hook.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
                fill(rule, "scope", "*".into());
            }
            if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|own| own.is_object()) {
                fill(service, "port", 443.into());
            }
        }
        Ok(())
    }

    fn create(
        &self,
        configuration: &mut Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        self.check(configuration, errors);
        Ok(Outcome::default())
    }

    fn update(
        &self,
        configuration: &mut Value,
        _: &Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        self.check(configuration, errors);
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

    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut hook = json!({
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        change(&mut hook);
        let mut configuration = json!({"webhooks": [hook]});
        let rules = Rules { mutating: true };
        rules.default(&mut configuration).expect("defaults");
        let mut errors = FieldErrors::default();
        rules.check(&configuration, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_may_not_be_in_a_configuration() {
        assert_eq!(found(|_| ()), Vec::<String>::new());
        type Change = fn(&mut Value);
        let rows: &[(Change, &str)] = &[
            (
                |own| own["name"] = "a.b".into(),
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                |own| own["sideEffects"] = "Some".into(),
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                |own| own["timeoutSeconds"] = 31.into(),
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                |own| own["admissionReviewVersions"] = json!(["v1beta1"]),
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v1beta1\"]: must include at least one of v1",
            ),
            (
                |own| own["rules"][0]["operations"] = json!(["*", "CREATE"]),
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ),
            (
                |own| own["rules"][0]["resources"] = json!(["pods/*", "pods/log"]),
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ),
            (
                |own| own["matchConditions"] = json!([{"name": "a", "expression": "true"}]),
                "webhooks[0].matchConditions: Forbidden: conditions in CEL are not supported by this server yet; remove them and use rules and selectors",
            ),
            (
                |own| own["clientConfig"] = json!({}),
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            ),
        ];
        for (change, expect) in rows {
            assert_eq!(found(*change), [*expect]);
        }
    }

    #[test]
    fn defaults() {
        let mut own = json!({"webhooks": [{"rules": [{}], "clientConfig": {"service": {}}}]});
        Rules { mutating: false }.default(&mut own).expect("defaults");
        assert_eq!(
            own["webhooks"][0],
            json!({"rules": [{"scope": "*"}], "clientConfig": {"service": {"port": 443}}, "failurePolicy": "Fail",
                "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "timeoutSeconds": 10})
        );
    }
}
