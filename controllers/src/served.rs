//! Which resources there are to delete or to collect.

use client::{Discovered, Served};
use std::collections::BTreeMap;

/// Each resource once, in the version that the server prefers among those that serve `verbs`.
pub(crate) fn once_each(served: &Served, verbs: &[&str]) -> Vec<Discovered> {
    let mut found: BTreeMap<(String, String), Discovered> = BTreeMap::new();
    for row in served.resources.iter().filter(|row| row.can(verbs)) {
        let key = (row.resource.group.to_string(), row.resource.plural.to_string());
        match found.get_mut(&key) {
            Some(known) if known.preferred || !row.preferred => {}
            Some(known) => *known = row.clone(),
            None => _ = found.insert(key, row.clone()),
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::ResourceRef;

    #[test]
    fn the_preferred_version_that_can_do_it_is_taken() {
        let row = |version, plural, preferred, verbs: &[&str]| Discovered {
            resource: ResourceRef::new("g", version, plural, "K"),
            namespaced: true,
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
            preferred,
        };
        let resources = vec![
            row("v1beta1", "a", false, &["list", "delete"]),
            row("v1", "a", true, &["list", "delete"]),
            row("v1beta1", "b", false, &["list", "delete"]),
            row("v1", "b", true, &["list"]),
            row("v1", "c", true, &["create"]),
        ];
        let found = once_each(&Served { resources, failed: Vec::new() }, &["list", "delete"]);
        let names: Vec<_> =
            found.iter().map(|row| format!("{} {}", row.resource.plural, row.resource.version)).collect();
        assert_eq!(names, ["a v1", "b v1beta1"]);
    }
}
