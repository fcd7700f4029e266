//! Writes down what is behind each service with a selector, in the older form. Upstream: pkg/controller/endpoint.

pub(crate) mod plan;
#[cfg(test)]
mod tests;

use crate::backend::{self, Backends};
use crate::pod::is_namespace_terminating;
use api::ObjectName;
use client::{Context, Controller, DeleteParams, Delta, Error, Next};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use std::sync::Arc;

/// Services reconciled at once. Upstream: `--concurrent-endpoint-syncs`.
const WORKERS: usize = 5;

pub(crate) fn controller(backends: Backends) -> Controller {
    let feed = backends.clone();
    Controller::of::<Service>("endpoint-controller")
        .watches::<Endpoints>(of_own)
        .beside(move |context| feed.feed(context))
        .workers(WORKERS)
        .reconcile(move |key, context| reconcile(key, context, backends.clone()))
}

/// Own writes end a wait for them; what somebody deleted is made again. Objects of others (a service without selector, a lock of
/// an old leader election) are theirs.
fn of_own(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let is_gone = delta.new.is_none();
    let has_service = context.caches.of::<Service>().get(&delta.key.namespace, &delta.key.name).is_some();
    if is_gone || has_service { vec![delta.key.clone()] } else { Vec::new() }
}

async fn reconcile(key: ObjectName, context: Arc<Context>, backends: Backends) -> Result<Next, Error> {
    let api = context.client.namespaced::<Endpoints>(&key.namespace);
    let cache = context.caches.of::<Endpoints>();
    let Some(service) = context.caches.of::<Service>().read(&key.namespace, &key.name) else {
        context.expectations.forget(&key);
        if cache.get(&key.namespace, &key.name).is_none() {
            return Ok(Next::Done);
        }
        return match api.delete(&key.name, &DeleteParams::default()).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(Next::Done),
        };
    };
    let Some(selector) = backend::selector(&service) else { return Ok(Next::Done) };
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let current = cache.read(&key.namespace, &key.name);
    let wanted = plan::wanted(current.as_ref(), &service, &backends.of(&key.namespace, &selector));
    let (result, verb) = match &current {
        None => (api.create(&wanted).await, ("FailedToCreateEndpoint", "create endpoint for service")),
        Some(current) if *current == wanted => return Ok(Next::Done),
        Some(_) => (api.replace(&wanted).await, ("FailedToUpdateEndpoint", "update endpoint")),
    };
    match result {
        Ok(made) => {
            context.expectations.wrote(&key, &cache, made.metadata.resource_version.as_deref());
            Ok(Next::Done)
        }
        Err(status) if is_namespace_terminating(&status) => Ok(Next::Done),
        Err(status) if status.is_conflict() => Err(status.into()),
        Err(status) => {
            let message = format!("Failed to {} {key}: {status}", verb.1);
            context.events.warning(&client::reference(&wanted), verb.0, message);
            Err(status.into())
        }
    }
}
