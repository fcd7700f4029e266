//! `Deployment`. Upstream: `pkg/registry/apps/deployment`, `ValidateDeployment*`.

use crate::cells::{container_columns, number, selector_text};
use crate::equal::same;
use crate::pod_spec::{default_template, template_warnings, text};
use crate::workload::{self, Selected, check_counts, check_int_or_percent, check_replica_counts};
use api::names::check_not_negative;
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced)
        .short_names(&["deploy"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Ready", |o, _| {
                format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
            }),
            Column::or("Up-to-date", "/status/updatedReplicas", 0),
            Column::or("Available", "/status/availableReplicas", 0),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| {
                o.pointer("/spec/selector").map(selector_text).unwrap_or_default().into()
            })
            .wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

fn default(spec: &mut DeploymentSpec) {
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    spec.progress_deadline_seconds.get_or_insert(600);
    let strategy = spec.strategy.get_or_insert_default();
    if text(&strategy.type_).is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
    }
    if text(&strategy.type_) == "RollingUpdate" {
        let quarter = || IntOrString::String("25%".to_owned());
        let rolling = strategy.rolling_update.get_or_insert_default();
        rolling.max_unavailable.get_or_insert_with(quarter);
        rolling.max_surge.get_or_insert_with(quarter);
    }
    default_template(&mut spec.template);
}

impl Strategy for Rules {
    type Kind = Deployment;

    fn default(&self, deployment: &mut Deployment) {
        default(&mut deployment.spec);
        deployment.status.get_or_insert_default();
    }

    fn prepare_create(&self, deployment: &mut Deployment, _: &Context<'_>) -> Result<(), Status> {
        deployment.status = Some(DeploymentStatus::default());
        deployment.metadata.generation = Some(1);
        workload::drop_disabled(&mut deployment.spec.template);
        Ok(())
    }

    /// Annotations count as part of the spec here.
    fn prepare_update(&self, new: &mut Deployment, old: &Deployment, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        workload::drop_disabled(&mut new.spec.template);
        if !same(&new.spec, &old.spec) || !same(&new.metadata.annotations, &old.metadata.annotations) {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
        }
        Ok(())
    }

    fn validate(&self, deployment: &Deployment, errors: &mut FieldErrors) {
        errors.at("spec", |errors| validate(&deployment.spec, errors));
    }

    fn validate_update(&self, new: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
        let selector = |own: &Deployment| own.spec.selector.clone();
        errors.immutable("spec.selector", &selector(new), &selector(old));
    }

    fn prepare_status_update(&self, new: &mut Deployment, old: &Deployment, _: &Context<'_>) {
        new.spec = old.spec.clone();
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn validate_status_update(&self, new: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
        let none = DeploymentStatus::default();
        let status = new.status.as_ref().unwrap_or(&none);
        errors.at("status", |errors| {
            check_not_negative(errors, "observedGeneration", status.observed_generation.unwrap_or(0));
            check_counts(
                errors,
                &[
                    ("replicas", status.replicas),
                    ("updatedReplicas", status.updated_replicas),
                    ("readyReplicas", status.ready_replicas),
                    ("availableReplicas", status.available_replicas),
                    ("unavailableReplicas", status.unavailable_replicas),
                    ("terminatingReplicas", status.terminating_replicas),
                    ("collisionCount", status.collision_count),
                ],
            );
            check_replica_counts(
                errors,
                status.replicas,
                &[
                    ("updatedReplicas", status.updated_replicas),
                    ("readyReplicas", status.ready_replicas),
                    ("availableReplicas", status.available_replicas),
                ],
                status.ready_replicas,
                "readyReplicas",
            );
        });
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        workload::check_collisions(errors, status.collision_count, before);
    }

    fn warnings(&self, deployment: &Deployment) -> Vec<String> {
        let mut found: Vec<_> = workload::name_warning(&deployment.metadata).into_iter().collect();
        let template = Some(&deployment.spec.template);
        found.extend(template_warnings("spec.template", template));
        found
    }
}

fn validate(spec: &DeploymentSpec, errors: &mut FieldErrors) {
    check_counts(errors, &[("replicas", spec.replicas)]);
    let selected = Selected {
        kind: "deployment",
        title: "ReplicaSet",
        selector: Some(&spec.selector).filter(|own| **own != Default::default()),
        template: &spec.template,
    };
    workload::check_selected(&selected, errors);
    let none = DeploymentStrategy::default();
    errors.at("strategy", |errors| check_strategy(spec.strategy.as_ref().unwrap_or(&none), errors));
    check_counts(
        errors,
        &[
            ("minReadySeconds", spec.min_ready_seconds),
            ("revisionHistoryLimit", spec.revision_history_limit),
            ("progressDeadlineSeconds", spec.progress_deadline_seconds),
        ],
    );
    if let Some(deadline) = spec.progress_deadline_seconds
        && deadline <= spec.min_ready_seconds.unwrap_or(0)
    {
        errors.invalid("progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
}

fn check_strategy(strategy: &DeploymentStrategy, errors: &mut FieldErrors) {
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden("rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.required("rollingUpdate", "this should be defaulted and never be nil");
        }
        ("RollingUpdate", Some(rolling)) => {
            errors.at("rollingUpdate", |errors| check_rolling(rolling, errors));
        }
        _ => errors.not_supported(
            "",
            serde_json::to_value(strategy).unwrap_or_default(),
            &["Recreate", "RollingUpdate"],
        ),
    }
}

fn check_rolling(rolling: &RollingUpdateDeployment, errors: &mut FieldErrors) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    check_int_or_percent(errors, "maxUnavailable", unavailable);
    check_int_or_percent(errors, "maxSurge", surge);
    if workload::number(unavailable) == 0 && workload::number(surge) == 0 {
        errors.invalid("maxUnavailable", workload::shown(unavailable), "may not be 0 when `maxSurge` is 0");
    }
    workload::check_at_most_all(errors, "maxUnavailable", unavailable);
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, check, check_update, created};
    use serde_json::{Value, json};

    fn deployment() -> Value {
        json!({"spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
    }

    #[test]
    fn defaults() {
        let (made, errors) = created(&resource(), deployment(), &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(made["spec"]["replicas"], 1);
        assert_eq!(
            made["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(made["spec"]["template"]["spec"]["restartPolicy"], "Always");
        assert!(made["spec"]["template"]["spec"]["enableServiceLinks"].is_null());
    }

    #[test]
    fn what_is_refused() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut own = deployment();
            change(&mut own);
            own
        };
        let row = resource();
        check(
            &row,
            with(&|own| own["spec"]["template"]["metadata"]["labels"] = json!({"x": "y"})),
            &[
                "spec.template.metadata.labels: Invalid value: {\"x\":\"y\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            &row,
            with(&|own| own["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}})),
            &[
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        );
        check(
            &row,
            with(&|own| own["spec"]["template"]["spec"]["restartPolicy"] = json!("Never")),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
        check(&row, with(&|own| own["spec"]["selector"] = Value::Null), &["spec.selector: Required value"]);
        check_update(
            &row,
            deployment(),
            |new| {
                new["spec"]["selector"]["matchLabels"]["c"] = json!("d");
                new["spec"]["template"]["metadata"]["labels"]["c"] = json!("d");
            },
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable",
            ],
        );
    }
}
