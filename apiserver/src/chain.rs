//! Running the admission chain, and the locks that order writes which count or claim something.

use crate::hooks::AdmissionStep;
use crate::server::Server;
use api::admission::Awaited;
use api::{AdmissionRequest, Lookup, Status};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks by name. One that nobody holds or waits for is forgotten.
#[derive(Default)]
pub(crate) struct Locks(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

/// How often an awaited object is looked for. Upstream: `getServiceAccount` of the ServiceAccount plugin, which waits 100
/// to 200 ms between ten looks.
const AWAIT_ATTEMPTS_MAX: usize = 30;
const AWAIT_INTERVAL: Duration = Duration::from_millis(50);

/// Names above which unused locks are looked for.
const LOCKS_KEPT: usize = 64;

/// Locks that are held until this is dropped.
#[derive(Default)]
pub(crate) struct Held(Vec<OwnedMutexGuard<()>>);

impl Locks {
    /// Takes these locks in the order of their names, so that two takers never wait for each other.
    pub(crate) async fn take(&self, names: BTreeSet<String>) -> Held {
        let mut held = Held::default();
        for name in names {
            let lock = {
                let mut locks = self.0.lock();
                if locks.len() > LOCKS_KEPT {
                    locks.retain(|_, lock| Arc::strong_count(lock) > 1);
                }
                locks.entry(name).or_default().clone()
            };
            held.0.push(lock.lock_owned().await);
        }
        held
    }
}

impl Server {
    fn steps<'a>(
        &'a self,
        request: &AdmissionRequest<'_>,
    ) -> impl Iterator<Item = &'a Arc<dyn AdmissionStep>> + use<'a> {
        let operation = request.operation;
        self.hooks.admission.iter().filter(move |step| step.handles(operation))
    }

    /// Waits for what the chain needs, then takes the locks that the chain and the rules want for this request. Nothing
    /// is held while it waits: whoever makes the awaited object may need the same locks.
    pub(crate) async fn exclusive(&self, request: &AdmissionRequest<'_>) -> Held {
        for awaited in self.steps(request).filter_map(|step| step.awaits(request)) {
            self.wait_for(&awaited).await;
        }
        let mut names: BTreeSet<String> =
            self.steps(request).filter_map(|step| step.exclusive(request)).collect();
        if request.resource.strategy.exclusive() && request.subresource.is_empty() {
            names.insert(format!("{}/{}", request.resource.group, request.resource.plural));
        }
        match names.is_empty() {
            true => Held::default(),
            false => self.locks.take(names).await,
        }
    }

    async fn wait_for(&self, awaited: &Awaited) {
        let registry = self.registry();
        let exists =
            || registry.get(awaited.group, awaited.plural, &awaited.namespace, &awaited.name).is_some();
        for _ in 0..AWAIT_ATTEMPTS_MAX {
            if exists() {
                return;
            }
            tokio::time::sleep(AWAIT_INTERVAL).await;
        }
    }

    /// The mutating half, twice where a webhook changed what the steps before it saw.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        for step in self.steps(request) {
            step.mutate(request).await?;
        }
        if !request.reinvocation.is_wanted {
            return Ok(());
        }
        request.reinvocation.is_again = true;
        for step in self.steps(request) {
            step.mutate(request).await?;
        }
        Ok(())
    }

    /// The validating half.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        for step in self.steps(request) {
            step.validate(request).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_is_held_until_it_is_dropped() {
        let locks = Arc::new(Locks::default());
        let names = || BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let held = locks.take(names()).await;
        assert_eq!(held.0.len(), 2);
        let other = tokio::spawn({
            let locks = locks.clone();
            async move { locks.take(names()).await }
        });
        tokio::task::yield_now().await;
        assert!(!other.is_finished());
        drop(held);
        other.await.unwrap();
    }
}
