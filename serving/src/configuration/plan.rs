//! The revision that a configuration wants, and what its status says. Pure.
//! Upstream: `pkg/reconciler/configuration`, `pkg/apis/serving/v1/configuration_lifecycle.go`.

use crate::conditions::{Conditions, find, parts};
use crate::keys;
use crate::kinds::{
    Configuration, Revision, annotation, controller_reference, is_controlled_by, label, name_of, text,
};
use crate::names::child;
use api::Timestamp;
use api::time_text::format_seconds;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// What the revision of the present generation is.
#[derive(Debug, PartialEq)]
pub(super) enum Latest<'r> {
    /// It has to be made.
    Missing,
    /// It is there.
    There(&'r Revision),
    /// Its name belongs to somebody else, or to another template.
    Taken,
}

/// Finds the revision of the present generation.
pub(super) fn latest<'r>(configuration: &Configuration, revisions: &'r [Revision]) -> Latest<'r> {
    let generation = configuration.metadata.generation.unwrap_or(0).to_string();
    let has_generation = |own: &Revision| label(&own.metadata, keys::CONFIGURATION_GENERATION) == generation;
    let name = text(&configuration.spec, "/template/metadata/name");
    if name.is_empty() {
        let is_own = |own: &&Revision| {
            label(&own.metadata, keys::CONFIGURATION) == name_of(&configuration.metadata)
                && has_generation(own)
        };
        return revisions.iter().find(is_own).map_or(Latest::Missing, Latest::There);
    }
    match revisions.iter().find(|own| name_of(&own.metadata) == name) {
        None => Latest::Missing,
        Some(own) if !is_controlled_by(&own.metadata, &configuration.metadata) => Latest::Taken,
        Some(own) if has_generation(own) || own.spec == configuration.spec["template"]["spec"] => {
            Latest::There(own)
        }
        Some(_) => Latest::Taken,
    }
}

/// The revision of the present generation.
pub(super) fn revision(configuration: &Configuration, now: Timestamp) -> Revision {
    let template = &configuration.spec["template"];
    let mut meta: ObjectMeta = serde_json::from_value(template["metadata"].clone()).unwrap_or_default();
    let own = &configuration.metadata;
    let generation = own.generation.unwrap_or(0);
    meta.namespace.clone_from(&own.namespace);
    meta.name = meta.name.or_else(|| Some(child(name_of(own), &format!("-{generation:05}"))));
    meta.creation_timestamp = None;
    let labels = meta.labels.get_or_insert_default();
    let generation = generation.to_string();
    for (key, value) in [
        (keys::CONFIGURATION, name_of(own)),
        (keys::SERVICE, label(own, keys::SERVICE)),
        (keys::CONFIGURATION_GENERATION, &generation),
        (keys::CONFIGURATION_UID, own.uid.as_deref().unwrap_or_default()),
        (keys::SERVICE_UID, label(own, keys::SERVICE_UID)),
    ] {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    let routes = annotation(own, keys::ROUTES);
    let state = if routes.is_some() { "active" } else { "pending" };
    labels.insert(keys::ROUTING_STATE.to_owned(), state.to_owned());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(keys::ROUTING_STATE_MODIFIED.to_owned(), format_seconds(now));
    if let Some(creator) = annotation(own, keys::MODIFIER) {
        annotations.insert(keys::CREATOR.to_owned(), creator.to_owned());
    }
    if let Some(routes) = routes {
        annotations.insert(keys::ROUTES.to_owned(), routes.to_owned());
    }
    meta.owner_references = Some(vec![controller_reference(configuration)]);
    Revision::new(meta, template["spec"].clone())
}

fn generation_of(revision: &Revision) -> Option<i64> {
    label(&revision.metadata, keys::CONFIGURATION_GENERATION).parse().ok()
}

/// Whether a revision serves requests.
fn is_ready(revision: &Revision) -> bool {
    revision.metadata.generation == revision.status["observedGeneration"].as_i64()
        && parts(&revision.status, "Ready").is_some_and(|own| own.0 == "True")
}

/// The newest revision that is ready, not older than the one that was ready before.
fn latest_ready<'r>(status: &Value, created: &Revision, revisions: &'r [Revision]) -> Option<&'r Revision> {
    let before = text(status, "/latestReadyRevisionName");
    let start = revisions.iter().find(|own| name_of(&own.metadata) == before).and_then(generation_of);
    let is_created = |own: &Revision| own.metadata.name == created.metadata.name;
    let may = |own: &&Revision| is_created(own) || start.is_none() || generation_of(own) >= start;
    let ready = revisions.iter().filter(may).filter(|own| is_ready(own));
    ready.max_by_key(|own| (is_created(own), generation_of(own)))
}

/// Something to tell people.
pub(super) struct Note {
    pub(super) is_warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// What the status says of the latest revision and of those that are ready.
pub(super) fn observe(
    conditions: &mut Conditions<'_>,
    created: &Revision,
    revisions: &[Revision],
) -> Vec<Note> {
    let mut notes = Vec::new();
    let name = name_of(&created.metadata);
    let before = text(conditions.status(), "/latestReadyRevisionName").to_owned();
    conditions.status()["latestCreatedRevisionName"] = name.into();
    let old = find(conditions.status(), "Ready").cloned();
    let failed = parts(&created.status, "Ready").filter(|own| own.0 == "False");
    match failed {
        Some((_, _, message)) => {
            let message = format!("Revision {name:?} failed with message: {message}.");
            conditions.mark("Ready", "False", "RevisionFailed", &message);
            if find(conditions.status(), "Ready") != old.as_ref() {
                let (reason, what) = if name == before {
                    ("LatestReadyFailed", "ready")
                } else {
                    ("LatestCreatedFailed", "created")
                };
                let message = format!("Latest {what} revision {name:?} has failed");
                notes.push(Note { is_warning: true, reason, message });
            }
        }
        None if before != name => conditions.mark("Ready", "Unknown", "", ""),
        None => {}
    }
    let Some(ready) = latest_ready(conditions.status(), created, revisions) else { return notes };
    let ready = name_of(&ready.metadata);
    if before.is_empty() && ready == name {
        let message = "Configuration becomes ready".to_owned();
        notes.push(Note { is_warning: false, reason: "ConfigurationReady", message });
    }
    if before != ready {
        let message = format!("LatestReadyRevisionName updated to {ready:?}");
        notes.push(Note { is_warning: false, reason: "LatestReadyUpdate", message });
    }
    conditions.status()["latestReadyRevisionName"] = ready.into();
    if ready == name {
        conditions.mark("Ready", "True", "", "");
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn configuration(generation: i64) -> Configuration {
        let metadata = json!({"name": "web", "namespace": "a", "uid": "u", "generation": generation,
            "labels": {keys::SERVICE: "web"}, "annotations": {keys::ROUTES: "web", keys::MODIFIER: "me"}});
        let spec = json!({"template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": []}}});
        Configuration::new(serde_json::from_value(metadata).unwrap(), spec)
    }

    fn made(generation: i64, ready: &str) -> Revision {
        let mut own = revision(&configuration(generation), Timestamp::UNIX_EPOCH);
        own.metadata.generation = Some(1);
        own.status = json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready, "message": "no"}]});
        own
    }

    #[test]
    fn a_revision_is_named_after_the_generation() {
        let own = made(3, "True");
        assert_eq!(name_of(&own.metadata), "web-00003");
        let labels = own.metadata.labels.clone().unwrap();
        assert_eq!((labels["x"].as_str(), labels[keys::ROUTING_STATE].as_str()), ("y", "active"));
        assert_eq!(annotation(&own.metadata, keys::CREATOR), Some("me"));
        assert_eq!(latest(&configuration(3), std::slice::from_ref(&own)), Latest::There(&own));
        assert_eq!(latest(&configuration(4), &[own]), Latest::Missing);
    }

    #[test]
    fn the_status_follows_the_revisions() {
        let check = |before: &str, states: &[&str], expect: (&str, &str, &[&str])| {
            let revisions: Vec<_> =
                states.iter().zip(1..).map(|(ready, number)| made(number, ready)).collect();
            let mut status = json!({});
            if !before.is_empty() {
                status["latestReadyRevisionName"] = before.into();
            }
            let mut conditions = Conditions::of(&mut status, &[], Timestamp::UNIX_EPOCH);
            let notes = observe(&mut conditions, revisions.last().unwrap(), &revisions);
            let notes: Vec<_> = notes.iter().map(|own| own.reason).collect();
            let ready = parts(&status, "Ready").unwrap().0;
            assert_eq!(
                (ready, text(&status, "/latestReadyRevisionName"), notes.as_slice()),
                expect,
                "{states:?}"
            );
        };
        check("", &["Unknown"], ("Unknown", "", &[]));
        check("", &["True"], ("True", "web-00001", &["ConfigurationReady", "LatestReadyUpdate"]));
        check("web-00001", &["True", "Unknown"], ("Unknown", "web-00001", &[]));
        check("web-00001", &["True", "True"], ("True", "web-00002", &["LatestReadyUpdate"]));
        check("web-00001", &["True", "False"], ("False", "web-00001", &["LatestCreatedFailed"]));
        check(
            "web-00001",
            &["True", "True", "False"],
            ("False", "web-00002", &["LatestCreatedFailed", "LatestReadyUpdate"]),
        );
    }
}
