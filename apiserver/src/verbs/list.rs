//! LIST: consistent pages from snapshots. Upstream: `apiserver/pkg/storage/cacher`, `etcd3/store.go`,
//! `storage/continue.go`.

use super::Scope;
use super::selection::Selection;
use crate::codec::reply::{ListMeta, Reply};
use crate::options::{ListOptions, Match};
use crate::watch_cache::{Item, Snapshot, Stale, WatchCache};
use api::{ObjectName, Status};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a list goes on: upstream's form, so that it means the same to everybody.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// In place of a revision: go on from the newest, however inconsistent that is.
const INCONSISTENT: i64 = -1;

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where the next page starts.
struct Start {
    after: Option<ObjectName>,
    revision: Option<u64>,
}

fn encode_token(name: &ObjectName, revision: i64) -> String {
    let token = Token { v: TOKEN_VERSION.to_owned(), rv: revision, start: format!("{name}\u{0}") };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

fn decode_token(text: &str) -> Result<(ObjectName, i64), Status> {
    let wrong =
        |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid{why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| wrong(&format!(": {error}")))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| wrong(&format!(": {error}")))?;
    if token.v != TOKEN_VERSION {
        return Err(wrong(&format!(": server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(wrong(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    let start = token.start.trim_end_matches('\u{0}');
    if start.is_empty() {
        return Err(wrong(": encoded start key empty (version meta.k8s.io/v1)"));
    }
    if start.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(wrong(&format!(": {start}")));
    }
    let name = match start.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new("", start),
    };
    Ok((name, token.rv))
}

/// The refusal of a page whose revision is forgotten, with a token that goes on inconsistently.
fn expired(after: &ObjectName) -> Reply {
    let status = Status::expired(CONTINUE_EXPIRED);
    let mut value = serde_json::to_value(&status).unwrap_or_default();
    value["metadata"]["continue"] = encode_token(after, INCONSISTENT).into();
    Reply::Value { code: 410, value }
}

/// The snapshot that the options ask for.
async fn snapshot(scope: &Scope, cache: &WatchCache, options: &ListOptions) -> Result<Snapshot, Status> {
    let storage = scope.server.registry().storage();
    let asked = match options.revision {
        None | Some(0) => return Ok(cache.snapshot()),
        Some(revision) => revision,
    };
    storage.at_least(asked).await?;
    let exact = match options.revision_match {
        Some(Match::Exact) => true,
        Some(Match::NotOlderThan) => false,
        None => options.limit > 0,
    };
    if !exact {
        return Ok(cache.snapshot());
    }
    let too_old = || Status::expired("The resourceVersion for the provided list is too old.");
    if asked < storage.floor() {
        return Err(too_old());
    }
    cache.snapshot_at(asked).map_err(|_| too_old())
}

/// A list, or a page of it.
pub(crate) async fn list(scope: &Scope) -> Result<Reply, Status> {
    let options = ListOptions::parse(&scope.query, &scope.entry.resource, false)?;
    let selection = Selection::new(scope, &options)?;
    let cache = scope.cache()?;
    let (snapshot, start) = if options.next.is_empty() {
        (snapshot(scope, cache, &options).await?, Start { after: None, revision: None })
    } else {
        if options.revision.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let (after, revision) = decode_token(&options.next)?;
        let found = match u64::try_from(revision) {
            Err(_) => Ok(cache.snapshot()),
            Ok(revision) if revision < scope.server.registry().storage().floor() => {
                Err(Stale::TooOld { asked: revision, oldest: 0 })
            }
            Ok(revision) => cache.snapshot_at(revision),
        };
        match found {
            Ok(snapshot) => {
                let revision = u64::try_from(revision).ok();
                (snapshot, Start { after: Some(after), revision })
            }
            Err(_) => return Ok(expired(&after)),
        }
    };
    let (items, meta) = page(scope, &options, &selection, &snapshot, &start).await?;
    Ok(Reply::List { objects: scope.entry.present_all(&items).await?, meta })
}

/// The objects of one page.
async fn page(
    scope: &Scope,
    options: &ListOptions,
    selection: &Selection,
    snapshot: &Snapshot,
    start: &Start,
) -> Result<(Vec<Arc<Item>>, ListMeta), Status> {
    let revision = start.revision.unwrap_or(snapshot.revision);
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if let Some(name) = selection
        .only_name()
        .filter(|_| !selection.namespace().is_empty() || !scope.entry.resource.is_namespaced())
    {
        let item = snapshot.items.get(&ObjectName::new(selection.namespace(), name));
        let mut items: Vec<Arc<Item>> = Vec::new();
        if let Some(item) = item
            && selection.matches(&scope.entry, item).await?
        {
            items.push(item.clone());
        }
        return Ok((items, meta));
    }
    let mut range = snapshot.range(selection.namespace(), start.after.as_ref());
    let everything = selection.is_everything();
    let mut items: Vec<Arc<Item>> = Vec::new();
    for item in range.by_ref() {
        if everything || selection.matches(&scope.entry, item).await? {
            items.push(item.clone());
            if options.limit > 0 && items.len() >= options.limit {
                break;
            }
        }
    }
    let remaining = if options.limit > 0 { range.count() } else { 0 };
    if remaining > 0
        && let Some(last) = items.last()
    {
        let revision = i64::try_from(meta.revision).unwrap_or(i64::MAX);
        meta.next = encode_token(&last.object.meta.key, revision);
        meta.remaining = everything.then_some(remaining);
    }
    Ok((items, meta))
}

/// Every object that the request's options select, for deletecollection.
pub(crate) async fn selected(scope: &Scope) -> Result<(Vec<Arc<Item>>, ListMeta), Status> {
    let options = ListOptions::parse(&scope.query, &scope.entry.resource, false)?;
    let selection = Selection::new(scope, &options)?;
    let snapshot = snapshot(scope, scope.cache()?, &options).await?;
    let after = match options.next.as_str() {
        "" => None,
        token => Some(decode_token(token)?.0),
    };
    page(scope, &options, &selection, &snapshot, &Start { after, revision: None }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_and_when() {
        let name = ObjectName::new("a", "b");
        assert_eq!(decode_token(&encode_token(&name, 7)).unwrap(), (name, 7));
        let name = ObjectName::new("", "b");
        assert_eq!(decode_token(&encode_token(&name, -1)).unwrap(), (name, -1));
        for wrong in
            ["x", "", "e30", &URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../x"}"#)]
        {
            assert_eq!(decode_token(wrong).unwrap_err().code, 400, "{wrong}");
        }
    }
}
