//! The loop: news from the API in, bindings out. All decisions are made by the pure parts.

use crate::cycle::{FitError, schedule};
use crate::plugin::Wake;
use crate::plugins::PLUGINS;
use crate::preempt;
use crate::queue::Queue;
use crate::snapshot::{NodeInfo, Snapshot, State};
use crate::view::{NodeView, PodView, SharedPod};
use api::selector::LabelSelector;
use api::{Object, Status, Timestamp};
use client::{Caches, Client, Clock, DeleteParams, Delta, EventRecorder, Patch, ResourceRef, Subscription};
use futures::StreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Bindings under way at once. More would only queue in the store's group commit.
const BINDINGS_MAX: usize = 64;
/// Upstream's bound on the text of a FailedScheduling event.
const EVENT_BYTES_MAX: usize = 1024;
/// How long to sleep when nothing is due: news wake the loop before.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// What a scheduler needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pods whose `schedulerName` is this one are its own.
    pub scheduler_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { scheduler_name: "default-scheduler".to_owned() }
    }
}

type NamespaceLabels = (Box<str>, BTreeMap<String, String>);

/// How a binding ended.
struct Bound {
    pod: SharedPod,
    node_name: Box<str>,
    result: Result<(), Status>,
}

struct Loop {
    options: Options,
    client: Client,
    clock: Clock,
    events: EventRecorder,
    budgets: client::Cache<PodDisruptionBudget>,
    state: State,
    queue: Queue,
    /// Pods that this scheduler has given a node which the API does not show yet.
    assumed: HashMap<Box<str>, Box<str>>,
    /// Pods that preemption has made room for.
    nominated: HashMap<Box<str>, (SharedPod, Box<str>)>,
    /// The last refusal told in each pod's condition.
    told: HashMap<Box<str>, String>,
    bound: mpsc::Sender<Bound>,
    bindings: Arc<Semaphore>,
    turn: u64,
}

/// What the plugin of this name waits for.
fn wakes_on(plugin: &str) -> &'static [Wake] {
    PLUGINS.iter().find(|own| own.name == plugin).map_or(&[], |own| own.wakes_on)
}

/// Runs until its future is dropped or the caches end.
///
/// # Guarantees
/// A pod is assumed on its node before the binding is written, so that the next cycle counts it; a binding that fails is
/// taken back. Nothing is kept that the API does not show after a restart.
pub async fn run(client: Client, caches: Caches, events: EventRecorder, clock: Clock, options: Options) {
    let pods =
        caches.of::<Pod>().project(|object: &Object| object.decode().ok().map(|pod| PodView::from_api(&pod)));
    let nodes =
        caches.of::<Node>().project(|object| object.decode().ok().map(|node| NodeView::from_api(&node)));
    let namespaces = caches.of::<Namespace>().project(|object: &Object| -> Option<NamespaceLabels> {
        let labels = object.meta.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        Some((object.meta.name().into(), labels.collect()))
    });
    let budgets = caches.of::<PodDisruptionBudget>();
    caches.of::<Pod>().synced().await;
    caches.of::<Node>().synced().await;
    let (bound, mut results) = mpsc::channel(BINDINGS_MAX);
    let mut this = Loop {
        options,
        client,
        clock,
        events,
        budgets,
        state: State::default(),
        queue: Queue::default(),
        assumed: HashMap::new(),
        nominated: HashMap::new(),
        told: HashMap::new(),
        bound,
        bindings: Arc::new(Semaphore::new(BINDINGS_MAX)),
        turn: 0,
    };
    let (mut pods, mut nodes, mut namespaces): (Subscription<PodView>, Subscription<NodeView>, _) =
        (pods.subscribe(), nodes.subscribe(), namespaces.subscribe());
    loop {
        let now = this.clock.now();
        let due = this.queue.due(now).unwrap_or(now + IDLE);
        tokio::select! {
            biased;
            Some(result) = results.recv() => this.on_bound(result),
            delta = nodes.next() => match delta { Some(delta) => this.on_node(&delta), None => return },
            delta = namespaces.next() => match delta { Some(delta) => this.on_namespace(&delta), None => return },
            delta = pods.next() => match delta { Some(delta) => this.on_pod(&delta), None => return },
            () = this.clock.sleep_until(due) => this.try_next().await,
        }
    }
}

impl Loop {
    fn on_node(&mut self, delta: &Delta<NodeView>) {
        let now = self.clock.now();
        let Some(new) = &delta.new else {
            self.state.remove_node(&delta.key.name);
            return;
        };
        let changed = node_news(delta.old.as_deref(), new);
        self.state.set_node(NodeView::clone(new));
        for wake in changed {
            self.queue.wake(wake, now, &wakes_on);
        }
    }

    fn on_namespace(&mut self, delta: &Delta<NamespaceLabels>) {
        let labels = delta.new.as_ref().map(|own| own.1.clone());
        self.state.set_namespace(&delta.key.name, labels);
        self.queue.wake(Wake::NamespaceLabelsChanged, self.clock.now(), &wakes_on);
    }

    fn on_pod(&mut self, delta: &Delta<PodView>) {
        let now = self.clock.now();
        let gone = |pod: &PodView| pod.ended;
        let Some(pod) = delta.new.as_ref().filter(|pod| !gone(pod)) else {
            let Some(last) = delta.last() else { return };
            self.forget(&last.uid);
            self.queue.remove(&last.uid);
            if last.node_name.is_some() {
                self.queue.wake(Wake::PodRemoved, now, &wakes_on);
            }
            return;
        };
        if let Some(node_name) = &pod.node_name {
            let is_new = delta.old.as_ref().is_none_or(|old| old.node_name.is_none());
            let relabelled = delta.old.as_ref().is_some_and(|old| old.labels != pod.labels);
            let shrunk = delta.old.as_ref().is_some_and(|old| old.requests != pod.requests);
            self.assumed.remove(&pod.uid);
            self.nominated.remove(&pod.uid);
            self.told.remove(&pod.uid);
            self.queue.remove(&pod.uid);
            self.state.set_pod(pod.clone(), node_name);
            for (news, wake) in [
                (is_new, Wake::PodAssigned),
                (relabelled, Wake::PodLabelsChanged),
                (shrunk, Wake::PodRemoved),
            ] {
                if news {
                    self.queue.wake(wake, now, &wakes_on);
                }
            }
            return;
        }
        if pod.deleting {
            self.forget(&pod.uid);
            self.queue.remove(&pod.uid);
        } else if *pod.scheduler_name == *self.options.scheduler_name && !self.assumed.contains_key(&pod.uid)
        {
            if let Some(node) = &pod.nominated_node {
                self.nominated.insert(pod.uid.clone(), (pod.clone(), node.clone()));
            }
            self.queue.set(pod.clone(), now, &wakes_on);
        }
    }

    fn forget(&mut self, uid: &str) {
        self.state.remove_pod(uid);
        self.assumed.remove(uid);
        self.nominated.remove(uid);
        self.told.remove(uid);
    }

    /// The cluster as this pod may count on it: room that was made for others of at least its priority is taken.
    fn snapshot_for(&self, pod: &PodView) -> Snapshot {
        let mut snapshot = self.state.snapshot();
        for (other, node) in self.nominated.values() {
            if other.uid != pod.uid && other.priority >= pod.priority {
                let found = snapshot.nodes.iter_mut().find(|info| info.node.name == *node);
                if let Some(info) = found {
                    Arc::make_mut(info).add(other.clone());
                }
            }
        }
        snapshot
    }

    async fn try_next(&mut self) {
        let Some(pod) = self.queue.pop(self.clock.now()) else { return };
        self.turn = self.turn.wrapping_add(1);
        let snapshot = self.snapshot_for(&pod);
        match schedule(&pod, &snapshot, PLUGINS, self.turn) {
            Ok(info) => self.assume(pod, &info),
            Err(error) => self.refuse(pod, &snapshot, error).await,
        }
    }

    fn assume(&mut self, pod: SharedPod, info: &NodeInfo) {
        let node_name = info.node.name.clone();
        let mut on_node = PodView::clone(&pod);
        on_node.node_name = Some(node_name.clone());
        self.state.set_pod(Arc::new(on_node), &node_name);
        self.assumed.insert(pod.uid.clone(), node_name.clone());
        let (client, bindings, bound) = (self.client.clone(), self.bindings.clone(), self.bound.clone());
        tokio::spawn(async move {
            // The semaphore is never closed; without a permit the binding would only be unbounded.
            let _permit = bindings.acquire_owned().await;
            let result = bind(&client, &pod, &node_name).await;
            let _ = bound.send(Bound { pod, node_name, result }).await;
        });
    }

    fn on_bound(&mut self, bound: Bound) {
        let about = reference(&bound.pod);
        match bound.result {
            Ok(()) => {
                self.queue.remove(&bound.pod.uid);
                let (namespace, name, node) = (&bound.pod.namespace, &bound.pod.name, &bound.node_name);
                self.events.normal(
                    &about,
                    "Scheduled",
                    format!("Successfully assigned {namespace}/{name} to {node}"),
                );
            }
            Err(status) => {
                if self.assumed.remove(&bound.pod.uid).is_some() {
                    self.state.remove_pod(&bound.pod.uid);
                }
                if status.is_not_found() || status.is_conflict() {
                    tracing::debug!(pod = %bound.pod.name, %status, "the pod is gone or has a node already");
                } else {
                    self.events.warning(&about, "FailedScheduling", clip(&status.message));
                }
                self.queue.failed(&bound.pod.uid, self.clock.now());
            }
        }
    }

    async fn refuse(&mut self, pod: SharedPod, snapshot: &Snapshot, mut error: FitError) {
        let plan = match self.waits_for_victims(&pod, snapshot) {
            true => {
                Err("preemption: not eligible due to a terminating pod on the nominated node.".to_owned())
            }
            false if error.evictable.is_empty() && error.nowhere.is_some() => Err(String::new()),
            false => {
                let budgets = Budgets::of(&self.budgets.read_all(""));
                preempt::plan(&pod, snapshot, PLUGINS, &error, &|victim| budgets.protect(victim))
            }
        };
        let nominated = match plan {
            Ok(plan) => {
                self.evict(&pod, &plan).await;
                self.nominated.insert(pod.uid.clone(), (pod.clone(), plan.node.clone()));
                Some(plan.node)
            }
            Err(why) => {
                error.preemption = why;
                None
            }
        };
        let message = clip(&error.message());
        self.events.warning(&reference(&pod), "FailedScheduling", message.clone());
        let key = format!("{message} {nominated:?}");
        if self.told.get(&pod.uid) != Some(&key) {
            let patch = refusal_patch(&pod, &message, nominated.as_deref(), self.clock.now());
            let api = self.client.namespaced::<Pod>(&pod.namespace);
            match api.patch_sub(&pod.name, "status", Patch::Strategic(patch)).await {
                Ok(_) => {
                    self.told.insert(pod.uid.clone(), key);
                }
                Err(status) => tracing::debug!(pod = %pod.name, %status, "the condition cannot be written"),
            }
        }
        self.queue.refused(&pod.uid, error.plugins, self.clock.now(), &wakes_on);
    }

    /// Whether room that was made for the pod is still being vacated.
    fn waits_for_victims(&self, pod: &PodView, snapshot: &Snapshot) -> bool {
        let Some((_, node)) = self.nominated.get(&pod.uid) else { return false };
        let info = snapshot.nodes.iter().find(|info| info.node.name == *node);
        info.is_some_and(|info| info.pods.iter().any(|other| other.deleting && other.priority < pod.priority))
    }

    async fn evict(&self, pod: &PodView, plan: &preempt::Plan) {
        for victim in &plan.victims {
            let api = self.client.namespaced::<Pod>(&victim.namespace);
            let patch = disruption_patch(victim, &self.options.scheduler_name, self.clock.now());
            if let Err(status) = api.patch_sub(&victim.name, "status", Patch::Strategic(patch)).await {
                tracing::debug!(pod = %victim.name, %status, "the disruption condition cannot be written");
            }
            match api.delete(&victim.name, &DeleteParams::default().with_uid(&*victim.uid)).await {
                Ok(_) => self.events.normal(
                    &reference(victim),
                    "Preempted",
                    format!("Preempted by pod {} on node {}", pod.uid, plan.node),
                ),
                Err(status) => tracing::debug!(pod = %victim.name, %status, "a victim cannot be deleted"),
            }
        }
    }
}

/// Which news a change of a node is.
fn node_news(old: Option<&NodeView>, new: &NodeView) -> Vec<Wake> {
    let Some(old) = old else { return vec![Wake::NodeAdded] };
    let mut news = Vec::new();
    if old.allocatable != new.allocatable || old.pods_max != new.pods_max {
        news.push(Wake::NodeAllocatableGrew);
    }
    if old.labels != new.labels {
        news.push(Wake::NodeLabelsChanged);
    }
    if old.taints != new.taints || old.unschedulable != new.unschedulable {
        news.push(Wake::NodeTaintsChanged);
    }
    news
}

/// Disruption budgets that allow no more disruption.
struct Budgets(Vec<(String, LabelSelector)>);

impl Budgets {
    fn of(budgets: &[PodDisruptionBudget]) -> Self {
        let exhausted = budgets.iter().filter(|budget| {
            budget
                .status
                .as_ref()
                .is_none_or(|status| status.disruptions_allowed.is_none_or(|allowed| allowed <= 0))
        });
        let selectors = exhausted.filter_map(|budget| {
            let selector = budget.spec.as_ref()?.selector.as_ref()?;
            Some((budget.metadata.namespace.clone()?, LabelSelector::from_object(selector).ok()?))
        });
        Self(selectors.collect())
    }

    fn protect(&self, pod: &PodView) -> bool {
        self.0.iter().any(|(namespace, selector)| {
            **namespace == *pod.namespace && selector.matches(|key| pod.label(key))
        })
    }
}

fn reference(pod: &PodView) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn clip(text: &str) -> String {
    if text.len() <= EVENT_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = EVENT_BYTES_MAX - 4;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &text[..end])
}

async fn bind(client: &Client, pod: &PodView, node_name: &str) -> Result<(), Status> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.to_string()),
            namespace: Some(pod.namespace.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node_name.to_owned()),
            ..ObjectReference::default()
        },
    };
    let body = serde_json::to_vec(&binding).map_err(Status::internal)?;
    let api = client.dynamic(ResourceRef::of::<Pod>(), &pod.namespace);
    api.create_sub(&pod.name, "binding", body.into()).await.map(|_| ())
}

fn timestamp(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// The condition and nominated node of a pod that fits nowhere.
fn refusal_patch(pod: &PodView, message: &str, nominated: Option<&str>, now: Timestamp) -> serde_json::Value {
    let mut status = json!({"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "observedGeneration": pod.generation, "lastProbeTime": null, "lastTransitionTime": timestamp(now)}]});
    if let Some(node) = nominated {
        status["nominatedNodeName"] = node.into();
    }
    json!({"metadata": {"uid": pod.uid}, "status": status})
}

/// The condition of a pod that has to go. Upstream: `preemption.prepareCandidate`.
fn disruption_patch(victim: &PodView, scheduler_name: &str, now: Timestamp) -> serde_json::Value {
    json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler_name}: preempting to accommodate a higher priority pod"),
        "observedGeneration": victim.generation, "lastProbeTime": null, "lastTransitionTime": timestamp(now)}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_node_are_told_apart() {
        let old = NodeView { name: "n".into(), ..NodeView::default() };
        let mut new = old.clone();
        assert_eq!(node_news(None, &new), [Wake::NodeAdded]);
        assert!(node_news(Some(&old), &new).is_empty());
        new.unschedulable = true;
        new.labels.insert("a".into(), "b".into());
        assert_eq!(node_news(Some(&old), &new), [Wake::NodeLabelsChanged, Wake::NodeTaintsChanged]);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let text = "ü".repeat(EVENT_BYTES_MAX);
        assert!(clip(&text).len() <= EVENT_BYTES_MAX && clip(&text).ends_with(" ..."));
    }
}
