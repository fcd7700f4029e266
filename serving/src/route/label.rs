//! What routes leave on the configurations and revisions that they send requests to: their names, and whether a revision is in
//! use. Upstream: `pkg/reconciler/labeler`.

use crate::keys;
use crate::kinds::{Configuration, Revision, Route, annotation, label, name_of, text};
use api::time_text::format_seconds;
use api::{Object, Timestamp};
use client::{Cache, Context, Error, Patch, gone_is_fine};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The annotation with the names of routes as it is when `route` is one of them, or is none; `None` if nothing is to be done.
fn routes(meta: &ObjectMeta, route: &str, is_used: bool) -> Option<String> {
    let before = annotation(meta, keys::ROUTES).unwrap_or_default();
    let mut all: BTreeSet<&str> = before.split(',').filter(|own| !own.is_empty()).collect();
    let changes = if is_used { all.insert(route) } else { all.remove(route) };
    changes.then(|| all.into_iter().collect::<Vec<_>>().join(","))
}

/// What has to change of a revision; `None` if nothing.
fn revision_patch(meta: &ObjectMeta, route: &str, is_used: bool, now: Timestamp) -> Option<Value> {
    let state = label(meta, keys::ROUTING_STATE);
    let new = routes(meta, route, is_used);
    let names = new.clone().unwrap_or_else(|| annotation(meta, keys::ROUTES).unwrap_or_default().to_owned());
    let wanted = match (is_used, names.is_empty()) {
        (true, _) => "active",
        (false, true) if new.is_some() => "reserve",
        (false, _) => state,
    };
    if new.is_none() && wanted == state {
        return None;
    }
    let shown = if names.is_empty() { Value::Null } else { names.into() };
    let mut patch = json!({"metadata": {"annotations": {keys::ROUTES: shown}}});
    if wanted != state {
        patch["metadata"]["labels"] = json!({keys::ROUTING_STATE: wanted});
        patch["metadata"]["annotations"][keys::ROUTING_STATE_MODIFIED] = format_seconds(now).into();
    }
    Some(patch)
}

/// The index of what says that routes use it, by their names after the namespace.
const USED: &str = "routes";

fn users(object: &Object) -> Vec<Box<str>> {
    let Ok(own) = object.decode::<Value>() else { return Vec::new() };
    let names = own["metadata"]["annotations"][keys::ROUTES].as_str().unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| format!("{}/{name}", object.meta.namespace()).into()).collect()
}

/// Says on what a route uses, or is said to use, whether it does. `route` is `None` for one that is gone.
///
/// # Errors
/// The server refuses.
pub(super) async fn sync(
    context: &Context,
    namespace: &str,
    name: &str,
    route: Option<&Route>,
) -> Result<(), Error> {
    let (configurations, revisions) = (context.caches.of::<Configuration>(), context.caches.of::<Revision>());
    let of = |name: &str| configurations.read(namespace, name);
    let (of_configurations, of_revisions) =
        route.map(|route| used(route, &of, &|name| revisions.read(namespace, name))).unwrap_or_default();
    for own in marked(&configurations, namespace, name, &of_configurations) {
        let meta = &own.metadata;
        let Some(names) = routes(meta, name, of_configurations.contains(name_of(meta))) else { continue };
        let shown = if names.is_empty() { Value::Null } else { names.into() };
        let patch = Patch::Merge(json!({"metadata": {"annotations": {keys::ROUTES: shown}}}));
        let access = context.client.namespaced::<Configuration>(namespace);
        gone_is_fine(access.patch(name_of(meta), patch).await)?;
    }
    for own in marked(&revisions, namespace, name, &of_revisions) {
        let meta = &own.metadata;
        let is_used = of_revisions.contains(name_of(meta));
        let Some(patch) = revision_patch(meta, name, is_used, context.now()) else { continue };
        let access = context.client.namespaced::<Revision>(namespace);
        gone_is_fine(access.patch(name_of(meta), Patch::Merge(patch)).await)?;
    }
    Ok(())
}

/// The objects that a route uses, and those that say it does.
fn marked<K: client::Kind>(
    cache: &Cache<K>,
    namespace: &str,
    route: &str,
    used: &BTreeSet<String>,
) -> Vec<K> {
    cache.index(USED, users);
    let said = cache.by(USED, &format!("{namespace}/{route}"));
    let said = said.iter().map(|own| own.meta.name().to_owned());
    let names: BTreeSet<String> = used.iter().cloned().chain(said).collect();
    names.iter().filter_map(|name| cache.read(namespace, name)).collect()
}

/// Names of configurations and of revisions that a route sends requests to, or will.
fn used(
    route: &Route,
    configuration: &dyn Fn(&str) -> Option<Configuration>,
    revision: &dyn Fn(&str) -> Option<Revision>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut configurations, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    let targets = |value: &Value| value["traffic"].as_array().cloned().unwrap_or_default();
    for target in targets(&route.status).iter().chain(&targets(&route.spec)) {
        let (of_revision, of_configuration) =
            (text(target, "/revisionName"), text(target, "/configurationName"));
        if let Some(own) = revision(of_revision) {
            let owner = label(&own.metadata, keys::CONFIGURATION);
            if !owner.is_empty() {
                configurations.insert(owner.to_owned());
            }
            revisions.insert(of_revision.to_owned());
        }
        if let Some(own) = configuration(of_configuration) {
            configurations.insert(name_of(&own.metadata).to_owned());
            // What is to get requests once it is ready must not be taken for unused before.
            revisions.insert(text(&own.status, "/latestCreatedRevisionName").to_owned());
            revisions.insert(text(&own.status, "/latestReadyRevisionName").to_owned());
        }
    }
    (configurations, revisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_active_while_a_route_uses_it() {
        let check = |state: &str, routes: &str, is_used: bool, expect: Option<(Option<&str>, Value)>| {
            let meta = json!({"labels": {keys::ROUTING_STATE: state}, "annotations": {keys::ROUTES: routes}});
            let meta: ObjectMeta = serde_json::from_value(meta).unwrap();
            let patch = revision_patch(&meta, "web", is_used, Timestamp::UNIX_EPOCH);
            let shown = patch.map(|own| {
                let state = own.pointer("/metadata/labels").map(|labels| labels[keys::ROUTING_STATE].clone());
                let routes = own.pointer("/metadata/annotations").unwrap()[keys::ROUTES].clone();
                (state.and_then(|own| own.as_str().map(str::to_owned)), routes)
            });
            let expect = expect.map(|(state, routes)| (state.map(str::to_owned), routes));
            assert_eq!(shown, expect, "{state} {routes} {is_used}");
        };
        check("pending", "", true, Some((Some("active"), json!("web"))));
        check("active", "web", true, None);
        check("active", "other", true, Some((None, json!("other,web"))));
        check("active", "other,web", false, Some((None, json!("other"))));
        check("active", "web", false, Some((Some("reserve"), Value::Null)));
        check("pending", "", false, None);
        check("reserve", "", false, None);
    }
}
