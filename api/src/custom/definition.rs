//! Reading a CustomResourceDefinition, and what its status should say. Pure.
//! Upstream: apiextensions-apiserver `pkg/controller/{status,establish}`, `pkg/apihelpers`.

use crate::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A definition as it is kept.
#[derive(Clone, Debug)]
pub struct Definition(pub Value);

impl Definition {
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its name, `PLURAL.GROUP`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// The group it defines a kind of.
    pub fn group(&self) -> &str {
        self.text("/spec/group")
    }

    /// What the URL says.
    pub fn plural(&self) -> &str {
        self.text("/spec/names/plural")
    }

    /// Counts the changes of its spec.
    pub fn generation(&self) -> i64 {
        self.0["metadata"]["generation"].as_i64().unwrap_or(0)
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.text("/spec/scope") == "Namespaced"
    }

    /// Whether it is to be deleted.
    pub fn is_terminating(&self) -> bool {
        !self.0["metadata"]["deletionTimestamp"].is_null() || self.is("Terminating")
    }

    /// Whether it waits for its objects to be removed.
    pub fn wants_clean_up(&self) -> bool {
        let finalizers = self.0["metadata"]["finalizers"].as_array();
        !self.0["metadata"]["deletionTimestamp"].is_null()
            && finalizers.is_some_and(|list| list.iter().any(|own| own == FINALIZER))
    }

    /// Its versions.
    pub fn versions(&self) -> impl Iterator<Item = &Value> {
        self.0["spec"]["versions"].as_array().into_iter().flatten()
    }

    /// The version in which objects are kept.
    pub fn storage_version(&self) -> &str {
        self.versions()
            .find(|own| own["storage"] == true)
            .and_then(|own| own["name"].as_str())
            .unwrap_or_default()
    }

    fn condition(&self, kind: &str) -> Option<&Value> {
        self.0["status"]["conditions"].as_array()?.iter().find(|own| own["type"] == kind)
    }

    /// Whether a condition is true.
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|own| own["status"] == "True")
    }

    /// Whether its objects are served.
    pub fn is_served(&self) -> bool {
        self.is("NamesAccepted") || self.is("Established")
    }

    /// Sets a condition; its time only changes with its status.
    pub fn set_condition(&mut self, condition: &Condition<'_>, now: Timestamp) {
        let since = Value::from(crate::time_text::format_seconds(now));
        let mut new = json!({
            "type": condition.kind, "status": condition.status, "lastTransitionTime": since,
            "reason": condition.reason, "message": condition.message,
        });
        let conditions = &mut self.0["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        let Some(list) = conditions.as_array_mut() else { return };
        match list.iter_mut().find(|own| own["type"] == condition.kind) {
            Some(own) => {
                if own["status"] == new["status"] {
                    new["lastTransitionTime"] = own["lastTransitionTime"].clone();
                }
                *own = new;
            }
            None => list.push(new),
        }
    }
}

/// A condition to set.
pub struct Condition<'a> {
    /// Its type.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// For machines.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The names that the other definitions of a group hold: of resources, and of kinds.
fn taken<'a>(own: &Definition, all: &'a [Definition]) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in all.iter().filter(|other| other.group() == own.group()) {
        let names = &other.0["status"]["acceptedNames"];
        let text = |field: &str| names[field].as_str().filter(|text| !text.is_empty());
        resources.extend(text("plural"));
        resources.extend(text("singular"));
        resources.extend(strings(&names["shortNames"]));
        kinds.extend(text("kind"));
        kinds.extend(text("listKind"));
    }
    (resources, kinds)
}

/// The definition with the names it may have and the conditions that follow; `None` where nothing changes. `ready` says
/// why it cannot be established although its names are free.
pub fn with_names(
    own: &Definition,
    all: &[Definition],
    unready: Option<(&str, &str)>,
    now: Timestamp,
) -> Option<Definition> {
    let (wanted, accepted) = (&own.0["spec"]["names"], &own.0["status"]["acceptedNames"]);
    let must_establish = !own.is("Established") && unready.is_none();
    if wanted == accepted && own.is("NamesAccepted") && !must_establish {
        return None;
    }
    let (resources, kinds) = taken(own, all);
    let mut names = accepted.clone();
    // Of several conflicts the last one is told, in upstream's order.
    let mut conflict: Option<(&str, String)> = None;
    let mut claim = |field: &str, used: &BTreeSet<&str>, reason| {
        let want = wanted[field].as_str().unwrap_or_default();
        let has = accepted[field].as_str().unwrap_or_default();
        if want != has && used.contains(want) {
            return Some((reason, format!("\"{want}\" is already in use")));
        }
        if !want.is_empty() {
            names[field] = want.into();
        }
        None
    };
    for (field, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        conflict = claim(field, &resources, reason).or(conflict);
    }
    let busy = busy_short_names(wanted, accepted, &resources);
    if let Some(message) = &busy {
        conflict = Some(("ShortNamesConflict", message.clone()));
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        conflict = claim(field, &kinds, reason).or(conflict);
    }
    if busy.is_none() {
        copy(&mut names, wanted, "shortNames");
    }
    copy(&mut names, wanted, "categories");
    let mut new = own.clone();
    new.0["status"]["acceptedNames"] = names;
    let mut set = |kind, status, reason, message: &str| {
        new.set_condition(&Condition { kind, status, reason, message }, now);
    };
    match (conflict, unready) {
        (Some((reason, message)), _) => {
            set("NamesAccepted", "False", reason, &message);
            if !own.is("Established") {
                set("Established", "False", "NotAccepted", "not all names are accepted");
            }
        }
        (None, unready) => {
            set("NamesAccepted", "True", "NoConflicts", "no conflicts found");
            match unready {
                _ if own.is("Established") => {}
                None => {
                    set("Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
                }
                Some((reason, message)) => set("Established", "False", reason, message),
            }
        }
    }
    (new.0 != own.0).then_some(new)
}

/// What is said of short names that others have.
fn busy_short_names(wanted: &Value, accepted: &Value, used: &BTreeSet<&str>) -> Option<String> {
    let held = strings(&accepted["shortNames"]);
    let busy: Vec<String> = strings(&wanted["shortNames"])
        .into_iter()
        .filter(|name| !held.contains(name) && used.contains(name))
        .map(|name| format!("\"{name}\" is already in use"))
        .collect();
    match busy.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    }
}

fn copy(names: &mut Value, wanted: &Value, field: &str) {
    let value = wanted.get(field).filter(|own| own.as_array().is_some_and(|list| !list.is_empty()));
    match (value, names.as_object_mut()) {
        (Some(value), _) => names[field] = value.clone(),
        (None, Some(map)) => {
            map.remove(field);
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Definition {
        Definition(json!({
            "metadata": {"name": format!("{plural}.zoo.example"), "uid": plural},
            "spec": {"group": "zoo.example", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": short,
            }},
        }))
    }

    #[test]
    fn names_are_accepted_once() {
        let now = Timestamp::UNIX_EPOCH;
        let cats = definition("cats", "Cat", &["c"]);
        let done = with_names(&cats, std::slice::from_ref(&cats), None, now).unwrap();
        assert!(done.is("Established") && done.is_served());
        assert_eq!(done.0["status"]["acceptedNames"], done.0["spec"]["names"]);
        assert!(with_names(&done, std::slice::from_ref(&done), None, now).is_none());

        for (other, reason) in [
            (definition("cows", "Cow", &["c"]), "ShortNamesConflict"),
            (definition("cows", "Cat", &[]), "ListKindConflict"),
        ] {
            let all = [done.clone(), other.clone()];
            let refused = with_names(&other, &all, None, now).unwrap();
            assert_eq!(refused.condition("NamesAccepted").unwrap()["reason"], reason);
            assert_eq!(refused.condition("Established").unwrap()["reason"], "NotAccepted");
            assert!(!refused.is_served());
            // Once the name is free again, it gets it.
            assert!(
                with_names(&refused, std::slice::from_ref(&refused), None, now).unwrap().is("Established")
            );
        }
    }

    #[test]
    fn a_condition_keeps_its_time() {
        let mut own = definition("cats", "Cat", &[]);
        let condition = |reason| Condition { kind: "Terminating", status: "True", reason, message: "" };
        own.set_condition(&condition("A"), Timestamp::UNIX_EPOCH);
        own.set_condition(&condition("B"), Timestamp::from_second(60).unwrap());
        let found = own.condition("Terminating").unwrap();
        assert_eq!(
            (found["reason"].as_str(), found["lastTransitionTime"].as_str()),
            (Some("B"), Some("1970-01-01T00:00:00Z"))
        );
    }
}
