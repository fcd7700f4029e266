//! Revisions: a deployment, an autoscaler's object and images each. Upstream: `pkg/reconciler/revision`.

mod plan;
mod status;

use crate::conditions::Conditions;
use crate::digest::{self, Resolve};
use crate::keys;
use crate::kinds::{Image, PodAutoscaler, Revision, is_controlled_by, name_of, namespace_of};
use crate::settings::{self, Settings};
use crate::write;
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

pub(crate) fn controller(resolve: Option<Arc<dyn Resolve>>) -> Controller {
    settings::follows::<Revision>(
        Controller::of::<Revision>("revision-controller"),
        &["config-autoscaler", "config-deployment"],
    )
    .owns::<Deployment>()
    .owns::<PodAutoscaler>()
    .owns::<Image>()
    .watches::<Pod>(|delta, _| {
        let label = |own: &Arc<api::Object>| {
            Some(ObjectName::new(own.meta.namespace(), own.meta.label(keys::REVISION)?))
        };
        delta.last().and_then(label).into_iter().collect()
    })
    .reconcile(move |key, context| reconcile(key, context, resolve.clone()))
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    resolve: Option<Arc<dyn Resolve>>,
) -> Result<Next, Error> {
    let Some(mut revision) = context.caches.of::<Revision>().read(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    if revision.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let before = revision.status.clone();
    let was_ready = crate::conditions::state(&before, "Ready") == "True";
    let result = sync(&mut revision, &context, resolve.as_deref()).await;
    if !was_ready && crate::conditions::state(&revision.status, "Ready") == "True" {
        let message = "Revision becomes ready upon all resources being ready";
        context.events.normal(&write::about(&revision), "RevisionReady", message);
    }
    write::status(&context, revision, &before).await?;
    result.map(|()| Next::Done)
}

async fn sync(
    revision: &mut Revision,
    context: &Context,
    resolve: Option<&dyn Resolve>,
) -> Result<(), Error> {
    let settings = Settings::of(context);
    let mut status = std::mem::take(&mut revision.status);
    let resolved = digest::resolve(&revision.spec, &mut status, &settings, resolve).await;
    let mut conditions = Conditions::of(&mut status, status::CONDITIONS, context.now());
    if let Err(error) = resolved {
        conditions.mark("ContainerHealthy", "False", "ContainerMissing", &error.to_string());
        revision.status = status;
        return Err(Error::Own(Box::new(error)));
    }
    // What is made of the revision needs the digests; what it says of itself is set below.
    revision.status = conditions.status().clone();
    let result = sync_objects(revision, &mut conditions, &settings, context).await;
    revision.status = status;
    result
}

async fn sync_objects(
    revision: &Revision,
    conditions: &mut Conditions<'_>,
    settings: &Settings,
    context: &Context,
) -> Result<(), Error> {
    let (namespace, name) = (namespace_of(&revision.metadata), name_of(&revision.metadata));
    let want = plan::deployment(revision, settings)?;
    let have = context.caches.of::<Deployment>().read(namespace, name_of(&want.metadata));
    let deployment = match have {
        None => {
            conditions.mark("ResourcesAvailable", "Unknown", "Deploying", "");
            conditions.mark("ContainerHealthy", "Unknown", "Deploying", "");
            write::create(context, &want).await?.unwrap_or(want)
        }
        Some(have) if !is_controlled_by(&have.metadata, &revision.metadata) => {
            let name = name_of(&want.metadata);
            let message = format!("There is an existing Deployment {name:?} that we do not own.");
            conditions.mark("ResourcesAvailable", "False", "NotOwned", &message);
            return Ok(());
        }
        Some(have) => {
            let deployment = match plan::update(&have, want) {
                None => have,
                Some(new) => context.client.namespaced::<Deployment>(namespace).replace(&new).await?,
            };
            status::take_deployment(conditions, &deployment, pod_of(revision, context).as_ref());
            deployment
        }
    };
    let images = context.caches.of::<Image>();
    for image in plan::images(revision) {
        if images.get(namespace, name_of(&image.metadata)).is_none() {
            write::create(context, &image).await?;
        }
    }
    let mut seen = revision.clone();
    seen.status = conditions.status().clone();
    let want = plan::pod_autoscaler(&seen, Some(&deployment));
    match context.caches.of::<PodAutoscaler>().read(namespace, name) {
        None => {
            let made = write::create(context, &want).await?.unwrap_or(want);
            status::take_autoscaler(conditions, &made);
        }
        Some(have) if !is_controlled_by(&have.metadata, &revision.metadata) => {
            let message = format!("There is an existing PodAutoscaler {name:?} that we do not own.");
            conditions.mark("ResourcesAvailable", "False", "NotOwned", &message);
        }
        Some(have) => {
            status::take_autoscaler(conditions, &have);
            if have.spec != want.spec {
                let mut new = have;
                new.spec = want.spec;
                context.client.namespaced::<PodAutoscaler>(namespace).replace(&new).await?;
            }
        }
    }
    Ok(())
}

/// One of the revision's pods, the first by name.
fn pod_of(revision: &Revision, context: &Context) -> Option<Pod> {
    let pods = context.caches.of::<Pod>().list(namespace_of(&revision.metadata));
    let name = name_of(&revision.metadata);
    pods.iter().find(|own| own.meta.label(keys::REVISION) == Some(name))?.decode().ok()
}
