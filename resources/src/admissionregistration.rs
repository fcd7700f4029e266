//! `admissionregistration.k8s.io/v1`. Upstream: `pkg/registry/admissionregistration`.

use crate::cells::{UNSET, count, selector_text, text};
use crate::webhook_configuration::Rules;
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

fn row(kind: &str, plural: &str, columns: Vec<Column>) -> Resource {
    Resource::new("admissionregistration.k8s.io", "v1", kind, plural, Scope::Cluster)
        .categories(&["api-extensions"])
        .columns(columns)
        .generation()
}

fn webhooks() -> Vec<Column> {
    vec![Column::computed("Webhooks", |o, _| count(o, "/webhooks").into()).kind("integer"), Column::age()]
}

pub(crate) fn mutating_webhook_configuration() -> Resource {
    row("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", webhooks())
        .rules(Rules { mutating: true })
}

pub(crate) fn validating_webhook_configuration() -> Resource {
    row("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", webhooks())
        .rules(Rules { mutating: false })
}

fn param_kind() -> Column {
    Column::computed("ParamKind", |o, _| match o.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")).into(),
        None => UNSET.into(),
    })
}

pub(crate) fn validating_admission_policy() -> Resource {
    let columns = vec![
        Column::computed("Validations", |o, _| count(o, "/spec/validations").into()).kind("integer"),
        param_kind(),
        Column::age(),
    ];
    row("ValidatingAdmissionPolicy", "validatingadmissionpolicies", columns).status()
}

pub(crate) fn mutating_admission_policy() -> Resource {
    let columns = vec![
        Column::computed("Mutations", |o, _| count(o, "/spec/mutations").into()).kind("integer"),
        param_kind(),
        Column::age(),
    ];
    row("MutatingAdmissionPolicy", "mutatingadmissionpolicies", columns)
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::or("PolicyName", "/spec/policyName", ""),
        Column::computed("ParamRef", |o, _| param_ref(o).into()),
        Column::age(),
    ]
}

fn param_ref(binding: &Value) -> String {
    let Some(param) = binding.pointer("/spec/paramRef") else {
        return UNSET.to_owned();
    };
    match (text(param, "/namespace"), text(param, "/name")) {
        (_, "") => param.pointer("/selector").map_or(UNSET.to_owned(), selector_text),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

pub(crate) fn validating_admission_policy_binding() -> Resource {
    row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", binding_columns())
}

pub(crate) fn mutating_admission_policy_binding() -> Resource {
    row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", binding_columns())
}
