//! A `Lookup` that is given out before the server it looks into is built: its authorizers need one to be built with.

use api::{Lookup, Object};
use std::sync::{Arc, OnceLock};

/// Empty until [`Late::set`]. Invariant: it is set before the first request is served.
#[derive(Default)]
pub struct Late(OnceLock<Arc<dyn Lookup>>);

impl Late {
    /// Says where to look. Only the first call counts.
    pub fn set(&self, lookup: Arc<dyn Lookup>) {
        let _ = self.0.set(lookup);
    }
}

impl Lookup for Late {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.0.get()?.get(group, plural, namespace, name)
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        self.0.get().map(|lookup| lookup.list(group, plural, namespace)).unwrap_or_default()
    }

    fn changes(&self, group: &str, plural: &str) -> u64 {
        self.0.get().map_or(0, |lookup| lookup.changes(group, plural))
    }
}
