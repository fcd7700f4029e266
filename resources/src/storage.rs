//! `storage.k8s.io/v1`. Upstream: `pkg/registry/storage`.

use crate::cells::{NONE, UNSET, count, joined, list, or};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

const GROUP: &str = "storage.k8s.io";

pub(crate) fn storage_class() -> Resource {
    Resource::new(GROUP, "v1", "StorageClass", "storageclasses", Scope::Cluster).short_names(&["sc"]).columns(
        vec![
            Column::or("Provisioner", "/provisioner", ""),
            Column::or("ReclaimPolicy", "/reclaimPolicy", "Delete"),
            Column::or("VolumeBindingMode", "/volumeBindingMode", "Immediate"),
            Column::or("AllowVolumeExpansion", "/allowVolumeExpansion", false),
            Column::age(),
        ],
    )
}

pub(crate) fn volume_attributes_class() -> Resource {
    Resource::new(GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses", Scope::Cluster)
        .short_names(&["vac"])
        .columns(vec![Column::or("DriverName", "/driverName", ""), Column::age()])
}

pub(crate) fn volume_attachment() -> Resource {
    Resource::new(GROUP, "v1", "VolumeAttachment", "volumeattachments", Scope::Cluster)
        .columns(vec![
            Column::or("Attacher", "/spec/attacher", ""),
            Column::or("PV", "/spec/source/persistentVolumeName", ""),
            Column::or("Node", "/spec/nodeName", ""),
            Column::or("Attached", "/status/attached", false).kind("boolean"),
            Column::age(),
        ])
        .status()
}

pub(crate) fn csi_driver() -> Resource {
    Resource::new(GROUP, "v1", "CSIDriver", "csidrivers", Scope::Cluster).columns(vec![
        Column::or("AttachRequired", "/spec/attachRequired", true).kind("boolean"),
        Column::or("PodInfoOnMount", "/spec/podInfoOnMount", false).kind("boolean"),
        Column::or("StorageCapacity", "/spec/storageCapacity", false).kind("boolean"),
        Column::computed("TokenRequests", |o, _| match o.pointer("/spec/tokenRequests") {
            Some(Value::Array(_)) => joined(o, "/spec/tokenRequests", "audience").into(),
            _ => UNSET.into(),
        }),
        Column::or("RequiresRepublish", "/spec/requiresRepublish", false).kind("boolean"),
        Column::computed("Modes", |o, _| {
            let modes: Vec<_> =
                list(o, "/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
            or(&modes.join(","), NONE).into()
        }),
        Column::age(),
    ])
}

pub(crate) fn csi_node() -> Resource {
    Resource::new(GROUP, "v1", "CSINode", "csinodes", Scope::Cluster)
        .columns(vec![
            Column::computed("Drivers", |o, _| count(o, "/spec/drivers").into()).kind("integer"),
            Column::age(),
        ])
        .status()
}

pub(crate) fn csi_storage_capacity() -> Resource {
    Resource::new(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities", Scope::Namespaced).columns(vec![
        Column::or("StorageClassName", "/storageClassName", ""),
        Column::or("Capacity", "/capacity", UNSET),
    ])
}
