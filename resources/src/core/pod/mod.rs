//! `Pod`. Upstream: `pkg/registry/core/pod`, `ValidatePodCreate` and its neighbours in `pkg/apis/core/validation`.

mod columns;
mod ephemeral;
mod resize;
mod status;
mod update;

use crate::equal::same;
use crate::pod_spec::{self, affinity, check_pod_annotations, default_pod, default_pod_spec, qos_class};
use api::resource::{Action, Field, Resource, Scope, Subresource, VERBS_CREATE, VERBS_PART};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
use std::sync::Arc;

pub(crate) fn resource() -> Resource {
    let connect = |name, verbs, kind| Subresource { name, verbs, body: kind, action: Action::Connect };
    let create =
        |name, body| Subresource { name, verbs: VERBS_CREATE, body: Some(body), action: Action::Create };
    let part = |name, action| Subresource { name, verbs: VERBS_PART, body: None, action };
    Resource::new("", "v1", "Pod", "pods", Scope::Namespaced)
        .short_names(&["po"])
        .categories(&["all"])
        .fields(vec![
            Field::new("spec.nodeName"),
            Field::new("spec.restartPolicy"),
            Field::new("spec.schedulerName"),
            Field::new("spec.serviceAccountName"),
            Field::new("spec.hostNetwork").missing("false"),
            Field::new("status.phase"),
            Field::new("status.podIP"),
            Field::new("status.nominatedNodeName"),
        ])
        .columns(columns::columns())
        .subresource(connect("attach", crate::VERBS_STREAM, Some(("", "v1", "PodAttachOptions"))))
        .subresource(create("binding", ("", "v1", "Binding")))
        .subresource(part("ephemeralcontainers", Action::Part(Arc::new(Typed(ephemeral::Rules)))))
        .subresource(create("eviction", ("policy", "v1", "Eviction")))
        .subresource(connect("exec", crate::VERBS_STREAM, Some(("", "v1", "PodExecOptions"))))
        .subresource(connect("log", &["get"], None))
        .subresource(connect("portforward", crate::VERBS_STREAM, Some(("", "v1", "PodPortForwardOptions"))))
        .subresource(connect("proxy", crate::VERBS_PROXY, Some(("", "v1", "PodProxyOptions"))))
        .subresource(part("resize", Action::Part(Arc::new(Typed(resize::Rules)))))
        .status()
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

/// What a pod gets where it says nothing.
fn default(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    default_pod_spec(spec);
    default_pod(spec);
    status::default(pod.status.get_or_insert_default());
}

/// The spec of a pod that went through `default`.
fn spec_of(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// Counts a change of the spec.
fn count_change(new: &mut Pod, old: &Pod) {
    if !same(&new.spec, &old.spec) {
        new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
    }
}

impl Strategy for Rules {
    type Kind = Pod;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn default(&self, pod: &mut Pod) {
        default(pod);
    }

    fn prepare_create(&self, pod: &mut Pod, _: &Context<'_>) -> Result<(), Status> {
        pod.metadata.generation = Some(1);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let spec = pod.spec.get_or_insert_default();
        pod_spec::drop_disabled(spec);
        if let Some(own) = &mut spec.affinity {
            affinity::apply_label_keys(own, &labels);
        }
        for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
            if let Some(selector) = &mut constraint.label_selector {
                affinity::apply_keys(constraint.match_label_keys.as_deref(), "In", selector, &labels);
            }
        }
        resize::default_pod_level(spec);
        let mut status = PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos_class(spec).to_owned()),
            ..PodStatus::default()
        };
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            status.conditions = Some(vec![PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: Some("SchedulingGated".to_owned()),
                message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
                ..PodCondition::default()
            }]);
        }
        pod.status = Some(status);
        Ok(())
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        let spec = new.spec.get_or_insert_default();
        if spec.resources.is_none() {
            spec.resources = old.spec.as_ref().and_then(|old| old.resources.clone());
        }
        pod_spec::drop_disabled(spec);
        count_change(new, old);
        Ok(())
    }

    fn validate(&self, pod: &Pod, errors: &mut FieldErrors) {
        validate(pod, errors);
    }

    fn validate_create(&self, pod: &Pod, errors: &mut FieldErrors) {
        let spec = spec_of(pod);
        if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
            errors.forbidden("spec.ephemeralContainers", "cannot be set on create");
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if gated && !pod_spec::text(&spec.node_name).is_empty() {
            errors.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
        }
    }

    fn validate_update(&self, new: &Pod, old: &Pod, errors: &mut FieldErrors) {
        update::validate(new, old, errors);
    }

    fn prepare_status_update(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) {
        status::prepare(new, old);
    }

    fn validate_status_update(&self, new: &Pod, old: &Pod, errors: &mut FieldErrors) {
        status::validate(new, old, errors);
    }

    fn warnings(&self, pod: &Pod) -> Vec<String> {
        let mut found = Vec::new();
        let faults = names::dns_label(pod.metadata.name.as_deref().unwrap_or(""));
        if !faults.is_empty() {
            found.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; \
                 a DNS label is recommended: [{}]",
                faults.join(" ")
            ));
        }
        found.extend(pod_spec::pod_warnings(&pod.metadata, &spec_of(pod)));
        found
    }

    /// A pod that no node has, or that has ended, dies at once.
    fn grace_seconds(&self, pod: &Pod, asked: Option<i64>) -> Option<i64> {
        let spec = spec_of(pod);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Failed" | "Succeeded"));
        if ended || pod_spec::text(&spec.node_name).is_empty() {
            return Some(0);
        }
        match asked.or(spec.termination_grace_period_seconds).unwrap_or(0) {
            seconds if seconds < 0 => Some(1),
            seconds => Some(seconds),
        }
    }
}

/// What holds for every pod. Upstream: `validatePodMetadataAndSpec`.
fn validate(pod: &Pod, errors: &mut FieldErrors) {
    let spec = spec_of(pod);
    check_pod_annotations(&pod.metadata, pod_spec::text(&spec.node_name), errors, "metadata.annotations");
    errors.at("spec", |errors| {
        pod_spec::validate(&spec, pod_spec::Of { meta: Some(&pod.metadata) }, errors);
        if let Some(seconds) = spec.termination_grace_period_seconds {
            names::check_not_negative(errors, "terminationGracePeriodSeconds", seconds);
        }
        if !pod_spec::text(&spec.service_account_name).is_empty() {
            return;
        }
        for (at, volume) in spec.volumes.iter().flatten().enumerate() {
            let sources = volume.projected.iter().filter_map(|own| own.sources.as_ref()).flatten();
            for (source_at, _) in
                sources.enumerate().filter(|(_, source)| source.service_account_token.is_some())
            {
                errors.forbidden(
                    &format!("volumes[{at}].projected.sources[{source_at}].serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    });
}

#[cfg(test)]
mod tests;
