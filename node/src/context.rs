//! What all pods of a node share.

use crate::admission::Accounts;
use crate::amount::ResourceList;
use crate::network::PodNetwork;
use crate::objects::SharedObjects;
use crate::observed::Observed;
use crate::options::NodeOptions;
use crate::spec::{ContainerDef, PodDef};
use crate::volume::Directories;
use crate::volume::token::Tokens;
use client::{Client, Clock, EventRecorder};
use k8s_openapi::api::core::v1::{ObjectReference, PodStatus};
use k8s_openapi::api::node::v1::RuntimeClass;
use parking_lot::Mutex;
use runtime::Runtime;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Images that are pulled at once. More would only share the same line.
pub(crate) const PULLS_MAX: usize = 5;

/// What this machine has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// Processors.
    pub cpus: i64,
    /// Memory.
    pub memory_bytes: i64,
}

/// What all pods of a node share.
pub(crate) struct NodeContext {
    pub options: NodeOptions,
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub network: Arc<dyn PodNetwork>,
    pub objects: SharedObjects,
    pub tokens: Arc<dyn Tokens>,
    pub runtime_classes: client::Cache<RuntimeClass>,
    pub directories: Directories,
    pub events: EventRecorder,
    pub clock: Clock,
    /// Addresses of the node as text, the primary one first.
    pub host_addresses: Vec<String>,
    pub machine: Machine,
    /// What pods can be given.
    pub allocatable: ResourceList,
    /// What pods were given.
    pub accounts: Accounts,
    pub pulls: Semaphore,
    /// Which pod a sandbox belongs to, for the runtime's events.
    pub sandboxes: Mutex<HashMap<String, String>>,
}

impl NodeContext {
    /// Facts for the downward API.
    pub(crate) fn facts<'a>(&'a self, pod_addresses: &'a [String]) -> crate::downward::Facts<'a> {
        crate::downward::Facts {
            pod_addresses,
            host_addresses: &self.host_addresses,
            allocatable: Some(&self.allocatable),
        }
    }

    /// Records what happened to a pod.
    pub(crate) fn pod_event(&self, def: &PodDef, warning: bool, reason: &str, message: impl Into<String>) {
        self.event(pod_reference(def), warning, reason, message);
    }

    /// Records what happened to a container.
    pub(crate) fn container_event(
        &self,
        def: &PodDef,
        container: &ContainerDef,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let reference = ObjectReference { field_path: Some(container.field_path()), ..pod_reference(def) };
        self.event(reference, warning, reason, message);
    }

    fn event(&self, reference: ObjectReference, warning: bool, reason: &str, message: impl Into<String>) {
        match warning {
            true => self.events.warning(&reference, reason, message),
            false => self.events.normal(&reference, reason, message),
        }
    }
}

fn pod_reference(def: &PodDef) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(def.namespace().to_owned()),
        name: Some(def.name().to_owned()),
        uid: Some(def.uid().to_owned()),
        resource_version: def.pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// A pod as its worker sees it, for those who serve it.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    /// The pod.
    pub def: PodDef,
    /// What is there.
    pub observed: Observed,
    /// What the API shows, or soon will.
    pub status: PodStatus,
}
