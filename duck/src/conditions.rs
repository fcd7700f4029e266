//! Conditions of a status, and the one above them that says whether all is well. Upstream: knative.dev/pkg
//! `apis/condition_set.go`.

use api::Timestamp;
use api::time_text::format_seconds;
use serde_json::{Value, json};

/// The conditions of an object that lives (its `Ready` may change again), while they are being set.
pub struct Conditions<'s> {
    status: &'s mut Value,
    /// Those that `Ready` depends on.
    dependents: &'static [&'static str],
    now: Timestamp,
}

/// The condition of a type.
pub fn find<'v>(status: &'v Value, kind: &str) -> Option<&'v Value> {
    status["conditions"].as_array()?.iter().find(|own| own["type"] == kind)
}

/// `True`, `False` or `Unknown`; empty where there is no such condition.
pub fn state<'v>(status: &'v Value, kind: &str) -> &'v str {
    find(status, kind).and_then(|own| own["status"].as_str()).unwrap_or_default()
}

/// Gives conditions that say what they said before the times they had: one that was set twice on the way to a status has not changed.
/// Upstream: `apis.VolatileTime` is not compared.
pub(crate) fn keep_times(before: &Value, after: &mut Value) {
    for own in after["conditions"].as_array_mut().into_iter().flatten() {
        let Some(old) = own["type"].as_str().and_then(|kind| find(before, kind)) else { continue };
        let time = std::mem::replace(&mut own["lastTransitionTime"], old["lastTransitionTime"].clone());
        if own != old {
            own["lastTransitionTime"] = time;
        }
    }
}

/// Status, reason and message of a condition.
pub fn parts<'v>(status: &'v Value, kind: &str) -> Option<(&'v str, &'v str, &'v str)> {
    let own = find(status, kind)?;
    let text = |field: &str| own.get(field).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

impl<'s> Conditions<'s> {
    /// The conditions of a status; those that are missing become unknown.
    pub fn of(status: &'s mut Value, dependents: &'static [&'static str], now: Timestamp) -> Self {
        if !status.is_object() {
            *status = json!({});
        }
        let mut own = Self { status, dependents, now };
        for kind in dependents.iter().chain(&["Ready"]) {
            if find(own.status, kind).is_none() {
                own.set(kind, "Unknown", "", "");
            }
        }
        own
    }

    /// The status they are in.
    pub fn status(&mut self) -> &mut Value {
        self.status
    }

    /// Sets a condition and what follows for `Ready`.
    pub fn mark(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        self.set(kind, status, reason, message);
        let worst = |wanted: &str| {
            let mut found: Vec<&Value> =
                self.dependents.iter().filter_map(|kind| find(self.status, kind)).collect();
            found.retain(|own| own["status"] == wanted);
            found
                .into_iter()
                .max_by_key(|own| own["lastTransitionTime"].as_str().unwrap_or_default().to_owned())
        };
        let unhappy = worst("False").or_else(|| worst("Unknown")).cloned();
        let text = |own: &Value, field: &str| own[field].as_str().unwrap_or_default().to_owned();
        match unhappy {
            Some(own) => {
                self.set("Ready", &text(&own, "status"), &text(&own, "reason"), &text(&own, "message"));
            }
            None if kind == "Ready" => {}
            None if self.dependents.contains(&kind) => self.set("Ready", "True", "", ""),
            None => {}
        }
    }

    /// Copies a condition of another object, if it has it.
    pub fn copy(&mut self, kind: &str, from: &Value, other: &str) {
        if let Some((status, reason, message)) = parts(from, other) {
            self.mark(
                kind,
                status,
                if status == "True" { "" } else { reason },
                if status == "True" { "" } else { message },
            );
        }
    }

    /// Sets one condition; its time changes with anything of it. They are kept in the order of their types.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let mut new = json!({"type": kind, "status": status});
        for (field, value) in [("reason", reason), ("message", message)] {
            if !value.is_empty() {
                new[field] = value.into();
            }
        }
        if kind != "Ready" && !self.dependents.contains(&kind) {
            new["severity"] = "Info".into();
        }
        let conditions = &mut self.status["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        let Some(list) = conditions.as_array_mut() else { return };
        let at = list.iter().position(|own| own["type"] == kind);
        if let Some(old) = at.map(|at| &list[at]) {
            new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            if *old == new {
                return;
            }
        }
        new["lastTransitionTime"] = format_seconds(self.now).into();
        match at {
            Some(at) => list[at] = new,
            None => list.push(new),
        }
        list.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_follows_the_conditions_it_depends_on() {
        let mut status = Value::Null;
        let now = Timestamp::UNIX_EPOCH;
        let check = |status: &Value, expect: (&str, &str)| {
            let (state, reason, _) = parts(status, "Ready").unwrap();
            assert_eq!((state, reason), expect, "{status}");
        };
        Conditions::of(&mut status, &["A", "B"], now);
        check(&status, ("Unknown", ""));
        Conditions::of(&mut status, &["A", "B"], now).mark("A", "True", "", "");
        check(&status, ("Unknown", ""));
        Conditions::of(&mut status, &["A", "B"], now).mark("Info", "False", "NoTraffic", "x");
        check(&status, ("Unknown", ""));
        assert_eq!(find(&status, "Info").unwrap()["severity"], "Info");
        Conditions::of(&mut status, &["A", "B"], now).mark("B", "True", "", "");
        check(&status, ("True", ""));
        Conditions::of(&mut status, &["A", "B"], now).mark("A", "False", "Broken", "x");
        Conditions::of(&mut status, &["A", "B"], now).mark("B", "Unknown", "Waiting", "y");
        check(&status, ("False", "Broken"));
        Conditions::of(&mut status, &["A", "B"], now).mark("A", "True", "", "");
        check(&status, ("Unknown", "Waiting"));
    }

    #[test]
    fn a_condition_that_changes_and_changes_back_keeps_its_time() {
        let mut before = Value::Null;
        Conditions::of(&mut before, &["A"], Timestamp::UNIX_EPOCH).mark("A", "Unknown", "Waiting", "");
        let mut after = before.clone();
        let later = Timestamp::from_second(60).unwrap();
        let mut conditions = Conditions::of(&mut after, &["A"], later);
        conditions.mark("A", "True", "", "");
        conditions.mark("A", "Unknown", "Waiting", "");
        assert_ne!(after, before);
        keep_times(&before, &mut after);
        assert_eq!(after, before);
        Conditions::of(&mut after, &["A"], later).mark("A", "True", "", "");
        keep_times(&before, &mut after);
        assert_eq!(find(&after, "A").unwrap()["lastTransitionTime"], "1970-01-01T00:01:00Z");
    }

    #[test]
    fn a_condition_that_does_not_change_keeps_its_time() {
        let mut status = Value::Null;
        Conditions::of(&mut status, &["A"], Timestamp::UNIX_EPOCH).mark("A", "True", "", "");
        let before = status.clone();
        let later = Timestamp::from_second(60).unwrap();
        Conditions::of(&mut status, &["A"], later).mark("A", "True", "", "");
        assert_eq!(status, before);
    }
}
