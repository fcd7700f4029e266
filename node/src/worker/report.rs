//! Telling: computing the status, writing it when it matters, deleting the API object at the end.

use super::{Outcome, Retry, Stage, Worker};
use crate::context::PodView;
use crate::observed::Observed;
use crate::status::{self, Inputs, status_patch};
use api::Timestamp;
use client::{DeleteParams, Patch};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long a status that only says "still starting" may wait for news to be written with.
const DELAY_STARTING: Duration = Duration::from_millis(100);
/// Waits between tries to write.
const WRITE_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

impl Worker {
    /// What the status is computed from: a container whose hook still runs does not show yet.
    fn visible(&self) -> Observed {
        let mut observed = self.observed.clone();
        if let Some(starting) = &self.flight.start {
            let hidden =
                observed.latest(starting).filter(|seen| seen.is_running()).map(|seen| seen.id.clone());
            observed.containers.retain(|seen| Some(&seen.id) != hidden.as_ref());
        }
        observed
    }

    /// Computes the status, shows it to the node's server, writes it if due, and deletes the API object if all is done.
    pub(super) fn report(&mut self, now: Timestamp) {
        let observed = self.visible();
        let mut status = status::status(&Inputs {
            def: &self.def,
            observed: &observed,
            old: &self.status,
            probes: &self.probes,
            waiting: &self.waiting,
            verdict: self.verdict.as_ref(),
            ending: self.is_ending() && observed.running().next().is_none(),
            resize: self.resize.conditions(),
            disruption: self.disruption.as_deref(),
            host_addresses: &self.node.host_addresses,
            now,
        });
        if self.stage >= Stage::Released {
            status::ended::settle(&self.def, &mut status);
        }
        if self.rejected {
            (status.container_statuses, status.init_container_statuses) = (None, None);
        }
        if is_terminal(&status) && self.observed.running().next().is_none() {
            self.node.accounts.take_back(self.def.uid());
        }
        if !self.is_ending() && is_terminal(&status) {
            self.over = true;
            // What keeps running beside ordinary containers has to end now, and the rest is given up.
            self.wind_down(now);
        }
        self.show(&observed, &status);
        let may_run = self.observed.running().next().is_some() || self.flight.start.is_some();
        let told =
            if may_run && is_terminal(&status) { self.not_yet_terminal(&status) } else { status.clone() };
        self.status = status;
        let clean = self.write_if_due(&told, now);
        self.delete_if_done(clean && is_terminal(&self.status), now);
    }

    fn show(&mut self, observed: &Observed, status: &PodStatus) {
        self.view.send_if_modified(|view| {
            let same = view.observed == *observed
                && Arc::ptr_eq(&view.def.pod, &self.def.pod)
                && !status::differs(&view.status, status);
            if !same {
                *view = Arc::new(PodView {
                    def: self.def.clone(),
                    observed: observed.clone(),
                    status: status.clone(),
                });
            }
            !same
        });
    }

    /// A pod does not show its end before its last container has ended.
    fn not_yet_terminal(&self, status: &PodStatus) -> PodStatus {
        let shown: PodStatus = serde_json::from_value(self.written.1.clone()).unwrap_or_default();
        if is_terminal(&shown) {
            return status.clone();
        }
        PodStatus { phase: shown.phase, reason: shown.reason, message: shown.message, ..status.clone() }
    }

    /// Writes the status if it differs from what the API shows. Answers whether it does not.
    fn write_if_due(&mut self, status: &PodStatus, now: Timestamp) -> bool {
        if self.gone || self.flight.write {
            return false;
        }
        let wanted = serde_json::to_value(status).unwrap_or_default();
        let Some(patch) = status_patch(self.def.uid(), &self.written.1, &wanted) else {
            self.dirty_since = None;
            return true;
        };
        // The API keeps what was asked for in another form: asking again would change nothing, for ever.
        if self
            .last_patch
            .as_ref()
            .is_some_and(|(revision, last)| *revision == self.written.0 && *last == patch)
        {
            return true;
        }
        let since = *self.dirty_since.get_or_insert(now);
        let due = if self.is_starting(status) { since + DELAY_STARTING } else { now };
        let due = self.write_retry.at.map_or(due, |at| at.max(due));
        if due > now {
            self.wake_by(due);
            return false;
        }
        self.dirty_since = None;
        self.flight.write = true;
        let pods = self.node.client.namespaced::<Pod>(self.def.namespace());
        let name = self.def.name().to_owned();
        self.last_patch = Some((0, patch.clone()));
        self.operations.spawn(async move {
            let written = pods.dynamic().patch(&name, "status", &Patch::Strategic(patch)).await;
            let read = |object: api::Object| {
                let mut value: Value = object.decode().map_err(api::Status::internal)?;
                Ok((object.meta.resource_version, value["status"].take()))
            };
            Outcome::Written(written.and_then(read))
        });
        false
    }

    /// Whether the pod is on its way up and nothing else is to be told.
    fn is_starting(&self, status: &PodStatus) -> bool {
        let quiet = |status: &ContainerStatus| match &status.state {
            Some(ContainerState { waiting: Some(waiting), .. }) => {
                matches!(waiting.reason.as_deref(), Some("ContainerCreating" | "PodInitializing") | None)
            }
            Some(ContainerState { running: Some(_), .. }) => true,
            _ => false,
        };
        let flight = &self.flight;
        let busy = flight.sandbox || flight.volumes || flight.start.is_some() || !flight.pulls.is_empty();
        busy && !self.is_ending()
            && status.phase.as_deref() == Some("Pending")
            && status.container_statuses.iter().flatten().all(quiet)
    }

    pub(super) fn finish_write(&mut self, result: Result<(u64, Value), api::Status>, now: Timestamp) {
        self.flight.write = false;
        match result {
            Ok((revision, status)) => {
                self.write_retry = Retry::default();
                if let Some(last) = &mut self.last_patch {
                    last.0 = revision;
                }
                if revision > self.written.0 {
                    self.written = (revision, status);
                }
            }
            Err(error) if error.is_not_found() || error.is_conflict() => {
                // The object is gone, or another one has its name now: the cache will say so.
                self.write_retry.failed(now, WRITE_RETRY.0, WRITE_RETRY.1);
            }
            Err(error) => {
                tracing::warn!(pod = self.def.label(), %error, "the status of a pod cannot be written");
                self.write_retry.failed(now, WRITE_RETRY.0, WRITE_RETRY.1);
            }
        }
    }

    fn delete_if_done(&mut self, told: bool, now: Timestamp) {
        let wanted = self.def.deletion_at().is_some() && !self.gone && self.stage == Stage::Removed;
        if !wanted || !told || self.flight.delete {
            return;
        }
        if let Some(at) = self.delete_retry.at.filter(|at| *at > now) {
            return self.wake_by(at);
        }
        self.flight.delete = true;
        let pods = self.node.client.namespaced::<Pod>(self.def.namespace());
        let (name, uid) = (self.def.name().to_owned(), self.def.uid().to_owned());
        self.operations.spawn(async move {
            let params = DeleteParams { grace_seconds: Some(0), ..DeleteParams::default() }.with_uid(uid);
            Outcome::Deleted(pods.delete(&name, &params).await.map(|_| ()))
        });
    }

    pub(super) fn finish_delete(&mut self, result: Result<(), api::Status>, now: Timestamp) {
        self.flight.delete = false;
        match result {
            Ok(()) => self.stage = Stage::Deleted,
            Err(error) if error.is_not_found() || error.is_conflict() => self.stage = Stage::Deleted,
            Err(error) => {
                tracing::warn!(pod = self.def.label(), %error, "a pod that has ended cannot be deleted");
                self.delete_retry.failed(now, WRITE_RETRY.0, WRITE_RETRY.1);
            }
        }
    }
}

fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}
