//! Deletes jobs some time after they have ended, if they ask for it. Upstream: pkg/controller/ttlafterfinished.

mod plan;
#[cfg(test)]
mod tests;

use api::ObjectName;
use client::gone_is_fine;
use client::{Context, Controller, DeleteParams, Error, Next, Propagation};
use k8s_openapi::api::batch::v1::Job;
use std::sync::Arc;

/// Jobs deleted at once. Upstream: `--concurrent-ttl-after-finished-syncs`.
const WORKERS: usize = 5;

pub(crate) fn controller() -> Controller {
    Controller::of_some::<Job>("ttl-after-finished-controller", |delta| delta.new.is_some())
        .workers(WORKERS)
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let wait = |job: &Job| match plan::expires_at(job) {
        Some(at) if at <= context.now() => None,
        Some(at) => Some(Next::at(&context.clock, at)),
        None => Some(Next::Done),
    };
    let Some(job) = context.caches.of::<Job>().read(&key.namespace, &key.name) else { return Ok(Next::Done) };
    if let Some(next) = wait(&job) {
        return Ok(next);
    }
    // Somebody may have given it more time just now: what is deleted is gone for good, so the server is asked once more.
    let access = context.client.namespaced::<Job>(&key.namespace);
    let Some(job) = access.get_opt(&key.name).await? else { return Ok(Next::Done) };
    if let Some(next) = wait(&job) {
        return Ok(next);
    }
    let params = DeleteParams {
        propagation: Some(Propagation::Foreground),
        uid: job.metadata.uid,
        ..DeleteParams::default()
    };
    gone_is_fine(access.delete(&key.name, &params).await)?;
    Ok(Next::Done)
}
