//! `StatefulSet`. Upstream: `pkg/registry/apps/statefulset`, `ValidateStatefulSet*`.

use crate::cells::{container_columns, number};
use crate::core::persistent_volume_claim::validate_spec;
use crate::pod_spec::{default_claim_spec, default_template, template_warnings, text, validate_template};
use crate::workload::{self, Selected, check_counts, check_int_or_percent, check_replica_counts};
use api::names::{self, check_not_negative, check_one_of};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec, StatefulSetStatus,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub(crate) fn resource() -> Resource {
    let [containers, images] = container_columns();
    Resource::new("apps", "v1", "StatefulSet", "statefulsets", Scope::Namespaced)
        .short_names(&["sts"])
        .categories(&["all"])
        .columns(vec![
            Column::computed("Ready", |o, _| {
                format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas")).into()
            }),
            Column::age(),
            containers,
            images,
        ])
        .scale(Some("/spec/selector"))
        .status()
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

fn default(spec: &mut StatefulSetSpec) {
    if text(&spec.pod_management_policy).is_empty() {
        spec.pod_management_policy = Some("OrderedReady".to_owned());
    }
    let strategy = spec.update_strategy.get_or_insert_default();
    if text(&strategy.type_).is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if text(&strategy.type_) == "RollingUpdate"
        && let Some(rolling) = &mut strategy.rolling_update
    {
        rolling.partition.get_or_insert(0);
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    for policy in [&mut retention.when_deleted, &mut retention.when_scaled] {
        if text(policy).is_empty() {
            *policy = Some("Retain".to_owned());
        }
    }
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    default_template(&mut spec.template);
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        default_claim_spec(claim.spec.get_or_insert_default());
        let status = claim.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
    }
}

impl Strategy for Rules {
    type Kind = StatefulSet;

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn default(&self, set: &mut StatefulSet) {
        default(&mut set.spec);
        set.status.get_or_insert_default();
    }

    fn prepare_create(&self, set: &mut StatefulSet, _: &Context<'_>) -> Result<(), Status> {
        set.status = Some(StatefulSetStatus::default());
        set.metadata.generation = Some(1);
        workload::drop_disabled(&mut set.spec.template);
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut StatefulSet,
        old: &StatefulSet,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        workload::drop_disabled(&mut new.spec.template);
        Ok(())
    }

    fn validate(&self, set: &StatefulSet, errors: &mut FieldErrors) {
        errors.at("spec", |errors| validate(&set.spec, errors));
    }

    fn validate_update(&self, new: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
        let (new, old) = (&new.spec, &old.spec);
        errors.at("spec", |errors| {
            errors.immutable("selector", &new.selector, &old.selector);
            let claims = |spec: &StatefulSetSpec| spec.volume_claim_templates.clone().unwrap_or_default();
            if !crate::equal::same(&claims(new), &claims(old)) {
                errors.immutable("volumeClaimTemplates", &claims(new), &claims(old));
            }
            errors.immutable("serviceName", &text(&new.service_name), &text(&old.service_name));
            errors.immutable("podManagementPolicy", &new.pod_management_policy, &old.pod_management_policy);
        });
    }

    fn prepare_status_update(&self, new: &mut StatefulSet, old: &StatefulSet, _: &Context<'_>) {
        new.spec = old.spec.clone();
    }

    fn validate_status_update(&self, new: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
        let none = StatefulSetStatus::default();
        let status = new.status.as_ref().unwrap_or(&none);
        errors.at("status", |errors| {
            let parts = [
                ("readyReplicas", status.ready_replicas),
                ("currentReplicas", status.current_replicas),
                ("updatedReplicas", status.updated_replicas),
                ("availableReplicas", status.available_replicas),
            ];
            check_counts(errors, &[("replicas", Some(status.replicas))]);
            check_counts(errors, &parts);
            check_not_negative(errors, "observedGeneration", status.observed_generation.unwrap_or(0));
            check_counts(errors, &[("collisionCount", status.collision_count)]);
            check_replica_counts(
                errors,
                Some(status.replicas),
                &parts,
                status.ready_replicas,
                "status.readyReplicas",
            );
        });
        let before = old.status.as_ref().and_then(|status| status.collision_count);
        workload::check_collisions(errors, status.collision_count, before);
    }

    fn warnings(&self, set: &StatefulSet) -> Vec<String> {
        let mut found = template_warnings("spec.template", Some(&set.spec.template));
        if set.spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            found.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                    .to_owned(),
            );
        }
        found
    }
}

fn validate(spec: &StatefulSetSpec, errors: &mut FieldErrors) {
    match text(&spec.pod_management_policy) {
        "" => errors.required("podManagementPolicy", ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid("podManagementPolicy", other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let none = StatefulSetUpdateStrategy::default();
    check_strategy(spec.update_strategy.as_ref().unwrap_or(&none), errors);
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        for (field, policy) in
            [("whenDeleted", &retention.when_deleted), ("whenScaled", &retention.when_scaled)]
        {
            let field = format!("persistentVolumeClaimRetentionPolicy.{field}");
            check_one_of(errors, &field, text(policy), &["Retain", "Delete"]);
        }
    }
    for (at, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
        let own = claim.spec.clone().unwrap_or_default();
        errors.at(&format!("volumeClaimTemplates[{at}].spec"), |errors| validate_spec(&own, errors));
    }
    check_counts(errors, &[("replicas", spec.replicas), ("minReadySeconds", spec.min_ready_seconds)]);
    if let Some(ordinals) = &spec.ordinals {
        check_counts(errors, &[("ordinals.start", ordinals.start)]);
    }
    let service = text(&spec.service_name);
    if !service.is_empty() {
        names::report(errors, "serviceName", service, names::dns_label(service));
    }
    let template = template_with_claims(spec);
    let selected = Selected {
        kind: "statefulset",
        title: "StatefulSet",
        selector: Some(&spec.selector).filter(|own| **own != Default::default()),
        template: &template,
    };
    workload::check_selector(&selected, errors);
    if selected.selector.is_some() && !workload::matches(selected.selector, &template) {
        workload::report_mismatch(&template, errors);
    }
    errors.at("template", |errors| validate_template(&template, errors));
    workload::check_runs_for_ever(&selected, errors);
}

/// The template with the volumes that its pods get from claims, and without the names they get.
fn template_with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let pod = template.spec.get_or_insert_default();
    (pod.subdomain, pod.hostname) = (None, None);
    let claims = spec.volume_claim_templates.as_deref().unwrap_or_default();
    if claims.is_empty() {
        return template;
    }
    let name = |claim: &PersistentVolumeClaim| claim.metadata.name.clone().unwrap_or_default();
    let mut volumes: Vec<_> = claims
        .iter()
        .map(|claim| Volume {
            name: name(claim),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name(claim),
                read_only: None,
            }),
            ..Volume::default()
        })
        .collect();
    let own = pod.volumes.take().unwrap_or_default();
    volumes.extend(own.into_iter().filter(|own| !claims.iter().any(|claim| name(claim) == own.name)));
    pod.volumes = Some(volumes);
    template
}

fn check_strategy(strategy: &StatefulSetUpdateStrategy, errors: &mut FieldErrors) {
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("", _) => errors.required("updateStrategy", ""),
        ("OnDelete", Some(rolling)) => errors.invalid(
            "updateStrategy.rollingUpdate",
            serde_json::to_value(rolling).unwrap_or_default(),
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        ("RollingUpdate", Some(rolling)) => {
            errors.at("updateStrategy.rollingUpdate", |errors| check_rolling(rolling, errors));
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(
            "updateStrategy",
            serde_json::to_value(strategy).unwrap_or_default(),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
}

fn check_rolling(rolling: &RollingUpdateStatefulSetStrategy, errors: &mut FieldErrors) {
    check_counts(errors, &[("partition", rolling.partition)]);
    if let Some(unavailable) = &rolling.max_unavailable {
        check_int_or_percent(errors, "maxUnavailable", unavailable);
        if workload::number(unavailable) == 0 {
            errors.invalid("maxUnavailable", workload::shown(unavailable), "cannot be 0");
        }
        workload::check_at_most_all(errors, "maxUnavailable", unavailable);
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{check, check_update};
    use serde_json::{Value, json};

    fn set() -> Value {
        json!({"spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}})
    }

    #[test]
    fn claims_are_volumes_and_do_not_change() {
        check(&resource(), set(), &[]);
        check_update(&resource(), set(), |new| new["spec"]["replicas"] = json!(3), &[]);
        check_update(
            &resource(),
            set(),
            |new| new["spec"]["serviceName"] = json!("t"),
            &["spec.serviceName: Invalid value: \"t\": field is immutable"],
        );
        check_update(
            &resource(),
            set(),
            |new| new["spec"]["podManagementPolicy"] = json!("Sometimes"),
            &[
                "spec.podManagementPolicy: Invalid value: \"Sometimes\": must be 'OrderedReady' or 'Parallel'",
                "spec.podManagementPolicy: Invalid value: \"Sometimes\": field is immutable",
            ],
        );
    }
}
