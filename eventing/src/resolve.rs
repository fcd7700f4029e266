//! Where a destination is. Upstream: knative.dev/pkg `resolver/addressable_resolver.go`.

use crate::kinds::{Broker, Channel, InMemoryChannel, KnativeService, Parallel, Route, Sequence, text};
use api::{Object, ObjectName};
use client::{Cache, Context, Controller, Delta, Kind};
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

/// The index of objects by what their destinations refer to.
const REFERENCES: &str = "references";

/// Why a destination leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("destination missing Ref and URI, expected at least one")]
    Nothing,
    #[error("URI is not absolute (both scheme and host should be non-empty): {uri:?}")]
    Relative { uri: String },
    #[error("failed to get object {namespace}/{name}: {kind} {name:?} not found")]
    Missing { kind: String, namespace: String, name: String },
    #[error("address not set for {kind} {namespace}/{name}")]
    NoAddress { kind: String, namespace: String, name: String },
    #[error("{kind} of {api_version} cannot be addressed: services, routes, brokers, channels and flows can")]
    NotAddressable { api_version: String, kind: String },
}

/// The URI of a destination of an object in `namespace`.
pub(crate) fn uri(
    destination: &Value,
    namespace: &str,
    context: &Context,
    cluster_domain: &str,
) -> Result<String, Unresolved> {
    let own = text(destination, "/uri");
    let reference = &destination["ref"];
    if !reference.is_object() {
        let is_absolute =
            own.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
        return match (own, is_absolute) {
            ("", _) => Err(Unresolved::Nothing),
            (_, true) => Ok(own.to_owned()),
            _ => Err(Unresolved::Relative { uri: own.to_owned() }),
        };
    }
    let name = ObjectName::new(
        match text(reference, "/namespace") {
            "" => namespace,
            other => other,
        },
        text(reference, "/name"),
    );
    let (api_version, kind) = (text(reference, "/apiVersion"), text(reference, "/kind"));
    let base = match (api_version, kind) {
        ("v1", "Service") => service(&name, context, cluster_domain)?,
        ("serving.knative.dev/v1", "Service") => address(&context.caches.of::<KnativeService>(), &name)?,
        ("serving.knative.dev/v1", "Route") => address(&context.caches.of::<Route>(), &name)?,
        ("eventing.knative.dev/v1", "Broker") => address(&context.caches.of::<Broker>(), &name)?,
        ("messaging.knative.dev/v1", "Channel") => address(&context.caches.of::<Channel>(), &name)?,
        ("messaging.knative.dev/v1", "InMemoryChannel") => {
            address(&context.caches.of::<InMemoryChannel>(), &name)?
        }
        ("flows.knative.dev/v1", "Sequence") => address(&context.caches.of::<Sequence>(), &name)?,
        ("flows.knative.dev/v1", "Parallel") => address(&context.caches.of::<Parallel>(), &name)?,
        _ => {
            return Err(Unresolved::NotAddressable {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            });
        }
    };
    Ok(joined(&base, own))
}

fn service(name: &ObjectName, context: &Context, cluster_domain: &str) -> Result<String, Unresolved> {
    match context.caches.of::<Service>().get(&name.namespace, &name.name) {
        Some(_) => Ok(format!("http://{}.{}.svc.{cluster_domain}", name.name, name.namespace)),
        None => Err(missing("services", name)),
    }
}

fn missing(kind: &str, name: &ObjectName) -> Unresolved {
    let (namespace, name) = (name.namespace.to_string(), name.name.to_string());
    Unresolved::Missing { kind: kind.to_owned(), namespace, name }
}

fn address<K: Kind>(cache: &Cache<K>, name: &ObjectName) -> Result<String, Unresolved> {
    let kind = format!("{}.{}", K::URL_PATH_SEGMENT, K::GROUP);
    let found = cache.get(&name.namespace, &name.name).ok_or_else(|| missing(&kind, name))?;
    let url =
        found.decode::<Value>().map(|own| text(&own, "/status/address/url").to_owned()).unwrap_or_default();
    if url.is_empty() {
        let (namespace, name) = (name.namespace.to_string(), name.name.to_string());
        return Err(Unresolved::NoAddress { kind: K::KIND.to_owned(), namespace, name });
    }
    Ok(url)
}

/// A relative URI on top of an address, as browsers join them.
fn joined(base: &str, relative: &str) -> String {
    if relative.is_empty() {
        return base.to_owned();
    }
    let after_scheme = base.find("://").map_or(0, |at| at + 3);
    let host_end = base[after_scheme..].find('/').map_or(base.len(), |at| after_scheme + at);
    match relative.starts_with('/') {
        true => format!("{}{relative}", &base[..host_end]),
        false => {
            let folder = base[host_end..].rfind('/').map_or("/", |at| &base[host_end..=host_end + at]);
            format!("{}{folder}{relative}", &base[..host_end])
        }
    }
}

/// A loop whose objects' destinations, found by `of` in their JSON, are looked at again when what they refer to changes.
pub(crate) fn follows<K: Kind>(controller: Controller, of: fn(&Value) -> Vec<Value>) -> Controller {
    fn watch<K: Kind, T: Kind>(controller: Controller, of: fn(&Value) -> Vec<Value>) -> Controller {
        controller.watches::<T>(move |delta, context| {
            if !matters(delta) {
                return Vec::new();
            }
            let cache = context.caches.of::<K>();
            cache.index(REFERENCES, move |object| references(object, of));
            let key = key(T::KIND, &delta.key.namespace, &delta.key.name);
            cache.by(REFERENCES, &key).iter().map(|own| own.meta.key.clone()).collect()
        })
    }
    let controller = watch::<K, Service>(controller, of);
    let controller = watch::<K, KnativeService>(controller, of);
    let controller = watch::<K, Route>(controller, of);
    let controller = watch::<K, Broker>(controller, of);
    let controller = watch::<K, Channel>(controller, of);
    let controller = watch::<K, InMemoryChannel>(controller, of);
    let controller = watch::<K, Sequence>(controller, of);
    watch::<K, Parallel>(controller, of)
}

/// Whether somebody who refers to an object has to look again: it came, went, or says something else.
fn matters(delta: &Delta) -> bool {
    let address =
        |object: &Object| object.decode::<Value>().map(|own| own["status"].clone()).unwrap_or_default();
    match (&delta.old, &delta.new) {
        (Some(old), Some(new)) => address(old) != address(new),
        _ => true,
    }
}

fn key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

fn references(object: &Object, of: fn(&Value) -> Vec<Value>) -> Vec<Box<str>> {
    let Ok(value) = object.decode::<Value>() else { return Vec::new() };
    let reference = |own: Value| {
        // A destination has its reference below; what is one itself is taken as such.
        let own = if own["ref"].is_object() { own["ref"].clone() } else { own };
        let namespace = match text(&own, "/namespace") {
            "" => object.meta.namespace(),
            other => other,
        };
        let name = text(&own, "/name");
        (!name.is_empty()).then(|| key(text(&own, "/kind"), namespace, name).into())
    };
    of(&value).into_iter().filter_map(reference).collect()
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn uris_are_joined() {
        let check = |base: &str, relative: &str, expect: &str| assert_eq!(joined(base, relative), expect);
        check("http://a.b", "", "http://a.b");
        check("http://a.b", "/x", "http://a.b/x");
        check("http://a.b/c/d", "/x", "http://a.b/x");
        check("http://a.b/c/d", "x", "http://a.b/c/x");
        check("http://a.b", "x?y", "http://a.b/x?y");
    }
}
