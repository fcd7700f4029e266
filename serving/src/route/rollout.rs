//! Gradual rollout: the requests of a configuration move from one revision to the next in steps. Pure. Upstream:
//! `pkg/reconciler/route/traffic/rollout.go`.
//!
//! # Flow
//! A new latest revision gets one percent at once. When the gateway says that it has taken that in, the time it took is the shortest
//! step; the rest moves in equal steps over what is left of the rollout's duration, from the newest of the older revisions first.
//!
//! The state is an annotation of the route's Ingress, in upstream's form.

use super::traffic::Target;
use crate::kinds::{Ingress, annotation};
use api::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where the state is kept.
pub(super) const ANNOTATION: &str = "networking.internal.knative.dev/rollout";

/// What each configuration's requests go to, by host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rollout {
    pub(crate) configurations: Vec<Part>,
}

/// The requests that go to the latest revision of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Part {
    configuration_name: String,
    /// Empty for the route's own host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) tag: String,
    /// Of all requests of the host; the revisions' are as many together.
    percent: i64,
    /// From the oldest to the newest: more than one while it is rolled out.
    pub(crate) revisions: Vec<Portion>,
    step_params: Steps,
}

/// What one revision gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Portion {
    pub(crate) revision_name: String,
    pub(crate) percent: i64,
}

/// How it goes on; all zero while nothing is rolled out. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Steps {
    #[serde(rename = "starttime", skip_serializing_if = "is_zero")]
    start_time: i64,
    #[serde(skip_serializing_if = "is_zero")]
    next_step_time: i64,
    #[serde(skip_serializing_if = "is_zero")]
    step_duration: i64,
    #[serde(skip_serializing_if = "is_zero")]
    step_size: i64,
}

fn is_zero(own: &i64) -> bool {
    *own == 0
}

fn nanos(at: Timestamp) -> i64 {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Rollout {
    /// Where it shall end: all latest revisions get everything that is theirs.
    pub(crate) fn goal(targets: &[Target]) -> Self {
        let mut configurations: Vec<Part> = Vec::new();
        for own in targets.iter().filter(|own| own.is_latest) {
            let mut add = |tag: &str, percent: i64| {
                let is_same =
                    |part: &&mut Part| part.tag == tag && part.configuration_name == own.configuration;
                if let Some(part) = configurations.iter_mut().find(is_same) {
                    part.percent += percent;
                    part.revisions[0].percent += percent;
                    return;
                }
                configurations.push(Part {
                    configuration_name: own.configuration.clone(),
                    tag: tag.to_owned(),
                    percent,
                    revisions: vec![Portion { revision_name: own.revision.clone(), percent }],
                    step_params: Steps::default(),
                });
            };
            if own.percent > 0 {
                add("", own.percent);
            }
            if !own.tag.is_empty() {
                add(&own.tag, 100);
            }
        }
        configurations.sort_by(|a, b| (&a.tag, &a.configuration_name).cmp(&(&b.tag, &b.configuration_name)));
        Self { configurations }
    }

    /// The state that an Ingress has; `None` where there is none that makes sense.
    pub(super) fn of(ingress: &Ingress) -> Option<Self> {
        let own: Self = serde_json::from_str(annotation(&ingress.metadata, ANNOTATION)?).ok()?;
        own.configurations.iter().all(Part::is_valid).then_some(own)
    }

    /// Its form in an annotation.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether nothing is under way.
    pub(super) fn is_done(&self) -> bool {
        self.configurations.iter().all(|own| own.revisions.len() < 2)
    }

    /// The gateway has taken in what was asked of it: those that have just begun learn how they go on.
    pub(super) fn observe_ready(&mut self, now: Timestamp, duration: Duration) {
        for own in &mut self.configurations {
            if own.step_params.step_duration == 0 && own.step_params.start_time > 0 {
                own.plan_steps(nanos(now), duration);
            }
        }
    }

    /// One step from `before` towards this goal, where it is time for it, and when the next one is due.
    pub(super) fn step(self, before: Option<&Self>, now: Timestamp) -> (Self, Option<Timestamp>) {
        let Some(before) = before else { return (self, None) };
        let of = |goal: &Part| {
            let mut all = before.configurations.iter();
            all.find(|own| own.tag == goal.tag && own.configuration_name == goal.configuration_name)
        };
        let step = |goal: Part| match of(&goal) {
            // One percent cannot be shared.
            Some(own) if goal.percent > 1 => goal.after(own, nanos(now)),
            _ => goal,
        };
        let own = Self { configurations: self.configurations.into_iter().map(step).collect() };
        let times = own.configurations.iter().map(|own| own.step_params.next_step_time);
        let next = times.filter(|at| *at > 0).min();
        (own, next.and_then(|at| Timestamp::from_nanosecond(at.into()).ok()))
    }
}

impl Part {
    fn is_valid(&self) -> bool {
        let sum: i64 = self.revisions.iter().map(|own| own.percent).sum();
        (0..=100).contains(&self.percent)
            && (0..=self.percent).contains(&self.step_params.step_size)
            && self.revisions.iter().all(|own| own.percent >= 0)
            && (sum == self.percent || self.revisions.is_empty())
    }

    /// How the rest moves, where the first percent took until `now`.
    fn plan_steps(&mut self, now: i64, duration: Duration) {
        const SECOND: f64 = 1e9;
        let shortest = ((now - self.step_params.start_time) as f64 / SECOND).ceil().max(1.0);
        let left = (duration.as_secs_f64() - shortest).max(1.0);
        let rest = (self.percent - 1).max(1) as f64;
        let count = (left / shortest).max(1.0).min(rest);
        let step_duration = (left / count * SECOND) as i64;
        self.step_params.step_size = (rest / count).round() as i64;
        self.step_params.step_duration = step_duration;
        self.step_params.next_step_time = now.saturating_add(step_duration);
    }

    /// This goal, as far as it can be after `before`.
    fn after(mut self, before: &Self, now: i64) -> Self {
        let mut revisions = adjusted(before, self.percent);
        let Some(newest) = revisions.last() else { return self };
        if newest.revision_name == self.revisions[0].revision_name {
            if revisions.len() > 1 {
                self.revisions = revisions;
                self.step_params = before.step_params;
                self.advance(now);
            }
            return self;
        }
        if let Some(own) = revisions.iter_mut().rev().find(|own| own.percent > 0) {
            own.percent -= 1;
        }
        revisions.retain(|own| own.percent > 0);
        let latest = std::mem::take(&mut self.revisions[0].revision_name);
        revisions.push(Portion { revision_name: latest, percent: 1 });
        self.revisions = revisions;
        self.step_params = Steps { start_time: now, ..Steps::default() };
        self
    }

    /// Moves one step's requests to the newest revision, if it is time.
    fn advance(&mut self, now: i64) {
        let Steps { step_size, step_duration, next_step_time, .. } = self.step_params;
        if step_size == 0 || now < next_step_time {
            return;
        }
        let Some(mut newest) = self.revisions.pop() else { return };
        let mut left = step_size;
        while let Some(own) = self.revisions.last_mut() {
            if own.percent > left {
                own.percent -= left;
                break;
            }
            left -= own.percent;
            self.revisions.pop();
            if left == 0 {
                break;
            }
        }
        let others: i64 = self.revisions.iter().map(|own| own.percent).sum();
        newest.percent = self.percent - others;
        self.revisions.push(newest);
        match self.revisions.len() {
            1 => self.step_params = Steps::default(),
            _ => self.step_params.next_step_time = now.saturating_add(step_duration),
        }
    }
}

/// The revisions of before where the configuration has another percentage now: the newest gets what is more, the oldest lose what is
/// less.
fn adjusted(before: &Part, percent: i64) -> Vec<Portion> {
    let mut revisions = before.revisions.clone();
    let mut less = before.percent - percent;
    if let Some(newest) = revisions.last_mut().filter(|_| less < 0) {
        newest.percent -= less;
    }
    while less > 0 && !revisions.is_empty() {
        if revisions[0].percent > less {
            revisions[0].percent -= less;
            break;
        }
        less -= revisions[0].percent;
        revisions.remove(0);
    }
    revisions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn target(tag: &str, revision: &str, percent: i64) -> Target {
        Target {
            tag: tag.to_owned(),
            revision: revision.to_owned(),
            configuration: "web".to_owned(),
            percent,
            is_latest: true,
            is_h2c: false,
        }
    }

    fn goal(revision: &str, percent: i64) -> Rollout {
        Rollout::goal(&[target("", revision, percent)])
    }

    fn shown(own: &Rollout) -> Vec<(&str, i64)> {
        own.configurations[0].revisions.iter().map(|own| (own.revision_name.as_str(), own.percent)).collect()
    }

    #[test]
    fn a_new_revision_gets_one_percent_and_then_all_in_steps() {
        let (first, next) = goal("one", 100).step(None, at(0));
        assert_eq!((shown(&first), next), (vec![("one", 100)], None));
        let (mut own, next) = goal("two", 100).step(Some(&first), at(0));
        assert_eq!((shown(&own), next), (vec![("one", 99), ("two", 1)], None));
        assert!(own.configurations.iter().all(Part::is_valid) && !own.is_done());
        // Nothing moves until the gateway is ready, which here takes four seconds.
        own = goal("two", 100).step(Some(&own), at(2)).0;
        assert_eq!(shown(&own), [("one", 99), ("two", 1)]);
        own.observe_ready(at(4), Duration::from_secs(20));
        let (mut own, mut next) = goal("two", 100).step(Some(&own), at(4));
        assert_eq!((shown(&own), next), (vec![("one", 99), ("two", 1)], Some(at(8))));
        for (percent, after) in [(26, Some(12)), (51, Some(16)), (76, Some(20))] {
            (own, next) = goal("two", 100).step(Some(&own), next.unwrap());
            assert_eq!((shown(&own), next), (vec![("one", 100 - percent), ("two", percent)], after.map(at)));
        }
        (own, next) = goal("two", 100).step(Some(&own), next.unwrap());
        assert_eq!((shown(&own), next), (vec![("two", 100)], None));
        assert!(own.is_done());
        assert_eq!(own, goal("two", 100), "nothing is left of the rollout");
    }

    #[test]
    fn another_revision_comes_while_one_is_rolled_out() {
        let first = goal("one", 100);
        let mut own = goal("two", 100).step(Some(&first), at(0)).0;
        own.observe_ready(at(1), Duration::from_secs(100));
        own.configurations[0].revisions[0].percent = 60;
        own.configurations[0].revisions[1].percent = 40;
        let mut own = goal("three", 100).step(Some(&own), at(5)).0;
        assert_eq!(shown(&own), [("one", 60), ("two", 39), ("three", 1)]);
        // The newest of the older ones is drained first.
        own.observe_ready(at(35), Duration::from_secs(65));
        let (own, _) = goal("three", 100).step(Some(&own), at(70));
        assert_eq!(shown(&own), [("one", 14), ("three", 86)]);
    }

    #[test]
    fn a_configuration_may_get_more_or_less_meanwhile() {
        let mut own = goal("two", 60).step(Some(&goal("one", 60)), at(0)).0;
        assert_eq!(shown(&own), [("one", 59), ("two", 1)]);
        own = goal("two", 70).step(Some(&own), at(1)).0;
        assert_eq!(shown(&own), [("one", 59), ("two", 11)]);
        own = goal("two", 20).step(Some(&own), at(2)).0;
        assert_eq!(shown(&own), [("one", 9), ("two", 11)]);
        own = goal("two", 5).step(Some(&own), at(3)).0;
        assert_eq!(shown(&own), [("two", 5)]);
        assert_eq!(shown(&goal("two", 1).step(Some(&goal("one", 1)), at(0)).0), [("two", 1)]);
    }

    #[test]
    fn hosts_of_tags_are_rolled_out_by_themselves() {
        let targets = |revision: &str| [target("", revision, 50), target("next", revision, 0)];
        let first = Rollout::goal(&targets("one"));
        let tags: Vec<_> = first.configurations.iter().map(|own| (own.tag.as_str(), own.percent)).collect();
        assert_eq!(tags, [("", 50), ("next", 100)]);
        let own = Rollout::goal(&targets("two")).step(Some(&first), at(0)).0;
        assert!(own.configurations.iter().all(|own| own.revisions.len() == 2 && own.is_valid()));
    }

    #[test]
    fn a_state_is_read_as_it_was_written_and_nonsense_is_not() {
        let mut ingress = Ingress::default();
        let mut own = goal("two", 100).step(Some(&goal("one", 100)), at(0)).0;
        own.observe_ready(at(4), Duration::from_secs(20));
        let mut read = |text: &str| {
            ingress.metadata.annotations = Some([(ANNOTATION.to_owned(), text.to_owned())].into());
            Rollout::of(&ingress)
        };
        assert_eq!(read(&own.text()), Some(own.clone()));
        assert!(own.text().contains("\"starttime\":") && own.text().contains("\"revisionName\":\"two\""));
        own.configurations[0].revisions[0].percent = 7;
        assert_eq!(read(&own.text()), None);
        assert_eq!(read("{"), None);
    }
}
