//! `ReplicationController`. Upstream: `pkg/registry/core/replicationcontroller`, `ValidateReplicationController*`.

use crate::cells::{container_columns, labels};
use crate::pod_spec::{default_template, template_warnings, validate_template};
use crate::workload::{self, Selected, check_counts, check_replica_counts};
use api::names::check_not_negative;
use api::resource::{Column, Field, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("", "v1", "ReplicationController", "replicationcontrollers", Scope::Namespaced)
        .short_names(&["rc"])
        .categories(&["all"])
        .fields(vec![Field::new("status.replicas").missing("0")])
        .columns(vec![
            Column::number("Desired", "/spec/replicas"),
            Column::number("Current", "/status/replicas"),
            Column::number("Ready", "/status/readyReplicas"),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| labels(o, "/spec/selector").into()).wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = ReplicationController;

    fn orphans_by_default(&self) -> bool {
        true
    }

    /// Selector and labels come from the template.
    fn default(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(template) = &mut spec.template {
            default_template(template);
            let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
            if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
                if spec.selector.as_ref().is_none_or(|own| own.is_empty()) {
                    spec.selector = Some(labels.clone());
                }
                if controller.metadata.labels.as_ref().is_none_or(|own| own.is_empty()) {
                    controller.metadata.labels = Some(labels);
                }
            }
        }
        controller.status.get_or_insert_default();
    }

    fn prepare_create(&self, controller: &mut ReplicationController, _: &Context<'_>) -> Result<(), Status> {
        controller.status = Some(ReplicationControllerStatus::default());
        controller.metadata.generation = Some(1);
        if let Some(template) = controller.spec.as_mut().and_then(|spec| spec.template.as_mut()) {
            workload::drop_disabled(template);
        }
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut ReplicationController,
        old: &ReplicationController,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        if let Some(template) = new.spec.as_mut().and_then(|spec| spec.template.as_mut()) {
            workload::drop_disabled(template);
        }
        Ok(())
    }

    fn validate(&self, controller: &ReplicationController, errors: &mut FieldErrors) {
        let none = ReplicationControllerSpec::default();
        errors.at("spec", |errors| validate(controller.spec.as_ref().unwrap_or(&none), errors));
    }

    fn prepare_status_update(
        &self,
        new: &mut ReplicationController,
        old: &ReplicationController,
        _: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(
        &self,
        new: &ReplicationController,
        _: &ReplicationController,
        errors: &mut FieldErrors,
    ) {
        let none = ReplicationControllerStatus::default();
        let status = new.status.as_ref().unwrap_or(&none);
        errors.at("status", |errors| {
            let parts = [
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ];
            check_counts(errors, &[("replicas", Some(status.replicas))]);
            check_counts(errors, &parts);
            check_not_negative(errors, "observedGeneration", status.observed_generation.unwrap_or(0));
            check_replica_counts(
                errors,
                Some(status.replicas),
                &parts,
                status.ready_replicas,
                "readyReplicas",
            );
        });
    }

    fn warnings(&self, controller: &ReplicationController) -> Vec<String> {
        let mut found: Vec<_> = workload::name_warning(&controller.metadata).into_iter().collect();
        let template = controller.spec.as_ref().and_then(|spec| spec.template.as_ref());
        found.extend(template_warnings("spec.template", template));
        found
    }
}

fn validate(spec: &ReplicationControllerSpec, errors: &mut FieldErrors) {
    check_counts(errors, &[("minReadySeconds", spec.min_ready_seconds)]);
    let labels = spec.selector.clone().unwrap_or_default();
    if labels.is_empty() {
        errors.required("selector", "");
    }
    match spec.replicas {
        None => errors.required("replicas", ""),
        Some(replicas) => check_not_negative(errors, "replicas", i64::from(replicas)),
    }
    let Some(template) = &spec.template else {
        return errors.required("template", "");
    };
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    if !workload::matches(Some(&selector), template) {
        workload::report_mismatch(template, errors);
    }
    errors.at("template", |errors| validate_template(template, errors));
    let selected = Selected { kind: "", title: "ReplicationController", selector: Some(&selector), template };
    workload::check_runs_for_ever(&selected, errors);
}
