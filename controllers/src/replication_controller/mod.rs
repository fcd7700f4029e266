//! Keeps as many pods of a template running as are asked for: the older form of a replica set, whose plan it shares.
//!
//! Upstream: pkg/controller/replication, which wraps the replica set controller in the same way.

use crate::owner::Selects;
use crate::replica_set::{Replicated, SetStatus, View, controller_of};
use api::LabelSelector;
use client::Controller;
use k8s_openapi::api::apps::v1::ReplicaSetCondition;
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

pub(crate) fn controller() -> Controller {
    controller_of::<ReplicationController>("replication-controller")
}

impl Selects for ReplicationController {
    fn selector(&self) -> Option<LabelSelector> {
        let selector = self.spec.as_ref()?.selector.as_ref()?;
        // An empty selector selects nothing here, unlike in newer kinds.
        (!selector.is_empty()).then(|| LabelSelector::from_map(selector))
    }
}

impl Replicated for ReplicationController {
    fn view(&self) -> View<'_> {
        let spec = self.spec.as_ref();
        View {
            generation: self.metadata.generation.unwrap_or(0),
            deleting: self.metadata.deletion_timestamp.is_some(),
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            template: spec.and_then(|spec| spec.template.as_ref()),
        }
    }

    fn status(&self) -> SetStatus {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default().into_iter().map(|own| ReplicaSetCondition {
            type_: Some(own.type_),
            status: Some(own.status),
            reason: own.reason,
            message: own.message,
            last_transition_time: own.last_transition_time,
        });
        SetStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation.unwrap_or(0),
            conditions: conditions.collect(),
        }
    }

    fn set_status(&mut self, status: SetStatus) {
        let conditions: Vec<_> = status
            .conditions
            .into_iter()
            .map(|own| ReplicationControllerCondition {
                type_: own.type_.unwrap_or_default(),
                status: own.status.unwrap_or_default(),
                reason: own.reason,
                message: own.message,
                last_transition_time: own.last_transition_time,
            })
            .collect();
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: Some(status.fully_labeled),
            ready_replicas: Some(status.ready),
            available_replicas: Some(status.available),
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        });
    }
}
