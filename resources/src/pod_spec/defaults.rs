//! What a pod spec gets where it says nothing. Upstream: `pkg/apis/core/v1/defaults.go`.

use super::text;
use api::Quantity;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EphemeralContainer, HTTPGetAction, LifecycleHandler, ObjectFieldSelector,
    PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceFieldSelector,
    ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use std::collections::BTreeMap;

/// Mode of files in volumes that are made from objects: 0644.
const FILE_MODE: i32 = 0o644;
/// How long a service account token in a volume is valid, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// How long a pod may take to end, in seconds.
const GRACE_SECONDS: i64 = 30;

/// Rewrites amounts into their canonical text. What is no amount stays, for validation to refuse.
pub(crate) fn canonical(amounts: &mut Option<BTreeMap<String, Amount>>) {
    for amount in amounts.iter_mut().flat_map(BTreeMap::values_mut) {
        canonical_amount(amount);
    }
}

fn canonical_amount(amount: &mut Amount) {
    if let Ok(parsed) = Quantity::parse(&amount.0) {
        amount.0 = parsed.rounded_to_millis().to_string();
    }
}

fn set<T>(field: &mut Option<T>, value: T) {
    if field.is_none() {
        *field = Some(value);
    }
}

/// Sets a text where it is missing or empty.
fn set_text(field: &mut Option<String>, value: &str) {
    if text(field).is_empty() {
        *field = Some(value.to_owned());
    }
}

/// Sets a number where it is missing or zero.
fn set_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

/// The template of a workload.
pub(crate) fn default_template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    default_pod_spec(template.spec.get_or_insert_default());
}

/// The spec. What only pods get (requests from limits, service links) is done by the pod's own rules.
pub(crate) fn default_pod_spec(spec: &mut PodSpec) {
    if text(&spec.service_account_name).is_empty() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    set_text(&mut spec.dns_policy, "ClusterFirst");
    set_text(&mut spec.restart_policy, "Always");
    set_text(&mut spec.scheduler_name, "default-scheduler");
    set(&mut spec.security_context, PodSecurityContext::default());
    set(&mut spec.termination_grace_period_seconds, GRACE_SECONDS);
    canonical(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        default_resources(resources);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        default_container(container);
        for port in container.ports.iter_mut().flatten() {
            set_text(&mut port.protocol, "TCP");
        }
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral_container(container);
    }
}

/// What only pods get, not templates: requests from limits, host ports, service links.
/// Upstream: `SetDefaults_Pod`.
pub(crate) fn default_pod(spec: &mut PodSpec) {
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        spec.termination_grace_period_seconds = Some(1);
    }
    set(&mut spec.enable_service_links, true);
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = &mut container.resources
            && let Some(limits) = &resources.limits
        {
            let requests = resources.requests.get_or_insert_default();
            for (name, limit) in limits {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
        for port in container.ports.iter_mut().flatten() {
            if host_network && port.host_port.unwrap_or(0) == 0 {
                port.host_port = Some(port.container_port);
            }
        }
    }
}

fn default_resources(resources: &mut ResourceRequirements) {
    canonical(&mut resources.limits);
    canonical(&mut resources.requests);
}

fn default_container(container: &mut Container) {
    set_text(&mut container.image_pull_policy, pull_policy(text(&container.image)));
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    default_resources(container.resources.get_or_insert_default());
    for variable in container.env.iter_mut().flatten() {
        default_variable(variable);
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        default_probe(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            default_handler(handler);
        }
    }
    if let Some(security) = &mut container.security_context
        && security.proc_mount.as_deref() == Some("")
    {
        security.proc_mount = None;
    }
}

fn default_ephemeral_container(container: &mut EphemeralContainer) {
    set_text(&mut container.image_pull_policy, pull_policy(text(&container.image)));
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    default_resources(container.resources.get_or_insert_default());
    for variable in container.env.iter_mut().flatten() {
        default_variable(variable);
    }
}

/// `Always` for the tag `latest`, also where no tag is given.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or("");
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
        None if digest.is_some() => "IfNotPresent",
        None => "Always",
    }
}

fn default_variable(variable: &mut EnvVar) {
    if let Some(from) = &mut variable.value_from {
        if let Some(field) = &mut from.field_ref {
            default_field(field);
        }
        if let Some(resource) = &mut from.resource_field_ref {
            default_resource_field(resource);
        }
    }
}

fn default_field(field: &mut ObjectFieldSelector) {
    set_text(&mut field.api_version, "v1");
}

fn default_resource_field(field: &mut ResourceFieldSelector) {
    let divisor = field.divisor.get_or_insert_with(|| Amount("0".to_owned()));
    if let Ok(text) = Quantity::canonical(&divisor.0) {
        divisor.0 = text;
    }
}

fn default_probe(probe: &mut Probe) {
    set_number(&mut probe.timeout_seconds, 1);
    set_number(&mut probe.period_seconds, 10);
    set_number(&mut probe.success_threshold, 1);
    set_number(&mut probe.failure_threshold, 3);
    if let Some(http) = &mut probe.http_get {
        default_http(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        set(&mut grpc.service, String::new());
    }
}

fn default_handler(handler: &mut LifecycleHandler) {
    if let Some(http) = &mut handler.http_get {
        default_http(http);
    }
}

fn default_http(http: &mut HTTPGetAction) {
    set_text(&mut http.path, "/");
    set_text(&mut http.scheme, "HTTP");
}

fn default_volume(volume: &mut Volume) {
    if !super::volume::has_source(volume) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy(text(&image.reference));
        set_text(&mut image.pull_policy, policy);
    }
    if let Some(secret) = &mut volume.secret {
        set(&mut secret.default_mode, FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        set(&mut config_map.default_mode, FILE_MODE);
    }
    if let Some(host_path) = &mut volume.host_path {
        set(&mut host_path.type_, String::new());
    }
    if let Some(dir) = &mut volume.empty_dir
        && let Some(limit) = &mut dir.size_limit
        && let Ok(text) = Quantity::canonical(&limit.0)
    {
        limit.0 = text;
    }
    if let Some(iscsi) = &mut volume.iscsi {
        set_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        set_text(&mut rbd.pool, "rbd");
        set_text(&mut rbd.user, "admin");
        set_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(downward) = &mut volume.downward_api {
        set(&mut downward.default_mode, FILE_MODE);
        default_files(downward.items.as_deref_mut().unwrap_or_default());
    }
    if let Some(projected) = &mut volume.projected {
        set(&mut projected.default_mode, FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                set(&mut token.expiration_seconds, TOKEN_SECONDS);
            }
            if let Some(downward) = &mut source.downward_api {
                default_files(downward.items.as_deref_mut().unwrap_or_default());
            }
        }
    }
    if let Some(ephemeral) = &mut volume.ephemeral
        && let Some(template) = &mut ephemeral.volume_claim_template
    {
        default_claim_spec(&mut template.spec);
    }
}

fn default_files(files: &mut [k8s_openapi::api::core::v1::DownwardAPIVolumeFile]) {
    for file in files {
        if let Some(field) = &mut file.field_ref {
            default_field(field);
        }
        if let Some(resource) = &mut file.resource_field_ref {
            default_resource_field(resource);
        }
    }
}

/// The spec of a claim for a volume.
pub(crate) fn default_claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    set(&mut spec.volume_mode, "Filesystem".to_owned());
    let resources = spec.resources.get_or_insert_default();
    canonical(&mut resources.limits);
    canonical(&mut resources.requests);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_pulled_always_only_as_latest() {
        for (image, expect) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/a/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), expect, "{image}");
        }
    }
}
