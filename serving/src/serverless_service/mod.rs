//! ServerlessServices: two services of a revision. The private one leads to its pods; the public one too, or to whoever waits for
//! some. Upstream: `pkg/reconciler/serverlessservice`.

mod plan;

use crate::conditions::Conditions;
use crate::keys;
use crate::kinds::{ServerlessService, is_controlled_by, label, name_of, namespace_of, text};
use crate::settings::NAMESPACE;
use crate::write;
use api::{Object, ObjectName};
use client::{Context, Controller, Error, Next};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use std::sync::Arc;

/// The service of whoever waits for pods.
const ACTIVATOR: &str = "activator-service";
/// The index of slices by their service, after the namespace.
const SLICES: &str = "service";

pub(crate) fn controller() -> Controller {
    Controller::of::<ServerlessService>("serverlessservice-controller")
        .owns::<Service>()
        .watches::<EndpointSlice>(|delta, context| {
            let Some(slice) = delta.last() else { return Vec::new() };
            let service = slice.meta.label(plan::SERVICE_NAME).unwrap_or_default();
            if slice.meta.namespace() == NAMESPACE && service == ACTIVATOR {
                let all = context.caches.of::<ServerlessService>().list("");
                return all.iter().map(|own| own.meta.key.clone()).collect();
            }
            let name = slice.meta.label("networking.internal.knative.dev/serverlessservice");
            name.map(|name| ObjectName::new(slice.meta.namespace(), name)).into_iter().collect()
        })
        .reconcile(reconcile)
}

fn slices(context: &Context, namespace: &str, service: &str) -> Vec<EndpointSlice> {
    let cache = context.caches.of::<EndpointSlice>();
    cache.index(SLICES, |slice: &Object| {
        let service = slice.meta.label(plan::SERVICE_NAME);
        service.map(|own| format!("{}/{own}", slice.meta.namespace()).into()).into_iter().collect()
    });
    cache.by(SLICES, &format!("{namespace}/{service}")).iter().filter_map(|own| own.decode().ok()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<ServerlessService>().read(&key.namespace, &key.name);
    write::observe(&context, found, plan::CONDITIONS, async |sks, conditions| {
        sync(sks, conditions, &context).await
    })
    .await?;
    Ok(Next::Done)
}

async fn sync(
    sks: &ServerlessService,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<(), Error> {
    let namespace = namespace_of(&sks.metadata);
    let revision_uid = label(&sks.metadata, keys::REVISION_UID);
    for want in [plan::private(sks, revision_uid), plan::public(sks)] {
        if !service(sks, want, conditions, context).await? {
            return Ok(());
        }
    }
    conditions.status()["serviceName"] = name_of(&sks.metadata).into();
    conditions.status()["privateServiceName"] = plan::private_name(sks).into();
    let pods = plan::ready(&slices(context, namespace, &plan::private_name(sks)));
    let activators = slices(context, NAMESPACE, ACTIVATOR);
    let port = activators.iter().find_map(|own| own.ports.as_ref()?.first()?.port);
    let waiting: Vec<Endpoint> = plan::ready(&activators);
    // Without pods whoever waits serves, and without anybody who waits the pods do.
    let is_served = text(&sks.spec, "/mode") == "Serve" && !pods.is_empty() || waiting.is_empty();
    let has_any = !pods.is_empty() || !waiting.is_empty();
    let want = match is_served {
        true => plan::slice(sks, pods.clone(), None),
        false => plan::slice(sks, waiting, port),
    };
    slice(want, context).await?;
    match (has_any, pods.is_empty()) {
        (true, false) => conditions.mark("EndpointsPopulated", "True", "", ""),
        (true, true) => {
            let message = "K8s Service is not ready";
            conditions.mark("EndpointsPopulated", "Unknown", "NoHealthyBackends", message);
        }
        (false, _) => {
            let message = "SKS is in Serve mode and has no endpoints";
            conditions.mark("EndpointsPopulated", "Unknown", "NoHealthyBackends", message);
        }
    }
    match is_served {
        true => conditions.mark(
            "ActivatorEndpointsPopulated",
            "False",
            "ActivatorEndpointsRemoved",
            "Activator endpoints are removed",
        ),
        false => conditions.mark("ActivatorEndpointsPopulated", "True", "", ""),
    }
    Ok(())
}

/// A service as it is wanted. Whether it is ours.
async fn service(
    sks: &ServerlessService,
    want: Service,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<bool, Error> {
    let (namespace, name) = (namespace_of(&sks.metadata), name_of(&want.metadata).to_owned());
    match context.caches.of::<Service>().read(namespace, &name) {
        None => drop(write::create(context, &want).await?),
        Some(have) if !is_controlled_by(&have.metadata, &sks.metadata) => {
            let message = format!("Resource of kind Service, name {name:?} is not owned by this SKS");
            conditions.mark("EndpointsPopulated", "False", "NotOwned", &message);
            return Ok(false);
        }
        Some(have) if plan::is_same(&have, &want) => {}
        Some(mut have) => {
            let (mut spec, new) = (have.spec.take().unwrap_or_default(), want.spec.unwrap_or_default());
            (spec.ports, spec.selector) = (new.ports, new.selector);
            have.spec = Some(spec);
            context.client.namespaced::<Service>(namespace).replace(&have).await?;
        }
    }
    Ok(true)
}

async fn slice(want: EndpointSlice, context: &Context) -> Result<(), Error> {
    let namespace = namespace_of(&want.metadata).to_owned();
    match context.caches.of::<EndpointSlice>().read(&namespace, name_of(&want.metadata)) {
        None => drop(write::create(context, &want).await?),
        Some(have) if have.endpoints == want.endpoints && have.ports == want.ports => {}
        Some(mut have) => {
            (have.endpoints, have.ports) = (want.endpoints, want.ports);
            context.client.namespaced::<EndpointSlice>(&namespace).replace(&have).await?;
        }
    }
    Ok(())
}
