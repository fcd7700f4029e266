//! What a service wants of its configuration and route, and what its status says of them. Pure.
//! Upstream: `pkg/reconciler/service/resources`, `pkg/apis/serving/v1/service_lifecycle.go`.

use crate::conditions::{Conditions, state};
use crate::keys;
use crate::kinds::{Configuration, Route, Service, controller_reference, name_of, text};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The conditions of a service.
pub(super) const CONDITIONS: &[&str] = &["ConfigurationsReady", "RoutesReady"];

fn metadata(service: &Service, labels: &[(&str, &str)], annotations: BTreeMap<String, String>) -> ObjectMeta {
    let mut all = service.metadata.labels.clone().unwrap_or_default();
    all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        labels: Some(all),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    }
}

/// The configuration of a service. The routes that `existing` is known to serve stay known.
pub(super) fn configuration(service: &Service, existing: Option<&Configuration>) -> Configuration {
    let mut annotations = service.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != keys::LAST_APPLIED && !keys::ROLLOUT_DURATION.contains(&key.as_str()));
    let known = existing.and_then(|own| own.metadata.annotations.as_ref()?.get(keys::ROUTES));
    let mut routes: BTreeSet<&str> = known.map(|own| own.split(',').collect()).unwrap_or_default();
    routes.retain(|own| !own.is_empty());
    routes.insert(name_of(&service.metadata));
    annotations.insert(keys::ROUTES.to_owned(), routes.into_iter().collect::<Vec<_>>().join(","));
    let uid = service.metadata.uid.as_deref().unwrap_or_default();
    let labels = [(keys::SERVICE, name_of(&service.metadata)), (keys::SERVICE_UID, uid)];
    Configuration::new(metadata(service, &labels, annotations), json!({"template": service.spec["template"]}))
}

/// The route of a service.
pub(super) fn route(service: &Service) -> Route {
    let mut annotations = service.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(keys::LAST_APPLIED);
    let name = name_of(&service.metadata);
    let mut traffic = service.spec["traffic"].clone();
    for target in traffic.as_array_mut().into_iter().flatten() {
        if text(target, "/revisionName").is_empty() {
            target["configurationName"] = name.into();
        }
    }
    Route::new(metadata(service, &[(keys::SERVICE, name)], annotations), json!({"traffic": traffic}))
}

/// Whether an object already is as it is wanted.
pub(super) fn is_same(spec: (&Value, &Value), meta: (&ObjectMeta, &ObjectMeta)) -> bool {
    let texts = |own: &Option<BTreeMap<String, String>>| own.clone().unwrap_or_default();
    spec.0 == spec.1
        && texts(&meta.0.labels) == texts(&meta.1.labels)
        && texts(&meta.0.annotations) == texts(&meta.1.annotations)
}

fn is_observed(meta: &ObjectMeta, status: &Value) -> bool {
    meta.generation == status["observedGeneration"].as_i64()
}

/// Takes over what the configuration says. Whether the route may be looked at.
pub(super) fn take_configuration(conditions: &mut Conditions<'_>, configuration: &Configuration) -> bool {
    if !is_observed(&configuration.metadata, &configuration.status) {
        let message = "The Configuration is still working to reflect the latest desired specification.";
        conditions.mark("ConfigurationsReady", "Unknown", "OutOfDate", message);
        // A revision that users name must be there before the route may name it.
        return text(&configuration.spec, "/template/metadata/name").is_empty();
    }
    for field in ["latestCreatedRevisionName", "latestReadyRevisionName"] {
        conditions.status()[field] = configuration.status[field].clone();
    }
    conditions.copy("ConfigurationsReady", &configuration.status, "Ready");
    true
}

/// Takes over what the route says.
pub(super) fn take_route(conditions: &mut Conditions<'_>, route: &Route, configuration: &Configuration) {
    if !is_observed(&route.metadata, &route.status) {
        let message = "The Route is still working to reflect the latest desired specification.";
        conditions.mark("RoutesReady", "Unknown", "OutOfDate", message);
        return;
    }
    for field in ["url", "address", "traffic"] {
        conditions.status()[field] = route.status[field].clone();
    }
    conditions.copy("RoutesReady", &route.status, "Ready");
    if state(conditions.status(), "RoutesReady") == "True" && !has_migrated(route, configuration) {
        let message = "Traffic is not yet migrated to the latest revision.";
        conditions.mark("RoutesReady", "Unknown", "TrafficNotMigrated", message);
    }
}

/// Whether the route sends requests where its spec says, with the latest ready revision in place of the configuration.
fn has_migrated(route: &Route, configuration: &Configuration) -> bool {
    let list = |value: &Value| value["traffic"].as_array().cloned().unwrap_or_default();
    let (want, got) = (list(&route.spec), list(&route.status));
    let latest = text(&configuration.status, "/latestReadyRevisionName");
    want.len() == got.len()
        && want.iter().zip(&got).all(|(want, got)| {
            let revision = match text(want, "/configurationName") {
                name if name == name_of(&configuration.metadata) => latest,
                _ => text(want, "/revisionName"),
            };
            revision == text(got, "/revisionName")
                && text(want, "/tag") == text(got, "/tag")
                && want["percent"].as_i64().unwrap_or(0) == got["percent"].as_i64().unwrap_or(0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Timestamp;

    fn service() -> Service {
        let metadata = json!({"name": "web", "namespace": "a", "uid": "u", "labels": {"own": "x"}, "annotations": {
            "serving.knative.dev/creator": "me", keys::LAST_APPLIED: "{}", keys::ROLLOUT_DURATION[0]: "10s"}});
        Service::new(
            serde_json::from_value(metadata).unwrap(),
            json!({"template": {"spec": {}}, "traffic": [{"percent": 100, "latestRevision": true}]}),
        )
    }

    #[test]
    fn a_service_makes_a_configuration_and_a_route() {
        let own = configuration(&service(), None);
        let annotations = own.metadata.annotations.unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["serving.knative.dev/creator", keys::ROUTES]);
        assert_eq!(annotations[keys::ROUTES], "web");
        assert_eq!(own.metadata.labels.unwrap()[keys::SERVICE_UID], "u");
        let own = route(&service());
        assert_eq!(own.spec["traffic"][0]["configurationName"], "web");
        assert!(own.metadata.annotations.unwrap().contains_key(keys::ROLLOUT_DURATION[0]));
    }

    #[test]
    fn a_route_that_still_serves_the_old_revision_is_not_ready() {
        let check = |latest: &str, expect: (&str, &str)| {
            let (mut configuration, mut route) = (configuration(&service(), None), route(&service()));
            (configuration.metadata.generation, route.metadata.generation) = (Some(1), Some(1));
            configuration.status = json!({"observedGeneration": 1, "latestReadyRevisionName": latest,
                "conditions": [{"type": "Ready", "status": "True"}]});
            route.status = json!({"observedGeneration": 1, "traffic": [{"revisionName": "web-00001", "percent": 100}],
                "conditions": [{"type": "Ready", "status": "True"}]});
            let mut status = Value::Null;
            let mut conditions = Conditions::of(&mut status, CONDITIONS, Timestamp::UNIX_EPOCH);
            assert!(take_configuration(&mut conditions, &configuration));
            take_route(&mut conditions, &route, &configuration);
            let (state, reason, _) = crate::conditions::parts(&status, "Ready").unwrap();
            assert_eq!((state, reason), expect);
        };
        check("web-00001", ("True", ""));
        check("web-00002", ("Unknown", "TrafficNotMigrated"));
    }
}
