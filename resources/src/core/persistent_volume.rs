//! `PersistentVolume`. Upstream: `pkg/registry/core/persistentvolume`, `ValidatePersistentVolume*`.

use super::persistent_volume_claim::{VOLUME_MODES, check_access_modes};
use crate::cells::{UNSET, access_modes, or, text as cell};
use crate::equal::same;
use crate::pod_spec::resources::amount;
use crate::pod_spec::volume::check_driver_name;
use crate::pod_spec::{canonical, check_node_selector, text};
use api::names::{self, check_one_of, report};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "PersistentVolume", "persistentvolumes", Scope::Cluster)
        .short_names(&["pv"])
        .fields(vec![crate::legacy_name_field()])
        .columns(vec![
            Column::or("Capacity", "/spec/capacity/storage", "0"),
            Column::computed("Access Modes", |o, _| access_modes(o, "/spec/accessModes").into()),
            Column::or("Reclaim Policy", "/spec/persistentVolumeReclaimPolicy", ""),
            Column::computed("Status", |o, _| crate::phase_or_terminating(o)),
            Column::computed("Claim", |o, _| match o.pointer("/spec/claimRef") {
                Some(_) => {
                    format!("{}/{}", cell(o, "/spec/claimRef/namespace"), cell(o, "/spec/claimRef/name"))
                        .into()
                }
                None => "".into(),
            }),
            Column::computed("StorageClass", |o, _| {
                let legacy = cell(o, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
                or(legacy, cell(o, "/spec/storageClassName")).into()
            }),
            Column::or("VolumeAttributesClass", "/spec/volumeAttributesClassName", UNSET),
            Column::or("Reason", "/status/reason", ""),
            Column::age(),
            Column::or("VolumeMode", "/spec/volumeMode", UNSET).wide(),
        ])
        .status()
        .rules(Typed(Rules))
}

struct Rules;

/// Every sort of source with the name that errors give it.
fn sources(spec: &PersistentVolumeSpec) -> [(&'static str, bool); 22] {
    [
        ("hostPath", spec.host_path.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("cephFS", spec.cephfs.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("local", spec.local.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("csi", spec.csi.is_some()),
    ]
}

impl Strategy for Rules {
    type Kind = PersistentVolume;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        if text(&spec.persistent_volume_reclaim_policy).is_empty() {
            spec.persistent_volume_reclaim_policy = Some("Retain".to_owned());
        }
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        canonical(&mut spec.capacity);
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_default();
        }
        let status = volume.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
    }

    fn prepare_create(&self, volume: &mut PersistentVolume, cx: &Context<'_>) -> Result<(), Status> {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(Time(cx.now)),
            ..PersistentVolumeStatus::default()
        });
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut PersistentVolume,
        old: &PersistentVolume,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, volume: &PersistentVolume, errors: &mut FieldErrors) {
        let none = PersistentVolumeSpec::default();
        errors.at("spec", |errors| validate_spec(volume.spec.as_ref().unwrap_or(&none), errors));
    }

    fn validate_update(&self, new: &PersistentVolume, old: &PersistentVolume, errors: &mut FieldErrors) {
        let spec = |volume: &PersistentVolume| volume.spec.clone().unwrap_or_default();
        let (new, old) = (spec(new), spec(old));
        if !same(&only_source(&new, &old), &only_source(&old, &old)) {
            errors.forbidden(
                "spec.persistentvolumesource",
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        errors.immutable("volumeMode", &new.volume_mode, &old.volume_mode);
        if old.node_affinity.is_some() && !same(&new.node_affinity, &old.node_affinity) {
            errors.invalid(
                "nodeAffinity",
                serde_json::to_value(&new.node_affinity).unwrap_or_default(),
                "field is immutable, except for updating from beta label to GA",
            );
        }
        if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
            errors
                .forbidden("spec.volumeAttributesClassName", "update from non-nil value to nil is forbidden");
        }
    }

    fn prepare_status_update(&self, new: &mut PersistentVolume, old: &PersistentVolume, cx: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        let before = old.status.clone().unwrap_or_default();
        let status = new.status.get_or_insert_default();
        let unchanged = status.last_phase_transition_time == before.last_phase_transition_time;
        let missing = status.last_phase_transition_time.is_none();
        if status.phase == before.phase && missing {
            status.last_phase_transition_time = before.last_phase_transition_time;
        } else if status.phase != before.phase && (missing || unchanged) {
            status.last_phase_transition_time = Some(Time(cx.now));
        }
    }
}

/// The spec without what may change. A secret for expansion may be added.
fn only_source(spec: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    let mut source = PersistentVolumeSpec {
        capacity: None,
        access_modes: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_mode: None,
        volume_attributes_class_name: None,
        ..spec.clone()
    };
    if let (Some(own), Some(before)) = (&mut source.csi, &old.csi)
        && before.controller_expand_secret_ref.is_none()
    {
        own.controller_expand_secret_ref = None;
    }
    source
}

fn validate_spec(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required("accessModes", "");
    }
    check_access_modes(errors, modes);
    check_capacity(spec, errors);
    if let Some(policy) = &spec.persistent_volume_reclaim_policy {
        check_one_of(errors, "persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        match &affinity.required {
            None => errors.required("nodeAffinity.required", "must specify required node constraints"),
            Some(selector) => {
                errors.at("nodeAffinity.required", |errors| check_node_selector(selector, errors));
            }
        }
    }
    check_source(spec, errors);
    let root = spec.host_path.as_ref().is_some_and(|own| own.path.trim_matches('/').is_empty());
    if root && text(&spec.persistent_volume_reclaim_policy) == "Recycle" {
        errors.forbidden("persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        report(errors, "storageClassName", class, names::dns_subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        check_one_of(errors, "volumeMode", mode, &VOLUME_MODES);
    }
    if let Some(class) = &spec.volume_attributes_class_name {
        match class.as_str() {
            "" => errors.required("volumeAttributesClassName", "an empty string is disallowed"),
            class => report(errors, "volumeAttributesClassName", class, names::dns_subdomain(class)),
        }
        if spec.csi.is_none() {
            errors.required("csi", "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn check_capacity(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let none = Default::default();
    let capacity = spec.capacity.as_ref().unwrap_or(&none);
    if capacity.is_empty() {
        errors.required("capacity", "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        let shown = serde_json::to_value(capacity).unwrap_or(Value::Null);
        errors.not_supported("capacity", shown, &["storage"]);
    }
    for (name, own) in capacity {
        let field = format!("capacity[{name}]");
        let parsed = amount(own);
        if parsed.units() < 0 {
            errors.invalid(&field, parsed.units(), "must be a valid resource quantity");
        }
        if parsed.sign() <= 0 {
            errors.invalid(&field, own.0.as_str(), "must be greater than zero");
        }
    }
}

fn check_source(spec: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let all = sources(spec);
    let mut set = all.iter().filter(|(_, is_set)| *is_set).map(|(field, _)| *field);
    let Some(first) = set.next() else {
        return errors.required("", "must specify a volume type");
    };
    for field in set {
        errors.forbidden(field, "may not specify more than 1 volume type");
    }
    let check_path = |errors: &mut FieldErrors, field: &str, path: &str| match path {
        "" => errors.required(field, ""),
        path if path.split('/').any(|part| part == "..") => {
            errors.invalid(field, path, "must not contain '..'");
        }
        _ => {}
    };
    match (first, &spec.host_path, &spec.local, &spec.nfs, &spec.csi) {
        ("hostPath", Some(own), ..) => check_path(errors, "hostPath.path", &own.path),
        ("local", _, Some(own), ..) => {
            check_path(errors, "local.path", &own.path);
            if spec.node_affinity.is_none() {
                errors.required("nodeAffinity", "Local volume requires node affinity");
            }
        }
        ("nfs", _, _, Some(own), _) => {
            if own.server.is_empty() {
                errors.required("nfs.server", "");
            }
            match own.path.as_str() {
                "" => errors.required("nfs.path", ""),
                path if !path.starts_with('/') => {
                    errors.invalid("nfs.path", path, "must be an absolute path");
                }
                _ => {}
            }
        }
        ("csi", .., Some(own)) => {
            check_driver_name("csi.driver", &own.driver, errors);
            if own.volume_handle.is_empty() {
                errors.required("csi.volumeHandle", "");
            }
        }
        _ => {}
    }
}
