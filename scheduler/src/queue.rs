//! Pods that wait for a node: ready ones by priority, refused ones until news that may help. Pure: `now` is an argument.
//! Upstream: `pkg/scheduler/backend/queue`.

use crate::plugin::Wake;
use crate::view::SharedPod;
use api::Timestamp;
use jiff::SignedDuration;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

/// First pause of a pod that was refused.
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(1);
/// Longest pause.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// A refused pod is tried again after this long whatever happens: a missed hint must not strand it.
const UNSCHEDULABLE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Order of the ready pods: priority, then age, then uid.
type Rank = (Reverse<i32>, Timestamp, Box<str>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Gates are closed.
    Gated,
    /// Ready to be tried.
    Active(Rank),
    /// Tried at this moment.
    InFlight {
        /// Whether news came meanwhile that may concern it.
        news: Vec<Wake>,
    },
    /// Waits for its pause to end.
    Backoff(Timestamp),
    /// Waits for news for its plugins, until this time at the latest.
    Refused { plugins: Vec<&'static str>, until: Timestamp },
}

#[derive(Clone, Debug)]
struct Waiting {
    pod: SharedPod,
    added: Timestamp,
    attempts: u32,
    last_try: Option<Timestamp>,
    place: Place,
}

/// The queue. Its size is bounded by the number of pods that the API holds.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Box<str>, Waiting>,
    active: BTreeSet<Rank>,
    timers: BTreeSet<(Timestamp, Box<str>)>,
}

/// Which news a plugin waits for.
pub type WakesOn<'a> = dyn Fn(&str) -> &'a [Wake] + 'a;

impl Queue {
    /// A pod without a node is new or has changed.
    pub fn set(&mut self, pod: SharedPod, now: Timestamp, wakes_on: &WakesOn<'_>) {
        let uid = pod.uid.clone();
        let Some(waiting) = self.pods.get_mut(&uid) else {
            self.pods.insert(
                uid.clone(),
                Waiting { pod, added: now, attempts: 0, last_try: None, place: Place::Gated },
            );
            self.activate(&uid);
            return;
        };
        let opened = waiting.place == Place::Gated && pod.gates.is_empty();
        waiting.pod = pod;
        match &mut waiting.place {
            Place::Gated if opened => self.activate(&uid),
            Place::InFlight { news } => news.push(Wake::PodSpecChanged),
            Place::Refused { plugins, .. }
                if plugins.iter().any(|plugin| wakes_on(plugin).contains(&Wake::PodSpecChanged)) =>
            {
                self.pause_or_activate(&uid, now);
            }
            _ => {}
        }
    }

    /// A pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    /// The next pod to try, or `None`. It is in flight until `refused`, `failed` or `remove`.
    pub fn pop(&mut self, now: Timestamp) -> Option<SharedPod> {
        self.tick(now);
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::InFlight { news: Vec::new() };
        waiting.attempts += 1;
        waiting.last_try = Some(now);
        Some(waiting.pod.clone())
    }

    /// The pod in flight fits nowhere; these plugins refused it.
    pub fn refused(&mut self, uid: &str, plugins: Vec<&'static str>, now: Timestamp, wakes_on: &WakesOn<'_>) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let helped = match &waiting.place {
            Place::InFlight { news } => {
                news.iter().any(|wake| plugins.iter().any(|plugin| wakes_on(plugin).contains(wake)))
            }
            _ => return,
        };
        if helped {
            self.pause_or_activate(uid, now);
            return;
        }
        let until = now + UNSCHEDULABLE_MAX;
        waiting.place = Place::Refused { plugins, until };
        self.timers.insert((until, uid.into()));
    }

    /// Something else went wrong with the pod in flight: it is tried again after a pause.
    pub fn failed(&mut self, uid: &str, now: Timestamp) {
        if self.pods.get(uid).is_some_and(|waiting| matches!(waiting.place, Place::InFlight { .. })) {
            self.pause_or_activate(uid, now);
        }
    }

    /// News: wakes every refused pod that one of its plugins waits for.
    pub fn wake(&mut self, wake: Wake, now: Timestamp, wakes_on: &WakesOn<'_>) {
        let mut helped = Vec::new();
        for (uid, waiting) in &mut self.pods {
            match &mut waiting.place {
                Place::InFlight { news } if !news.contains(&wake) => news.push(wake),
                Place::Refused { plugins, .. }
                    if plugins.is_empty()
                        || plugins.iter().any(|plugin| wakes_on(plugin).contains(&wake)) =>
                {
                    helped.push(uid.clone());
                }
                _ => {}
            }
        }
        for uid in helped {
            self.pause_or_activate(&uid, now);
        }
    }

    /// When something will be due; `None` while nothing waits for time. At or before `now` if a pod is ready.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if !self.active.is_empty() {
            return Some(now);
        }
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn tick(&mut self, now: Timestamp) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            self.activate(&uid);
        }
    }

    /// Takes the pod out of the set that its place is in.
    fn leave(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get(uid) else { return };
        match &waiting.place {
            Place::Active(rank) => {
                self.active.remove(rank);
            }
            Place::Backoff(at) | Place::Refused { until: at, .. } => {
                self.timers.remove(&(*at, uid.into()));
            }
            Place::Gated | Place::InFlight { .. } => {}
        }
    }

    fn activate(&mut self, uid: &str) {
        self.leave(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if !waiting.pod.gates.is_empty() {
            waiting.place = Place::Gated;
            return;
        }
        let rank = (Reverse(waiting.pod.priority), waiting.added, uid.into());
        waiting.place = Place::Active(rank.clone());
        self.active.insert(rank);
    }

    fn pause_or_activate(&mut self, uid: &str, now: Timestamp) {
        self.leave(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let until = waiting.last_try.map(|tried| tried + backoff(waiting.attempts));
        match until.filter(|until| *until > now) {
            Some(until) => {
                waiting.place = Place::Backoff(until);
                self.timers.insert((until, uid.into()));
            }
            None => self.activate(uid),
        }
    }
}

/// The pause after this many attempts: 1 s, doubled up to 10 s.
fn backoff(attempts: u32) -> SignedDuration {
    let factor = 1_i32 << attempts.saturating_sub(1).min(5);
    (BACKOFF_FIRST * factor).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PodView;
    use std::sync::Arc;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn pod(uid: &str, priority: i32) -> SharedPod {
        Arc::new(PodView { uid: uid.into(), name: uid.into(), priority, ..PodView::default() })
    }

    fn wakes_on(plugin: &str) -> &'static [Wake] {
        match plugin {
            "Fit" => &[Wake::PodRemoved],
            _ => &[Wake::NodeAdded],
        }
    }

    #[test]
    fn priority_comes_first_then_age() {
        let mut queue = Queue::default();
        for (uid, priority, when) in [("a", 0, 1), ("b", 0, 0), ("c", 5, 2)] {
            queue.set(pod(uid, priority), at(when), &wakes_on);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(at(3))).map(|pod| pod.uid.to_string()).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn a_refused_pod_wakes_on_its_plugins_news_only_and_not_before_its_pause_is_over() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0), at(0), &wakes_on);
        queue.pop(at(0)).unwrap();
        queue.refused("a", vec!["Fit"], at(0), &wakes_on);
        queue.wake(Wake::NodeAdded, at(2), &wakes_on);
        assert!(queue.pop(at(2)).is_none());
        queue.wake(Wake::PodRemoved, at(2), &wakes_on);
        assert!(queue.pop(at(2)).is_some());
        queue.refused("a", vec!["Fit"], at(2), &wakes_on);
        queue.wake(Wake::PodRemoved, at(3), &wakes_on);
        assert!(queue.pop(at(3)).is_none(), "the second pause is 2 s");
        assert_eq!(queue.due(at(3)), Some(at(4)));
        assert!(queue.pop(at(4)).is_some());
    }

    #[test]
    fn news_during_a_try_are_not_lost() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0), at(0), &wakes_on);
        queue.pop(at(0)).unwrap();
        queue.wake(Wake::PodRemoved, at(0), &wakes_on);
        queue.refused("a", vec!["Fit"], at(0), &wakes_on);
        assert!(queue.pop(at(1)).is_some());
    }

    #[test]
    fn nothing_is_stranded_for_ever_and_gates_hold() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0), at(0), &wakes_on);
        queue.pop(at(0)).unwrap();
        queue.refused("a", vec!["Fit"], at(0), &wakes_on);
        assert!(queue.pop(at(301)).is_some());
        let mut gated = PodView::clone(&pod("b", 0));
        gated.gates = vec!["g".into()];
        queue.set(Arc::new(gated.clone()), at(0), &wakes_on);
        assert!(queue.pop(at(302)).is_none());
        gated.gates.clear();
        queue.set(Arc::new(gated), at(0), &wakes_on);
        assert!(queue.pop(at(302)).is_some());
    }

    #[test]
    fn a_removed_pod_is_gone_from_everywhere() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0), at(0), &wakes_on);
        queue.pop(at(0)).unwrap();
        queue.remove("a");
        queue.refused("a", vec!["Fit"], at(0), &wakes_on);
        assert!(queue.is_empty() && queue.due(at(1)).is_none());
    }
}
