//! Kinds without rules of their own beyond the schema's: a row each.

use crate::cells::{NONE, list, since, text};
use api::resource::{Column, Field, Resource, Scope};
use serde_json::Value;

/// `flowcontrol.apiserver.k8s.io/v1`. Upstream: `pkg/registry/flowcontrol`.
pub(crate) fn flowcontrol() -> [Resource; 2] {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    let limited = |name, pointer| Column::or(name, pointer, NONE);
    [
        Resource::new(GROUP, "v1", "FlowSchema", "flowschemas", Scope::Cluster)
            .columns(vec![
                Column::or("PriorityLevel", "/spec/priorityLevelConfiguration/name", ""),
                Column::or("MatchingPrecedence", "/spec/matchingPrecedence", 0),
                Column::or("DistinguisherMethod", "/spec/distinguisherMethod/type", NONE),
                Column::age(),
                Column::computed("MissingPL", |o, _| {
                    let found = list(o, "/status/conditions").iter().find(|c| c["type"] == "Dangling");
                    found.map_or("?".into(), |condition| condition["status"].clone())
                }),
            ])
            .status()
            .generation(),
        Resource::new(
            GROUP,
            "v1",
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            Scope::Cluster,
        )
        .columns(vec![
            Column::or("Type", "/spec/type", ""),
            limited("NominalConcurrencyShares", "/spec/limited/nominalConcurrencyShares"),
            limited("Queues", "/spec/limited/limitResponse/queuing/queues"),
            limited("HandSize", "/spec/limited/limitResponse/queuing/handSize"),
            limited("QueueLengthLimit", "/spec/limited/limitResponse/queuing/queueLengthLimit"),
            Column::age(),
        ])
        .status()
        .generation(),
    ]
}

/// `authentication.k8s.io/v1`: reviews, computed by the API server.
pub(crate) fn authentication() -> [Resource; 2] {
    const GROUP: &str = "authentication.k8s.io";
    [
        Resource::new(GROUP, "v1", "SelfSubjectReview", "selfsubjectreviews", Scope::Cluster).computed(),
        Resource::new(GROUP, "v1", "TokenReview", "tokenreviews", Scope::Cluster).computed(),
    ]
}

/// `authorization.k8s.io/v1`: reviews, computed by the API server.
pub(crate) fn authorization() -> [Resource; 4] {
    const GROUP: &str = "authorization.k8s.io";
    let review = |kind, plural, scope| Resource::new(GROUP, "v1", kind, plural, scope).computed();
    [
        review("LocalSubjectAccessReview", "localsubjectaccessreviews", Scope::Namespaced),
        review("SelfSubjectAccessReview", "selfsubjectaccessreviews", Scope::Cluster),
        review("SelfSubjectRulesReview", "selfsubjectrulesreviews", Scope::Cluster),
        review("SubjectAccessReview", "subjectaccessreviews", Scope::Cluster),
    ]
}

/// `resource.k8s.io/v1`, dynamic resource allocation. Upstream: `pkg/registry/resource`.
pub(crate) fn dynamic_resources() -> [Resource; 5] {
    const GROUP: &str = "resource.k8s.io";
    [
        Resource::new(GROUP, "v1", "DeviceClass", "deviceclasses", Scope::Cluster).generation(),
        Resource::new(GROUP, "v1", "DeviceTaintRule", "devicetaintrules", Scope::Cluster)
            .columns(vec![
                Column::or("Key", "/spec/taint/key", ""),
                Column::or("Value", "/spec/taint/value", ""),
                Column::or("Effect", "/spec/taint/effect", ""),
                Column::computed("TimeAdded", |o, now| match text(o, "/spec/taint/timeAdded") {
                    "" => "".into(),
                    _ => since(o, "/spec/taint/timeAdded", now).into(),
                }),
                Column::age(),
            ])
            .status()
            .generation(),
        Resource::new(GROUP, "v1", "ResourceClaim", "resourceclaims", Scope::Namespaced)
            .columns(vec![Column::computed("State", |o, _| claim_state(o).into()), Column::age()])
            .status(),
        Resource::new(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", Scope::Namespaced),
        Resource::new(GROUP, "v1", "ResourceSlice", "resourceslices", Scope::Cluster)
            .fields(vec![
                Field::new("spec.nodeName"),
                Field::new("spec.driver"),
                Field::new("spec.pool.name"),
            ])
            .columns(vec![
                Column::or("Node", "/spec/nodeName", ""),
                Column::or("Driver", "/spec/driver", ""),
                Column::or("Pool", "/spec/pool/name", ""),
                Column::age(),
            ])
            .generation(),
    ]
}

fn claim_state(claim: &Value) -> String {
    let deleted = !text(claim, "/metadata/deletionTimestamp").is_empty();
    let mut states = Vec::new();
    if deleted {
        states.push("deleted");
    }
    if claim.pointer("/status/allocation").is_some() {
        states.push("allocated");
        if !list(claim, "/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !deleted {
        states.push("pending");
    }
    states.join(",")
}

/// `storagemigration.k8s.io/v1`. Upstream: `pkg/registry/storagemigration`.
pub(crate) fn storage_version_migration() -> Resource {
    Resource::new(
        "storagemigration.k8s.io",
        "v1",
        "StorageVersionMigration",
        "storageversionmigrations",
        Scope::Cluster,
    )
    .columns(vec![
        Column::computed("Resource", |o, _| {
            match (text(o, "/spec/resource/resource"), text(o, "/spec/resource/group")) {
                (resource, "") => resource.into(),
                (resource, group) => format!("{resource}.{group}").into(),
            }
        }),
        Column::computed("Status", |o, _| {
            let mut holding = list(o, "/status/conditions")
                .iter()
                .rev()
                .filter(|c| c["status"] == "True")
                .map(|c| text(c, "/type"));
            holding
                .find(|kind| matches!(*kind, "Running" | "Failed" | "Succeeded"))
                .unwrap_or("Unknown")
                .into()
        }),
    ])
    .status()
}
