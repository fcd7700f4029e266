//! `PersistentVolumeClaim`. Upstream: `pkg/registry/core/persistentvolumeclaim`.

use crate::cells::{UNSET, access_modes, or, text};
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", Scope::Namespaced)
        .short_names(&["pvc"])
        .fields(vec![crate::legacy_name_field()])
        .columns(vec![
            Column::computed("Status", |o, _| crate::phase_or_terminating(o)),
            Column::or("Volume", "/spec/volumeName", ""),
            Column::computed("Capacity", |o, _| match text(o, "/spec/volumeName") {
                "" => "".into(),
                _ => or(text(o, "/status/capacity/storage"), "0").into(),
            }),
            Column::computed("Access Modes", |o, _| match text(o, "/spec/volumeName") {
                "" => "".into(),
                _ => access_modes(o, "/status/accessModes").into(),
            }),
            Column::computed("StorageClass", |o, _| {
                let legacy = text(o, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
                or(legacy, text(o, "/spec/storageClassName")).into()
            }),
            Column::or("VolumeAttributesClass", "/spec/volumeAttributesClassName", UNSET),
            Column::age(),
            Column::or("VolumeMode", "/spec/volumeMode", UNSET).wide(),
        ])
        .status()
}
