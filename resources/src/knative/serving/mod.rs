//! The kinds of Knative Serving and what it is built on. Upstream: knative.dev/serving `pkg/apis`, `config/core`.

mod annotations;
mod kinds;
mod objects;
mod pod_spec;
mod settings;
mod template;
mod traffic;

pub(super) use objects::objects;

use super::native::{Plain, Rules};

/// Written by `cargo xtask codegen`.
pub(super) const DEFINITIONS: &[u8] = include_bytes!("definitions.gz");

/// Name of the webhook that denies upstream.
const WEBHOOK: &str = "validation.webhook.serving.knative.dev";

/// Which kind has which rules.
pub(super) fn rules(group: &str, kind: &str) -> (Box<dyn Rules>, &'static str) {
    let rules: Box<dyn Rules> = match (group, kind) {
        ("serving.knative.dev", "Service") => Box::new(kinds::Service),
        ("serving.knative.dev", "Configuration") => Box::new(kinds::Configuration),
        ("serving.knative.dev", "Revision") => Box::new(kinds::Revision),
        ("serving.knative.dev", "Route") => Box::new(kinds::Route),
        ("serving.knative.dev", "DomainMapping") => Box::new(kinds::DomainMapping),
        ("autoscaling.internal.knative.dev", "PodAutoscaler") => Box::new(kinds::PodAutoscaler),
        ("networking.internal.knative.dev", "Ingress") => Box::new(kinds::Ingress),
        _ => Box::new(Plain),
    };
    (rules, WEBHOOK)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_has_a_row_and_a_definition() {
        let rows = super::super::native::rows(super::DEFINITIONS, super::rules);
        let rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        assert_eq!(
            rows,
            [
                "networking.internal.knative.dev/v1alpha1 certificates",
                "networking.internal.knative.dev/v1alpha1 clusterdomainclaims",
                "serving.knative.dev/v1 configurations",
                "serving.knative.dev/v1beta1 domainmappings",
                "caching.internal.knative.dev/v1alpha1 images",
                "networking.internal.knative.dev/v1alpha1 ingresses",
                "autoscaling.internal.knative.dev/v1alpha1 metrics",
                "autoscaling.internal.knative.dev/v1alpha1 podautoscalers",
                "serving.knative.dev/v1 revisions",
                "serving.knative.dev/v1 routes",
                "networking.internal.knative.dev/v1alpha1 serverlessservices",
                "serving.knative.dev/v1 services",
            ]
        );
    }
}
