//! Domain mappings: a host of one's own for a service. Upstream: `pkg/reconciler/domainmapping`.

mod plan;

use crate::conditions::Conditions;
use crate::ingress;
use crate::kinds::{DomainMapping, Ingress, Route, Service, annotation, name_of, namespace_of, text};
use crate::settings::{self, Settings};
use crate::write;
use api::ObjectName;
use bytes::Bytes;
use client::{Context, Controller, DeleteParams, Delta, Error, Next, ResourceRef, Selection, gone_is_fine};
use k8s_openapi::api::core::v1 as core;
use plan::Unresolved;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn controller(cluster_domain: &str) -> Controller {
    let cluster_domain: Arc<str> = cluster_domain.into();
    settings::follows::<DomainMapping>(
        Controller::of::<DomainMapping>("domainmapping-controller"),
        &["config-network"],
    )
    .owns::<Ingress>()
    .watches::<Service>(|delta, context| users(delta, context, "serving.knative.dev/v1", "Service"))
    .watches::<Route>(|delta, context| users(delta, context, "serving.knative.dev/v1", "Route"))
    .watches::<core::Service>(|delta, context| users(delta, context, "v1", "Service"))
    .watches_some(claims(), Selection::default(), |delta, context| {
        // A claim has the name of the host, and so has whoever waits for it, in whatever namespace.
        let all = context.caches.of::<DomainMapping>().list("");
        all.iter().filter(|own| own.meta.name() == &*delta.key.name).map(|own| own.meta.key.clone()).collect()
    })
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone()))
}

/// Claims of hosts: cluster-scoped, so no kind of this crate's.
fn claims() -> ResourceRef {
    ResourceRef::new(
        "networking.internal.knative.dev",
        "v1alpha1",
        "clusterdomainclaims",
        "ClusterDomainClaim",
    )
}

/// The mappings of the namespace that refer to an object.
fn users(delta: &Delta, context: &Context, api_version: &str, kind: &str) -> Vec<ObjectName> {
    let all = context.caches.of::<DomainMapping>();
    let refers = |own: &DomainMapping| {
        let of = &own.spec["ref"];
        of["name"] == *delta.key.name && of["kind"] == kind && of["apiVersion"] == api_version
    };
    let found = all.read_all(&delta.key.namespace).into_iter().filter(refers);
    found.map(|own| ObjectName::new(&delta.key.namespace, name_of(&own.metadata))).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>, cluster_domain: Arc<str>) -> Result<Next, Error> {
    let found = context.caches.of::<DomainMapping>().read(&key.namespace, &key.name);
    let seen = write::observe(&context, found, plan::CONDITIONS, async |mapping, conditions| {
        sync(mapping, conditions, &context, &cluster_domain).await
    });
    if seen.await?.is_none() {
        give_up_claim(&key, &context).await?;
    }
    Ok(Next::Done)
}

async fn sync(
    mapping: &DomainMapping,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) -> Result<(), Error> {
    let settings = Settings::of(context);
    if mapping.metadata.generation != conditions.status()["observedGeneration"].as_i64() {
        ingress::mark_not_configured(conditions);
    }
    let url = format!("{}://{}", settings.external_scheme, name_of(&mapping.metadata));
    conditions.status()["url"] = url.as_str().into();
    conditions.status()["address"] = json!({"url": url});
    if !claim(mapping, &settings, conditions, context).await? {
        return Ok(());
    }
    conditions.mark("CertificateProvisioned", "True", "TLSNotEnabled", "external-domain-tls is not enabled");
    let resolved = resolve(mapping, context, cluster_domain);
    let namespace = namespace_of(&mapping.metadata);
    let resolved = resolved
        .as_deref()
        .map_err(ToString::to_string)
        .and_then(|uri| plan::host(uri, namespace, cluster_domain).map_err(|error| error.to_string()));
    let (host, service) = match resolved {
        Ok(found) => found,
        Err(message) => {
            conditions.mark("ReferenceResolved", "False", "ResolveFailed", &message);
            return Ok(());
        }
    };
    conditions.mark("ReferenceResolved", "True", "", "");
    let class = annotation(&mapping.metadata, ingress::CLASS).unwrap_or(&settings.ingress_class);
    let want = plan::ingress(mapping, host, service, class);
    ingress::wanted(mapping, want, conditions, context).await.map(drop)
}

/// Sees to it that the host belongs to the mapping's namespace. Whether it does.
async fn claim(
    mapping: &DomainMapping,
    settings: &Settings,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<bool, Error> {
    let name = name_of(&mapping.metadata);
    let claim: Value = match context.caches.any(claims(), Selection::default()).get("", name) {
        Some(found) => found.decode()?,
        None if !settings.makes_domain_claims => {
            let message = format!("no ClusterDomainClaim found for domain {name:?}");
            conditions.mark("DomainClaimed", "False", "DomainClaimFailed", &message);
            return Ok(false);
        }
        None => {
            let access = context.client.dynamic(claims(), "");
            match access.create(Bytes::from(plan::claim(mapping).to_string())).await {
                Ok(made) => made.decode()?,
                // Somebody was faster; the cache will show whom it is for.
                Err(status) if status.is_already_exists() => return Ok(false),
                Err(status) => return Err(status.into()),
            }
        }
    };
    if text(&claim, "/spec/namespace") != namespace_of(&mapping.metadata) {
        let message = "The domain name is already in use by another DomainMapping";
        conditions.mark("DomainClaimed", "False", "DomainAlreadyClaimed", message);
        return Ok(false);
    }
    conditions.mark("DomainClaimed", "True", "", "");
    Ok(true)
}

/// Frees the host of a mapping that is gone, if claims are made here and it was the namespace's.
async fn give_up_claim(key: &ObjectName, context: &Context) -> Result<(), Error> {
    let found = context.caches.any(claims(), Selection::default()).get("", &key.name);
    let is_its = |claim: &Value| text(claim, "/spec/namespace") == &*key.namespace;
    let Some(claim) = found.filter(|_| Settings::of(context).makes_domain_claims) else { return Ok(()) };
    if !claim.decode().is_ok_and(|own: Value| is_its(&own)) {
        return Ok(());
    }
    let access = context.client.dynamic(claims(), "");
    Ok(gone_is_fine(access.delete(&key.name, &DeleteParams::default()).await)?)
}

/// The URL that the mapping's reference leads to.
fn resolve(mapping: &DomainMapping, context: &Context, cluster_domain: &str) -> Result<String, Unresolved> {
    let of = &mapping.spec["ref"];
    let (api_version, kind, name) = (text(of, "/apiVersion"), text(of, "/kind"), text(of, "/name"));
    let namespace = match text(of, "/namespace") {
        "" => namespace_of(&mapping.metadata),
        own => own,
    };
    let addressed = |status: Option<Value>, plural: &str| {
        let missing = || Unresolved::Missing {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            plural: plural.to_owned(),
            group: "serving.knative.dev".to_owned(),
        };
        let url = text(&status.ok_or_else(missing)?, "/address/url").to_owned();
        let none = || Unresolved::NoAddress {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        (!url.is_empty()).then_some(url).ok_or_else(none)
    };
    match (api_version, kind) {
        ("serving.knative.dev/v1", "Service") => {
            let found = context.caches.of::<Service>().read(namespace, name);
            addressed(found.map(|own| own.status), "services")
        }
        ("serving.knative.dev/v1", "Route") => {
            let found = context.caches.of::<Route>().read(namespace, name);
            addressed(found.map(|own| own.status), "routes")
        }
        // Upstream too needs no such service to exist.
        ("v1", "Service") => Ok(format!("http://{name}.{namespace}.svc.{cluster_domain}")),
        _ => Err(Unresolved::NotAddressable { api_version: api_version.to_owned(), kind: kind.to_owned() }),
    }
}
