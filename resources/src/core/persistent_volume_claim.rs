//! `PersistentVolumeClaim`. Upstream: `pkg/registry/core/persistentvolumeclaim`, `ValidatePersistentVolumeClaim*`.

use crate::cells::{UNSET, access_modes, or, text as cell};
use crate::equal::same;
use crate::pod_spec::resources::{amount, check_amount};
use crate::pod_spec::{default_claim_spec, text};
use api::names::{self, check_annotations, check_labels, check_one_of, check_selector, report};
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Quantity, Status, Strategy};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
    PersistentVolumeClaimTemplate, TypedLocalObjectReference, TypedObjectReference,
};
use serde_json::Value;

pub(crate) const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(crate) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
/// The annotation that named a storage class before the field did.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", Scope::Namespaced)
        .short_names(&["pvc"])
        .fields(vec![crate::legacy_name_field()])
        .columns(vec![
            Column::computed("Status", |o, _| crate::phase_or_terminating(o)),
            Column::or("Volume", "/spec/volumeName", ""),
            Column::computed("Capacity", |o, _| match cell(o, "/spec/volumeName") {
                "" => "".into(),
                _ => or(cell(o, "/status/capacity/storage"), "0").into(),
            }),
            Column::computed("Access Modes", |o, _| match cell(o, "/spec/volumeName") {
                "" => "".into(),
                _ => access_modes(o, "/status/accessModes").into(),
            }),
            Column::computed("StorageClass", |o, _| {
                let legacy = cell(o, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
                or(legacy, cell(o, "/spec/storageClassName")).into()
            }),
            Column::or("VolumeAttributesClass", "/spec/volumeAttributesClassName", UNSET),
            Column::age(),
            Column::or("VolumeMode", "/spec/volumeMode", UNSET).wide(),
        ])
        .status()
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = PersistentVolumeClaim;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        default_claim_spec(claim.spec.get_or_insert_default());
        let status = claim.status.get_or_insert_default();
        if text(&status.phase).is_empty() {
            status.phase = Some("Pending".to_owned());
        }
        crate::pod_spec::canonical(&mut status.capacity);
        crate::pod_spec::canonical(&mut status.allocated_resources);
    }

    fn prepare_create(&self, claim: &mut PersistentVolumeClaim, _: &Context<'_>) -> Result<(), Status> {
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        let spec = claim.spec.get_or_insert_default();
        forget_foreign_source(spec);
        join_sources(spec);
        Ok(())
    }

    fn prepare_update(
        &self,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        _: &Context<'_>,
    ) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        join_sources(new.spec.get_or_insert_default());
        Ok(())
    }

    fn validate(&self, claim: &PersistentVolumeClaim, errors: &mut FieldErrors) {
        let none = PersistentVolumeClaimSpec::default();
        errors.at("spec", |errors| validate_spec(claim.spec.as_ref().unwrap_or(&none), errors));
    }

    fn validate_update(
        &self,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        errors: &mut FieldErrors,
    ) {
        validate_change(new, old, errors);
    }

    fn prepare_status_update(
        &self,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
        _: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(
        &self,
        new: &PersistentVolumeClaim,
        _: &PersistentVolumeClaim,
        errors: &mut FieldErrors,
    ) {
        let status = new.status.as_ref();
        let capacity = status.and_then(|status| status.capacity.as_ref());
        for (name, own) in capacity.into_iter().flatten() {
            if amount(own).units() < 0 {
                errors.invalid(
                    &format!("status.capacity[{name}]"),
                    amount(own).units(),
                    "must be a valid resource quantity",
                );
            }
        }
        let allocated = status.and_then(|status| status.allocated_resources.as_ref());
        for (name, own) in allocated.into_iter().flatten() {
            let field = format!("status.allocatedResources[{name}]");
            if !name.contains('/') && name != "storage" {
                errors.not_supported("status.allocatedResources", name.as_str(), &["storage"]);
            }
            check_amount(errors, &field, "storage", own);
        }
    }
}

/// A source of a kind that the old field cannot name is dropped from it.
fn forget_foreign_source(spec: &mut PersistentVolumeClaimSpec) {
    if let Some(source) = &spec.data_source {
        let group = text(&source.api_group);
        let volume = source.kind == "PersistentVolumeClaim" && group.is_empty();
        let snapshot = source.kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io";
        if !volume && !snapshot {
            spec.data_source = None;
        }
    }
}

/// `dataSource` and `dataSourceRef` say the same where one of them can say it.
fn join_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if text(&source.namespace).is_empty() => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            });
            forget_foreign_source(spec);
        }
        _ => {}
    }
}

/// A claim template of a pod or of a stateful set. The path is the template's.
pub(crate) fn validate_template(template: &PersistentVolumeClaimTemplate, errors: &mut FieldErrors) {
    if let Some(meta) = &template.metadata {
        errors.at("metadata", |errors| {
            check_annotations(errors, "annotations", meta.annotations.as_ref());
            check_labels(errors, "labels", meta.labels.as_ref());
            for (field, is_set) in [
                ("name", meta.name.is_some()),
                ("generateName", meta.generate_name.is_some()),
                ("namespace", meta.namespace.is_some()),
                ("finalizers", meta.finalizers.is_some()),
                ("ownerReferences", meta.owner_references.is_some()),
            ] {
                if is_set {
                    errors.forbidden(field, "cannot be set");
                }
            }
        });
    }
    errors.at("spec", |errors| validate_spec(&template.spec, errors));
}

/// Access modes of claims and volumes.
pub(crate) fn check_access_modes(errors: &mut FieldErrors, modes: &[String]) {
    const FIELD: &str = "accessModes";
    for mode in modes {
        check_one_of(errors, FIELD, mode, &ACCESS_MODES);
    }
    let once = |mode: &String| mode == "ReadWriteOncePod";
    let other = |mode: &String| ACCESS_MODES.contains(&mode.as_str()) && !once(mode);
    if modes.iter().any(once) && modes.iter().any(other) {
        errors.forbidden(FIELD, "may not use ReadWriteOncePod with other access modes");
    }
}

/// The path is the spec's.
pub(crate) fn validate_spec(spec: &PersistentVolumeClaimSpec, errors: &mut FieldErrors) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errors.required("accessModes", "at least 1 access mode is required");
    }
    check_selector(errors, "selector", spec.selector.as_ref());
    check_access_modes(errors, modes);
    let storage =
        spec.resources.as_ref().and_then(|own| own.requests.as_ref()).and_then(|l| l.get("storage"));
    match storage {
        None => errors.required("resources[storage]", ""),
        Some(own) if Quantity::parse(&own.0).is_ok_and(|amount| amount.sign() <= 0) => {
            errors.invalid("resources[storage]", own.0.as_str(), "must be greater than zero");
        }
        Some(own) => check_amount(errors, "resources[storage]", "storage", own),
    }
    for (field, class) in [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ] {
        let class = text(class);
        if !class.is_empty() {
            report(errors, field, class, names::dns_subdomain(class));
        }
    }
    if let Some(mode) = &spec.volume_mode {
        check_one_of(errors, "volumeMode", mode, &VOLUME_MODES);
    }
    check_sources(spec, errors);
}

fn check_sources(spec: &PersistentVolumeClaimSpec, errors: &mut FieldErrors) {
    let sources = [
        ("dataSource", spec.data_source.as_ref().map(|own| (&own.api_group, &own.kind, &own.name))),
        ("dataSourceRef", spec.data_source_ref.as_ref().map(|own| (&own.api_group, &own.kind, &own.name))),
    ];
    for (field, source) in sources {
        let Some((group, kind, name)) = source else {
            continue;
        };
        errors.at(field, |errors| {
            for (field, value) in [("name", name), ("kind", kind)] {
                if value.is_empty() {
                    errors.required(field, "");
                }
            }
            match text(group) {
                "" if kind != "PersistentVolumeClaim" => errors.invalid(
                    "",
                    kind.as_str(),
                    "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ),
                "" => {}
                group => report(errors, "apiGroup", group, names::dns_subdomain(group)),
            }
        });
    }
    let namespace = spec.data_source_ref.as_ref().map_or("", |own| text(&own.namespace));
    if !namespace.is_empty() {
        report(errors, "dataSourceRef.namespace", namespace, names::dns_label(namespace));
    }
    if let (Some(one), Some(other)) = (&spec.data_source, &spec.data_source_ref) {
        let field = Value::from(errors.path("dataSource"));
        if !namespace.is_empty() {
            errors.invalid("", field, "may not be specified when dataSourceRef.namespace is specified");
        } else if (text(&one.api_group), &one.kind, &one.name)
            != (text(&other.api_group), &other.kind, &other.name)
        {
            errors.invalid("", field, "must match dataSourceRef");
        }
    }
}

/// Upstream: `ValidatePersistentVolumeClaimUpdate`.
fn validate_change(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim, errors: &mut FieldErrors) {
    let spec = |claim: &PersistentVolumeClaim| claim.spec.clone().unwrap_or_default();
    let annotation = |claim: &PersistentVolumeClaim| {
        claim.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION)).cloned()
    };
    let status = old.status.clone().unwrap_or_default();
    let bound = text(&status.phase) == "Bound";
    let (mut own, mut before) = (spec(new), spec(old));
    join_sources(&mut before);
    let (wanted, had) = (own.clone(), before.clone());
    if text(&before.volume_name).is_empty() {
        before.volume_name.clone_from(&own.volume_name);
    }
    let (legacy, legacy_now) = (annotation(old), annotation(new));
    let upgraded = legacy.is_some()
        && before.storage_class_name.is_none()
        && own.storage_class_name == legacy
        && (legacy_now.is_none() || legacy_now == legacy);
    if upgraded {
        own.storage_class_name = None;
    } else {
        if legacy != legacy_now {
            errors.invalid(
                &format!("metadata.annotations.{CLASS_ANNOTATION}"),
                legacy_now.unwrap_or_default(),
                "field is immutable",
            );
        }
        let set_late = own.storage_class_name.is_some()
            && before.storage_class_name.is_none()
            && (legacy.is_none() || legacy == own.storage_class_name);
        if set_late {
            own.storage_class_name.clone_from(&before.storage_class_name);
        }
    }
    let size = |spec: &PersistentVolumeClaimSpec| {
        spec.resources.as_ref().and_then(|own| own.requests.as_ref()).and_then(|l| l.get("storage")).cloned()
    };
    if bound {
        if let (Some(own), Some(before)) =
            (own.resources.as_mut().and_then(|own| own.requests.as_mut()), size(&before))
        {
            own.insert("storage".to_owned(), before);
        }
        own.volume_attributes_class_name.clone_from(&before.volume_attributes_class_name);
    }
    if !same(&own, &before) {
        errors.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let of = |own: Option<_>| own.as_ref().map(amount).unwrap_or_default();
    let capacity = of(status.capacity.as_ref().and_then(|list| list.get("storage")).cloned());
    if of(size(&wanted)) < of(size(&had)) && of(size(&wanted)) <= capacity {
        errors.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    errors.immutable("volumeMode", &wanted.volume_mode, &had.volume_mode);
    if wanted.volume_attributes_class_name != had.volume_attributes_class_name
        && status.current_volume_attributes_class_name.is_some()
    {
        let to = match wanted.volume_attributes_class_name.as_deref() {
            None => Some("nil"),
            Some("") => Some("empty string"),
            Some(_) => None,
        };
        if let Some(to) = to {
            errors.forbidden(
                "spec.volumeAttributesClassName",
                format!(
                    "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
                ),
            );
        }
    }
}
