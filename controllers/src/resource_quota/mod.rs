//! Keeps the status of quotas true: what they bound and how much of it is used. Upstream: pkg/controller/resourcequota.
//!
//! Admission decides by the usage of the moment; the status tells people (and clients that wait for it) the same numbers a moment
//! later. What counts for how much is in [`api::quota`].

mod plan;
#[cfg(test)]
mod tests;

use crate::served::once_each;
use api::quota::{self, Measure};
use api::{Object, ObjectName};
use client::{AnyCache, Context, Controller, Delta, Error, Next, ResourceRef, Selection};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ResourceQuota;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Quotas counted at once. Upstream: `--concurrent-resource-quota-syncs`.
const WORKERS: usize = 5;
/// A resource that a quota names and nobody serves is looked for again after this time: its definition may come.
const UNSERVED_RETRY: Duration = Duration::from_secs(30);
/// Writes of a namespace come in bursts: one count after them serves all.
const SETTLE: Duration = Duration::from_millis(50);

pub(crate) fn controller() -> Controller {
    let kinds = Arc::new(Kinds::default());
    Controller::of::<ResourceQuota>("resourcequota-controller").workers(WORKERS).reconcile(
        move |key, context| {
            let kinds = kinds.clone();
            async move { reconcile(&key, &context, &kinds).await }
        },
    )
}

async fn reconcile(key: &ObjectName, context: &Arc<Context>, kinds: &Kinds) -> Result<Next, Error> {
    let quotas = context.caches.of::<ResourceQuota>();
    let Some(mut quota) = quotas.read(&key.namespace, &key.name) else { return Ok(Next::Done) };
    let hard = plan::hard(&quota);
    let mut listed: HashMap<(String, String), Vec<Arc<Measure>>> = HashMap::new();
    let mut next = Next::Done;
    for (group, plural) in plan::sources(&hard) {
        match kinds.objects(context, group, plural, &key.namespace).await? {
            Some(objects) => {
                let measures = quota::measure_all(group, plural, &objects)?;
                listed.insert((group.to_owned(), plural.to_owned()), measures);
            }
            None => next = Next::After(UNSERVED_RETRY),
        }
    }
    let now = context.now();
    let planned = plan::plan(&quota, &hard, now, |group, plural| {
        listed.get(&(group.to_owned(), plural.to_owned())).cloned()
    });
    if let Some(at) = planned.next {
        next = next.or(Next::at(&context.clock, at));
    }
    if let Some(status) = planned.status {
        quota.status = Some(status);
        match context.client.namespaced::<ResourceQuota>(&key.namespace).replace_status(&quota).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
    }
    Ok(next)
}

/// The resources that some quota counts: their caches, followed from the first time that one is named.
#[derive(Default)]
struct Kinds {
    followed: Mutex<HashMap<(String, String), AnyCache>>,
}

impl Kinds {
    /// All objects of a resource in a namespace; `None` where nobody serves it.
    async fn objects(
        &self,
        context: &Arc<Context>,
        group: &str,
        plural: &str,
        namespace: &str,
    ) -> Result<Option<Vec<Arc<Object>>>, Error> {
        let id = (group.to_owned(), plural.to_owned());
        let known = self.followed.lock().get(&id).cloned();
        let cache = match known {
            Some(cache) => cache,
            None => {
                let Some(resource) = resource(context, group, plural).await? else { return Ok(None) };
                let cache = context.caches.any(resource, Selection::default());
                if self.followed.lock().insert(id, cache.clone()).is_none() {
                    tokio::spawn(follow(cache.clone(), Arc::downgrade(context)));
                }
                cache
            }
        };
        cache.synced().await;
        Ok(Some(cache.list(namespace)))
    }
}

async fn resource(context: &Context, group: &str, plural: &str) -> Result<Option<ResourceRef>, Error> {
    let served = context.client.discover().await?;
    let found = once_each(&served, &["list", "watch"]).into_iter();
    let mut found = found.filter(|row| *row.resource.group == *group && *row.resource.plural == *plural);
    Ok(found.next().map(|row| row.resource))
}

/// Every change of a counted object has the quotas of its namespace counted anew, until the cache or the controller ends.
async fn follow(cache: AnyCache, context: Weak<Context>) {
    let mut changes = cache.subscribe();
    while let Some(Delta::<Object> { key, .. }) = changes.next().await {
        let Some(context) = context.upgrade() else { return };
        for quota in context.caches.of::<ResourceQuota>().list(&key.namespace) {
            context.queue.add_after(quota.meta.key.clone(), SETTLE);
        }
    }
}
