//! The admission plugins that know kinds, one file each, named after upstream's plugins. Upstream: `plugin/pkg/admission`,
//! `pkg/kubeapiserver/options/plugins.go`.
//!
//! Pure: what a plugin needs to know of the cluster comes from the lookup, which shows every write that was answered
//! before; so there are no second looks at the store as upstream has them. Plugins that ask an authorizer
//! (NodeRestriction, CertificateApproval, CertificateSigning, ClusterTrustBundleAttest) live with it in the API server.

mod certificate_subject_restriction;
mod default_ingress_class;
mod default_storage_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_declared_features;
mod persistent_volume_claim_resize;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod sink_binding;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;
#[cfg(test)]
mod testing;

use api::{Admission, AdmissionRequest, Lookup, Object, Status};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cmp::Reverse;
use std::sync::Arc;

/// Every plugin that upstream has on by default and that is here, in upstream's order, after Knative's. Steps of others go between them
/// by their names: see [`api::admission::place`].
pub fn chain() -> Vec<Arc<dyn Admission>> {
    vec![
        Arc::new(sink_binding::SinkBinding),
        Arc::new(namespace_lifecycle::NamespaceLifecycle),
        Arc::new(limit_ranger::LimitRanger),
        Arc::new(service_account::ServiceAccount),
        Arc::new(taint_nodes_by_condition::TaintNodesByCondition),
        Arc::new(pod_security::PodSecurity),
        Arc::new(priority::Priority),
        Arc::new(default_toleration_seconds::DefaultTolerationSeconds),
        Arc::new(default_storage_class::DefaultStorageClass),
        Arc::new(storage_object_in_use_protection::StorageObjectInUseProtection),
        Arc::new(persistent_volume_claim_resize::PersistentVolumeClaimResize),
        Arc::new(runtime_class::RuntimeClass),
        Arc::new(certificate_subject_restriction::CertificateSubjectRestriction),
        Arc::new(default_ingress_class::DefaultIngressClass),
        Arc::new(pod_topology_labels::PodTopologyLabels),
        Arc::new(node_declared_features::NodeDeclaredFeatureValidator),
        Arc::new(pod_resize::PodResizeValidator),
        Arc::new(resource_quota::ResourceQuota::default()),
    ]
}

/// Whether it is about a pod itself.
fn is_pod(request: &AdmissionRequest<'_>) -> bool {
    request.is("", "pods")
}

/// The object as its type.
fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, Status> {
    T::deserialize(object).map_err(|error| Status::bad_request(error.to_string()))
}

/// An object of the cluster as its type.
fn decode_kept<T: DeserializeOwned>(object: &Object) -> Result<T, Status> {
    object.decode().map_err(Status::internal)
}

/// The list in a field of an object, made where there is none. `None` if the parent is no object.
fn list_mut<'a>(parent: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    let list = parent.as_object_mut()?.entry(field).or_insert(Value::Null);
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut()
}

/// The map in a field of an object, made where there is none. `None` if the parent is no object.
fn map_mut<'a>(parent: &'a mut Value, field: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    let map = parent.as_object_mut()?.entry(field).or_insert(Value::Null);
    if !map.is_object() {
        *map = Value::Object(serde_json::Map::new());
    }
    map.as_object_mut()
}

/// The texts as one error. Upstream: `utilerrors.NewAggregate`.
fn aggregate(errors: &[String]) -> Option<String> {
    let mut distinct: Vec<&str> = Vec::new();
    for error in errors {
        if !distinct.contains(&error.as_str()) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [] => None,
        [one] => Some((*one).to_owned()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

/// The newest object that one of these annotations marks as the default; by name among those of the same second.
fn default_class(lookup: &dyn Lookup, group: &str, plural: &str, annotations: &[&str]) -> Option<String> {
    let classes = lookup.list(group, plural, "");
    let mut marked = classes.iter().filter_map(|class| {
        let object: Value = class.decode().ok()?;
        let marks = |own: &&str| object["metadata"]["annotations"][own] == "true";
        let created = object["metadata"]["creationTimestamp"].as_str()?.parse::<api::Timestamp>().ok()?;
        annotations.iter().any(marks).then(|| (Reverse(created), class.meta.name().to_owned()))
    });
    let first = marked.next()?;
    Some(marked.fold(first, std::cmp::min).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    #[test]
    fn the_order_is_upstreams() {
        let names: Vec<_> = chain().iter().map(|plugin| plugin.name()).collect();
        assert_eq!(
            names,
            [
                "SinkBinding",
                "NamespaceLifecycle",
                "LimitRanger",
                "ServiceAccount",
                "TaintNodesByCondition",
                "PodSecurity",
                "Priority",
                "DefaultTolerationSeconds",
                "DefaultStorageClass",
                "StorageObjectInUseProtection",
                "PersistentVolumeClaimResize",
                "RuntimeClass",
                "CertificateSubjectRestriction",
                "DefaultIngressClass",
                "PodTopologyLabels",
                "NodeDeclaredFeatureValidator",
                "PodResizeValidator",
                "ResourceQuota",
            ]
        );
        let places: Vec<_> = names.iter().skip(1).map(|name| api::admission::place(name)).collect();
        assert!(places.is_sorted() && !places.contains(&0), "{places:?}");
    }

    #[test]
    fn the_newest_default_class_wins() {
        let class = |name: &str, created: &str, mark: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {"default": mark}}});
        let lookup = Objects::default()
            .with("g", "classes", class("a", "2026-01-01T00:00:00Z", "true"))
            .with("g", "classes", class("c", "2026-01-02T00:00:00Z", "true"))
            .with("g", "classes", class("b", "2026-01-02T00:00:00Z", "true"))
            .with("g", "classes", class("d", "2026-01-03T00:00:00Z", "false"));
        assert_eq!(default_class(&lookup, "g", "classes", &["default"]).as_deref(), Some("b"));
        assert_eq!(default_class(&lookup, "g", "classes", &["other"]), None);
    }
}
