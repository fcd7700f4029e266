//! `clipper why`: says in plain words why an object is not (yet) what its spec asks.
//!
//! [`explain`] is pure: it follows the chain from the object that is asked about to the first thing that holds it up, over what [`read`] found.
//! The chain: quota and admission, scheduling, volumes, images, settings, crashes, probes, endpoints.

mod deployment;
mod knative;
mod pod;
pub mod read;
mod service;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;
use std::collections::BTreeMap;

/// Pods that are explained one by one; more of them mostly wait for the same.
const PODS_EXPLAINED_MAX: usize = 3;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A pod by its name.
    Pod(String),
    /// A deployment by its name.
    Deployment(String),
    /// A service by its name.
    Service(String),
    /// A service of Knative by its name.
    KnativeService(String),
    /// A trigger by its name.
    Trigger(String),
}

/// A word that names no object that can be explained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} cannot be explained: say pod/NAME, deployment/NAME, service/NAME, ksvc/NAME or trigger/NAME"
)]
pub struct NoSubject {
    given: String,
}

impl Subject {
    /// From `KIND/NAME`, with the kinds' plural and short names as kubectl has them.
    ///
    /// # Errors
    /// It is not of this form, or of another kind.
    pub fn parse(text: &str) -> Result<Self, NoSubject> {
        let wrong = || NoSubject { given: text.to_owned() };
        let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        match kind.to_lowercase().as_str() {
            "pod" | "pods" | "po" => Ok(Self::Pod(name.to_owned())),
            "deployment" | "deployments" | "deploy" | "deployment.apps" | "deployments.apps" => {
                Ok(Self::Deployment(name.to_owned()))
            }
            "service" | "services" | "svc" => Ok(Self::Service(name.to_owned())),
            "ksvc" | "kservice" | "services.serving.knative.dev" => Ok(Self::KnativeService(name.to_owned())),
            "trigger" | "triggers" | "triggers.eventing.knative.dev" => Ok(Self::Trigger(name.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Deployment(name) => write!(f, "deployment/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::KnativeService(name) => write!(f, "ksvc/{name}"),
            Self::Trigger(name) => write!(f, "trigger/{name}"),
        }
    }
}

/// What is known of one namespace, and of the nodes.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Name of the namespace.
    pub namespace: String,
    /// All pods.
    pub pods: Vec<Pod>,
    /// All replica sets.
    pub replica_sets: Vec<ReplicaSet>,
    /// All deployments.
    pub deployments: Vec<Deployment>,
    /// All services.
    pub services: Vec<Service>,
    /// All endpoint slices.
    pub slices: Vec<EndpointSlice>,
    /// All claims of volumes.
    pub claims: Vec<PersistentVolumeClaim>,
    /// All events, the newest last.
    pub events: Vec<Event>,
    /// All nodes of the cluster.
    pub nodes: Vec<Node>,
    /// Knative's services with what they make, brokers and triggers.
    pub knative: Vec<Value>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As the spec asks.
    Fine,
    /// On its way: nobody has to do anything.
    Waiting,
    /// It stays so until somebody does something.
    Stuck,
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `pod/web-1`.
    pub about: String,
    /// How bad it is.
    pub level: Level,
    /// What is the case.
    pub says: String,
    /// What to do, or which command tells more.
    pub hint: Option<String>,
}

impl Finding {
    fn new(level: Level, about: impl Into<String>, says: impl Into<String>) -> Self {
        Self { about: about.into(), level, says: says.into(), hint: None }
    }

    fn fine(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(Level::Fine, about, says)
    }

    fn waiting(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(Level::Waiting, about, says)
    }

    fn stuck(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(Level::Stuck, about, says)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.about, self.says)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n    {hint}"))
    }
}

/// Follows the chain from an object. `None`: there is no such object.
pub fn explain(subject: &Subject, objects: &Objects) -> Option<Vec<Finding>> {
    match subject {
        Subject::Pod(name) => Some(pod::explain(named(&objects.pods, name)?, objects)),
        Subject::Deployment(name) => Some(deployment::explain(named(&objects.deployments, name)?, objects)),
        Subject::Service(name) => Some(service::explain(named(&objects.services, name)?, objects)),
        Subject::KnativeService(name) => knative::explain_service(name, objects),
        Subject::Trigger(name) => knative::explain_trigger(name, objects),
    }
}

/// What objects have in common.
trait Named {
    fn meta(&self) -> &ObjectMeta;

    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    fn controller(&self) -> Option<&OwnerReference> {
        self.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|owner| owner.uid == uid)
    }
}

macro_rules! named {
    ($($kind:ty),*) => {
        $(impl Named for $kind {
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
        })*
    };
}

named!(Pod, ReplicaSet, Deployment, Service, Node, PersistentVolumeClaim, EndpointSlice);

fn named<'a, K: Named>(objects: &'a [K], name: &str) -> Option<&'a K> {
    objects.iter().find(|object| object.name() == name)
}

/// Whether labels have everything that a selector names.
fn matches(labels: Option<&BTreeMap<String, String>>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

impl Objects {
    /// The newest event about an object with one of these reasons.
    fn event(&self, kind: &str, name: &str, reasons: &[&str]) -> Option<&Event> {
        self.events.iter().rev().find(|event| {
            let about = &event.involved_object;
            about.kind.as_deref() == Some(kind)
                && about.name.as_deref() == Some(name)
                && event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason))
        })
    }

    /// Why some of these pods are not ready: of the first few.
    fn explain_pods<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> Vec<Finding> {
        let unready: Vec<_> = pods.filter(|pod| !pod::is_ready(pod)).collect();
        let shown = unready.iter().take(PODS_EXPLAINED_MAX);
        let mut findings: Vec<_> = shown.flat_map(|pod| pod::explain(pod, self)).collect();
        if let more @ 1.. = unready.len().saturating_sub(PODS_EXPLAINED_MAX) {
            findings.push(Finding::waiting("pods", format!("{more} more are not ready either")));
        }
        findings
    }
}

/// Words of a message without what a machine appended.
fn message(text: Option<&str>) -> &str {
    text.unwrap_or("no reason is given").trim()
}

#[cfg(test)]
mod tests;
