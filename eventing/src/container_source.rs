//! Container sources: a deployment of the source's template, and a binding that tells it where to send events. Upstream:
//! `pkg/reconciler/containersource`, `pkg/apis/sources/v1/container_lifecycle.go`.

use crate::kinds::{
    ContainerSource, SinkBinding, controller_reference, is_controlled_by, name_of, namespace_of,
};
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::conditions::{Conditions, parts};
use duck::names::{child, hash};
use duck::write;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::sync::Arc;

/// The conditions of a container source.
const CONDITIONS: &[&str] = &["ReceiveAdapterReady", "SinkBindingReady"];
/// Where a deployment says which template it was made of, as a hash.
const TEMPLATE: &str = "clipper.dev/template-hash";

pub(crate) fn controller() -> Controller {
    Controller::of::<ContainerSource>("containersource-controller")
        .owns::<Deployment>()
        .owns::<SinkBinding>()
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let found = context.caches.of::<ContainerSource>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |source, conditions| {
        bind(source, conditions, &context).await?;
        deploy(source, conditions, &context).await
    })
    .await?;
    Ok(Next::Done)
}

async fn bind(
    source: &ContainerSource,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<(), Error> {
    let want = binding(source);
    let (namespace, name) = (namespace_of(&want.metadata).to_owned(), name_of(&want.metadata).to_owned());
    let have = match context.caches.of::<SinkBinding>().read(&namespace, &name) {
        None => {
            write::create(context, &want).await?;
            context.events.normal(
                &write::about(source),
                "ContainerSourceSinkBindingCreated",
                format!("SinkBinding created {name:?}"),
            );
            want
        }
        Some(have) if !is_controlled_by(&have.metadata, &source.metadata) => {
            let message = format!(
                "SinkBinding {name:?} is not owned by ContainerSource {:?}",
                name_of(&source.metadata)
            );
            conditions.mark("SinkBindingReady", "False", "NotOwned", &message);
            return Ok(());
        }
        Some(mut have) if have.spec != want.spec => {
            have.spec = want.spec;
            context.client.namespaced::<SinkBinding>(&namespace).replace(&have).await?
        }
        Some(have) => have,
    };
    conditions.status()["sinkUri"] = have.status["sinkUri"].clone();
    match parts(&have.status, "Ready") {
        Some(("True", ..)) => conditions.mark("SinkBindingReady", "True", "", ""),
        Some((state, reason, message)) => conditions.mark("SinkBindingReady", state, reason, message),
        None => conditions.mark("SinkBindingReady", "Unknown", "", ""),
    }
    Ok(())
}

async fn deploy(
    source: &ContainerSource,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<(), Error> {
    let want = deployment(source).map_err(api::Status::internal)?;
    let (namespace, name) = (namespace_of(&want.metadata).to_owned(), name_of(&want.metadata).to_owned());
    let made_of = |own: &Deployment| duck::object::annotation(&own.metadata, TEMPLATE).map(str::to_owned);
    let have = match context.caches.of::<Deployment>().read(&namespace, &name) {
        None if !conditions.status()["sinkUri"].is_string() => {
            let message = "The containers start once it is known where they send events.";
            conditions.mark("ReceiveAdapterReady", "Unknown", "SinkNotKnown", message);
            return Ok(());
        }
        None => {
            write::create(context, &want).await?;
            context.events.normal(
                &write::about(source),
                "ContainerSourceDeploymentCreated",
                format!("Deployment created {name:?}"),
            );
            want
        }
        Some(have) if !is_controlled_by(&have.metadata, &source.metadata) => {
            let message = format!(
                "deployment {name:?} is not owned by ContainerSource {:?}",
                name_of(&source.metadata)
            );
            conditions.mark("ReceiveAdapterReady", "False", "NotOwned", &message);
            return Ok(());
        }
        Some(mut have) if made_of(&have) != made_of(&want) => {
            have.spec.template = want.spec.template;
            have.metadata
                .annotations
                .get_or_insert_default()
                .extend(want.metadata.annotations.unwrap_or_default());
            let changed = context.client.namespaced::<Deployment>(&namespace).replace(&have).await?;
            context.events.normal(
                &write::about(source),
                "ContainerSourceDeploymentUpdated",
                format!("Deployment updated {name:?}"),
            );
            changed
        }
        Some(have) => have,
    };
    take_availability(conditions, &name, have.status.as_ref());
    Ok(())
}

/// What the deployment says of its pods.
fn take_availability(conditions: &mut Conditions<'_>, name: &str, status: Option<&DeploymentStatus>) {
    let all = status.and_then(|own| own.conditions.as_deref()).unwrap_or_default();
    match all.iter().find(|own| own.type_.as_deref() == Some("Available")) {
        Some(own) if own.status.as_deref() == Some("True") => {
            conditions.mark("ReceiveAdapterReady", "True", "", "")
        }
        Some(own) => {
            let text = |own: &Option<String>| own.clone().unwrap_or_default();
            conditions.mark(
                "ReceiveAdapterReady",
                &text(&own.status),
                &text(&own.reason),
                &text(&own.message),
            );
        }
        None => {
            let message = format!("The Deployment '{name}' is unavailable.");
            conditions.mark("ReceiveAdapterReady", "Unknown", "DeploymentUnavailable", &message);
        }
    }
}

fn metadata(source: &ContainerSource, suffix: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(child(name_of(&source.metadata), suffix)),
        namespace: source.metadata.namespace.clone(),
        owner_references: Some(vec![controller_reference(source)]),
        ..ObjectMeta::default()
    }
}

fn binding(source: &ContainerSource) -> SinkBinding {
    let subject = json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": source.metadata.namespace,
        "name": child(name_of(&source.metadata), "-deployment")});
    let mut spec = json!({"subject": subject, "sink": source.spec["sink"]});
    if source.spec["ceOverrides"].is_object() {
        spec["ceOverrides"] = source.spec["ceOverrides"].clone();
    }
    SinkBinding::new(metadata(source, "-sinkbinding"), spec)
}

/// # Errors
/// The template is none of pods.
fn deployment(source: &ContainerSource) -> Result<Deployment, serde_json::Error> {
    let name = name_of(&source.metadata);
    let own = [
        ("sources.knative.dev/source", "container-source-controller"),
        ("sources.knative.dev/containerSource", name),
    ];
    let mut template = source.spec["template"].clone();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    for (key, value) in own {
        template["metadata"]["labels"][key] = value.into();
    }
    let mut meta = metadata(source, "-deployment");
    meta.labels = serde_json::from_value(template["metadata"]["labels"].clone())?;
    meta.annotations = serde_json::from_value(template["metadata"]["annotations"].clone())?;
    // What others fill in, or bind, does not make it another one.
    meta.annotations
        .get_or_insert_default()
        .insert(TEMPLATE.to_owned(), hash(&source.spec["template"].to_string()));
    let selector: Value = own.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    serde_json::from_value(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
        "spec": {"selector": {"matchLabels": selector}, "template": template}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> ContainerSource {
        let meta = json!({"namespace": "a", "name": "s", "uid": "u"});
        let spec = json!({"sink": {"uri": "http://sink"}, "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}});
        ContainerSource::new(serde_json::from_value(meta).unwrap(), spec)
    }

    #[test]
    fn a_source_is_a_deployment_and_a_binding_of_it() {
        let (made, bound) = (deployment(&source()).unwrap(), binding(&source()));
        assert_eq!(made.metadata.name.as_deref(), Some("s-deployment"));
        assert_eq!(bound.spec["subject"]["name"], "s-deployment");
        assert_eq!(bound.spec["sink"], json!({"uri": "http://sink"}));
        let labels = made.spec.template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["app"], "x");
        let selector = made.spec.selector.match_labels.unwrap();
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)) && selector.len() == 2);
    }

    #[test]
    fn the_deployment_says_whether_the_source_runs() {
        let check = |status: Value, expect: &str| {
            let mut own = Value::Null;
            let mut conditions = Conditions::of(&mut own, CONDITIONS, api::Timestamp::UNIX_EPOCH);
            let status: Option<DeploymentStatus> = serde_json::from_value(status).unwrap();
            take_availability(&mut conditions, "d", status.as_ref());
            assert_eq!(duck::conditions::state(&own, "ReceiveAdapterReady"), expect);
        };
        check(Value::Null, "Unknown");
        check(json!({"conditions": [{"type": "Available", "status": "False", "reason": "r"}]}), "False");
        check(json!({"conditions": [{"type": "Available", "status": "True"}]}), "True");
    }
}
