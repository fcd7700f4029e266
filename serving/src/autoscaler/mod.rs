//! The autoscaler: what the data plane counts becomes a number of pods. Upstream: `pkg/autoscaler`.

pub(crate) mod decider;
pub(crate) mod settings;
mod window;

use crate::traffic::Traffic;
use api::ObjectName;
use decider::{Decider, Decision};
use parking_lot::Mutex;
use settings::{Measure, Scaling};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often what was counted is taken.
pub(crate) const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// After how many of these it is decided. Upstream: `tickInterval`, 2 s.
const DECIDE_EVERY: u64 = 2;

/// The autoscalers of all revisions.
pub(crate) struct Autoscalers {
    traffic: Arc<Traffic>,
    all: Mutex<HashMap<ObjectName, Autoscaler>>,
    /// Somebody has something to do again.
    pub(crate) busy: Notify,
    began: Instant,
}

struct Autoscaler {
    scaling: Scaling,
    decider: Decider,
    ready: i32,
    is_reachable: bool,
    decision: Option<Decision>,
    /// Whether there are, or should be, pods or requests: nothing is counted elsewhere.
    is_busy: bool,
}

impl Autoscalers {
    pub(crate) fn new(traffic: Arc<Traffic>) -> Self {
        Self { traffic, all: Mutex::default(), busy: Notify::new(), began: Instant::now() }
    }

    fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// What is known of a revision now; answers with the latest decision on it.
    pub(crate) fn observe(
        &self,
        name: &ObjectName,
        scaling: Scaling,
        (ready, replicas): (i32, i32),
        is_reachable: bool,
    ) -> Option<Decision> {
        let now = self.second();
        let mut all = self.all.lock();
        let own = all.entry(name.clone()).or_insert_with(|| Autoscaler {
            scaling: scaling.clone(),
            decider: Decider::new(ready, now),
            ready,
            is_reachable,
            decision: None,
            is_busy: false,
        });
        (own.scaling, own.ready, own.is_reachable) = (scaling, ready, is_reachable);
        let is_busy = replicas > 0 || ready > 0;
        if is_busy && !own.is_busy {
            self.busy.notify_one();
        }
        own.is_busy |= is_busy;
        own.decision
    }

    /// Forgets a revision.
    pub(crate) fn forget(&self, name: &ObjectName) {
        self.all.lock().remove(name);
    }

    /// A request waits: at least this many pods are wanted, at once. `None` for a revision that is not known.
    pub(crate) fn wake(&self, name: &ObjectName) -> Option<i32> {
        let mut all = self.all.lock();
        let own = all.get_mut(name)?;
        own.is_busy = true;
        self.busy.notify_one();
        let mut pods = own.scaling.activation.max(own.scaling.min).max(1);
        if own.scaling.max > 0 {
            pods = pods.min(own.scaling.max);
        }
        let decision = own.decision.filter(|own| own.pods >= pods);
        own.decision = decision.or(Some(Decision { pods, burst_left: -1.0, panics: false }));
        own.decision.map(|own| own.pods)
    }

    /// Takes what was counted, decides where it is time to, and names those for whom something changed. `None`: nobody is busy.
    pub(crate) fn tick(&self) -> Option<Vec<ObjectName>> {
        let (now, second) = (Instant::now(), self.second());
        let mut changed = Vec::new();
        let mut is_busy = false;
        for (name, own) in &mut *self.all.lock() {
            if !own.is_busy {
                continue;
            }
            is_busy = true;
            let traffic = self.traffic.of(name, now);
            let figures = traffic.take(now);
            let value = match own.scaling.measure {
                Measure::Concurrency => figures.concurrency,
                Measure::RequestsPerSecond => figures.requests_per_second,
            };
            own.decider.record(second, value, &own.scaling);
            if !second.is_multiple_of(DECIDE_EVERY) {
                continue;
            }
            let decision = own.decider.decide(second, own.ready, own.is_reachable, &own.scaling);
            let told = |decision: Option<Decision>| decision.map(|own| (own.pods, own.burst_left >= 0.0));
            // At zero it is asked again until the pods are gone: how long it lasts matters too.
            if told(decision) != told(own.decision) {
                changed.push(name.clone());
            }
            own.decision = decision;
            let is_over =
                decision.is_none_or(|own| own.pods == 0) && own.ready == 0 && traffic.in_flight() == 0;
            own.is_busy = !is_over;
        }
        is_busy.then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn name() -> ObjectName {
        ObjectName::new("a", "web-00001")
    }

    fn scaling() -> Scaling {
        settings::scaling(&Default::default(), 0, &BTreeMap::new(), Duration::from_secs(600))
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_do_costs_nothing() {
        let (traffic, _woken) = Traffic::new();
        let own = Autoscalers::new(traffic.clone());
        assert_eq!(own.tick(), None);
        assert_eq!(own.observe(&name(), scaling(), (0, 0), true), None);
        assert_eq!(own.tick(), None);
        assert_eq!(own.wake(&name()), Some(1));
        let request = traffic.of(&name(), Instant::now()).begin(Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        own.tick();
        assert_eq!(own.observe(&name(), scaling(), (1, 1), true).unwrap().pods, 1);
        drop(request);
        for _ in 0..70 {
            tokio::time::advance(Duration::from_secs(1)).await;
            own.tick();
        }
        assert_eq!(own.observe(&name(), scaling(), (0, 0), true).unwrap().pods, 0);
        for _ in 0..4 {
            tokio::time::advance(Duration::from_secs(1)).await;
            own.tick();
        }
        assert_eq!(own.tick(), None);
    }
}
