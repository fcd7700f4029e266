//! Writes down what is behind each service with a selector. Upstream: pkg/controller/endpointslice, staging endpointslice.

pub(crate) mod pack;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use crate::backend::{self, Backends};
use crate::owner::Owner;
use crate::pod::is_namespace_terminating;
use api::ObjectName;
use client::{AnyCache, Context, Controller, DeleteParams, Delta, Error, Next};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use pack::Writes;
use std::sync::Arc;

/// Services reconciled at once. Upstream: `--concurrent-service-endpoint-syncs`.
const WORKERS: usize = 5;
/// Endpoints of one slice. Upstream: `--max-endpoints-per-slice`.
const SLICE_LEN_MAX: usize = 100;
/// Name of the index of slices by namespace and service.
pub(crate) const BY_SERVICE: &str = "service";

pub(crate) fn controller(backends: Backends) -> Controller {
    let feed = backends.clone();
    Controller::of::<Service>("endpointslice-controller")
        .watches::<EndpointSlice>(|delta, _| of_slice(delta, plan::MANAGER))
        .beside(move |context| feed.feed(context))
        .workers(WORKERS)
        .reconcile(move |key, context| reconcile(key, context, backends.clone()))
}

/// Adds the index of slices by service.
pub(crate) fn index_by_service(slices: &AnyCache) {
    slices.index(BY_SERVICE, |slice| {
        let service = slice.meta.label(plan::SERVICE_NAME);
        service.map(|service| service_key(slice.meta.namespace(), service)).into_iter().collect()
    });
}

fn service_key(namespace: &str, service: &str) -> Box<str> {
    format!("{namespace}/{service}").into()
}

/// The service (or Endpoints) of a slice that `manager` has made, or had made before the change.
pub(crate) fn of_slice(delta: &Delta, manager: &str) -> Vec<ObjectName> {
    let versions = [&delta.old, &delta.new];
    let own =
        versions.into_iter().flatten().filter(|slice| slice.meta.label(plan::MANAGED_BY) == Some(manager));
    let mut keys: Vec<_> = own
        .filter_map(|slice| slice.meta.label(plan::SERVICE_NAME))
        .map(|service| ObjectName::new(&delta.key.namespace, service))
        .collect();
    keys.dedup();
    keys
}

/// The slices of a service that `manager` has made.
pub(crate) fn slices_of(context: &Context, key: &ObjectName, manager: &str) -> Vec<EndpointSlice> {
    let slices = context.caches.of::<EndpointSlice>().by(BY_SERVICE, &service_key(&key.namespace, &key.name));
    let own = slices.iter().filter(|slice| slice.meta.label(plan::MANAGED_BY) == Some(manager));
    own.filter(|slice| !slice.meta.deleting).filter_map(|slice| slice.decode().ok()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>, backends: Backends) -> Result<Next, Error> {
    let Some(service) = context.caches.of::<Service>().read(&key.namespace, &key.name) else {
        // The garbage collector removes the slices with their owner.
        context.expectations.forget(&key);
        return Ok(Next::Done);
    };
    let Some(selector) = backend::selector(&service) else { return Ok(Next::Done) };
    if service.metadata.deletion_timestamp.is_some() || !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let pods = backends.of(&key.namespace, &selector);
    let groups = plan::groups(&service, &pods, &|node| backends.zone(node)).into_vec();
    let existing = slices_of(&context, &key, plan::MANAGER);
    let writes = pack::pack(existing, groups, &plan::meta(&service), SLICE_LEN_MAX);
    match write(&context, &key, writes).await {
        Err(Error::Api(status)) if is_namespace_terminating(&status) => Ok(Next::Done),
        Err(Error::Api(status)) if status.is_conflict() => Err(Error::Api(status)),
        Err(error) => {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            context.events.warning(&Owner::of(&service).about, "FailedToUpdateEndpointSlices", message);
            Err(error)
        }
        Ok(()) => Ok(Next::Done),
    }
}

/// Carries out writes and expects to see them.
pub(crate) async fn write(context: &Context, key: &ObjectName, writes: Writes) -> Result<(), Error> {
    let api = context.client.namespaced::<EndpointSlice>(&key.namespace);
    let cache = context.caches.of::<EndpointSlice>();
    for slice in &writes.create {
        let made = api.create(slice).await?;
        context.expectations.wrote(key, &cache, made.metadata.resource_version.as_deref());
    }
    for slice in &writes.update {
        let made = api.replace(slice).await?;
        context.expectations.wrote(key, &cache, made.metadata.resource_version.as_deref());
    }
    for name in &writes.delete {
        match api.delete(name, &DeleteParams::default()).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
    }
    Ok(())
}
