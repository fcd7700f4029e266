//! Environment variables and what they are filled from. Upstream: `ValidateEnv`, `ValidateEnvFrom`.

use super::{each_container, text};
use api::names::{self, report};
use api::{FieldErrors, Quantity};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
};

const ENVIRONMENT_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Validates `env` and `envFrom`.
pub(super) fn check(container: &Container, errors: &mut FieldErrors) {
    for (at, variable) in container.env.iter().flatten().enumerate() {
        errors.at(&format!("env[{at}]"), |errors| check_variable(variable, errors));
    }
    for (at, from) in container.env_from.iter().flatten().enumerate() {
        errors.at(&format!("envFrom[{at}]"), |errors| {
            let prefix = text(&from.prefix);
            if !prefix.is_empty() {
                report(errors, "prefix", prefix, names::environment_variable(prefix));
            }
            for (field, name) in [
                ("configMapRef", from.config_map_ref.as_ref().map(|own| &own.name)),
                ("secretRef", from.secret_ref.as_ref().map(|own| &own.name)),
            ] {
                match name.map(String::as_str) {
                    None => {}
                    Some("") => errors.required(&format!("{field}.name"), ""),
                    Some(name) => {
                        report(errors, &format!("{field}.name"), name, names::dns_subdomain(name));
                    }
                }
            }
        });
        match (&from.config_map_ref, &from.secret_ref) {
            (None, None) => {
                errors.invalid("envFrom", "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(_), Some(_)) => {
                errors.invalid("envFrom", "", "may not have more than one field specified at a time");
            }
            _ => {}
        }
    }
}

fn check_variable(variable: &EnvVar, errors: &mut FieldErrors) {
    match variable.name.as_str() {
        "" => errors.required("name", ""),
        name => report(errors, "name", name, names::environment_variable(name)),
    }
    if let Some(from) = &variable.value_from {
        errors.at("valueFrom", |errors| check_source(variable, from, errors));
    }
}

fn check_source(variable: &EnvVar, from: &EnvVarSource, errors: &mut FieldErrors) {
    let mut count = 0;
    if let Some(field) = &from.field_ref {
        count += 1;
        errors.at("fieldRef", |errors| check_field(field, &ENVIRONMENT_FIELDS, errors));
    }
    if let Some(resource) = &from.resource_field_ref {
        count += 1;
        errors.at("resourceFieldRef", |errors| check_resource_field(resource, false, errors));
    }
    let keys = [
        ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|own| (&own.name, &own.key))),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|own| (&own.name, &own.key))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else {
            continue;
        };
        count += 1;
        errors.at(field, |errors| {
            report(errors, "name", name, names::dns_subdomain(name));
            match key.as_str() {
                "" => errors.required("key", ""),
                key => report(errors, "key", key, names::config_key(key)),
            }
        });
    }
    if let Some(file) = &from.file_key_ref {
        count += 1;
        errors.at("fileKeyRef", |errors| check_file(file, errors));
    }
    if count == 0 {
        errors.invalid(
            "",
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !text(&variable.value).is_empty() {
        errors.invalid("", "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid("", "", "may not have more than one field specified at a time");
    }
}

fn check_file(file: &FileKeySelector, errors: &mut FieldErrors) {
    match file.key.as_str() {
        "" => errors.required("key", ""),
        key => report(errors, "key", key, names::environment_variable(key)),
    }
    match file.volume_name.as_str() {
        "" => errors.required("volumeName", ""),
        name => report(errors, "volumeName", name, names::dns_label(name)),
    }
    match file.path.as_str() {
        "" => errors.required("path", ""),
        path => super::volume::check_no_backsteps("path", path, errors),
    }
}

/// Variables from files name an emptyDir of the pod.
pub(super) fn check_file_references(spec: &PodSpec, errors: &mut FieldErrors) {
    for (path, container) in each_container(spec) {
        for (at, variable) in container.env.iter().flatten().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else {
                continue;
            };
            let field = format!("{path}.env[{at}].valueFrom.fileKeyRef.volumeName");
            match spec.volumes.iter().flatten().find(|volume| volume.name == file.volume_name) {
                None => errors.not_found(&field, file.volume_name.as_str()),
                Some(volume) if volume.empty_dir.is_none() => errors.invalid(
                    &field,
                    file.volume_name.as_str(),
                    "referenced volume must be of type emptyDir",
                ),
                Some(_) => {}
            }
        }
    }
}

/// A field of the pod, for a volume's file.
pub(super) fn check_volume_field(field: &ObjectFieldSelector, errors: &mut FieldErrors) {
    check_field(field, &VOLUME_FIELDS, errors);
}

fn check_field(field: &ObjectFieldSelector, allowed: &[&str], errors: &mut FieldErrors) {
    let path = field.field_path.as_str();
    match (text(&field.api_version), path) {
        ("", _) => return errors.required("apiVersion", ""),
        (_, "") => return errors.required("fieldPath", ""),
        ("v1", _) => {}
        (version, _) => {
            return errors.invalid(
                "fieldPath",
                path,
                format!("error converting fieldPath: unsupported pod version: {version}"),
            );
        }
    }
    if let Some((base, subscript)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        match base {
            "metadata.annotations" => {
                let lower = subscript.to_lowercase();
                report(errors, "", &lower, names::qualified(&lower));
            }
            "metadata.labels" => report(errors, "", subscript, names::qualified(subscript)),
            _ => errors.invalid(
                "fieldPath",
                path,
                format!("error converting fieldPath: field label does not support subscript: {path}"),
            ),
        }
        return;
    }
    // `spec.host` is the only old name that is still understood.
    let known = ENVIRONMENT_FIELDS.contains(&path) || VOLUME_FIELDS.contains(&path) || path == "spec.host";
    if !known && !matches!(path, "spec.restartPolicy" | "spec.schedulerName" | "status.phase") {
        return errors.invalid(
            "fieldPath",
            path,
            format!("error converting fieldPath: field label not supported: {path}"),
        );
    }
    if !allowed.contains(&path) && path != "spec.host" {
        errors.not_supported("fieldPath", path, allowed);
    }
}

/// A container's request or limit.
pub(super) fn check_resource_field(field: &ResourceFieldSelector, in_volume: bool, errors: &mut FieldErrors) {
    let resource = field.resource.as_str();
    let is_huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|own| resource.starts_with(own));
    if in_volume && text(&field.container_name).is_empty() {
        errors.required("containerName", "");
    } else if resource.is_empty() {
        errors.required("resource", "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !is_huge {
        errors.not_supported("resource", resource, &RESOURCE_FIELDS);
    }
    let divisor = field.divisor.as_ref().and_then(|own| Quantity::parse(&own.0).ok()).unwrap_or_default();
    if divisor.is_zero() {
        return;
    }
    let divisor = divisor.to_string();
    let (what, allowed) = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") => {
            if divisor != "1m" && divisor != "1" {
                errors.invalid(
                    "divisor",
                    resource,
                    "only divisor's values 1m and 1 are supported with the cpu resource",
                );
            }
            return;
        }
        Some("memory") => ("memory", &DIVISORS),
        Some("ephemeral-storage") => ("local ephemeral storage", &DIVISORS),
        _ if is_huge => ("hugepages", &DIVISORS),
        _ => return,
    };
    if !allowed.contains(&divisor.as_str()) {
        let list = allowed.join(", ");
        errors.invalid(
            "divisor",
            resource,
            format!("only divisor's values {list} are supported with the {what} resource"),
        );
    }
}
