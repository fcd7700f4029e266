//! How many pods the controllers of some pods want. Upstream: `getExpectedScale`, `finders`.

use crate::served::once_each;
use api::object::Owner;
use client::{Context, Error, ResourceRef};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The sum over the controllers.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) count: i32,
    /// Pods that no controller keeps.
    pub(super) unmanaged: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
enum NoScale {
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{group}/{kind} does not implement the scale subresource")]
    NotScaled { group: String, kind: String },
}

impl From<NoScale> for Error {
    fn from(error: NoScale) -> Self {
        Self::Own(Box::new(error))
    }
}

/// Sums the scales of all controllers of these pods.
///
/// # Errors
/// A pod has a controller that cannot say how many it wants.
pub(super) async fn expected(context: &Context, pods: &[Pod]) -> Result<Expected, Error> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    let mut unmanaged = Vec::new();
    for pod in pods {
        let owners = pod.metadata.owner_references.iter().flatten();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let Some(owner) = owners.into_iter().find(|own| own.controller == Some(true)) else {
            unmanaged.push(pod_name);
            continue;
        };
        if scales.contains_key(&owner.uid) {
            continue;
        }
        let found = named(&owner.api_version, &owner.kind, &owner.name, &owner.uid);
        let Some((uid, scale)) = scale_of(context, namespace, found).await? else {
            return Err(NoScale::NoController(pod_name).into());
        };
        scales.insert(owner.uid.clone(), 0);
        scales.insert(uid, scale);
    }
    Ok(Expected { count: scales.values().sum(), unmanaged })
}

struct Named {
    group: String,
    kind: String,
    name: String,
    uid: String,
}

fn named(api_version: &str, kind: &str, name: &str, uid: &str) -> Named {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    Named { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned() }
}

#[derive(Deserialize)]
struct Scale {
    metadata: ScaleMeta,
    #[serde(default)]
    spec: ScaleSpec,
}

#[derive(Deserialize)]
struct ScaleMeta {
    uid: String,
}

#[derive(Default, Deserialize)]
struct ScaleSpec {
    #[serde(default)]
    replicas: i32,
}

/// UID and scale of a controller, or of the deployment above it; `None` if it is gone.
async fn scale_of(
    context: &Context,
    namespace: &str,
    mut owner: Named,
) -> Result<Option<(String, i32)>, Error> {
    if owner.group == "apps" && owner.kind == "ReplicaSet" {
        let set = context.caches.of::<ReplicaSet>().get(namespace, &owner.name);
        let Some(set) = set.filter(|set| *set.meta.uid == *owner.uid) else { return Ok(None) };
        if let Some(Owner { api_version, kind, name, uid, .. }) = set.meta.controller() {
            owner = named(api_version, kind, name, uid);
        }
    }
    let Some(resource) = resource(context, &owner.group, &owner.kind).await? else { return Ok(None) };
    match context.client.dynamic(resource, namespace).get_sub(&owner.name, "scale").await {
        Ok(object) => {
            let scale: Scale = object.decode()?;
            Ok((scale.metadata.uid == owner.uid).then_some((scale.metadata.uid, scale.spec.replicas)))
        }
        // The object is gone, or its kind has no scale.
        Err(status) if status.is_not_found() => {
            let has_scale = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
            match has_scale {
                true => Ok(None),
                false => Err(NoScale::NotScaled { group: owner.group, kind: owner.kind }.into()),
            }
        }
        Err(status) => Err(status.into()),
    }
}

async fn resource(context: &Context, group: &str, kind: &str) -> Result<Option<ResourceRef>, Error> {
    const KNOWN: [(&str, &str, &str); 4] = [
        ("apps", "Deployment", "deployments"),
        ("apps", "ReplicaSet", "replicasets"),
        ("apps", "StatefulSet", "statefulsets"),
        ("", "ReplicationController", "replicationcontrollers"),
    ];
    if let Some((group, kind, plural)) = KNOWN.into_iter().find(|own| own.0 == group && own.1 == kind) {
        return Ok(Some(ResourceRef::new(group, "v1", plural, kind)));
    }
    let served = context.client.discover().await?;
    let mut found = once_each(&served, &["get"]).into_iter();
    let found = found.find(|row| *row.resource.group == *group && *row.resource.kind == *kind);
    Ok(found.map(|row| row.resource))
}
