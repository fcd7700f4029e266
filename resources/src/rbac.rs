//! `rbac.authorization.k8s.io/v1`. Upstream: `pkg/registry/rbac`.

use crate::cells::{list, text};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Strategy, names};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn role() -> Resource {
    Resource::new(GROUP, "v1", "Role", "roles", Scope::Namespaced)
        .columns(crate::created_at())
        .rules(Typed(RoleRules))
}

pub(crate) fn cluster_role() -> Resource {
    Resource::new(GROUP, "v1", "ClusterRole", "clusterroles", Scope::Cluster)
        .columns(crate::created_at())
        .rules(Typed(ClusterRoleRules))
}

pub(crate) fn role_binding() -> Resource {
    Resource::new(GROUP, "v1", "RoleBinding", "rolebindings", Scope::Namespaced)
        .columns(binding_columns())
        .rules(Typed(RoleBindingRules))
}

pub(crate) fn cluster_role_binding() -> Resource {
    Resource::new(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", Scope::Cluster)
        .columns(binding_columns())
        .rules(Typed(ClusterRoleBindingRules))
}

struct RoleRules;

impl Strategy for RoleRules {
    type Kind = Role;

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
    fn validate(&self, role: &Role, errors: &mut FieldErrors) {
        policy_rules(role.rules.as_deref().unwrap_or_default(), true, errors);
    }
}

struct ClusterRoleRules;

impl Strategy for ClusterRoleRules {
    type Kind = ClusterRole;

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
    fn validate(&self, role: &ClusterRole, errors: &mut FieldErrors) {
        policy_rules(role.rules.as_deref().unwrap_or_default(), false, errors);
        let selectors = role.aggregation_rule.as_ref().map(|rule| rule.cluster_role_selectors.as_deref());
        if selectors.is_some_and(|selectors| selectors.unwrap_or_default().is_empty()) {
            errors.required(
                "aggregationRule.clusterRoleSelectors",
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
    }
}

struct RoleBindingRules;

impl Strategy for RoleBindingRules {
    type Kind = RoleBinding;

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
    fn default(&self, binding: &mut RoleBinding) {
        default_binding(&mut binding.role_ref, &mut binding.subjects);
    }
    fn validate(&self, binding: &RoleBinding, errors: &mut FieldErrors) {
        validate_role_ref(&binding.role_ref, &["Role", "ClusterRole"], errors);
        validate_subjects(binding.subjects.as_deref().unwrap_or_default(), true, errors);
    }
    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding, errors: &mut FieldErrors) {
        keep_role_ref(&new.role_ref, &old.role_ref, errors);
    }
}

struct ClusterRoleBindingRules;

impl Strategy for ClusterRoleBindingRules {
    type Kind = ClusterRoleBinding;

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }
    fn default(&self, binding: &mut ClusterRoleBinding) {
        default_binding(&mut binding.role_ref, &mut binding.subjects);
    }
    fn validate(&self, binding: &ClusterRoleBinding, errors: &mut FieldErrors) {
        validate_role_ref(&binding.role_ref, &["ClusterRole"], errors);
        validate_subjects(binding.subjects.as_deref().unwrap_or_default(), false, errors);
    }
    fn validate_update(&self, new: &ClusterRoleBinding, old: &ClusterRoleBinding, errors: &mut FieldErrors) {
        keep_role_ref(&new.role_ref, &old.role_ref, errors);
    }
}

/// Upstream: `rbac/validation.ValidatePolicyRule`.
fn policy_rules(rules: &[PolicyRule], is_namespaced: bool, errors: &mut FieldErrors) {
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    for (index, rule) in rules.iter().enumerate() {
        errors.at(&format!("rules[{index}]"), |errors| {
            if rule.verbs.is_empty() {
                errors.required("verbs", "verbs must contain at least one value");
            }
            if !is_empty(&rule.non_resource_urls) {
                let urls = json!(rule.non_resource_urls);
                if is_namespaced {
                    errors.invalid(
                        "nonResourceURLs",
                        urls.clone(),
                        "namespaced rules cannot apply to non-resource URLs",
                    );
                }
                if !is_empty(&rule.api_groups)
                    || !is_empty(&rule.resources)
                    || !is_empty(&rule.resource_names)
                {
                    let why = "rules cannot apply to both regular resources and non-resource URLs";
                    errors.invalid("nonResourceURLs", urls, why);
                }
                return;
            }
            if is_empty(&rule.api_groups) {
                errors.required("apiGroups", "resource rules must supply at least one api group");
            }
            if is_empty(&rule.resources) {
                errors.required("resources", "resource rules must supply at least one resource");
            }
        });
    }
}

fn default_binding(role_ref: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    if role_ref.api_group.as_ref().is_none_or(String::is_empty) {
        role_ref.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.iter_mut().flatten() {
        let is_unset = subject.api_group.as_ref().is_none_or(String::is_empty);
        if is_unset && matches!(subject.kind.as_str(), "User" | "Group") {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

/// Upstream: `rbac/validation.ValidateRoleBinding`.
fn validate_role_ref(role_ref: &RoleRef, kinds: &[&str], errors: &mut FieldErrors) {
    errors.at("roleRef", |errors| {
        let group = role_ref.api_group.as_deref().unwrap_or_default();
        if group != GROUP {
            errors.not_supported("apiGroup", group, &[GROUP]);
        }
        if !kinds.contains(&role_ref.kind.as_str()) {
            errors.not_supported("kind", role_ref.kind.as_str(), kinds);
        }
        match role_ref.name.as_str() {
            "" => errors.required("name", ""),
            name => names::report(errors, "name", name, names::path_segment(name)),
        }
    });
}

/// Upstream: `rbac/validation.ValidateRoleBindingSubject`.
fn validate_subjects(subjects: &[Subject], is_namespaced: bool, errors: &mut FieldErrors) {
    for (index, subject) in subjects.iter().enumerate() {
        errors.at(&format!("subjects[{index}]"), |errors| {
            if subject.name.is_empty() {
                errors.required("name", "");
            }
            let group = subject.api_group.as_deref().unwrap_or_default();
            match subject.kind.as_str() {
                "ServiceAccount" => {
                    if !subject.name.is_empty() {
                        names::report(errors, "name", &subject.name, names::dns_subdomain(&subject.name));
                    }
                    if !group.is_empty() {
                        errors.not_supported("apiGroup", group, &[""]);
                    }
                    if !is_namespaced && subject.namespace.as_ref().is_none_or(String::is_empty) {
                        errors.required("namespace", "");
                    }
                }
                "User" | "Group" if group != GROUP => errors.not_supported("apiGroup", group, &[GROUP]),
                "User" | "Group" => {}
                other => errors.not_supported("kind", other, &["ServiceAccount", "User", "Group"]),
            }
        });
    }
}

fn keep_role_ref(new: &RoleRef, old: &RoleRef, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid("roleRef", json!(new), "cannot change roleRef");
    }
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::computed("Role", |o, _| {
            format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")).into()
        }),
        Column::age(),
        Column::computed("Users", |o, _| subjects(o, "User").into()).wide(),
        Column::computed("Groups", |o, _| subjects(o, "Group").into()).wide(),
        Column::computed("ServiceAccounts", |o, _| subjects(o, "ServiceAccount").into()).wide(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let names: Vec<_> = list(binding, "/subjects")
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_update};

    #[test]
    fn rules_are_about_resources_or_paths() {
        let role = |rule: Value| json!({"metadata": {"name": "system:a", "namespace": "n"}, "rules": [rule]});
        check(&super::role(), role(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), &[]);
        check(
            &super::role(),
            role(json!({"verbs": [], "nonResourceURLs": ["/x"]})),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ],
        );
        check(
            &cluster_role(),
            json!({"metadata": {"name": "a"}, "rules": [{"verbs": ["get"]}]}),
            &[
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        );
    }

    #[test]
    fn bindings_name_a_role_for_ever_and_known_subjects() {
        let binding = |name: &str, kind: &str| {
            json!({"metadata": {"name": "a"}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": kind, "apiGroup": GROUP, "name": "u"}]})
        };
        check(&cluster_role_binding(), binding("r", "User"), &[]);
        check(
            &cluster_role_binding(),
            binding("r", "Robot"),
            &[
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        );
        check_update(
            &cluster_role_binding(),
            binding("r", "User"),
            |binding| binding["roleRef"]["name"] = "s".into(),
            &[
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"s\"}: cannot change roleRef",
            ],
        );
    }
}
