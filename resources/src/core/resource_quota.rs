//! `ResourceQuota`. Upstream: `pkg/registry/core/resourcequota`, `ValidateResourceQuota`.

use crate::cells::or;
use crate::pod_spec::canonical;
use crate::pod_spec::resources::{Amounts, check_amount, check_name, is_huge_page, is_standard_for_quota};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopeSelector};
use serde_json::Value;
use std::collections::BTreeSet;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ResourceQuota", "resourcequotas", Scope::Namespaced)
        .short_names(&["quota"])
        .columns(vec![
            Column::computed("Request", |o, _| shown(o, false).into()),
            Column::computed("Limit", |o, _| shown(o, true).into()),
            Column::age(),
        ])
        .status()
        .rules(Typed(Rules))
}

/// The used and the hard amounts of limits, or of everything else.
fn shown(quota: &Value, limits: bool) -> String {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let terms: Vec<_> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = quota["status"]["used"][name].as_str().unwrap_or("");
            format!("{name}: {}/{}", or(used, "0"), hard.as_str().unwrap_or("0"))
        })
        .collect();
    terms.join(", ")
}

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
const POD_AMOUNTS: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

struct Rules;

impl Strategy for Rules {
    type Kind = ResourceQuota;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn default(&self, quota: &mut ResourceQuota) {
        canonical(&mut quota.spec.get_or_insert_default().hard);
        let status = quota.status.get_or_insert_default();
        canonical(&mut status.hard);
        canonical(&mut status.used);
    }

    fn prepare_create(&self, quota: &mut ResourceQuota, _: &Context<'_>) -> Result<(), Status> {
        quota.status = Some(Default::default());
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut ResourceQuota,
        old: &ResourceQuota,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, quota: &ResourceQuota, errors: &mut FieldErrors) {
        let none = ResourceQuotaSpec::default();
        let spec = quota.spec.as_ref().unwrap_or(&none);
        check_amounts("spec.hard", spec.hard.as_ref(), errors);
        errors.at("spec", |errors| {
            check_scopes(spec, errors);
            if let Some(selector) = &spec.scope_selector {
                errors.at("scopeSelector", |errors| check_selector(spec, selector, errors));
            }
        });
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota, errors: &mut FieldErrors) {
        let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
            let scopes = quota.spec.as_ref().and_then(|spec| spec.scopes.clone());
            scopes.unwrap_or_default().into_iter().collect()
        };
        if scopes(new) != scopes(old) {
            let shown = new.spec.as_ref().and_then(|spec| spec.scopes.clone()).unwrap_or_default();
            errors.invalid("spec.scopes", shown, "field is immutable");
        }
    }

    fn prepare_status_update(&self, new: &mut ResourceQuota, old: &ResourceQuota, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &ResourceQuota, _: &ResourceQuota, errors: &mut FieldErrors) {
        let status = new.status.as_ref();
        check_amounts("status.hard", status.and_then(|status| status.hard.as_ref()), errors);
        check_amounts("status.used", status.and_then(|status| status.used.as_ref()), errors);
    }
}

fn check_amounts(field: &str, list: Option<&Amounts>, errors: &mut FieldErrors) {
    for (name, own) in list.into_iter().flatten() {
        let field = format!("{field}[{name}]");
        check_name(errors, &field, name);
        if !name.contains('/') && !is_standard_for_quota(name) {
            errors.invalid(&field, name.as_str(), "must be a standard resource for quota");
        }
        check_amount(errors, &field, name, own);
    }
}

/// Whether a scope makes sense for a resource. Upstream: `IsResourceQuotaScopeValidForResource`.
fn fits(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => POD_AMOUNTS.contains(&name),
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => true,
    }
}

fn all_fit(spec: &ResourceQuotaSpec, scope: &str) -> bool {
    let standard = |name: &str| is_standard_for_quota(name) || is_huge_page(name);
    spec.hard.iter().flatten().filter(|(name, _)| standard(name)).all(|(name, _)| fits(scope, name))
}

fn conflict(scopes: &BTreeSet<&str>) -> bool {
    let both = |one, other| scopes.contains(one) && scopes.contains(other);
    both("BestEffort", "NotBestEffort") || both("Terminating", "NotTerminating")
}

fn check_scopes(spec: &ResourceQuotaSpec, errors: &mut FieldErrors) {
    let scopes = spec.scopes.clone().unwrap_or_default();
    for scope in &scopes {
        if !SCOPES.contains(&scope.as_str()) {
            errors.invalid("scopes", scopes.clone(), "unsupported scope");
        }
        if !all_fit(spec, scope) {
            errors.invalid("scopes", scopes.clone(), "unsupported scope applied to resource");
        }
    }
    if conflict(&scopes.iter().map(String::as_str).collect()) {
        errors.invalid("scopes", scopes, "conflicting scopes");
    }
}

fn check_selector(spec: &ResourceQuotaSpec, selector: &ScopeSelector, errors: &mut FieldErrors) {
    const FIELD: &str = "matchExpressions";
    let mut seen = BTreeSet::new();
    for term in selector.match_expressions.iter().flatten() {
        let scope = term.scope_name.as_str();
        let values = term.values.clone().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            errors.invalid("matchExpressions.scopeName", scope, "unsupported scope");
        }
        if !all_fit(spec, scope) {
            let shown = serde_json::to_value(selector).unwrap_or_default();
            errors.invalid(FIELD, shown, "unsupported scope applied to resource");
        }
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && term.operator != "Exists" {
            errors.invalid(
                "matchExpressions.operator",
                term.operator.as_str(),
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                 ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match term.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => errors.required(
                "matchExpressions.values",
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                "matchExpressions.values",
                values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.invalid("matchExpressions.operator", other, "not a valid selector operator");
            }
        }
        seen.insert(scope);
    }
    if conflict(&seen) {
        errors.invalid(FIELD, spec.scopes.clone().unwrap_or_default(), "conflicting scopes");
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::check;
    use serde_json::json;

    #[test]
    fn names_and_scopes() {
        let row = resource();
        check(
            &row,
            json!({"spec": {"hard": {"pods": "5", "count/pods": "3", "requests.example.com/x": "1"}}}),
            &[],
        );
        check(
            &row,
            json!({"spec": {"hard": {"storage": "5"}}}),
            &["spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota"],
        );
        check(
            &row,
            json!({"spec": {"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
    }
}
