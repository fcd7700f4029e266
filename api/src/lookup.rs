//! How rules see other objects.

use crate::object::Object;
use std::sync::Arc;

/// Read access to the current objects of the cluster for rules and admission, which are pure otherwise.
///
/// It answers from memory (the watch cache) and never blocks. What it shows may be a moment old: a rule whose
/// correctness depends on a fresh value must claim it by a write of its own.
pub trait Lookup: Send + Sync {
    /// One object, or `None` if it does not exist. `namespace` is empty for cluster-scoped resources.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects of a namespace, or of the whole cluster where `namespace` is empty, ordered by key.
    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>>;
    /// A number that is another one after any change of any object of this resource: what somebody derived from
    /// `list` (an index, a matcher) is fresh as long as it stays the same. A cache answers with a counter in
    /// constant time; this default folds the whole list.
    fn changes(&self, group: &str, plural: &str) -> u64 {
        self.list(group, plural, "").iter().fold(0, |sum: u64, object| {
            sum.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(object.meta.resource_version).wrapping_add(1)
        })
    }
}
