//! Looking at one object: reads that must be fresh, and the writes.

use super::graph::{self, Graph, Known, Monitor, Task};
use super::plan::{self, FOREGROUND, ORPHAN, Standing, State, Verdict};
use api::object::Owner;
use api::{Object, Status};
use client::gone_is_fine;
use client::{Context, DeleteParams, DynamicApi, Patch, Queue};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// What a look came to.
pub(crate) enum Done {
    /// Nothing more to do until something changes.
    Settled,
    /// An owner exists that the cache has not seen yet: look again, or its deletion may go unseen.
    LookAgain,
}

#[derive(Deserialize)]
struct Raw {
    metadata: RawMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
}

fn raw(object: &Object) -> Result<RawMeta, Status> {
    object.decode::<Raw>().map(|raw| raw.metadata).map_err(Status::internal)
}

pub(crate) struct Worker {
    pub(crate) context: Arc<Context>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) queue: Queue<Task>,
}

impl Worker {
    pub(crate) async fn run(self: Arc<Self>) {
        while let Some(task) = self.queue.get().await {
            match self.look(&task).await {
                Ok(Done::Settled) => self.queue.forget(&task),
                Ok(Done::LookAgain) => self.queue.add_rate_limited(task.clone()),
                Err(status) => {
                    tracing::debug!(key = %task.key, resource = %task.resource.id(), %status, "garbage is tried again");
                    self.queue.add_rate_limited(task.clone());
                }
            }
            self.queue.done(&task);
        }
    }

    fn api(&self, monitor: &Monitor, namespace: &str) -> DynamicApi {
        self.context.client.dynamic((*monitor.resource).clone(), namespace).metadata_only()
    }

    async fn look(&self, task: &Task) -> Result<Done, Status> {
        let Some(monitor) = self.graph.monitor(&task.resource) else { return Ok(Done::Settled) };
        let Some(seen) = monitor.cache.get(&task.key.namespace, &task.key.name) else {
            return Ok(Done::Settled);
        };
        let latest = match self.api(&monitor, &task.key.namespace).get(&task.key.name).await {
            Ok(latest) if latest.meta.uid == seen.meta.uid => latest,
            Ok(_) => return Ok(Done::Settled),
            Err(status) if status.is_not_found() => return Ok(Done::Settled),
            Err(status) => return Err(status),
        };
        if task.orphan {
            return self.release_dependents(&monitor, &latest).await.map(|()| Done::Settled);
        }
        let meta = raw(&latest)?;
        let finalizers = meta.finalizers.unwrap_or_default();
        let has = |name: &str| finalizers.iter().any(|own| own == name);
        let dependents = self.graph.dependents(&latest.meta.uid);
        let state = State {
            deleting: latest.meta.deleting,
            waits_for_dependents: has(FOREGROUND),
            orphans_dependents: has(ORPHAN),
            has_dependents: !dependents.is_empty(),
            has_waiting_dependent: dependents.iter().any(|(_, own)| graph::waits_for_dependents(own)),
            is_blocked: dependents.iter().any(|(_, own)| graph::blocks(own, &latest.meta.uid)),
        };
        let (owners, unseen) = if latest.meta.deleting {
            (Vec::new(), false)
        } else {
            match self.standings(&monitor, &latest).await? {
                Some(found) => found,
                None => return Ok(Done::Settled),
            }
        };
        let references = meta.owner_references.unwrap_or_default();
        let api = self.api(&monitor, &task.key.namespace);
        match plan::decide(state, &owners) {
            Verdict::Nothing => {}
            Verdict::Finish => self.remove_finalizer(&api, &latest, FOREGROUND).await?,
            Verdict::TryDependents => {
                let blocking = dependents.iter().filter(|(_, own)| graph::blocks(own, &latest.meta.uid));
                for (monitor, own) in blocking.filter(|(_, own)| !graph::waits_for_dependents(own)) {
                    self.queue.add(Task::delete(monitor, own));
                }
            }
            Verdict::DropOwners(positions) => {
                set_owners(&api, &latest, plan::without(&references, &positions)).await?;
            }
            Verdict::Delete { propagation, unblock } => {
                let mut version = latest.meta.resource_version.to_string();
                if unblock {
                    let patched = set_owners(&api, &latest, plan::unblocked(&references)).await?;
                    version = patched.unwrap_or(version);
                }
                let params = DeleteParams {
                    propagation: Some(propagation),
                    uid: Some(latest.meta.uid.to_string()),
                    resource_version: Some(version),
                    grace_seconds: None,
                };
                gone_is_fine(api.delete(&task.key.name, &params).await)?;
            }
        }
        Ok(if unseen { Done::LookAgain } else { Done::Settled })
    }

    /// How the owners stand, and whether one exists that its cache does not show yet. `None` if the references make no
    /// sense, so that nothing may be done.
    async fn standings(
        &self,
        monitor: &Monitor,
        object: &Object,
    ) -> Result<Option<(Vec<Standing>, bool)>, Status> {
        let (mut standings, mut unseen) = (Vec::new(), false);
        for owner in &object.meta.owners {
            let standing = match self.graph.owner(owner, object.meta.namespace()) {
                Known::Present(found) => standing(&found),
                Known::NotSeen(of) => match self.fetch(&of, owner, object.meta.namespace()).await? {
                    Some(found) => {
                        unseen = true;
                        standing(&found)
                    }
                    None => Standing::Dangling,
                },
                // The definition of the kind may come back: never delete for a kind that is not known.
                Known::NoSuchKind => return Ok(None),
                Known::Impossible => {
                    let message = format!(
                        "ownerRef [{}/{}, name: {}, uid: {}] does not exist in namespace \"\"",
                        owner.api_version, owner.kind, owner.name, owner.uid
                    );
                    let about = monitor.resource.reference(object);
                    self.context.events.warning(&about, "OwnerRefInvalidNamespace", message);
                    return Ok(None);
                }
            };
            standings.push(standing);
        }
        Ok(Some((standings, unseen)))
    }

    /// Asks the server for an owner.
    async fn fetch(&self, of: &Monitor, owner: &Owner, namespace: &str) -> Result<Option<Object>, Status> {
        let namespace = if of.namespaced { namespace } else { "" };
        match self.api(of, namespace).get(&owner.name).await {
            Ok(found) if found.meta.uid == owner.uid => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Removes the owner from all that names it, then lets the owner go.
    async fn release_dependents(&self, monitor: &Monitor, owner: &Object) -> Result<(), Status> {
        let uid = &owner.meta.uid;
        let released = self.graph.dependents(uid).into_iter().map(async |(monitor, own)| {
            let api = self.api(&monitor, own.meta.namespace());
            let latest = match api.get(own.meta.name()).await {
                Ok(latest) if latest.meta.uid == own.meta.uid => latest,
                Ok(_) => return Ok(()),
                Err(status) => return gone_is_fine(Err::<(), _>(status)),
            };
            let mut references = raw(&latest)?.owner_references.unwrap_or_default();
            references.retain(|reference| *reference.uid != **uid);
            set_owners(&api, &latest, references).await.map(drop)
        });
        join_all(released).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        self.remove_finalizer(&self.api(monitor, owner.meta.namespace()), owner, ORPHAN).await
    }

    async fn remove_finalizer(&self, api: &DynamicApi, object: &Object, name: &str) -> Result<(), Status> {
        let mut finalizers = raw(object)?.finalizers.unwrap_or_default();
        let before = finalizers.len();
        finalizers.retain(|own| own != name);
        if finalizers.len() == before {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": object.meta.resource_version.to_string(), "finalizers": finalizers}}));
        gone_is_fine(api.patch(object.meta.name(), "", &patch).await)
    }
}

fn standing(owner: &Object) -> Standing {
    if graph::waits_for_dependents(owner) { Standing::Waiting } else { Standing::Solid }
}

/// Writes other owners, if the object is still this version. Answers its new version; `None` if it is gone.
async fn set_owners(
    api: &DynamicApi,
    object: &Object,
    owners: Vec<OwnerReference>,
) -> Result<Option<String>, Status> {
    let patch = Patch::Merge(json!({"metadata": {
        "uid": object.meta.uid, "resourceVersion": object.meta.resource_version.to_string(), "ownerReferences": owners}}));
    match api.patch(object.meta.name(), "", &patch).await {
        Ok(patched) => Ok(Some(patched.meta.resource_version.to_string())),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}
