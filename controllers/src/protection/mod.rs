//! Claims, volumes and classes that are in use outlive their deletion: a finalizer holds them until nobody uses them any more.
//! Upstream: pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}.

mod plan;
#[cfg(test)]
mod tests;

use crate::pod::{claims_of, is_being_deleted};
use api::ObjectName;
use client::{Context, Controller, Delta, Error, Kind, Next, Patch};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use plan::Step;
use serde_json::json;
use std::sync::Arc;

pub(crate) fn claims() -> Controller {
    Controller::of::<PersistentVolumeClaim>("persistentvolumeclaim-protection-controller")
        .watches::<Pod>(|delta, _| {
            let pods = [delta.old.as_deref(), delta.new.as_deref()].into_iter().flatten();
            let pods = pods.filter_map(|object| object.decode::<Pod>().ok());
            pods.flat_map(|pod| claims_of(&pod)).collect()
        })
        .reconcile(|key, context| async move {
            let Some(claim) = read::<PersistentVolumeClaim>(&key, &context) else { return Ok(Next::Done) };
            let is_used = || {
                let pods = context.caches.of::<Pod>().read_all(&key.namespace);
                pods.iter().any(|pod| plan::uses(pod, &claim))
            };
            hold(&context, &claim, plan::CLAIM, is_used).await
        })
}

pub(crate) fn volumes() -> Controller {
    Controller::of::<PersistentVolume>("persistentvolume-protection-controller").reconcile(
        |key, context| async move {
            let Some(volume) = read::<PersistentVolume>(&key, &context) else { return Ok(Next::Done) };
            hold(&context, &volume, plan::VOLUME, || plan::is_bound(&volume)).await
        },
    )
}

pub(crate) fn classes() -> Controller {
    // A claim or volume that stops using a class may have been its last user.
    let all = |_: &Delta, context: &Context| {
        let classes = context.caches.of::<VolumeAttributesClass>().list("").into_iter();
        classes.filter(|class| class.meta.deleting).map(|class| class.meta.key.clone()).collect()
    };
    Controller::of::<VolumeAttributesClass>("volumeattributesclass-protection-controller")
        .watches::<PersistentVolumeClaim>(all)
        .watches::<PersistentVolume>(all)
        .reconcile(|key, context| async move {
            let Some(class) = read::<VolumeAttributesClass>(&key, &context) else { return Ok(Next::Done) };
            let is_used = || {
                let claims = context.caches.of::<PersistentVolumeClaim>().read_all("");
                let volumes = context.caches.of::<PersistentVolume>().read_all("");
                claims.iter().flat_map(plan::classes_of_claim).any(|name| name == key.name.as_ref())
                    || volumes.iter().filter_map(plan::class_of_volume).any(|name| name == key.name.as_ref())
            };
            hold(&context, &class, plan::CLASS, is_used).await
        })
}

fn read<K: Kind>(key: &ObjectName, context: &Arc<Context>) -> Option<K> {
    context.caches.of::<K>().read(&key.namespace, &key.name)
}

/// Adds the finalizer, or takes it away where the object is being deleted and nobody uses it.
async fn hold<K: Kind + Metadata<Ty = ObjectMeta>>(
    context: &Context,
    object: &K,
    finalizer: &str,
    is_used: impl Fn() -> bool,
) -> Result<Next, Error> {
    let meta = object.metadata();
    let finalizers = match plan::step(meta, finalizer, is_being_deleted(meta), is_used) {
        Step::Nothing => return Ok(Next::Done),
        Step::Set(finalizers) => finalizers,
    };
    let (name, namespace) =
        (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
    // By version: another finalizer that somebody adds meanwhile must not be lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}});
    let access = context.client.dynamic(client::ResourceRef::of::<K>(), namespace);
    match access.patch(name, "", &Patch::Merge(patch)).await {
        Err(status) if !status.is_not_found() => Err(status.into()),
        _ => Ok(Next::Done),
    }
}
