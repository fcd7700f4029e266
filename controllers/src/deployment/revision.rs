//! Annotations by which a deployment and its replica sets remember revisions and sizes. Pure.

use crate::pod::annotation;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that each object has for itself.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MOST,
    "deprecated.deployment.rollback.to",
];
/// Characters of the list of earlier revisions.
const HISTORY_LEN_MAX: usize = 2000;

/// The revision; 0 if there is none.
pub(crate) fn of(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The revision before the newest.
pub(crate) fn last(revisions: &[i64]) -> i64 {
    let mut sorted = revisions.to_vec();
    sorted.sort_unstable();
    sorted.iter().rev().nth(1).copied().unwrap_or(0)
}

/// The size of the deployment for which a set was sized last.
pub(crate) fn desired(meta: &ObjectMeta) -> Option<i32> {
    annotation(meta, DESIRED)?.parse().ok().filter(|number| *number >= 0)
}

/// The most pods the deployment could have then.
pub(crate) fn most(meta: &ObjectMeta) -> Option<i32> {
    annotation(meta, MOST)?.parse().ok().filter(|number| *number >= 0)
}

fn put(annotations: &mut BTreeMap<String, String>, key: &str, value: String) -> bool {
    let changed = annotations.get(key) != Some(&value);
    if changed {
        annotations.insert(key.to_owned(), value);
    }
    changed
}

/// Notes for which size of the deployment a set is sized.
pub(crate) fn note_sizes(annotations: &mut BTreeMap<String, String>, desired: i32, most: i32) -> bool {
    put(annotations, DESIRED, desired.to_string()) | put(annotations, MOST, most.to_string())
}

/// Gives a set the deployment's annotations and a revision, unless its own is newer.
pub(crate) fn annotate(
    deployment: &Deployment,
    annotations: &mut BTreeMap<String, String>,
    revision: i64,
) -> bool {
    let mut changed = false;
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            changed |= put(annotations, key, value.clone());
        }
    }
    let before = annotations.get(REVISION).cloned();
    let number = match before.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody else's text: leave it alone.
            Err(_) => return false,
        },
    };
    if number >= revision {
        return changed;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(before) = before {
        add_to_history(annotations, &before);
    }
    true
}

fn add_to_history(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(revision);
    let mut text = revisions.join(",");
    while text.len() > HISTORY_LEN_MAX && revisions.len() > 1 {
        revisions.remove(0);
        text = revisions.join(",");
    }
    annotations.insert(HISTORY.to_owned(), text);
}

/// Gives the deployment the annotations of the set it is rolled back to.
pub(crate) fn take_annotations(deployment: &mut Deployment, set: &ReplicaSet) {
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| OWN.contains(&key.as_str()));
    for (key, value) in set.metadata.annotations.iter().flatten() {
        if !OWN.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
}
