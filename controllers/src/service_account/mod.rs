//! Gives every namespace its service account `default`. Upstream: pkg/controller/serviceaccount.

use crate::namespace::is_active;
use crate::pod::is_namespace_terminating;
use api::ObjectName;
use client::{Context, Controller, Error, Next, ResourceRef, Selection};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

const NAME: &str = "default";

/// Only the accounts of this name are watched.
fn selection() -> Selection {
    Selection { fields: Some(format!("metadata.name={NAME}")), ..Selection::default() }
}

pub(crate) fn controller() -> Controller {
    Controller::of::<Namespace>("service-account-controller")
        .watches_some(ResourceRef::of::<ServiceAccount>(), selection(), |delta, _| match delta.new {
            None => vec![ObjectName::new("", &delta.key.namespace)],
            Some(_) => Vec::new(),
        })
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let namespace = context.caches.of::<Namespace>().read("", &key.name);
    if !namespace.is_some_and(|namespace| is_active(&namespace)) {
        return Ok(Next::Done);
    }
    if context.caches.select::<ServiceAccount>(selection()).get(&key.name, NAME).is_some() {
        return Ok(Next::Done);
    }
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(key.name.to_string()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match context.client.namespaced(&key.name).create(&account).await {
        Err(status)
            if status.is_already_exists() || status.is_not_found() || is_namespace_terminating(&status) =>
        {
            Ok(Next::Done)
        }
        Err(status) => Err(status.into()),
        Ok(_) => Ok(Next::Done),
    }
}
