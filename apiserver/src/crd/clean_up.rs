//! Removing the objects of a definition that is deleted. Upstream: apiextensions-apiserver
//! `pkg/controller/finalizer/crd_finalizer.go`.

use super::path_of;
use crate::inward;
use crate::server::Server;
use crate::watch_cache::Interest;
use api::custom::{Condition, Definition, FINALIZER};
use api::{Status, Timestamp};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long the objects of a definition may take to go, before it is tried again.
const GONE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Tries until the definition is gone.
pub(super) async fn run(server: Weak<Server>, name: String, uid: String) {
    loop {
        let Some(server) = server.upgrade() else { return };
        match attempt(&server, &name, &uid).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(status) => tracing::warn!(%status, name, "objects of a deleted definition remain"),
        }
        let stop = server.stop_token();
        drop(server);
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The definition, if it still waits for this.
async fn current(server: &Arc<Server>, name: &str, uid: &str) -> Result<Option<Definition>, Status> {
    match inward::call(server, http::Method::GET, &path_of(name, ""), &Value::Null).await {
        Ok(value) => {
            let own = Definition(value);
            Ok((own.uid() == uid && own.wants_clean_up()).then_some(own))
        }
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// Writes the definition; `false` where somebody else did in between.
async fn write(server: &Arc<Server>, definition: &mut Definition) -> Result<bool, Status> {
    let path = path_of(definition.name(), "/status");
    match inward::call(server, http::Method::PUT, &path, &definition.0).await {
        Ok(value) => {
            definition.0 = value;
            Ok(true)
        }
        Err(status) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(status) => Err(status),
    }
}

/// One try. Whether there is nothing left to do.
async fn attempt(server: &Arc<Server>, name: &str, uid: &str) -> Result<bool, Status> {
    let Some(mut definition) = current(server, name, uid).await? else { return Ok(true) };
    let terminating = |status, reason, message| Condition { kind: "Terminating", status, reason, message };
    let begun = terminating("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
    definition.set_condition(&begun, Timestamp::now());
    if !write(server, &mut definition).await? {
        return Ok(false);
    }
    let was_served = definition.is("Established");
    if was_served && let Err(status) = remove_all(server, &definition).await {
        let message = format!("could not issue all deletes: {status}");
        let failed = terminating("True", "InstanceDeletionFailed", &message);
        definition.set_condition(&failed, Timestamp::now());
        write(server, &mut definition).await?;
        return Err(status);
    }
    let done = match was_served {
        true => terminating("False", "InstanceDeletionCompleted", "removed all instances"),
        false => terminating("False", "NeverEstablished", "resource was never established"),
    };
    definition.set_condition(&done, Timestamp::now());
    if let Some(finalizers) = definition.0["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|own| own != FINALIZER);
    }
    write(server, &mut definition).await
}

/// Deletes every object and waits until all are gone.
async fn remove_all(server: &Arc<Server>, definition: &Definition) -> Result<(), Status> {
    let (group, plural) = (definition.group(), definition.plural());
    let (cache, version) = {
        let table = server.registry().table();
        let mut rows =
            table.entries().filter(|own| own.resource.group == group && own.resource.plural == plural);
        let row = rows.next().ok_or_else(|| Status::internal("the resource is not served"))?;
        let cache = row.cache.clone().ok_or_else(|| Status::internal("the resource is not kept"))?;
        (cache, row.resource.version.clone())
    };
    let (snapshot, mut changes) =
        cache.watch_now(Interest::default()).map_err(|_| Status::internal("there are too many watchers"))?;
    let namespaces: BTreeSet<String> = snapshot.items.keys().map(|name| name.namespace.to_string()).collect();
    for namespace in namespaces {
        let path = match namespace.as_str() {
            "" => format!("/apis/{group}/{version}/{plural}"),
            namespace => format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
        };
        inward::call(server, http::Method::DELETE, &path, &Value::Null).await?;
    }
    let gone = async {
        while !cache.is_empty() {
            if changes.next().await.is_none() {
                return;
            }
        }
    };
    match tokio::time::timeout(GONE_WAIT_MAX, gone).await {
        Ok(()) if cache.is_empty() => Ok(()),
        _ => Err(Status::internal(format!(
            "could not confirm zero CustomResources remaining: {} are",
            cache.len()
        ))),
    }
}
