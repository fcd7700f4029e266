//! Reads what explanations need, as the administrator, over the API.

use super::Objects;
use crate::kubeconfig;
use anyhow::{Context as _, Result};
use client::{Client, Kind, ListParams, ResourceRef};
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;
use std::path::Path;

/// Objects of one answer.
const PAGE_LEN: u32 = 500;
/// Pages of one kind that are read: an explanation is for people, and a namespace with more is explained by the first.
const PAGES_MAX: usize = 40;

/// A client with the credentials of a kubeconfig.
///
/// # Errors
/// The file cannot be read, or is none that `clipper up` writes.
pub fn client(kubeconfig: &Path) -> Result<Client> {
    let remote = kubeconfig::read(kubeconfig).context("does `clipper up` run with this data directory?")?;
    Ok(Client::remote(remote)?.named("clipper-why"))
}

async fn all<K: Kind>(client: &Client, namespace: &str) -> Result<Vec<K>> {
    let api = client.namespaced::<K>(namespace);
    let mut params = ListParams { limit: Some(PAGE_LEN), ..ListParams::default() };
    let mut objects = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = api.dynamic().list(&params).await?;
        for object in &page.items {
            objects.push(object.decode()?);
        }
        if page.continue_token.is_empty() {
            break;
        }
        params.continue_token = Some(page.continue_token);
    }
    Ok(objects)
}

/// Knative's objects of a namespace. A server that has none of these kinds has none of the objects.
async fn knative(client: &Client, namespace: &str) -> Result<Vec<Value>> {
    const KINDS: [(&str, &str, &str); 6] = [
        ("serving.knative.dev", "services", "Service"),
        ("serving.knative.dev", "configurations", "Configuration"),
        ("serving.knative.dev", "revisions", "Revision"),
        ("serving.knative.dev", "routes", "Route"),
        ("eventing.knative.dev", "brokers", "Broker"),
        ("eventing.knative.dev", "triggers", "Trigger"),
    ];
    let mut objects = Vec::new();
    for (group, plural, kind) in KINDS {
        let params = ListParams { limit: Some(PAGE_LEN), ..ListParams::default() };
        let access = client.dynamic(ResourceRef::new(group, "v1", plural, kind), namespace);
        match access.list(&params).await {
            Ok(page) => {
                for object in &page.items {
                    let mut value: Value = object.decode()?;
                    // Items of a list need not say what they are.
                    (value["apiVersion"], value["kind"]) = (format!("{group}/v1").into(), kind.into());
                    objects.push(value);
                }
            }
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status.into()),
        }
    }
    Ok(objects)
}

/// Reads a namespace and the nodes.
///
/// # Errors
/// What the server says.
pub async fn objects(client: &Client, namespace: &str) -> Result<Objects> {
    let (pods, replica_sets, deployments, services, slices, claims, mut events, nodes, knative) = tokio::try_join!(
        all(client, namespace),
        all(client, namespace),
        all(client, namespace),
        all(client, namespace),
        all(client, namespace),
        all(client, namespace),
        all::<Event>(client, namespace),
        all(client, ""),
        knative(client, namespace),
    )?;
    events.sort_by_key(last_seen);
    let namespace = namespace.to_owned();
    Ok(Objects {
        namespace,
        pods,
        replica_sets,
        deployments,
        services,
        slices,
        claims,
        events,
        nodes,
        knative,
    })
}

/// When an event was last seen, in seconds.
fn last_seen(event: &Event) -> i64 {
    let series =
        event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first).map_or(0, |time| time.as_second())
}
