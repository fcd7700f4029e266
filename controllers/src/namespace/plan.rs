//! What is told about a namespace that is being deleted. Pure.

use api::Timestamp;
use client::time;
use k8s_openapi::api::core::v1::NamespaceCondition;
use std::collections::BTreeMap;

/// How long something with finalizers is expected to stay.
const FINALIZER_SECONDS: i64 = 15;

/// What the deletion of the content came to.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Why resources could not be discovered.
    pub(crate) discovery_error: Option<String>,
    /// What failed while deleting.
    pub(crate) errors: Vec<String>,
    /// How many objects are left of each resource (`pods.`, `deployments.apps`).
    pub(crate) remaining: BTreeMap<String, usize>,
    /// How many objects each finalizer holds.
    pub(crate) finalizers: BTreeMap<String, usize>,
    /// In how many seconds the rest is expected to be gone.
    pub(crate) estimate_seconds: i64,
}

impl Progress {
    /// Notes what is left of a resource; `grace_seconds` is how long its objects may still take to end.
    pub(crate) fn note(&mut self, resource: String, finalizers: &[Vec<String>], grace_seconds: i64) {
        let count = finalizers.len();
        if count == 0 {
            return;
        }
        for finalizer in finalizers.iter().flatten() {
            *self.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        let is_held = finalizers.iter().any(|own| !own.is_empty());
        let estimate = match (grace_seconds, is_held) {
            (1.., _) => grace_seconds,
            (_, true) => FINALIZER_SECONDS,
            _ => {
                self.errors.push(format!("unexpected items still remain in namespace for {resource}"));
                1
            }
        };
        self.estimate_seconds = self.estimate_seconds.max(estimate);
        self.remaining.insert(resource, count);
    }

    /// Whether the namespace is empty.
    pub(crate) fn is_done(&self) -> bool {
        self.discovery_error.is_none() && self.errors.is_empty() && self.remaining.is_empty()
    }
}

/// The conditions of a namespace that is being deleted; others stay as they are.
pub(crate) fn conditions(
    old: &[NamespaceCondition],
    progress: &Progress,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let list = |map: &BTreeMap<String, usize>, text: &dyn Fn(&str, usize) -> String| {
        map.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let mut errors = progress.errors.clone();
    errors.sort();
    let failed = (!errors.is_empty()).then(|| {
        format!("Failed to delete all resource types, {} remaining: {}", errors.len(), errors.join(", "))
    });
    let remaining = (!progress.remaining.is_empty()).then(|| {
        let each = list(&progress.remaining, &|name, count| format!("{name} has {count} resource instances"));
        format!("Some resources are remaining: {each}")
    });
    let finalizers = (!progress.finalizers.is_empty()).then(|| {
        let each = list(&progress.finalizers, &|name, count| format!("{name} in {count} resource instances"));
        format!("Some content in the namespace has finalizers remaining: {each}")
    });
    let table = [
        (
            "NamespaceDeletionDiscoveryFailure",
            ("DiscoveryFailed", progress.discovery_error.clone()),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            ("GroupVersionParsingFailed", None),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            ("ContentDeletionFailed", failed),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            ("SomeResourcesRemain", remaining),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            ("SomeFinalizersRemain", finalizers),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut all = old.to_vec();
    for (kind, (bad_reason, problem), (good_reason, good_message)) in table {
        let (status, reason, message) = match problem {
            Some(message) => ("True", bad_reason, message),
            None => ("False", good_reason, good_message.to_owned()),
        };
        let made = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(time(now)),
        };
        match all.iter_mut().find(|known| known.type_ == kind) {
            None => all.push(made),
            Some(known) => {
                let since = known.last_transition_time.clone().filter(|_| known.status == made.status);
                *known =
                    NamespaceCondition { last_transition_time: since.or(made.last_transition_time), ..made };
            }
        }
    }
    all
}
