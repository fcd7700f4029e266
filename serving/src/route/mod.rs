//! Routes: an Ingress and placeholder services each. Upstream: `pkg/reconciler/route`.

mod domains;
mod label;
pub(crate) mod plan;
mod rollout;
mod traffic;

use crate::conditions::Conditions;
use crate::kinds::{
    Configuration, Ingress, Revision, Route, annotation, is_controlled_by, name_of, namespace_of, text,
};
use crate::settings::{self, Settings};
use crate::write;
use crate::{application, ingress, keys};
use api::time_text::parse_duration;
use api::{Object, ObjectName, Timestamp};
use client::{Context, Controller, DeleteParams, Delta, Error, Next, gone_is_fine};
use domains::{Hosts, TemplateError};
use k8s_openapi::api::core::v1::Service;
use rollout::Rollout;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use traffic::Target;

/// The index of routes by what their traffic names: `c/CONFIGURATION` and `r/REVISION`, each after the namespace.
const TARGETS: &str = "targets";

pub(crate) fn controller(cluster_domain: &str) -> Controller {
    let cluster_domain: Arc<str> = cluster_domain.into();
    settings::follows::<Route>(
        Controller::of::<Route>("route-controller"),
        &["config-domain", "config-network"],
    )
    .owns::<Ingress>()
    .owns::<Service>()
    .watches::<Configuration>(|delta, context| users(delta, context, 'c'))
    .watches::<Revision>(|delta, context| users(delta, context, 'r'))
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone()))
}

fn index_key(namespace: &str, kind: char, name: &str) -> String {
    format!("{namespace}/{kind}/{name}")
}

fn targets_of(route: &Object) -> Vec<Box<str>> {
    let Ok(own) = route.decode::<Route>() else { return Vec::new() };
    let namespace = route.meta.namespace();
    let all = [&own.spec, &own.status]
        .into_iter()
        .flat_map(|part| part["traffic"].as_array().into_iter().flatten());
    all.flat_map(|target| {
        let key = |kind, name: &str| (!name.is_empty()).then(|| index_key(namespace, kind, name).into());
        let of_configuration = key('c', text(target, "/configurationName"));
        of_configuration.into_iter().chain(key('r', text(target, "/revisionName")))
    })
    .collect()
}

/// The routes that name an object of a kind in their traffic.
fn users(delta: &Delta, context: &Context, kind: char) -> Vec<ObjectName> {
    let routes = context.caches.of::<Route>();
    routes.index(TARGETS, targets_of);
    let key = index_key(&delta.key.namespace, kind, &delta.key.name);
    routes.by(TARGETS, &key).iter().map(|own| own.meta.key.clone()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>, cluster_domain: Arc<str>) -> Result<Next, Error> {
    let route = context.caches.of::<Route>().read(&key.namespace, &key.name);
    let Some(mut route) = route.filter(|own| own.metadata.deletion_timestamp.is_none()) else {
        label::sync(&context, &key.namespace, &key.name, None).await?;
        return Ok(Next::Done);
    };
    let before = route.status.clone();
    let mut status = before.clone();
    let mut conditions = Conditions::of(&mut status, plan::CONDITIONS, context.now());
    let result = sync(&route, &mut conditions, &context, &cluster_domain).await;
    route.status = status;
    let labelled = label::sync(&context, &key.namespace, &key.name, Some(&route)).await;
    write::status(&context, route, &before).await?;
    labelled?;
    Ok(result?.map_or(Next::Done, |at| Next::at(&context.clock, at)))
}

async fn sync(
    route: &Route,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) -> Result<Option<Timestamp>, Error> {
    if route.metadata.generation != conditions.status()["observedGeneration"].as_i64() {
        ingress::mark_not_configured(conditions);
    }
    let settings = Settings::of(context);
    let hosts = Hosts { meta: &route.metadata, settings: &settings, cluster_domain };
    let targets = match assign(route, conditions, context, &hosts) {
        Ok(Some(targets)) => targets,
        Ok(None) => return Ok(None),
        Err(error) => {
            conditions.mark("AllTrafficAssigned", "False", "ErrorConfig", &error.to_string());
            return Ok(None);
        }
    };
    let made = |error: TemplateError| Error::Own(Box::new(error));
    conditions.status()["address"] =
        serde_json::json!({"url": format!("http://{}", hosts.local("").map_err(made)?[2])});
    let message = "external-domain-tls is not enabled";
    conditions.mark("CertificateProvisioned", "True", "TLSNotEnabled", message);
    let (rollout, next) = roll_out(route, &targets, &settings, context);
    let revisions = context.caches.of::<Revision>();
    let namespace = namespace_of(&route.metadata);
    let is_h2c =
        |name: &str| revisions.read(namespace, name).is_some_and(|own| application::is_h2c(&own.spec));
    let shares = traffic::by_tag(&targets, &rollout, &is_h2c);
    let want = plan::ingress(route, &shares, &rollout, &hosts).map_err(made)?;
    let Some(ingress) = ingress::wanted(route, want, conditions, context).await? else { return Ok(None) };
    if !rollout.is_done() && ingress::is_ready(&ingress) {
        let message = "A gradual rollout of the latest revision(s) is in progress.";
        conditions.mark("IngressReady", "Unknown", "RolloutInProgress", message);
    }
    placeholders(route, &targets, &ingress, conditions, context, &hosts).await?;
    Ok(next)
}

/// How far the latest revisions are rolled out by now, and when the next step is due.
fn roll_out(
    route: &Route,
    targets: &[Target],
    settings: &Settings,
    context: &Context,
) -> (Rollout, Option<Timestamp>) {
    let goal = Rollout::goal(targets);
    let meta = &route.metadata;
    let own = keys::ROLLOUT_DURATION.iter().find_map(|key| annotation(meta, key));
    let own = own.and_then(|own| parse_duration(own).ok()).and_then(|nanos| u64::try_from(nanos).ok());
    let duration = own.map_or(settings.rollout_duration, Duration::from_nanos);
    let have = context.caches.of::<Ingress>().read(namespace_of(meta), name_of(meta));
    let Some(have) = have.filter(|_| duration.as_secs() > 0) else { return (goal, None) };
    let mut before = Rollout::of(&have);
    if let Some(before) = before.as_mut().filter(|_| ingress::is_ready(&have)) {
        before.observe_ready(context.now(), duration);
    }
    goal.step(before.as_ref(), context.now())
}

/// Says what traffic goes where. `None` where that is not known yet.
fn assign(
    route: &Route,
    conditions: &mut Conditions<'_>,
    context: &Context,
    hosts: &Hosts<'_>,
) -> Result<Option<Vec<Target>>, TemplateError> {
    conditions.status()["url"] = hosts.url("")?.into();
    let namespace = namespace_of(&route.metadata);
    let (configurations, revisions) = (context.caches.of::<Configuration>(), context.caches.of::<Revision>());
    let known = traffic::Known {
        configuration: &|name| configurations.read(namespace, name),
        revision: &|name| revisions.read(namespace, name),
    };
    match traffic::resolve(route, &known) {
        Ok(targets) => {
            conditions.status()["traffic"] = plan::status_traffic(&targets, hosts)?;
            conditions.mark("AllTrafficAssigned", "True", "", "");
            Ok(Some(targets))
        }
        Err(fault) => {
            conditions.mark("AllTrafficAssigned", fault.status(), &fault.reason(), &fault.to_string());
            Ok(None)
        }
    }
}

async fn placeholders(
    route: &Route,
    targets: &[Target],
    ingress: &Ingress,
    conditions: &mut Conditions<'_>,
    context: &Context,
    hosts: &Hosts<'_>,
) -> Result<(), Error> {
    let made = |error: TemplateError| Error::Own(Box::new(error));
    let namespace = namespace_of(&route.metadata);
    let (cache, api) = (context.caches.of::<Service>(), context.client.namespaced::<Service>(namespace));
    let tags: BTreeSet<&str> = targets.iter().map(|own| own.tag.as_str()).chain([""]).collect();
    let mut wanted = BTreeSet::new();
    for tag in tags {
        let host = hosts.host(tag).map_err(made)?;
        let want =
            plan::placeholder(route, tag, plan::entrance(ingress).unwrap_or(&host), hosts).map_err(made)?;
        let name = name_of(&want.metadata).to_owned();
        match cache.read(namespace, &name) {
            None => drop(write::create(context, &want).await?),
            Some(have) if !is_controlled_by(&have.metadata, &route.metadata) => {
                let message =
                    format!("There is an existing placeholder Service {name:?} that we do not own.");
                conditions.mark("IngressReady", "False", "NotOwned", &message);
            }
            Some(mut have) => {
                if plan::update_placeholder(&mut have, want) {
                    api.replace(&have).await?;
                }
            }
        }
        wanted.insert(name);
    }
    for own in cache.controlled_by(route.metadata.uid.as_deref().unwrap_or_default()) {
        let name = name_of(&own.metadata);
        if !wanted.contains(name) {
            gone_is_fine(api.delete(name, &DeleteParams::default()).await)?;
        }
    }
    Ok(())
}
