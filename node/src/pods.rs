//! The pods of the node: their workers, by uid, and which of them use an object.

use crate::context::PodView;
use crate::objects::Reference;
use crate::worker::{Message, WorkerHandle};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The pods of the node.
#[derive(Default)]
pub(crate) struct Pods(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    workers: HashMap<String, WorkerHandle>,
    users: HashMap<Reference, HashSet<String>>,
    uses: HashMap<String, Vec<Reference>>,
}

impl Pods {
    /// Adds a pod.
    pub(crate) fn add(&self, uid: &str, worker: WorkerHandle, references: Vec<Reference>) {
        let mut inner = self.0.write();
        inner.workers.insert(uid.to_owned(), worker);
        inner.set_references(uid, references);
    }

    /// Says which objects a pod uses now.
    pub(crate) fn set_references(&self, uid: &str, references: Vec<Reference>) {
        self.0.write().set_references(uid, references);
    }

    /// Removes a pod.
    pub(crate) fn remove(&self, uid: &str) {
        let mut inner = self.0.write();
        inner.workers.remove(uid);
        inner.set_references(uid, Vec::new());
    }

    /// Whether a pod is there.
    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.0.read().workers.contains_key(uid)
    }

    /// Uids of all pods.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.0.read().workers.keys().cloned().collect()
    }

    /// The worker of a pod.
    pub(crate) fn worker(&self, uid: &str) -> Option<WorkerHandle> {
        self.0.read().workers.get(uid).cloned()
    }

    /// Tells a pod's worker something. A worker that has ended hears nothing.
    pub(crate) async fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.worker(uid) {
            let _ = worker.messages.send(message).await;
        }
    }

    /// The pods that use an object.
    pub(crate) fn users(&self, reference: &Reference) -> Vec<String> {
        self.0.read().users.get(reference).into_iter().flatten().cloned().collect()
    }

    /// All pods as their workers see them.
    pub(crate) fn views(&self) -> Vec<Arc<PodView>> {
        self.0.read().workers.values().map(|worker| worker.view.borrow().clone()).collect()
    }

    /// A pod by namespace and name; the youngest where an older one of that name is still ending.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<WorkerHandle> {
        let inner = self.0.read();
        let fits = |worker: &&WorkerHandle| {
            let view = worker.view.borrow();
            let def = &view.def;
            def.namespace() == namespace && def.name() == name && uid.is_none_or(|uid| def.uid() == uid)
        };
        let created = |worker: &&WorkerHandle| {
            let view = worker.view.borrow();
            view.def.pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
        };
        inner.workers.values().filter(fits).max_by_key(created).cloned()
    }
}

impl Inner {
    fn set_references(&mut self, uid: &str, references: Vec<Reference>) {
        for old in self.uses.remove(uid).unwrap_or_default() {
            if let Some(users) = self.users.get_mut(&old) {
                users.remove(uid);
                if users.is_empty() {
                    self.users.remove(&old);
                }
            }
        }
        for reference in &references {
            self.users.entry(reference.clone()).or_default().insert(uid.to_owned());
        }
        if !references.is_empty() {
            self.uses.insert(uid.to_owned(), references);
        }
    }
}
