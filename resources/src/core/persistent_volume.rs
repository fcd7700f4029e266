//! `PersistentVolume`. Upstream: `pkg/registry/core/persistentvolume`.

use crate::cells::{UNSET, access_modes, or, text};
use api::resource::{Column, Resource, Scope};

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
                    format!("{}/{}", text(o, "/spec/claimRef/namespace"), text(o, "/spec/claimRef/name"))
                        .into()
                }
                None => "".into(),
            }),
            Column::computed("StorageClass", |o, _| {
                let legacy = text(o, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
                or(legacy, text(o, "/spec/storageClassName")).into()
            }),
            Column::or("VolumeAttributesClass", "/spec/volumeAttributesClassName", UNSET),
            Column::or("Reason", "/status/reason", ""),
            Column::age(),
            Column::or("VolumeMode", "/spec/volumeMode", UNSET).wide(),
        ])
        .status()
}
