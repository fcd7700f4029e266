//! Which replica sets a deployment needs, of which size. Pure.
//!
//! Everything happens on copies in memory: each [`Set`] remembers how it differs from what the server has.

use super::revision::{self, REVISION};
use super::status;
use crate::number::scaled;
use crate::owner::name_of;
use crate::template::{self, POD_TEMPLATE_HASH};
use api::Timestamp;
use client::controller_reference;
use client::{EventType, time};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// A rollback to a revision that was asked for the old way, by an annotation.
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// The longest name of an object.
const NAME_LEN_MAX: usize = 253;

/// A replica set of the deployment and what must become of it.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) object: ReplicaSet,
    pub(crate) step: Step,
    /// The size before this plan, if it is changed.
    pub(crate) scaled_from: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    Create,
    Update,
    Delete,
}

impl Set {
    fn kept(object: ReplicaSet) -> Self {
        Self { object, step: Step::Keep, scaled_from: None }
    }

    pub(crate) fn name(&self) -> &str {
        name_of(&self.object.metadata)
    }

    /// The size asked for.
    pub(crate) fn replicas(&self) -> i32 {
        self.object.spec.replicas.unwrap_or(1)
    }

    pub(crate) fn actual(&self) -> i32 {
        self.object.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub(crate) fn available(&self) -> i32 {
        self.object.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    pub(crate) fn annotations(&mut self) -> &mut BTreeMap<String, String> {
        self.object.metadata.annotations.get_or_insert_default()
    }

    fn update(&mut self) {
        if self.step == Step::Keep {
            self.step = Step::Update;
        }
    }

    /// Older first. A set that does not exist yet is the youngest.
    pub(crate) fn age_key(&self) -> (Timestamp, String) {
        let created = self.object.metadata.creation_timestamp.as_ref();
        (created.map_or(Timestamp::MAX, |time| time.0), self.name().to_owned())
    }
}

/// An event to be told.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) kind: EventType,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// A deployment, its sets, and what is decided about them.
pub(crate) struct Rollout {
    pub(crate) deployment: Deployment,
    pub(crate) new: Option<Set>,
    pub(crate) old: Vec<Set>,
    pub(crate) events: Vec<Told>,
    /// Whether the deployment itself (not only its status) is changed.
    pub(crate) is_changed: bool,
    pub(crate) status: DeploymentStatus,
    pub(crate) now: Timestamp,
    /// Unfinished pods of each replica set, by UID; only a Recreate asks.
    unfinished: BTreeMap<String, usize>,
}

/// Decides everything.
pub(crate) fn plan(
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    unfinished: BTreeMap<String, usize>,
    now: Timestamp,
) -> Rollout {
    let mut rollout = Rollout::new(deployment, sets, unfinished, now);
    let is_paused = rollout.deployment.spec.paused == Some(true);
    if rollout.deployment.metadata.deletion_timestamp.is_some() {
        rollout.status = status::of(&rollout);
        return rollout;
    }
    status::note_pause(&mut rollout);
    let rollback = rollout.rollback_revision();
    rollout.sync_revision(false);
    if is_paused {
        rollout.scale();
        if rollback.is_none() {
            rollout.clean_up();
        }
        rollout.status = status::of(&rollout);
    } else if let Some(revision) = rollback {
        rollout.sync_revision(true);
        rollout.roll_back(revision);
        rollout.status = status::of(&rollout);
    } else if rollout.is_scaling() {
        rollout.scale();
        rollout.status = status::of(&rollout);
    } else {
        match rollout.is_rolling() {
            true => rollout.roll(),
            false => rollout.recreate(),
        }
        rollout.status = status::after_rollout(&mut rollout);
    }
    rollout
}

impl Rollout {
    fn new(
        deployment: Deployment,
        mut sets: Vec<ReplicaSet>,
        unfinished: BTreeMap<String, usize>,
        now: Timestamp,
    ) -> Self {
        sets.sort_by_key(|set| Set::kept(set.clone()).age_key());
        let template = template::canonical_template(&deployment.spec.template);
        // Of several sets with the wanted template the oldest is the new one.
        let position = sets.iter().position(|set| {
            set.spec.template.as_ref().is_some_and(|own| template::canonical_template(own) == template)
        });
        let new = position.map(|position| Set::kept(sets.remove(position)));
        let status = deployment.status.clone().unwrap_or_default();
        let old = sets.into_iter().map(Set::kept).collect();
        Self { deployment, new, old, events: Vec::new(), is_changed: false, status, now, unfinished }
    }

    /// How many pods are asked for.
    pub(crate) fn replicas(&self) -> i32 {
        self.deployment.spec.replicas.unwrap_or(1)
    }

    pub(crate) fn is_rolling(&self) -> bool {
        let strategy = self.deployment.spec.strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
    }

    pub(crate) fn name(&self) -> &str {
        name_of(&self.deployment.metadata)
    }

    pub(crate) fn sets(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// How many pods more, and how many fewer, than asked for a rolling update may make.
    fn fences(&self) -> (i32, i32) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let rolling =
            self.deployment.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let share =
            |value: Option<&_>, up| value.and_then(|value| scaled(value, self.replicas(), up)).unwrap_or(0);
        let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
        // Both zero would mean standing still for ever.
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub(crate) fn max_surge(&self) -> i32 {
        self.fences().0
    }

    pub(crate) fn max_unavailable(&self) -> i32 {
        if self.replicas() == 0 { 0 } else { self.fences().1.min(self.replicas()) }
    }

    fn total(&self) -> i32 {
        self.sets().map(Set::replicas).sum()
    }

    /// How large the new set may be now.
    fn new_size(&self, current: i32) -> i32 {
        if !self.is_rolling() {
            return self.replicas();
        }
        let room = self.replicas() + self.max_surge() - self.total();
        if room <= 0 { current } else { current + room.min(self.replicas() - current) }
    }

    pub(crate) fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let mut conditions = std::mem::take(&mut self.deployment.status.get_or_insert_default().conditions);
        status::set_condition(
            conditions.get_or_insert_default(),
            condition(kind, status, reason, message, self.now),
        );
        self.deployment.status.get_or_insert_default().conditions = conditions;
    }

    /// Gives the new set its revision, makes it if it is missing and `create`, and notes the revision in the deployment.
    fn sync_revision(&mut self, create: bool) {
        let newest_old = self.old.iter().map(|set| revision::of(&set.object.metadata)).max().unwrap_or(0);
        let number = newest_old + 1;
        let (replicas, most) = (self.replicas(), self.replicas() + self.max_surge());
        if let Some(mut set) = self.new.take() {
            let changed = revision::annotate(&self.deployment, set.annotations(), number);
            let ready_seconds = self.deployment.spec.min_ready_seconds.unwrap_or(0);
            if changed || set.object.spec.min_ready_seconds.unwrap_or(0) != ready_seconds {
                set.object.spec.min_ready_seconds = self.deployment.spec.min_ready_seconds;
                set.update();
            }
            let kept = set.annotations().get(REVISION).cloned().unwrap_or_default();
            self.set_revision(kept);
            if status::has_deadline(&self.deployment) && self.progressing().is_none() {
                let message = format!("Found new replica set \"{}\"", set.name());
                self.set_condition("Progressing", "True", "FoundNewReplicaSet", message);
            }
            self.new = Some(set);
        } else if create {
            let mut set = Set { object: self.make_set(), step: Step::Create, scaled_from: None };
            set.object.spec.replicas = Some(self.new_size(0));
            revision::annotate(&self.deployment, set.annotations(), number);
            revision::note_sizes(set.annotations(), replicas, most);
            self.set_revision(number.to_string());
            if status::has_deadline(&self.deployment) {
                let message = format!("Created new replica set \"{}\"", set.name());
                self.set_condition("Progressing", "True", "NewReplicaSetCreated", message);
            }
            self.new = Some(set);
        }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        status::condition(self.deployment.status.as_ref(), "Progressing")
    }

    fn set_revision(&mut self, number: String) {
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        if annotations.get(REVISION) != Some(&number) {
            annotations.insert(REVISION.to_owned(), number);
            self.is_changed = true;
        }
    }

    fn make_set(&self) -> ReplicaSet {
        let spec = &self.deployment.spec;
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template::hash(&spec.template, collisions);
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
        let mut name = self.name().to_owned();
        name.truncate(NAME_LEN_MAX - 1 - hash.len());
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: self.deployment.metadata.namespace.clone(),
                owner_references: Some(vec![controller_reference(&self.deployment)]),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        }
    }

    /// Whether the size asked for is not the one the sets were made for.
    fn is_scaling(&self) -> bool {
        let desired = |set: &Set| revision::desired(&set.object.metadata);
        self.sets()
            .filter(|set| set.replicas() > 0)
            .any(|set| desired(set).is_some_and(|desired| desired != self.replicas()))
    }

    /// Resizes one set and notes what it was resized for. Answers whether its size has changed.
    fn resize(&mut self, index: Option<usize>, size: i32) -> bool {
        let (replicas, most) = (self.replicas(), self.replicas() + self.max_surge());
        let set = match index {
            Some(index) => &mut self.old[index],
            None => match &mut self.new {
                Some(set) => set,
                None => return false,
            },
        };
        let before = set.replicas();
        if revision::note_sizes(set.annotations(), replicas, most) || before != size {
            set.update();
        }
        if before == size {
            return false;
        }
        set.object.spec.replicas = Some(size);
        set.scaled_from.get_or_insert(before);
        true
    }

    /// Resizes without changing what the sets are made of: all to one set, or shares in proportion.
    fn scale(&mut self) {
        let replicas = self.replicas();
        if self.new.is_none() && self.old.is_empty() {
            return;
        }
        let mut active: Vec<Option<usize>> =
            (0..self.old.len()).filter(|index| self.old[*index].replicas() > 0).map(Some).collect();
        if self.new.as_ref().is_some_and(|set| set.replicas() > 0) {
            active.push(None);
        }
        if active.len() <= 1 {
            let youngest_old = (0..self.old.len()).max_by_key(|index| self.old[*index].age_key());
            let only = active.first().copied().unwrap_or(match self.new {
                Some(_) => None,
                None => youngest_old,
            });
            if self.at(only).is_some_and(|set| set.replicas() != replicas) {
                self.resize(only, replicas);
            }
        } else if self.is_saturated() {
            for index in active.into_iter().flatten() {
                self.resize(Some(index), 0);
            }
        } else if self.is_rolling() {
            self.scale_in_proportion(active);
        }
    }

    fn at(&self, index: Option<usize>) -> Option<&Set> {
        match index {
            Some(index) => self.old.get(index),
            None => self.new.as_ref(),
        }
    }

    fn is_saturated(&self) -> bool {
        let replicas = self.replicas();
        self.new.as_ref().is_some_and(|set| {
            set.replicas() == replicas
                && revision::desired(&set.object.metadata) == Some(replicas)
                && set.available() == replicas
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<Option<usize>>) {
        let allowed = if self.replicas() > 0 { self.replicas() + self.max_surge() } else { 0 };
        let sum: i32 = active.iter().filter_map(|index| self.at(*index)).map(Set::replicas).sum();
        let to_add = allowed - sum;
        // The largest first; of equal ones the youngest grows and the oldest shrinks first.
        active.sort_by(|a, b| {
            let (Some(a), Some(b)) = (self.at(*a), self.at(*b)) else { return std::cmp::Ordering::Equal };
            let by_age = a.age_key().cmp(&b.age_key());
            b.replicas().cmp(&a.replicas()).then(if to_add > 0 { by_age.reverse() } else { by_age })
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
        for set in active.iter().filter_map(|index| self.at(*index)) {
            let share = self.proportion(set, to_add, added);
            added += share;
            sizes.push(set.replicas() + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.resize(index, size);
        }
    }

    fn proportion(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        if set.replicas() == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let (share, left) = (self.fraction(set), to_add - added);
        if to_add > 0 { share.min(left) } else { share.max(left) }
    }

    fn fraction(&self, set: &Set) -> i32 {
        if self.replicas() == 0 {
            return -set.replicas();
        }
        let before = revision::most(&set.object.metadata).filter(|most| *most > 0);
        let before =
            before.or(self.deployment.status.as_ref().and_then(|status| status.replicas)).unwrap_or(0);
        if before == 0 {
            return 0;
        }
        let most = self.replicas() + self.max_surge();
        let size = f64::from(set.replicas()) * f64::from(most) / f64::from(before);
        size.round() as i32 - set.replicas()
    }

    fn rollback_revision(&self) -> Option<i64> {
        self.deployment.metadata.annotations.as_ref()?.get(ROLLBACK_TO)?.parse().ok()
    }

    fn roll_back(&mut self, revision: i64) {
        let warn = |reason, message| Told { kind: EventType::Warning, reason, message };
        if let Some(annotations) = &mut self.deployment.metadata.annotations {
            annotations.remove(ROLLBACK_TO);
            self.is_changed = true;
        }
        let numbers: Vec<_> = self.sets().map(|set| revision::of(&set.object.metadata)).collect();
        let target = if revision == 0 { revision::last(&numbers) } else { revision };
        if target == 0 {
            let message = "Unable to find last revision.".to_owned();
            return self.events.push(warn("DeploymentRollbackRevisionNotFound", message));
        }
        let set = self.sets().find(|set| revision::of(&set.object.metadata) == target).cloned();
        let Some(set) = set else {
            let message = "Unable to find the revision to rollback to.".to_owned();
            return self.events.push(warn("DeploymentRollbackRevisionNotFound", message));
        };
        let Some(mut template) = set.object.spec.template.clone() else { return };
        let name = self.name().to_owned();
        if template::is_same(&template, &self.deployment.spec.template) {
            let message =
                format!("The rollback revision contains the same template as current deployment \"{name}\"");
            return self.events.push(warn("DeploymentRollbackTemplateUnchanged", message));
        }
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(POD_TEMPLATE_HASH);
        }
        self.deployment.spec.template = template;
        revision::take_annotations(&mut self.deployment, &set.object);
        let message = format!("Rolled back deployment \"{name}\" to revision {target}");
        self.events.push(Told { kind: EventType::Normal, reason: "DeploymentRollback", message });
    }

    // Rolling update and recreation. Upstream: rolling.go, recreate.go.

    fn roll(&mut self) {
        self.sync_revision(true);
        if self.grow_new() || self.shrink_old() {
            return;
        }
        if status::is_complete(self, &self.deployment.status.clone().unwrap_or_default()) {
            self.clean_up();
        }
    }

    fn grow_new(&mut self) -> bool {
        let Some(current) = self.new.as_ref().map(Set::replicas) else { return false };
        let replicas = self.replicas();
        if current == replicas {
            return false;
        }
        let size = if current > replicas { replicas } else { self.new_size(current) };
        size != current && self.resize(None, size)
    }

    fn shrink_old(&mut self) -> bool {
        let old: i32 = self.old.iter().map(Set::replicas).sum();
        let Some(new) = &self.new else { return false };
        let least_available = self.replicas() - self.max_unavailable();
        let new_unavailable = new.replicas() - new.available();
        let most_removed = self.total() - least_available - new_unavailable;
        if old == 0 || most_removed <= 0 {
            return false;
        }
        let unhealthy = self.remove_unhealthy(most_removed);
        let available: i32 = self.sets().map(Set::available).sum();
        self.remove_healthy(available - least_available) | unhealthy
    }

    fn old_by_age(&self) -> Vec<usize> {
        let mut order: Vec<_> = (0..self.old.len()).filter(|index| self.old[*index].replicas() > 0).collect();
        order.sort_by_key(|index| self.old[*index].age_key());
        order
    }

    fn remove_unhealthy(&mut self, most: i32) -> bool {
        let mut removed = 0;
        for index in self.old_by_age() {
            let set = &self.old[index];
            let count = (most - removed).min(set.replicas() - set.available());
            if removed < most && count > 0 {
                let size = set.replicas() - count;
                self.resize(Some(index), size);
                removed += count;
            }
        }
        removed > 0
    }

    fn remove_healthy(&mut self, most: i32) -> bool {
        let mut removed = 0;
        for index in self.old_by_age() {
            let count = (most - removed).min(self.old[index].replicas());
            if count > 0 {
                let size = self.old[index].replicas() - count;
                self.resize(Some(index), size);
                removed += count;
            }
        }
        removed > 0
    }

    fn recreate(&mut self) {
        let mut shrunk = false;
        for index in 0..self.old.len() {
            shrunk |= self.old[index].replicas() > 0 && self.resize(Some(index), 0);
        }
        if shrunk || self.are_old_pods_left() {
            return;
        }
        self.sync_revision(true);
        let replicas = self.replicas();
        if self.new.as_ref().is_some_and(|set| set.replicas() != replicas) {
            self.resize(None, replicas);
        }
        if status::is_complete(self, &self.deployment.status.clone().unwrap_or_default()) {
            self.clean_up();
        }
    }

    fn are_old_pods_left(&self) -> bool {
        let new = self.new.as_ref().and_then(|set| set.object.metadata.uid.as_deref());
        self.old.iter().any(|set| set.actual() > 0)
            || self.unfinished.iter().any(|(uid, count)| Some(uid.as_str()) != new && *count > 0)
    }

    /// Removes the oldest sets beyond the history that is kept.
    fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX)
        else {
            return;
        };
        let mut alive: Vec<_> = (0..self.old.len())
            .filter(|index| self.old[*index].object.metadata.deletion_timestamp.is_none())
            .collect();
        alive.sort_by_key(|index| {
            let set = &self.old[*index];
            (revision::of(&set.object.metadata), set.age_key())
        });
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        for index in alive.into_iter().take(surplus) {
            let set = &mut self.old[index];
            let observed = set.object.status.as_ref().and_then(|status| status.observed_generation);
            let is_seen = set.object.metadata.generation.unwrap_or(0) <= observed.unwrap_or(0);
            if set.actual() == 0 && set.replicas() == 0 && is_seen && set.scaled_from.is_none() {
                set.step = Step::Delete;
            }
        }
    }

    /// When to look again although nothing changes: when the deadline for progress has passed.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        let condition = status::condition(Some(&self.status), "Progressing")?;
        let seconds = self.deployment.spec.progress_deadline_seconds?;
        if !status::has_deadline(&self.deployment)
            || status::is_complete(self, &self.status)
            || condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        {
            return None;
        }
        let since = condition.last_update_time.as_ref()?.0;
        // One second more: times of conditions are cut to seconds.
        since.checked_add(SignedDuration::from_secs(i64::from(seconds) + 1)).ok()
    }
}

pub(crate) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}
