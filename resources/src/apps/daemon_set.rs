//! `DaemonSet`. Upstream: `pkg/registry/apps/daemonset`, `ValidateDaemonSet*`.

use crate::cells::{container_columns, labels, selector};
use crate::equal::same;
use crate::pod_spec::{default_template, template_warnings, text, validate_template};
use crate::workload::{self, Selected, check_counts, check_int_or_percent};
use api::names::check_not_negative;
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "DaemonSet", "daemonsets", Scope::Namespaced)
        .short_names(&["ds"])
        .categories(&["all"])
        .columns(vec![
            Column::number("Desired", "/status/desiredNumberScheduled"),
            Column::number("Current", "/status/currentNumberScheduled"),
            Column::number("Ready", "/status/numberReady"),
            Column::number("Up-to-date", "/status/updatedNumberScheduled"),
            Column::number("Available", "/status/numberAvailable"),
            Column::computed("Node Selector", |o, _| labels(o, "/spec/template/spec/nodeSelector").into()),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", |o, _| selector(o, "/spec/selector").into()).wide(),
        ])
        .status()
        .generation()
        .rules(Typed(Rules))
}

/// Counts changes of the template; what was a field before `apps/v1`.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

struct Rules;

fn template_generation(set: &DaemonSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

impl Strategy for Rules {
    type Kind = DaemonSet;

    fn default(&self, set: &mut DaemonSet) {
        let spec = &mut set.spec;
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        if text(&strategy.type_).is_empty() {
            strategy.type_ = Some("RollingUpdate".to_owned());
        }
        if text(&strategy.type_) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        default_template(&mut spec.template);
        set.status.get_or_insert_default();
    }

    fn prepare_create(&self, set: &mut DaemonSet, _: &Context<'_>) -> Result<(), Status> {
        set.status = Some(DaemonSetStatus::default());
        set.metadata.generation = Some(1);
        set_template_generation(set, template_generation(set).max(1));
        workload::drop_disabled(&mut set.spec.template);
        Ok(())
    }

    fn prepare_update(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        workload::drop_disabled(&mut new.spec.template);
        let template = |set: &DaemonSet| set.spec.template.clone();
        let changed = !same(&template(new), &template(old));
        set_template_generation(new, template_generation(old) + i64::from(changed));
        Ok(())
    }

    fn validate(&self, set: &DaemonSet, errors: &mut FieldErrors) {
        errors.at("spec", |errors| validate(&set.spec, errors));
    }

    fn validate_update(&self, new: &DaemonSet, old: &DaemonSet, errors: &mut FieldErrors) {
        let selector = |own: &DaemonSet| own.spec.selector.clone();
        errors.immutable("spec.selector", &selector(new), &selector(old));
    }

    fn prepare_status_update(&self, new: &mut DaemonSet, old: &DaemonSet, _: &Context<'_>) {
        new.spec = old.spec.clone();
    }

    fn validate_status_update(&self, new: &DaemonSet, old: &DaemonSet, errors: &mut FieldErrors) {
        let none = DaemonSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&none);
        errors.at("status", |errors| {
            check_not_negative(errors, "observedGeneration", status.observed_generation.unwrap_or(0));
            check_counts(
                errors,
                &[
                    ("currentNumberScheduled", Some(status.current_number_scheduled)),
                    ("numberMisscheduled", Some(status.number_misscheduled)),
                    ("desiredNumberScheduled", Some(status.desired_number_scheduled)),
                    ("numberReady", Some(status.number_ready)),
                    ("updatedNumberScheduled", status.updated_number_scheduled),
                    ("numberAvailable", status.number_available),
                    ("numberUnavailable", status.number_unavailable),
                    ("collisionCount", status.collision_count),
                ],
            );
        });
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        workload::check_collisions(errors, status.collision_count, before);
    }

    fn warnings(&self, set: &DaemonSet) -> Vec<String> {
        template_warnings("spec.template", Some(&set.spec.template))
    }
}

fn validate(spec: &DaemonSetSpec, errors: &mut FieldErrors) {
    api::names::check_selector(errors, "selector", Some(&spec.selector));
    if !workload::matches(Some(&spec.selector), &spec.template) {
        workload::report_mismatch(&spec.template, errors);
    }
    if workload::is_empty(&spec.selector) {
        errors.invalid(
            "selector",
            serde_json::to_value(&spec.selector).unwrap_or_default(),
            "empty selector is invalid for daemonset",
        );
    }
    errors.at("template", |errors| validate_template(&spec.template, errors));
    let selected = Selected {
        kind: "daemonset",
        title: "DaemonSet",
        selector: Some(&spec.selector),
        template: &spec.template,
    };
    workload::check_runs_for_ever(&selected, errors);
    check_counts(errors, &[("minReadySeconds", spec.min_ready_seconds)]);
    let none = DaemonSetUpdateStrategy::default();
    let strategy = spec.update_strategy.as_ref().unwrap_or(&none);
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required("updateStrategy.rollingUpdate", ""),
        ("RollingUpdate", Some(rolling)) => {
            errors.at("updateStrategy.rollingUpdate", |errors| check_rolling(rolling, errors));
        }
        _ => errors.not_supported(
            "updateStrategy",
            serde_json::to_value(strategy).unwrap_or_default(),
            &["RollingUpdate", "OnDelete"],
        ),
    }
    check_counts(errors, &[("revisionHistoryLimit", spec.revision_history_limit)]);
}

fn check_rolling(rolling: &RollingUpdateDaemonSet, errors: &mut FieldErrors) {
    let zero = IntOrString::Int(0);
    let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
    let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
    for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
        check_int_or_percent(errors, field, value);
        workload::check_at_most_all(errors, field, value);
    }
    match (workload::number(unavailable) != 0, workload::number(surge) != 0) {
        (true, true) => errors.invalid(
            "maxSurge",
            workload::shown(surge),
            "may not be set when maxUnavailable is non-zero",
        ),
        (false, false) => errors.required("maxUnavailable", "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, created};
    use serde_json::json;

    #[test]
    fn the_template_generation_is_an_annotation() {
        let set = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        let (made, errors) = created(&resource(), set, &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(made["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "1");
        assert_eq!(
            made["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}})
        );
    }
}
