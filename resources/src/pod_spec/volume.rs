//! Volumes, mounts and devices. Upstream: `ValidateVolumes`, `ValidateVolumeMounts`, `ValidateVolumeDevices`.

use super::container::Scope;
use super::{Of, environment, projected, resources, text};
use api::FieldErrors;
use api::names::{self, check_one_of, check_required_one_of, report};
use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Volume, VolumeMount};
use std::collections::{BTreeMap, BTreeSet};

/// Largest mode of a file.
const MODE_MAX: i32 = 0o777;
const MODE_TEXT: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Every sort of source with the name that errors give it, in upstream's order.
fn sources(volume: &Volume) -> [(&'static str, bool); 29] {
    [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephFS", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwarAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
    ]
}

/// Whether any source is given.
pub(super) fn has_source(volume: &Volume) -> bool {
    volume.image.is_some() || sources(volume).iter().any(|(_, is_set)| *is_set)
}

/// See `drop_disabled` of the spec.
pub(super) fn drop_disabled(volume: &mut Volume) {
    let forget = |items: &mut Option<Vec<KeyToPath>>| {
        for item in items.iter_mut().flatten() {
            item.user = None;
        }
    };
    let forget_files = |items: &mut Option<Vec<DownwardAPIVolumeFile>>| {
        for item in items.iter_mut().flatten() {
            item.user = None;
        }
    };
    if let Some(dir) = &mut volume.empty_dir {
        dir.mode = None;
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_user = None;
        forget(&mut secret.items);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_user = None;
        forget(&mut config_map.items);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_user = None;
        forget_files(&mut downward.items);
    }
    let Some(projected) = &mut volume.projected else {
        return;
    };
    projected.default_user = None;
    for source in projected.sources.iter_mut().flatten() {
        if let Some(secret) = &mut source.secret {
            forget(&mut secret.items);
        }
        if let Some(config_map) = &mut source.config_map {
            forget(&mut config_map.items);
        }
        if let Some(downward) = &mut source.downward_api {
            forget_files(&mut downward.items);
        }
        if let Some(token) = &mut source.service_account_token {
            token.user = None;
        }
        if let Some(bundle) = &mut source.cluster_trust_bundle {
            bundle.user = None;
        }
        if let Some(certificate) = &mut source.pod_certificate {
            certificate.user = None;
        }
    }
}

/// Validates all volumes and returns those without errors by name.
pub(super) fn validate_all<'a>(
    volumes: &'a [Volume],
    of: Of<'_>,
    errors: &mut FieldErrors,
) -> BTreeMap<&'a str, &'a Volume> {
    let pod_name = of.meta.and_then(|meta| meta.name.as_deref()).unwrap_or("");
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some() && !pod_name.is_empty())
        .map(|volume| format!("{pod_name}-{}", volume.name))
        .collect();
    let mut good = BTreeMap::new();
    for (at, volume) in volumes.iter().enumerate() {
        errors.at(&format!("volumes[{at}]"), |errors| {
            let mut own = FieldErrors::default();
            check(volume, pod_name, &mut own);
            match volume.name.as_str() {
                "" => own.required("name", ""),
                name => report(&mut own, "name", name, names::dns_label(name)),
            }
            if good.contains_key(volume.name.as_str()) {
                own.duplicate("name", volume.name.as_str());
            }
            if own.is_empty() {
                good.insert(volume.name.as_str(), volume);
            }
            for error in own.into_vec() {
                errors.push(error.kind, &error.field, error.value, error.detail);
            }
            if let Some(claim) = &volume.persistent_volume_claim
                && created.contains(&claim.claim_name)
            {
                errors.invalid(
                    "persistentVolumeClaim.claimName",
                    claim.claim_name.as_str(),
                    "must not reference a PVC that gets created for an ephemeral volume",
                );
            }
        });
    }
    good
}

fn check(volume: &Volume, pod_name: &str, errors: &mut FieldErrors) {
    let all = sources(volume);
    let mut set = all.iter().filter(|(_, is_set)| *is_set).map(|(field, _)| *field);
    let first = set.next();
    if first.is_none() && volume.image.is_none() {
        errors.required("", "must specify a volume type");
    }
    for field in set {
        errors.forbidden(field, MORE_THAN_ONE);
    }
    if volume.image.is_some() && first.is_some() {
        errors.forbidden("image", MORE_THAN_ONE);
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref())
        && resources::amount(limit).sign() < 0
    {
        errors.forbidden("emptyDir.sizeLimit", "SizeLimit field must be a valid resource quantity");
    }
    match first {
        Some(field @ ("hostPath" | "gitRepo" | "nfs" | "secret" | "configMap" | "csi")) => {
            errors.at(field, |errors| check_simple(volume, errors));
        }
        Some("persistentVolumeClaim")
            if volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name.is_empty()) =>
        {
            errors.required("persistentVolumeClaim.claimName", "");
        }
        Some("downwarAPI") => {
            if let Some(own) = &volume.downward_api {
                errors.at("downwardAPI", |errors| {
                    check_mode(errors, "defaultMode", own.default_mode);
                    for file in own.items.iter().flatten() {
                        check_file(file, errors);
                    }
                });
            }
        }
        Some("projected") => {
            if let Some(own) = &volume.projected {
                errors.at("projected", |errors| projected::check(own, errors));
            }
        }
        Some("ephemeral") => check_ephemeral(volume, pod_name, errors),
        _ => {}
    }
    if let (None, Some(image)) = (first, &volume.image) {
        if text(&image.reference).is_empty() {
            errors.required("image.reference", "");
        }
        check_required_one_of(
            errors,
            "image.pullPolicy",
            image.pull_policy.as_deref(),
            &["Always", "IfNotPresent", "Never"],
        );
    }
}

/// Sources with a field or two.
fn check_simple(volume: &Volume, errors: &mut FieldErrors) {
    if let Some(own) = &volume.host_path {
        match own.path.as_str() {
            "" => return errors.required("path", ""),
            path => check_no_backsteps("path", path, errors),
        }
        if let Some(kind) = &own.type_ {
            check_one_of(errors, "type", kind, &HOST_PATH_TYPES);
        }
    } else if let Some(own) = &volume.git_repo {
        if own.repository.is_empty() {
            errors.required("repository", "");
        }
        check_descending("directory", text(&own.directory), errors);
    } else if let Some(own) = &volume.nfs {
        if own.server.is_empty() {
            errors.required("server", "");
        }
        match own.path.as_str() {
            "" => errors.required("path", ""),
            path if !path.starts_with('/') => errors.invalid("path", path, "must be an absolute path"),
            _ => {}
        }
    } else if let Some(own) = &volume.secret {
        if text(&own.secret_name).is_empty() {
            errors.required("secretName", "");
        }
        check_mode(errors, "defaultMode", own.default_mode);
        check_items(own.items.as_deref().unwrap_or_default(), errors);
    } else if let Some(own) = &volume.config_map {
        if own.name.is_empty() {
            errors.required("name", "");
        }
        check_mode(errors, "defaultMode", own.default_mode);
        check_items(own.items.as_deref().unwrap_or_default(), errors);
    } else if let Some(own) = &volume.csi {
        check_driver_name("driver", &own.driver, errors);
        if let Some(secret) = &own.node_publish_secret_ref {
            match secret.name.as_str() {
                "" => errors.required("nodePublishSecretRef.name", ""),
                name => report(errors, "name", name, names::dns_subdomain(name)),
            }
        }
    }
}

/// The name of a CSI driver. Upstream: `ValidateCSIDriverName`.
pub(crate) fn check_driver_name(field: &str, name: &str, errors: &mut FieldErrors) {
    /// The longest name of a driver.
    const LEN_MAX: usize = 63;
    if name.is_empty() {
        errors.required(field, "");
        return;
    }
    if name.len() > LEN_MAX {
        errors.too_long(field, LEN_MAX);
    }
    report(errors, field, name, names::dns_subdomain(&name.to_lowercase()));
}

fn check_ephemeral(volume: &Volume, pod_name: &str, errors: &mut FieldErrors) {
    let Some(own) = &volume.ephemeral else {
        return;
    };
    match &own.volume_claim_template {
        None => errors.required("ephemeral.volumeClaimTemplate", ""),
        Some(template) => errors.at("ephemeral.volumeClaimTemplate", |errors| {
            crate::core::persistent_volume_claim::validate_template(template, errors);
        }),
    }
    if !pod_name.is_empty() && !volume.name.is_empty() {
        let claim = format!("{pod_name}-{}", volume.name);
        for fault in names::dns_subdomain(&claim) {
            errors.invalid("name", volume.name.as_str(), format!("PVC name \"{claim}\": {fault}"));
        }
    }
}

/// A file's mode.
pub(super) fn check_mode(errors: &mut FieldErrors, field: &str, mode: Option<i32>) {
    if let Some(mode) = mode
        && !(0..=MODE_MAX).contains(&mode)
    {
        errors.invalid(field, mode, MODE_TEXT);
    }
}

fn check_items(items: &[KeyToPath], errors: &mut FieldErrors) {
    for (at, item) in items.iter().enumerate() {
        errors.at(&format!("items[{at}]"), |errors| check_key_to_path(item, errors));
    }
}

/// A key of an object and the file it becomes.
pub(super) fn check_key_to_path(item: &KeyToPath, errors: &mut FieldErrors) {
    if item.key.is_empty() {
        errors.required("key", "");
    }
    if item.path.is_empty() {
        errors.required("path", "");
    }
    check_not_reserved("path", &item.path, errors);
    check_mode(errors, "mode", item.mode);
}

/// A file filled from the pod.
pub(super) fn check_file(file: &DownwardAPIVolumeFile, errors: &mut FieldErrors) {
    if file.path.is_empty() {
        errors.required("path", "");
    }
    check_not_reserved("path", &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            errors.at("fieldRef", |errors| environment::check_volume_field(field, errors));
            if resource.is_some() {
                errors.invalid(
                    "",
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(resource)) => {
            errors.at("resourceFieldRef", |errors| {
                environment::check_resource_field(resource, true, errors);
            });
        }
        (None, None) => errors.required("", "one of fieldRef and resourceFieldRef is required"),
    }
    check_mode(errors, "mode", file.mode);
}

/// `..` is nowhere in the path.
pub(super) fn check_no_backsteps(field: &str, path: &str, errors: &mut FieldErrors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(field, path, "must not contain '..'");
    }
}

/// The path is relative and stays below.
pub(super) fn check_descending(field: &str, path: &str, errors: &mut FieldErrors) {
    if path.starts_with('/') {
        errors.invalid(field, path, "must be a relative path");
    }
    check_no_backsteps(field, path, errors);
}

/// The same, and names starting with `..` are the node's own.
pub(super) fn check_not_reserved(field: &str, path: &str, errors: &mut FieldErrors) {
    check_descending(field, path, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(field, path, "must not start with '..'");
    }
}

/// `volumeMounts` of a container.
pub(super) fn check_mounts(scope: &Scope<'_>, container: &Container, errors: &mut FieldErrors) {
    let devices = || container.volume_devices.iter().flatten();
    let mut seen = BTreeSet::new();
    for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
        errors.at(&format!("volumeMounts[{at}]"), |errors| {
            if mount.name.is_empty() {
                errors.required("name", "");
            }
            if !scope.volumes.contains_key(mount.name.as_str()) {
                errors.not_found("name", mount.name.as_str());
            }
            if mount.mount_path.is_empty() {
                errors.required("mountPath", "");
            }
            if !seen.insert(mount.mount_path.as_str()) {
                errors.invalid("mountPath", mount.mount_path.as_str(), "must be unique");
            }
            if devices().any(|device| device.name == mount.name) {
                errors.invalid("name", mount.name.as_str(), "must not already exist in volumeDevices");
            }
            if devices().any(|device| device.device_path == mount.mount_path) {
                errors.invalid(
                    "mountPath",
                    mount.mount_path.as_str(),
                    "must not already exist as a path in volumeDevices",
                );
            }
            if !text(&mount.sub_path_expr).is_empty() && !text(&mount.sub_path).is_empty() {
                errors.invalid(
                    "subPathExpr",
                    text(&mount.sub_path_expr),
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
        });
        // Upstream names these fields without the mount's index.
        errors.at("volumeMounts", |errors| {
            check_descending("subPath", text(&mount.sub_path), errors);
            check_descending("subPathExpr", text(&mount.sub_path_expr), errors);
            check_propagation(mount, container, errors);
            check_recursive_read_only(mount, errors);
        });
    }
}

fn check_propagation(mount: &VolumeMount, container: &Container, errors: &mut FieldErrors) {
    let Some(propagation) = &mount.mount_propagation else {
        return;
    };
    check_one_of(errors, "mountPropagation", propagation, &["Bidirectional", "HostToContainer", "None"]);
    let privileged =
        container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
    if propagation == "Bidirectional" && !privileged {
        errors.forbidden(
            "mountPropagation",
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn check_recursive_read_only(mount: &VolumeMount, errors: &mut FieldErrors) {
    const FIELD: &str = "recursiveReadOnly";
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(FIELD, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|own| own != "None") {
                errors
                    .forbidden(FIELD, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errors.not_supported(FIELD, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// `volumeDevices` of a container.
pub(super) fn check_devices(scope: &Scope<'_>, container: &Container, errors: &mut FieldErrors) {
    let mounts = || container.volume_mounts.iter().flatten();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (at, device) in container.volume_devices.iter().flatten().enumerate() {
        let (name, path) = (device.name.as_str(), device.device_path.as_str());
        errors.at(&format!("volumeDevices[{at}]"), |errors| {
            if name.is_empty() {
                errors.required("name", "");
            } else if !names.insert(name) {
                errors.invalid("name", name, "must be unique");
            }
            match scope.volumes.get(name) {
                None => errors.not_found("name", name),
                Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                    errors.invalid(
                        "name",
                        name,
                        "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                    );
                }
                Some(_) => {}
            }
            if path.is_empty() {
                errors.required("devicePath", "");
            }
            if path.split('/').any(|part| part == "..") {
                errors.invalid("devicePath", path, "can not contain backsteps ('..')");
            } else if !paths.insert(path) {
                errors.invalid("devicePath", path, "must be unique");
            }
            if mounts().any(|mount| mount.name == name) {
                errors.invalid("name", name, "must not already exist in volumeMounts");
            }
            if mounts().any(|mount| mount.mount_path == path) {
                errors.invalid("devicePath", path, "must not already exist as a path in volumeMounts");
            }
        });
    }
}
