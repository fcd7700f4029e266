//! `pods/resize`: changes requests and limits of a running pod. Upstream: `podResizeStrategy`, `ValidatePodResize`.

use super::{count_change, default, spec_of};
use crate::equal::{keep_metadata, same};
use crate::pod_spec::resources::{Amounts, Totals, is_huge_page, pod_limits, pod_requests};
use crate::pod_spec::{self, is_sidecar, qos_class};
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};

const ONLY: &str = "only cpu and memory resources are mutable";

pub(super) struct Rules;

impl Strategy for Rules {
    type Kind = Pod;

    fn default(&self, pod: &mut Pod) {
        default(pod);
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) -> Result<(), Status> {
        let (asked, before) = (spec_of(new), spec_of(old));
        let init = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
        if asked.containers.len() == before.containers.len() && init(&asked) == init(&before) {
            let mut spec = before.clone();
            spec.resources = asked.resources.or(before.resources);
            take_resources(&mut spec.containers, asked.containers);
            if let (Some(own), Some(asked)) = (&mut spec.init_containers, asked.init_containers) {
                take_resources(own, asked);
            }
            default_pod_level(&mut spec);
            new.spec = Some(spec);
            new.status.clone_from(&old.status);
            keep_metadata(&mut new.metadata, &old.metadata);
        }
        count_change(new, old);
        Ok(())
    }

    fn validate(&self, pod: &Pod, errors: &mut FieldErrors) {
        super::validate(pod, errors);
    }

    fn validate_update(&self, new: &Pod, old: &Pod, errors: &mut FieldErrors) {
        if old
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
        {
            return errors.forbidden("", "static pods cannot be resized");
        }
        let supported = old.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
        let mut running = supported.filter(|own| own.state.as_ref().is_some_and(|s| s.running.is_some()));
        let supported = running.next().is_none_or(|own| own.resources.is_some());
        let (new, old) = (spec_of(new), spec_of(old));
        if old.os.as_ref().is_some_and(|os| os.name == "windows") {
            return errors.forbidden("", "windows pods cannot be resized");
        }
        errors.at("spec", |errors| {
            if qos_class(&new) != qos_class(&old) {
                errors.invalid("", qos_class(&new), "Pod QOS Class may not change as a result of resizing");
            }
            if !supported {
                errors.forbidden("", "Pod running on node without support for resize");
            }
            check(new, &old, errors);
        });
    }
}

/// Takes requests, limits and policies of containers that are still the same ones.
fn take_resources(own: &mut [Container], asked: Vec<Container>) {
    if own.iter().zip(&asked).any(|(own, asked)| own.name != asked.name) {
        own.iter_mut().zip(asked).for_each(|(own, asked)| *own = asked);
        return;
    }
    for (own, asked) in own.iter_mut().zip(asked) {
        own.resources = asked.resources;
        own.resize_policy = asked.resize_policy;
    }
}

fn check(mut new: PodSpec, old: &PodSpec, errors: &mut FieldErrors) {
    let none = Vec::new();
    let lists = [
        ("containers", &new.containers, &old.containers),
        (
            "initContainers",
            new.init_containers.as_ref().unwrap_or(&none),
            old.init_containers.as_ref().unwrap_or(&none),
        ),
    ];
    let mut ordered = true;
    for (field, new, old) in lists {
        if new.len() != old.len() {
            errors.forbidden(field, format!("{field} may not be added or removed on resize"));
            ordered = false;
            continue;
        }
        for (at, (own, before)) in new.iter().zip(old).enumerate() {
            if own.name != before.name {
                errors.forbidden(
                    &format!("{field}[{at}].name"),
                    format!("{field} may not be renamed or reordered on resize"),
                );
                ordered = false;
            }
        }
    }
    if !ordered {
        return;
    }
    for (field, new, old) in lists {
        for (at, (own, before)) in new.iter().zip(old).enumerate() {
            errors.at(&format!("{field}[{at}]"), |errors| {
                check_container(own, before, field == "initContainers" && !is_sidecar(own), errors);
            });
        }
    }
    check_removed("resources", new.resources.as_ref(), old.resources.as_ref(), errors);
    let forget = |containers: &mut [Container], old: &[Container]| {
        for (own, before) in containers.iter_mut().zip(old) {
            own.resources.clone_from(&before.resources);
            own.resize_policy.clone_from(&before.resize_policy);
        }
    };
    forget(&mut new.containers, &old.containers);
    forget(
        new.init_containers.as_deref_mut().unwrap_or_default(),
        old.init_containers.as_deref().unwrap_or_default(),
    );
    new.resources.clone_from(&old.resources);
    if !same(&new, old) {
        errors.forbidden("", ONLY);
    }
}

fn check_container(own: &Container, before: &Container, is_init: bool, errors: &mut FieldErrors) {
    check_removed("resources", own.resources.as_ref(), before.resources.as_ref(), errors);
    let rest = |own: &Container| {
        let mut resources = own.resources.clone().unwrap_or_default();
        for list in [&mut resources.limits, &mut resources.requests].into_iter().flatten() {
            list.remove("cpu");
            list.remove("memory");
        }
        resources
    };
    if !same(&rest(own), &rest(before)) || !same(&own.resize_policy, &before.resize_policy) {
        errors.forbidden("", ONLY);
    }
    let restarts =
        own.resize_policy.iter().flatten().any(|policy| policy.restart_policy == "RestartContainer");
    if is_init && restarts && !same(&own.resources, &before.resources) {
        errors.forbidden(
            "",
            "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
        );
    }
}

fn check_removed(
    field: &str,
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    errors: &mut FieldErrors,
) {
    type Part = fn(&ResourceRequirements) -> &Option<Amounts>;
    let parts: [(&str, &str, Part); 2] = [
        ("requests", "resource requests", |own| &own.requests),
        ("limits", "resource limits", |own| &own.limits),
    ];
    for (part, text, list) in parts {
        let none = Amounts::new();
        let old = old.and_then(|own| list(own).as_ref()).unwrap_or(&none);
        let new = new.and_then(|own| list(own).as_ref()).unwrap_or(&none);
        if old.keys().any(|name| !new.contains_key(name)) {
            errors.forbidden(&format!("{field}.{part}"), format!("{text} cannot be removed"));
        }
    }
}

/// Fills in requests and limits of the pod as a whole where some are given. Upstream: `DefaultPodLevelResources`.
pub(super) fn default_pod_level(spec: &mut PodSpec) {
    let filled = |list: &Option<Amounts>| list.as_ref().is_some_and(|list| !list.is_empty());
    let containers = PodSpec {
        containers: spec.containers.clone(),
        init_containers: spec.init_containers.clone(),
        ..PodSpec::default()
    };
    let Some(own) = spec.resources.as_mut().filter(|own| filled(&own.requests) || filled(&own.limits)) else {
        return;
    };
    let add = |list: &mut Option<Amounts>, totals: Totals, wanted: fn(&str) -> bool| {
        for (name, amount) in totals.into_iter().filter(|(name, _)| wanted(name)) {
            list.get_or_insert_default().entry(name).or_insert_with(|| (&amount).into());
        }
    };
    let huge = pod_limits(&containers)
        .into_iter()
        .filter(|(name, _)| !own.requests.as_ref().is_some_and(|requests| requests.contains_key(name)));
    let huge: Totals = huge.collect();
    add(&mut own.limits, huge, is_huge_page);
    add(&mut own.requests, pod_requests(&containers), |name| matches!(name, "cpu" | "memory"));
    for (name, limit) in own.limits.iter().flatten() {
        if pod_spec::resources::is_pod_level(name) {
            own.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}
