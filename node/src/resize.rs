//! Changing what a running pod may use: whether the node can give it, and what is told until it has it.
//! Upstream: `pkg/kubelet/allocation`.

use crate::admission::{self, Place};
use crate::amount::Amount;
use crate::context::NodeContext;
use crate::resources::pod_requests;
use crate::spec::{Kind, PodDef};
use api::Timestamp;
use k8s_openapi::api::core::v1::{PodCondition, ResourceRequirements};
use std::collections::BTreeMap;

const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a pod was given, and what it waits for.
#[derive(Debug, Default)]
pub(crate) struct Resize {
    /// The resources given, by container; under the empty name those of the pod as a whole.
    given: BTreeMap<String, Option<ResourceRequirements>>,
    conditions: Vec<PodCondition>,
    /// The version that waits until other pods leave.
    deferred: Option<PodDef>,
}

impl Resize {
    /// For a pod that is new to this process: what its status says it was given, else what its spec says.
    pub(crate) fn new(def: &PodDef) -> Self {
        let mut resize = Self { given: asked(def), ..Self::default() };
        let status = def.pod.status.clone().unwrap_or_default();
        let own = |condition: &PodCondition| condition.type_ == PENDING || condition.type_ == IN_PROGRESS;
        resize.conditions = status.conditions.into_iter().flatten().filter(own).collect();
        if resize.find(PENDING).is_some() {
            let lists = [status.container_statuses, status.init_container_statuses];
            for one in lists.into_iter().flatten().flatten().filter(|one| one.resources.is_some()) {
                resize.given.insert(one.name, one.resources);
            }
        }
        resize
    }

    /// Conditions to show.
    pub(crate) fn conditions(&self) -> &[PodCondition] {
        &self.conditions
    }

    /// Whether the pod waits for others to leave.
    pub(crate) fn is_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Takes another version of the pod. Answers it with the resources that the pod is given.
    pub(crate) fn update(&mut self, node: &NodeContext, def: PodDef, now: Timestamp) -> PodDef {
        self.deferred = None;
        if asked(&def) == self.given {
            self.conditions.retain(|condition| condition.type_ != PENDING);
            return def;
        }
        let place = Place::new(&node.options.name, &node.allocatable, None, &[]);
        let nobody = Default::default();
        let infeasible = admission::fits(&def, &place, &nobody).err().map(|_| message_infeasible(&def, node));
        let verdict = match infeasible {
            Some(message) => Err(("Infeasible", message)),
            None => admission::fits(&def, &place, &node.accounts.others(def.uid()))
                .map_err(|verdict| ("Deferred", verdict.message)),
        };
        match verdict {
            Ok(()) => {
                self.given = asked(&def);
                node.accounts.give(def.uid(), pod_requests(&def));
                self.conditions.clear();
                self.set(IN_PROGRESS, None, None, def.generation(), now);
                let text = format!("Pod resize started: {{\"generation\":{}}}", def.generation());
                node.pod_event(&def, false, "ResizeStarted", text);
                def
            }
            Err((reason, message)) => {
                let changed = self.find(PENDING).is_none_or(|old| old.reason.as_deref() != Some(reason));
                self.set(PENDING, Some(reason), Some(message.clone()), def.generation(), now);
                if changed {
                    let text = format!("Pod resize {reason}: {message}");
                    node.pod_event(&def, true, &format!("Resize{reason}"), text);
                }
                let effective = self.with_given(&def);
                if reason == "Deferred" {
                    self.deferred = Some(def);
                }
                effective
            }
        }
    }

    /// Looks again at what was deferred. Answers the pod with its new resources if it has them now.
    pub(crate) fn retry(&mut self, node: &NodeContext, now: Timestamp) -> Option<PodDef> {
        let def = self.deferred.take()?;
        let effective = self.update(node, def, now);
        (!self.is_deferred()).then_some(effective)
    }

    /// What is asked for holds now in all control groups, or `error` says why not.
    pub(crate) fn settled(
        &mut self,
        node: &NodeContext,
        def: &PodDef,
        error: Option<String>,
        now: Timestamp,
    ) {
        let Some(generation) = self.find(IN_PROGRESS).map(|old| old.observed_generation.unwrap_or(0)) else {
            return;
        };
        match error {
            Some(error) => {
                self.set(IN_PROGRESS, Some("Error"), Some(error.clone()), generation, now);
                node.pod_event(def, true, "ResizeError", format!("Pod resize error: {error}"));
            }
            None => {
                self.conditions.retain(|condition| condition.type_ != IN_PROGRESS);
                let text = format!("Pod resize completed: {{\"generation\":{generation}}}");
                node.pod_event(def, false, "ResizeCompleted", text);
            }
        }
    }

    /// Whether a resize is under way.
    pub(crate) fn is_in_progress(&self) -> bool {
        self.find(IN_PROGRESS).is_some()
    }

    fn find(&self, type_: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }

    fn set(
        &mut self,
        type_: &str,
        reason: Option<&str>,
        message: Option<String>,
        generation: i64,
        now: Timestamp,
    ) {
        let since = self.find(type_).and_then(|old| old.last_transition_time.clone());
        self.conditions.retain(|condition| condition.type_ != type_);
        self.conditions.push(PodCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message,
            observed_generation: Some(generation),
            last_transition_time: since.or_else(|| Some(client::time(now))),
            ..Default::default()
        });
    }

    /// The pod with the resources that it was given instead of those that it asks for.
    fn with_given(&self, def: &PodDef) -> PodDef {
        let mut pod = (*def.pod).clone();
        if let Some(spec) = &mut pod.spec {
            if let Some(own) = self.given.get("") {
                spec.resources = own.clone();
            }
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(own) = self.given.get(&container.name) {
                    container.resources = own.clone();
                }
            }
        }
        PodDef::new(pod)
    }
}

/// What a pod asks for, by container.
fn asked(def: &PodDef) -> BTreeMap<String, Option<ResourceRequirements>> {
    let own = def
        .of(&[Kind::Init, Kind::Sidecar, Kind::Regular])
        .map(|container| (container.name().to_owned(), container.spec.resources.clone()));
    own.chain([(String::new(), def.spec().resources.clone())]).collect()
}

fn message_infeasible(def: &PodDef, node: &NodeContext) -> String {
    for (name, requested) in pod_requests(def) {
        let Some(capacity) = node.allocatable.get(&name).map(Amount::of) else { continue };
        if requested > capacity {
            let number = |amount: Amount| if name == "cpu" { amount.milli() } else { amount.value() };
            let (requested, capacity) = (number(requested), number(capacity));
            return format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
        }
    }
    "Node didn't have enough capacity".to_owned()
}
