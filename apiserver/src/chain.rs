//! Running the admission chain, and the locks that order writes which count or claim something.

use crate::hooks::AdmissionStep;
use crate::server::Server;
use api::{AdmissionRequest, Status};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks by name. One that nobody holds or waits for is forgotten.
#[derive(Default)]
pub(crate) struct Locks(Mutex<HashMap<String, Arc<AsyncMutex<()>>>>);

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

    /// Takes the locks that the chain and the rules want for this request.
    pub(crate) async fn exclusive(&self, request: &AdmissionRequest<'_>) -> Held {
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

    /// The mutating half.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
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
