//! Binds claims to volumes that are there, and does with released volumes what their policy says.
//! Upstream: pkg/controller/volume/persistentvolume.
//!
//! Nothing is provisioned or deleted on any storage here: that is what provisioners of others do, who are asked as upstream asks
//! them. Where nobody could, an event says so.
//!
//! # Flow
//! A binding is written in four steps, each of which may be the last before a crash: the volume names the claim, the volume is
//! `Bound`, the claim names the volume, the claim is `Bound`. Each reconciliation starts over and does what is missing. Two claims
//! cannot get one volume: the first write is made only on the version that was looked at.

mod bind;
mod claim;
mod matching;
mod volume;

#[cfg(test)]
mod tests;

use api::{Object, ObjectName};
use bind::bind;
use claim::{Step, Told};
use client::gone_is_fine;
use client::{AnyCache, Context, Controller, Delta, Error, Next, reference};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// As events name it.
const NAME: &str = "persistentvolume-controller";
/// Name of the index of claims whose binding is not complete, all under one key.
const UNBOUND: &str = "unbound";
/// Name of the index of claims by the volume they name.
const BY_VOLUME: &str = "volume";
/// Name of the index of volumes by the claim they name.
const BY_CLAIM: &str = "claim";

/// What the indexes need of a claim or volume, decoded without the rest.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Narrow {
    metadata: NarrowMeta,
    spec: NarrowSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NarrowMeta {
    annotations: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NarrowSpec {
    volume_name: Box<str>,
    claim_ref: Option<NarrowRef>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NarrowRef {
    namespace: Box<str>,
    name: Box<str>,
}

fn narrow(object: &Object) -> Narrow {
    object.decode().unwrap_or_default()
}

/// The claim that a volume names.
fn claim_of(volume: &Object) -> Option<ObjectName> {
    narrow(volume).spec.claim_ref.map(|own| ObjectName::new(&own.namespace, &own.name))
}

/// Adds the indexes that the controllers need.
pub(crate) fn index(claims: &AnyCache, volumes: &AnyCache) {
    claims.index(UNBOUND, |object| {
        let is_bound = narrow(object).metadata.annotations.contains_key(matching::BIND_COMPLETED);
        if is_bound { Vec::new() } else { vec!["".into()] }
    });
    claims.index(BY_VOLUME, |object| {
        let name = narrow(object).spec.volume_name;
        if name.is_empty() { Vec::new() } else { vec![name] }
    });
    volumes
        .index(BY_CLAIM, |object| claim_of(object).map(|own| own.to_string().into()).into_iter().collect());
}

fn keys(objects: &[Arc<Object>]) -> impl Iterator<Item = ObjectName> + '_ {
    objects.iter().map(|object| object.meta.key.clone())
}

/// Claims get a volume, wait, or have lost theirs.
pub(crate) fn claims() -> Controller {
    let unbound = |context: &Context| context.caches.of::<PersistentVolumeClaim>().by(UNBOUND, "");
    Controller::of_some::<PersistentVolumeClaim>(NAME, |delta| delta.new.is_some())
        .watches::<PersistentVolume>(move |delta: &Delta, context| {
            let named = [&delta.old, &delta.new].into_iter().flatten().filter_map(|object| claim_of(object));
            let mut found: Vec<_> = named.collect();
            found.extend(keys(&context.caches.of::<PersistentVolumeClaim>().by(BY_VOLUME, &delta.key.name)));
            if delta.new.as_ref().is_some_and(|object| claim_of(object).is_none()) {
                found.extend(keys(&unbound(context)));
            }
            found
        })
        .watches::<StorageClass>(move |_, context| keys(&unbound(context)).collect())
        .reads::<Pod>()
        .reconcile(|key, context| async move { reconcile_claim(&key, &context).await })
}

async fn reconcile_claim(key: &ObjectName, context: &Context) -> Result<Next, Error> {
    let own = context.caches.of::<PersistentVolumeClaim>().read(&key.namespace, &key.name);
    let Some(own) = own else { return Ok(Next::Done) };
    let volumes = context.caches.of::<PersistentVolume>();
    let classes = context.caches.of::<StorageClass>().read_all("");
    let step = if matching::is_bind_completed(&own) {
        let volume = matching::volume_name(&own).and_then(|name| volumes.read("", name));
        claim::bound(&own, volume.as_ref())
    } else {
        claim::unbound(&own, &volumes.read_all(""), &classes, || {
            claim::waiting_pods(&own, &context.caches.of::<Pod>().read_all(&key.namespace))
        })
    };
    let access = context.client.namespaced::<PersistentVolumeClaim>(&key.namespace);
    let written = match step {
        Step::Bind(volume) => bind(context, &volume, &own).await,
        Step::Wait(told) => {
            tell(context, &own, told);
            match claim::with_phase(&own, "Pending") {
                Some(changed) => access.replace_status(&changed).await.map(drop),
                None => Ok(()),
            }
        }
        Step::Lost(told) => match claim::with_phase(&own, "Lost") {
            Some(changed) => {
                let written = access.replace_status(&changed).await.map(drop);
                if written.is_ok() {
                    tell(context, &own, Some(told));
                }
                written
            }
            None => Ok(()),
        },
        Step::Class(name) => access.replace(&claim::with_class(&own, name)).await.map(drop),
        Step::Provision { provisioner, told } => {
            let written = match claim::with_provisioner(&own, &provisioner) {
                Some(changed) => access.replace(&changed).await.map(drop),
                None => Ok(()),
            };
            if written.is_ok() {
                tell(context, &own, Some(told));
            }
            written
        }
    };
    // A conflict is tried again.
    gone_is_fine(written)?;
    Ok(Next::Done)
}

fn tell<K: client::Kind>(context: &Context, about: &K, told: Option<Told>) {
    if let Some(Told { kind, reason, message }) = told {
        context.events.record(&reference(about), kind, reason, message);
    }
}

/// Volumes are available, bound, released or failed.
pub(crate) fn volumes() -> Controller {
    Controller::of_some::<PersistentVolume>(NAME, |delta| delta.new.is_some())
        .watches::<PersistentVolumeClaim>(|delta, context| {
            let volumes = context.caches.of::<PersistentVolume>();
            keys(&volumes.by(BY_CLAIM, &delta.key.to_string())).collect()
        })
        .reconcile(|key, context| async move { reconcile_volume(&key, &context).await })
}

async fn reconcile_volume(key: &ObjectName, context: &Context) -> Result<Next, Error> {
    let Some(own) = context.caches.of::<PersistentVolume>().read("", &key.name) else {
        return Ok(Next::Done);
    };
    let mut claim = None;
    if let Some(named) = volume::claim_ref(&own).filter(|named| named.uid.is_some()) {
        let (namespace, name) =
            (named.namespace.as_deref().unwrap_or_default(), named.name.as_deref().unwrap_or_default());
        let is_meant = |claim: &PersistentVolumeClaim| claim.metadata.uid == named.uid;
        claim = context.caches.of::<PersistentVolumeClaim>().read(namespace, name).filter(is_meant);
        if claim.is_none() && !volume::is_given_up(&own) {
            // The cache may be behind. To take a volume from a claim that is there would lose its data.
            let asked = context.client.namespaced::<PersistentVolumeClaim>(namespace).get_opt(name).await?;
            claim = asked.filter(is_meant);
        }
    }
    let access = context.client.api::<PersistentVolume>();
    let written = match volume::step(&own, claim.as_ref()) {
        volume::Step::Nothing => Ok(()),
        volume::Step::Phase(phase, told) => {
            let patch =
                client::Patch::Merge(json!({"metadata": {"resourceVersion": own.metadata.resource_version},
                "status": {"phase": phase, "message": told.as_ref().map(|own| own.message.clone())}}));
            let written = access.patch_sub(&key.name, "status", patch).await.map(drop);
            if written.is_ok() {
                tell(context, &own, told);
            }
            written
        }
        volume::Step::Mismatch { volume, claim: about_claim } => {
            tell(context, &own, Some(volume));
            if let Some(claim) = &claim {
                tell(context, claim, Some(about_claim));
            }
            Ok(())
        }
        // The phase follows when the change is seen.
        volume::Step::Unbind(changed) => access.replace(&changed).await.map(drop),
    };
    // A conflict is tried again.
    gone_is_fine(written)?;
    Ok(Next::Done)
}
