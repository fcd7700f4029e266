//! Sink bindings: workloads learn where to send events. Upstream: `pkg/reconciler/sinkbinding`,
//! `pkg/apis/sources/v1/sinkbinding_lifecycle.go`, knative.dev/pkg `webhook/psbinding`.
//!
//! # Flow
//! The sink's URI is written to the status. From then on admission (`resources`, `SinkBinding`) puts it into whatever subject is
//! created or written; subjects that were there before are written anew here, as they are. When a binding goes, its variables
//! are taken out of the subjects, and then its finalizer.

use crate::kinds::{KnativeService, SinkBinding, name_of, namespace_of, text};
use crate::marks;
use crate::resolve;
use api::{LabelSelector, Object, ObjectName};
use client::{
    AnyCache, Context, Controller, Delta, Error, Next, Patch, ResourceRef, Selection, gone_is_fine,
};
use duck::conditions::Conditions;
use duck::write;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};
use std::sync::Arc;

/// The conditions of a sink binding.
const CONDITIONS: &[&str] = &[
    "OIDCIdentityCreated",
    "OIDCTokenSecretCreated",
    "SinkBindingAvailable",
    "SinkProvided",
    "TrustBundlePropagated",
];
/// Keeps a binding until its subjects are as they were.
const FINALIZER: &str = "sinkbindings.sources.knative.dev";
/// What is put into the environment of containers.
const VARIABLES: [&str; 2] = ["K_SINK", "K_CE_OVERRIDES"];

pub(crate) fn controller(cluster_domain: Arc<str>) -> Controller {
    let controller = Controller::of::<SinkBinding>("sinkbinding-controller");
    resolve::follows::<SinkBinding>(controller, |own| {
        vec![own.pointer("/spec/sink").cloned().unwrap_or_default()]
    })
    .watches::<Deployment>(bound)
    .watches::<StatefulSet>(bound)
    .watches::<DaemonSet>(bound)
    .watches::<ReplicaSet>(bound)
    .watches::<Job>(bound)
    .watches::<KnativeService>(bound)
    .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone()))
}

/// The resource of a subject, where its kind is one that makes containers from a template.
fn resource(api_version: &str, kind: &str) -> Option<ResourceRef> {
    Some(match (api_version, kind) {
        ("apps/v1", "Deployment") => ResourceRef::of::<Deployment>(),
        ("apps/v1", "StatefulSet") => ResourceRef::of::<StatefulSet>(),
        ("apps/v1", "DaemonSet") => ResourceRef::of::<DaemonSet>(),
        ("apps/v1", "ReplicaSet") => ResourceRef::of::<ReplicaSet>(),
        ("batch/v1", "Job") => ResourceRef::of::<Job>(),
        ("serving.knative.dev/v1", "Service") => ResourceRef::of::<KnativeService>(),
        _ => return None,
    })
}

/// The bindings of a namespace, when one of the workloads there changes.
fn bound(delta: &Delta, context: &Context) -> Vec<ObjectName> {
    let all = context.caches.of::<SinkBinding>().list(&delta.key.namespace);
    all.iter().map(|own| own.meta.key.clone()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>, cluster_domain: Arc<str>) -> Result<Next, Error> {
    let Some(found) = context.caches.of::<SinkBinding>().read(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    let has_finalizer = found.metadata.finalizers.iter().flatten().any(|own| own == FINALIZER);
    if found.metadata.deletion_timestamp.is_some() {
        if has_finalizer {
            release(&found, &context).await?;
            set_finalizer(&found, false, &context).await?;
        }
        return Ok(Next::Done);
    }
    if !has_finalizer {
        set_finalizer(&found, true, &context).await?;
        // The change brings it here again.
        return Ok(Next::Done);
    }
    write::observe(&context, Some(found), CONDITIONS, async |binding, conditions| {
        sync(binding, conditions, &context, &cluster_domain).await
    })
    .await?;
    Ok(Next::Done)
}

async fn set_finalizer(binding: &SinkBinding, is_set: bool, context: &Context) -> Result<(), Error> {
    let meta = &binding.metadata;
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|own| own != FINALIZER);
    if is_set {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}});
    let access = context.client.namespaced::<SinkBinding>(namespace_of(meta));
    Ok(gone_is_fine(access.patch(name_of(meta), Patch::Merge(patch)).await)?)
}

async fn sync(
    binding: &SinkBinding,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) -> Result<(), Error> {
    marks::identity(conditions);
    for kind in ["OIDCTokenSecretCreated", "TrustBundlePropagated"] {
        // Nobody needs a token, and destinations within the cluster are not encrypted.
        conditions.mark(kind, "True", "", "");
    }
    let namespace = namespace_of(&binding.metadata);
    let sink = marks::sink(&binding.spec, namespace, "NoAddressable", conditions, context, cluster_domain);
    let Some(subjects) = Subjects::of(binding, context) else {
        let message =
            "Subjects are Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and Knative Services.";
        conditions.mark("SinkBindingAvailable", "False", "SubjectUnavailable", message);
        return Ok(());
    };
    let Some(found) = subjects.find() else {
        let name = text(&binding.spec, "/subject/name");
        let message = format!("{} {name:?} not found", subjects.cache.resource().id());
        conditions.mark("SinkBindingAvailable", "False", "SubjectMissing", &message);
        return Ok(());
    };
    conditions.mark("SinkBindingAvailable", "True", "", "");
    // Admission reads the status: what it does not say yet cannot be put anywhere.
    let Some(sink) = sink.filter(|own| text(&binding.status, "/sinkUri") == own) else { return Ok(()) };
    let overrides = &binding.spec["ceOverrides"];
    let overrides = if overrides.is_null() { String::new() } else { overrides.to_string() };
    for subject in found {
        let is_bound = |own: &Value| has_variables(own, &sink, &overrides);
        if !subjects.is_immutable && !subject.decode::<Value>().is_ok_and(|own| is_bound(&own)) {
            subjects.write(&subject, subject.json.clone(), context).await?;
        }
    }
    Ok(())
}

/// Takes the variables out of all subjects.
async fn release(binding: &SinkBinding, context: &Context) -> Result<(), Error> {
    let Some(subjects) = Subjects::of(binding, context).filter(|own| !own.is_immutable) else {
        return Ok(());
    };
    for subject in subjects.find().unwrap_or_default() {
        let Ok(mut object) = subject.decode::<Value>() else { continue };
        if without_variables(&mut object) {
            subjects.write(&subject, object.to_string().into(), context).await?;
        }
    }
    Ok(())
}

/// The workloads that a binding speaks of.
struct Subjects<'b> {
    cache: AnyCache,
    namespace: &'b str,
    subject: &'b Value,
    /// Whether their templates never change: they are bound when they are created.
    is_immutable: bool,
}

impl<'b> Subjects<'b> {
    /// `None` for a kind that makes no containers, as far as is known here.
    fn of(binding: &'b SinkBinding, context: &Context) -> Option<Self> {
        let subject = &binding.spec["subject"];
        let kind = text(subject, "/kind");
        let resource = resource(text(subject, "/apiVersion"), kind)?;
        let cache = context.caches.any(resource, Selection::default());
        Some(Self { cache, namespace: namespace_of(&binding.metadata), subject, is_immutable: kind == "Job" })
    }

    /// `None` where a subject with a name is not there.
    fn find(&self) -> Option<Vec<Arc<Object>>> {
        let name = text(self.subject, "/name");
        if !name.is_empty() {
            return self.cache.get(self.namespace, name).map(|own| vec![own]);
        }
        let selector = serde_json::from_value(self.subject["selector"].clone()).ok();
        let Some(selector) = selector.and_then(|own| LabelSelector::from_object(&own).ok()) else {
            return Some(Vec::new());
        };
        let mut all = self.cache.list(self.namespace);
        all.retain(|own| selector.matches(|key| own.meta.label(key)));
        Some(all)
    }

    async fn write(&self, subject: &Object, json: bytes::Bytes, context: &Context) -> Result<(), Error> {
        let access = context.client.dynamic(self.cache.resource().clone(), self.namespace);
        Ok(gone_is_fine(access.replace(subject.meta.name(), "", json).await)?)
    }
}

fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    let spec = object.pointer("/spec/template/spec");
    ["initContainers", "containers"].into_iter().filter_map(move |list| spec?.get(list)?.as_array()).flatten()
}

/// Whether all containers know where to send events.
fn has_variables(object: &Value, sink: &str, overrides: &str) -> bool {
    containers(object).all(|own| {
        VARIABLES.into_iter().zip([sink, overrides]).all(|(name, value)| {
            own["env"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|own| own["name"] == name && own["value"].as_str().unwrap_or_default() == value)
        })
    })
}

/// Takes the variables out. Whether there were any.
fn without_variables(object: &mut Value) -> bool {
    let Some(spec) = object.pointer_mut("/spec/template/spec") else { return false };
    let mut had = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) else { continue };
            let before = env.len();
            env.retain(|own| !VARIABLES.iter().any(|name| own["name"] == *name));
            had |= env.len() != before;
        }
    }
    had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_seen_and_taken_out() {
        let variable = |name: &str, value: &str| json!({"name": name, "value": value});
        let mut object = json!({"spec": {"template": {"spec": {
            "initContainers": [{"env": [variable("K_SINK", "http://a"), variable("K_CE_OVERRIDES", "")]}],
            "containers": [{"env": [variable("OWN", "x"), variable("K_SINK", "http://a"), {"name": "K_CE_OVERRIDES"}]}]}}}});
        assert!(has_variables(&object, "http://a", ""));
        assert!(!has_variables(&object, "http://b", "") && !has_variables(&object, "http://a", "{}"));
        assert!(without_variables(&mut object) && !without_variables(&mut object));
        assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["env"], json!([variable("OWN", "x")]));
        assert!(!has_variables(&object, "http://a", ""));
    }
}
