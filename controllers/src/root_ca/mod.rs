//! Puts the certificates by which pods know the API server into every namespace.
//!
//! Upstream: pkg/controller/certificates/rootcacertpublisher.

use crate::namespace::is_active;
use crate::pod::is_namespace_terminating;
use api::ObjectName;
use client::{Context, Controller, Error, Next, ResourceRef, Selection};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

/// Only the config maps of this name are watched.
fn selection() -> Selection {
    Selection { fields: Some(format!("metadata.name={NAME}")), ..Selection::default() }
}

/// `root_ca` is PEM.
pub(crate) fn controller(root_ca: String) -> Controller {
    Controller::of::<Namespace>("root-ca-certificate-publisher")
        .watches_some(ResourceRef::of::<ConfigMap>(), selection(), |delta, _| {
            vec![ObjectName::new("", &delta.key.namespace)]
        })
        .reconcile(move |key, context| reconcile(key, context, root_ca.clone()))
}

async fn reconcile(key: ObjectName, context: Arc<Context>, root_ca: String) -> Result<Next, Error> {
    let namespace = context.caches.of::<Namespace>().read("", &key.name);
    if !namespace.is_some_and(|namespace| is_active(&namespace)) {
        return Ok(Next::Done);
    }
    let api = context.client.namespaced::<ConfigMap>(&key.name);
    let current = context.caches.select::<ConfigMap>(selection()).read(&key.name, NAME);
    let result = match &current {
        None => api.create(&wanted(ConfigMap::default(), &key.name, &root_ca)).await,
        Some(current) => {
            let wanted = wanted(current.clone(), &key.name, &root_ca);
            if wanted == *current {
                return Ok(Next::Done);
            }
            api.replace(&wanted).await
        }
    };
    match result {
        Err(status)
            if status.is_already_exists() || status.is_not_found() || is_namespace_terminating(&status) =>
        {
            Ok(Next::Done)
        }
        Err(status) => Err(status.into()),
        Ok(_) => Ok(Next::Done),
    }
}

/// The config map as it should be. Pure.
fn wanted(mut map: ConfigMap, namespace: &str, root_ca: &str) -> ConfigMap {
    let metadata =
        ObjectMeta { name: Some(NAME.to_owned()), namespace: Some(namespace.to_owned()), ..map.metadata };
    map.metadata = metadata;
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    map.data = Some(BTreeMap::from([(KEY.to_owned(), root_ca.to_owned())]));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_others_is_replaced_and_metadata_kept() {
        let mut map = wanted(ConfigMap::default(), "n", "x");
        map.metadata.uid = Some("u".to_owned());
        map.data = Some(BTreeMap::from([("other".to_owned(), "y".to_owned())]));
        let again = wanted(map, "n", "x");
        assert_eq!(again.metadata.uid.as_deref(), Some("u"));
        assert_eq!(again.data.as_ref().unwrap()[KEY], "x");
        assert_eq!(again.data.as_ref().unwrap().len(), 1);
        assert_eq!(wanted(again.clone(), "n", "x"), again);
    }
}
