//! The APIServices of groups and versions that this server serves itself. Pure.
//! Upstream: `pkg/controlplane/apiserver/aggregator.go`, kube-aggregator `pkg/controllers/autoregister`.

use crate::registry::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Says who keeps an APIService: `onstart` for those that only come, `true` for those that also go.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Served by the aggregator itself, which upstream does not register with itself.
const OWN_GROUP: &str = "apiregistration.k8s.io";

/// What of groups that are not in discovery's own order. Upstream: `crdRegistrationController`.
const CUSTOM_PRIORITIES: (u32, u32) = (1000, 100);

/// The priority of a version within its group. Upstream: `DefaultGenericAPIServicePriorities` and the list beside it.
fn version_priority(group: &str, version: &str) -> u32 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        (_, version) if version.contains("alpha") => 1,
        (_, version) if version.contains("beta") => 9,
        _ => 15,
    }
}

/// The name of a group version's APIService.
pub(super) fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// What should be there, by name.
pub(super) fn wanted(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for entry in table.entries().filter(|entry| entry.resource.group != OWN_GROUP) {
        let (group, version) = (&entry.resource.group, &entry.resource.version);
        let name = name_of(group, version);
        let priority = crate::discovery::group_priority(group);
        let (managed, group_priority, version_priority) = match priority {
            Some(priority) => ("onstart", priority, version_priority(group, version)),
            None => ("true", CUSTOM_PRIORITIES.0, CUSTOM_PRIORITIES.1),
        };
        all.entry(name.clone()).or_insert_with(|| {
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {MANAGED: managed}},
                "spec": {"group": group, "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority},
            })
        });
    }
    all
}

/// Whether an APIService that is no longer wanted goes by itself.
pub(super) fn goes(service: &Value) -> bool {
    service["metadata"]["labels"][MANAGED] == "true"
}

/// The APIService as it should be, where it is kept by the server and differs.
pub(super) fn changed(service: &Value, wanted: &Value) -> Option<Value> {
    let is_managed = service["metadata"]["labels"].get(MANAGED).is_some();
    let same = ["group", "version", "groupPriorityMinimum", "versionPriority"]
        .iter()
        .all(|field| service["spec"].get(field).unwrap_or(&Value::from("")) == &wanted["spec"][*field]);
    if !is_managed || same || service["spec"]["service"].is_object() {
        return None;
    }
    let mut new = service.clone();
    new["spec"] = wanted["spec"].clone();
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_changed_only_where_it_is_kept() {
        let wanted = json!({"spec": {"group": "", "version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}});
        let own = |labels: Value, priority: i64| json!({"metadata": {"labels": labels}, "spec": {"version": "v1", "groupPriorityMinimum": priority, "versionPriority": 1}});
        assert_eq!(changed(&own(json!({MANAGED: "onstart"}), 18000), &wanted), None);
        assert!(changed(&own(json!({MANAGED: "onstart"}), 1), &wanted).is_some());
        assert_eq!(changed(&own(json!({}), 1), &wanted), None);
        assert!(goes(&own(json!({MANAGED: "true"}), 1)) && !goes(&own(json!({MANAGED: "onstart"}), 1)));
    }
}
