//! DELETE and DELETECOLLECTION. Upstream: `apiserver/pkg/endpoints/handlers/delete.go`,
//! `pkg/registry/generic/registry/store.go`, `pkg/registry/rest/delete.go`.
//!
//! An object goes in up to three steps: it is marked (with a grace period for those who need time to end), whoever holds it
//! by a finalizer lets go, it is removed.

use super::{Scope, Written, list, value_of};
use crate::Body;
use crate::codec::negotiate::Media;
use crate::codec::reply::Reply;
use crate::codec::{body, wire};
use crate::metadata;
use crate::options::{DeleteOptions, Propagation};
use crate::storage::WriteError;
use crate::watch_cache::Item;
use api::{Operation, Reason, Status, Timestamp};
use futures::StreamExt;
use serde_json::Value;
use store::Expect;

/// How often a delete starts anew when somebody else writes in between.
const ATTEMPTS_MAX: usize = 30;
/// Deletes of one deletecollection under way at once: enough for one group commit of the store.
const COLLECTION_CONCURRENCY_MAX: usize = 32;

/// Reads the options from the body, or from the query where there is none.
async fn read_options(scope: &Scope, request_body: Body) -> Result<DeleteOptions, Status> {
    let bytes = body::read(request_body, body::BODY_BYTES_MAX).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(&scope.query);
    }
    let media = wire::media_of(body::media_type(&scope.headers))?;
    let value = read_value(media, &bytes)?;
    let options = DeleteOptions::from_value(&value)?;
    scope.notes.lock().request_object = Some(value.to_string().into());
    Ok(options)
}

/// The options' group and version are whatever the client was made for.
fn read_value(media: Media, bytes: &[u8]) -> Result<Value, Status> {
    match media {
        Media::Json => serde_json::from_slice(bytes).map_err(|error| Status::bad_request(error.to_string())),
        Media::Yaml => api::decode::yaml(bytes).map(|(value, _)| value).map_err(Status::bad_request),
        Media::Protobuf => Ok(wire::read(media, bytes, "v1", "DeleteOptions")?.value),
    }
}

/// Deletes one object.
pub(crate) async fn delete(scope: &Scope, request_body: Body) -> Result<Reply, Status> {
    let options = read_options(scope, request_body).await?;
    let removed = remove(scope, &scope.target.name, &options).await?;
    let code = if !removed.is_gone && options.orphan_dependents == Some(false) { 202 } else { 200 };
    Ok(match removed.shown {
        Some(written) => written.reply(code),
        None => {
            let mut status = Status::success(scope.entry.resource.id(), &scope.target.name, &removed.uid);
            status.code = 0;
            let mut value = serde_json::to_value(&status).map_err(Status::internal)?;
            if let Some(map) = value.as_object_mut() {
                map.remove("code");
            }
            Reply::Value { code, value }
        }
    })
}

/// Deletes what a list selects.
pub(crate) async fn delete_collection(scope: &Scope, request_body: Body) -> Result<Reply, Status> {
    let options = read_options(scope, request_body).await?;
    let (items, meta) = list::selected(scope).await?;
    let one = |item: &Item| {
        let key = item.object.meta.key.clone();
        let options = &options;
        async move {
            // Each object in its own namespace: the request may be about all of them.
            match remove_named(scope, &key.namespace, &key.name, options).await {
                Err(status) if status.reason == Reason::NotFound => Ok(()),
                other => other.map(|_| ()),
            }
        }
    };
    let tasks: Vec<_> = items.iter().map(|item| one(item)).collect();
    let mut running = futures::stream::iter(tasks).buffer_unordered(COLLECTION_CONCURRENCY_MAX);
    while let Some(result) = running.next().await {
        result?;
    }
    drop(running);
    Ok(Reply::List { objects: scope.entry.present_all(&items).await?, meta })
}

/// What became of an object.
pub(crate) struct Removed {
    /// Whether it is removed, not only marked.
    pub(crate) is_gone: bool,
    /// What the client is shown; `None` for a `Status`.
    pub(crate) shown: Option<Written>,
    /// Its UID.
    pub(crate) uid: String,
}

/// Deletes the named object of the request's namespace.
pub(crate) async fn remove(scope: &Scope, name: &str, options: &DeleteOptions) -> Result<Removed, Status> {
    remove_named(scope, scope.namespace(), name, options).await
}

async fn remove_named(
    scope: &Scope,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Removed, Status> {
    let mut options = options.clone();
    options.grace_seconds = options.grace_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let mut marked: Option<Removed> = None;
    for _ in 0..ATTEMPTS_MAX {
        let found = scope.cache()?.get(namespace, name);
        // Between our mark and our removal whoever ends the object (a node) may remove it: that is what was asked for.
        let found = found.filter(|item| marked.as_ref().is_none_or(|own| *own.uid == *item.object.meta.uid));
        let Some(item) = found else { return marked.ok_or_else(|| scope.not_found(name)) };
        if let Some(removed) = attempt(scope, &item, &mut options, &mut marked).await? {
            return Ok(removed);
        }
    }
    Err(Status::modified(scope.entry.resource.id(), name))
}

/// One try; `None` where somebody else wrote in between. `marked` is what is answered if the object is gone then.
async fn attempt(
    scope: &Scope,
    item: &Item,
    options: &mut DeleteOptions,
    marked: &mut Option<Removed>,
) -> Result<Option<Removed>, Status> {
    let strategy = &scope.entry.resource.strategy;
    let key = item.object.meta.key.clone();
    let old = value_of(&*scope.entry.present(item).await?)?;
    check_preconditions(scope, &old, options)?;
    admit(scope, &old, options).await?;

    let mut new = old.clone();
    let grace = strategy.grace_seconds(&old, options.grace_seconds)?;
    let ending = end_gracefully(&mut new, grace, options.grace_seconds, scope.now);
    let uid = metadata::text(&old, "uid").to_owned();
    if ending == Ending::Pending {
        let shown = match strategy.returns_deleted() {
            true => Some(Written::Object(scope.entry.present(item).await?)),
            false => None,
        };
        return Ok(Some(Removed { is_gone: false, shown, uid }));
    }
    set_propagation(&mut new, options, strategy.orphans_by_default());
    let mut is_held = !metadata::finalizers(&new).is_empty();
    if ending == Ending::Now {
        let mut marked = new.clone();
        mark(&mut marked, scope.now);
        // Rules may say so in the object, but only one that stays is written.
        if strategy.keeps_deleted(&mut marked) || is_held {
            (new, is_held) = (marked, true);
        }
    }
    let goes_now = !is_held && matches!(ending, Ending::Now | Ending::Graceful(0));
    if options.dry_run {
        let shown = (!goes_now || strategy.returns_deleted()).then_some(Written::Value(new));
        return Ok(Some(Removed { is_gone: goes_now, shown, uid }));
    }
    let mut at = item.object.meta.resource_version;
    let mut last = Written::Value(old.clone());
    if new != old && !(goes_now && ending == Ending::Now) {
        let kept = scope.entry.kept(&new).await?;
        last = match scope.write(&key, Expect::At(at), Some(kept), false).await {
            Ok(written) => written,
            Err(WriteError::Conflict) => return Ok(None),
            Err(WriteError::Refused(status)) => return Err(status),
        };
        at = last.revision().unwrap_or(at);
    }
    if !goes_now {
        return Ok(Some(Removed { is_gone: false, shown: Some(last), uid }));
    }
    let gone = |last| Removed { is_gone: true, shown: strategy.returns_deleted().then_some(last), uid };
    match scope.write(&key, Expect::At(at), None, false).await {
        Ok(_) => Ok(Some(gone(last))),
        Err(WriteError::Conflict) => {
            *marked = Some(gone(last));
            Ok(None)
        }
        Err(WriteError::Refused(status)) => Err(status),
    }
}

fn check_preconditions(scope: &Scope, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let resource = &scope.entry.resource;
    let name = metadata::text(old, "name");
    // Upstream names the kind here, not the resource.
    let id = api::status::ResourceId { group: &resource.group, plural: &resource.kind };
    let (uid, version) = (metadata::text(old, "uid"), metadata::text(old, "resourceVersion"));
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != uid) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(id, name, &why));
    }
    if let Some(wanted) = options.resource_version.as_deref().filter(|wanted| *wanted != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Status::conflict(id, name, &why));
    }
    Ok(())
}

async fn admit(scope: &Scope, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let option_value = options.value();
    let name = metadata::text(old, "name");
    let mut request =
        scope.admission(Operation::Delete, name, Value::Null, Some(old), &option_value, options.dry_run);
    if scope.entry.resource.is_namespaced() {
        request.namespace = metadata::text(old, "namespace");
    }
    scope.admit(&mut request).await?;
    scope.validate(&mut request).await
}

/// How an object ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// At once, as far as time is concerned.
    Now,
    /// It is marked, and has this many seconds.
    Graceful(i64),
    /// It was marked before, and nothing changes.
    Pending,
}

/// Marks an object that needs time to end. `grace`: what the rules say; `asked`: what the client says.
fn end_gracefully(object: &mut Value, grace: Option<i64>, asked: Option<i64>, now: Timestamp) -> Ending {
    let Some(grace) = grace else { return Ending::Now };
    let metadata = &object["metadata"];
    let deletion = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(deletion) = deletion else {
        count(object);
        set_deletion(object, now.as_second() + grace, grace);
        return Ending::Graceful(grace);
    };
    let left = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if left == 0 {
        return Ending::Now;
    }
    let Some(mut period) = asked.filter(|asked| *asked < left) else { return Ending::Pending };
    let mut at = deletion.as_second() - left + period;
    if at < now.as_second() {
        at = now.as_second();
        period = period.min(1);
    }
    set_deletion(object, at, period);
    Ending::Graceful(period)
}

fn count(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    if generation > 0 {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

fn set_deletion(object: &mut Value, at_second: i64, grace_seconds: i64) {
    let at = Timestamp::from_second(at_second).unwrap_or(Timestamp::MAX);
    object["metadata"]["deletionTimestamp"] = metadata::time(at);
    object["metadata"]["deletionGracePeriodSeconds"] = grace_seconds.into();
}

/// Marks an object that others hold.
fn mark(object: &mut Value, now: Timestamp) {
    let deletion =
        object["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    if deletion.is_none() {
        count(object);
    }
    let at = deletion.filter(|at| *at <= now).unwrap_or(now);
    set_deletion(object, at.as_second(), 0);
}

/// Sets the garbage collector's finalizers as the client (or the object, or the kind) wants its dependents treated.
fn set_propagation(object: &mut Value, options: &DeleteOptions, orphans_by_default: bool) {
    let before: Vec<String> = metadata::finalizers(object).into_iter().map(str::to_owned).collect();
    let own = before.iter().find_map(|name| match name.as_str() {
        metadata::ORPHAN => Some(Propagation::Orphan),
        metadata::FOREGROUND => Some(Propagation::Foreground),
        _ => None,
    });
    let wanted = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) => Propagation::Orphan,
        (Some(false), _) => Propagation::Background,
        (None, Some(propagation)) => propagation,
        (None, None) if orphans_by_default => own.unwrap_or(Propagation::Orphan),
        (None, None) => own.unwrap_or(Propagation::Background),
    };
    let mut after: Vec<String> = before
        .iter()
        .filter(|name| *name != metadata::ORPHAN && *name != metadata::FOREGROUND)
        .cloned()
        .collect();
    match wanted {
        Propagation::Orphan => after.push(metadata::ORPHAN.to_owned()),
        Propagation::Foreground => after.push(metadata::FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    let same = before.len() == after.len() && before.iter().all(|name| after.contains(name));
    if same {
        return;
    }
    let metadata = metadata::metadata_mut(object);
    match after.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".to_owned(), after.into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap()
    }

    fn check(metadata: Value, grace: Option<i64>, asked: Option<i64>, expect: (Ending, Value)) {
        let mut object = json!({"metadata": metadata});
        let ending = end_gracefully(&mut object, grace, asked, now());
        assert_eq!((ending, object["metadata"].clone()), expect);
    }

    #[test]
    fn grace() {
        check(json!({}), None, Some(5), (Ending::Now, json!({})));
        let marked = json!({"deletionTimestamp": "1970-01-01T00:17:10Z", "deletionGracePeriodSeconds": 30, "generation": 2});
        check(json!({"generation": 1}), Some(30), None, (Ending::Graceful(30), marked.clone()));
        check(marked.clone(), Some(30), None, (Ending::Pending, marked.clone()));
        check(marked.clone(), Some(30), Some(40), (Ending::Pending, marked.clone()));
        let shorter = json!({"deletionTimestamp": "1970-01-01T00:16:50Z", "deletionGracePeriodSeconds": 10, "generation": 2});
        check(marked.clone(), Some(10), Some(10), (Ending::Graceful(10), shorter));
        let now = json!({"deletionTimestamp": "1970-01-01T00:16:40Z", "deletionGracePeriodSeconds": 0, "generation": 2});
        check(marked, Some(0), Some(0), (Ending::Graceful(0), now.clone()));
        check(now.clone(), Some(30), None, (Ending::Now, now));
    }

    #[test]
    fn propagation() {
        let check = |before: Value, options: DeleteOptions, by_default: bool, expect: Value| {
            let mut object = json!({"metadata": {"finalizers": before}});
            set_propagation(&mut object, &options, by_default);
            assert_eq!(object["metadata"]["finalizers"], expect);
        };
        let with = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        check(json!(["x"]), DeleteOptions::default(), false, json!(["x"]));
        check(json!(["x"]), DeleteOptions::default(), true, json!(["x", "orphan"]));
        check(json!([]), with(Propagation::Foreground), false, json!(["foregroundDeletion"]));
        check(json!(["foregroundDeletion"]), with(Propagation::Background), false, Value::Null);
        check(json!(["orphan", "x"]), DeleteOptions::default(), false, json!(["orphan", "x"]));
        let older = DeleteOptions { orphan_dependents: Some(true), ..DeleteOptions::default() };
        check(json!([]), older, false, json!(["orphan"]));
    }
}
