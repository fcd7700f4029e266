//! `ReplicaSet`. Upstream: `pkg/registry/apps/replicaset`, `ValidateReplicaSet*`.

use crate::cells::{container_columns, selector};
use crate::pod_spec::{default_template, template_warnings};
use crate::workload::{self, Selected, check_counts, check_replica_counts};
use api::names::check_not_negative;
use api::resource::{Column, Field, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "ReplicaSet", "replicasets", Scope::Namespaced)
        .short_names(&["rs"])
        .categories(&["all"])
        .fields(vec![Field::new("status.replicas").missing("0")])
        .columns(vec![
            Column::number("Desired", "/spec/replicas"),
            Column::number("Current", "/status/replicas"),
            Column::number("Ready", "/status/readyReplicas"),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| selector(o, "/spec/selector").into()).wide(),
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = ReplicaSet;

    fn default(&self, set: &mut ReplicaSet) {
        let spec = &mut set.spec;
        spec.replicas.get_or_insert(1);
        default_template(spec.template.get_or_insert_default());
        set.status.get_or_insert_default();
    }

    fn prepare_create(&self, set: &mut ReplicaSet, _: &Context<'_>) -> Result<(), Status> {
        set.status = Some(ReplicaSetStatus::default());
        set.metadata.generation = Some(1);
        if let Some(template) = &mut set.spec.template {
            workload::drop_disabled(template);
        }
        Ok(())
    }

    fn prepare_update(&self, new: &mut ReplicaSet, old: &ReplicaSet, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        if let Some(template) = &mut new.spec.template {
            workload::drop_disabled(template);
        }
        Ok(())
    }

    fn validate(&self, set: &ReplicaSet, errors: &mut FieldErrors) {
        let spec = &set.spec;
        let template = spec.template.clone().unwrap_or_default();
        errors.at("spec", |errors| {
            check_counts(errors, &[("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)]);
            let selected = Selected {
                kind: "deployment",
                title: "ReplicaSet",
                selector: Some(&spec.selector).filter(|own| **own != Default::default()),
                template: &template,
            };
            workload::check_selected(&selected, errors);
        });
    }

    fn validate_update(&self, new: &ReplicaSet, old: &ReplicaSet, errors: &mut FieldErrors) {
        let selector = |own: &ReplicaSet| own.spec.selector.clone();
        errors.immutable("spec.selector", &selector(new), &selector(old));
    }

    fn prepare_status_update(&self, new: &mut ReplicaSet, old: &ReplicaSet, _: &Context<'_>) {
        new.spec = old.spec.clone();
    }

    fn validate_status_update(&self, new: &ReplicaSet, _: &ReplicaSet, errors: &mut FieldErrors) {
        let none = ReplicaSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&none);
        errors.at("status", |errors| {
            check_not_negative(errors, "observedGeneration", status.observed_generation.unwrap_or(0));
            let parts = [
                ("fullyLabeledReplicas", status.fully_labeled_replicas),
                ("readyReplicas", status.ready_replicas),
                ("availableReplicas", status.available_replicas),
            ];
            check_counts(errors, &[("replicas", Some(status.replicas))]);
            check_counts(errors, &parts);
            check_counts(errors, &[("terminatingReplicas", status.terminating_replicas)]);
            check_replica_counts(
                errors,
                Some(status.replicas),
                &parts,
                status.ready_replicas,
                "readyReplicas",
            );
        });
    }

    fn warnings(&self, set: &ReplicaSet) -> Vec<String> {
        let mut found: Vec<_> = workload::name_warning(&set.metadata).into_iter().collect();
        let template = set.spec.template.as_ref();
        found.extend(template_warnings("spec.template", template));
        found
    }
}
