//! What a route makes: an Ingress and a placeholder service for each of its hosts. Pure.
//! Upstream: `pkg/reconciler/route/resources`.

use super::domains::{Hosts, TemplateError};
use super::rollout::{ANNOTATION, Rollout};
use super::traffic::{Share, Target};
use crate::ingress::CLASS;
use crate::keys;
use crate::kinds::{Ingress, Route, controller_reference, name_of, namespace_of, text};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The conditions of a route.
pub(super) const CONDITIONS: &[&str] = &["AllTrafficAssigned", "CertificateProvisioned", "IngressReady"];
const ROUTE_NAMESPACE: &str = "serving.knative.dev/routeNamespace";

fn annotations(route: &Route) -> BTreeMap<String, String> {
    let mut own = route.metadata.annotations.clone().unwrap_or_default();
    own.remove(keys::LAST_APPLIED);
    own
}

/// The Ingress.
///
/// # Errors
/// The settings' templates are not understood.
pub(super) fn ingress(
    route: &Route,
    shares: &BTreeMap<String, Vec<Share>>,
    rollout: &Rollout,
    hosts: &Hosts<'_>,
) -> Result<Ingress, TemplateError> {
    let (name, namespace) = (name_of(&route.metadata), namespace_of(&route.metadata));
    let mut rules = Vec::new();
    for (tag, shares) in shares {
        let splits: Vec<Value> = shares.iter().map(|share| split(namespace, share)).collect();
        let mut rule = |hosts: Value, visibility: &str| {
            let paths = json!([{"splits": splits}]);
            rules.push(json!({"hosts": hosts, "visibility": visibility, "http": {"paths": paths}}));
        };
        rule(json!(hosts.local(tag)?), "ClusterLocal");
        if !hosts.is_local() {
            rule(json!([hosts.host(tag)?]), "ExternalIP");
        }
    }
    let mut labels = route.metadata.labels.clone().unwrap_or_default();
    labels.insert(keys::ROUTE.to_owned(), name.to_owned());
    labels.insert(ROUTE_NAMESPACE.to_owned(), namespace.to_owned());
    let mut annotations = annotations(route);
    annotations.retain(|key, _| !keys::ROLLOUT_DURATION.contains(&key.as_str()));
    annotations.insert(ANNOTATION.to_owned(), rollout.text());
    annotations.entry(CLASS.to_owned()).or_insert_with(|| hosts.settings.ingress_class.clone());
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![controller_reference(route)]),
        ..ObjectMeta::default()
    };
    Ok(Ingress::new(metadata, json!({"httpOption": "Enabled", "rules": rules})))
}

fn split(namespace: &str, (revision, percent, is_h2c): &Share) -> Value {
    json!({
        "serviceName": revision, "serviceNamespace": namespace, "percent": percent,
        "servicePort": if *is_h2c { 81 } else { 80 },
        "appendHeaders": {"Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": revision},
    })
}

/// What the status says of the targets.
///
/// # Errors
/// The settings' templates are not understood.
pub(super) fn status_traffic(targets: &[Target], hosts: &Hosts<'_>) -> Result<Value, TemplateError> {
    let shown = |own: &Target| {
        let mut value =
            json!({"revisionName": own.revision, "percent": own.percent, "latestRevision": own.is_latest});
        if !own.tag.is_empty() {
            value["tag"] = own.tag.as_str().into();
            value["url"] = hosts.url(&own.tag)?.into();
        }
        Ok(value)
    };
    targets.iter().map(shown).collect()
}

/// The placeholder service of a tag's host; it stands for `to`.
///
/// # Errors
/// The settings' templates are not understood.
pub(super) fn placeholder(
    route: &Route,
    tag: &str,
    to: &str,
    hosts: &Hosts<'_>,
) -> Result<Service, TemplateError> {
    let metadata = ObjectMeta {
        name: Some(hosts.name(tag)?),
        namespace: route.metadata.namespace.clone(),
        labels: Some({
            let mut labels = route.metadata.labels.clone().unwrap_or_default();
            labels.insert(keys::ROUTE.to_owned(), name_of(&route.metadata).to_owned());
            labels
        }),
        annotations: Some(annotations(route)),
        owner_references: Some(vec![controller_reference(route)]),
        ..ObjectMeta::default()
    };
    let port = ServicePort {
        name: Some("http2".to_owned()),
        port: 80,
        target_port: Some(IntOrString::Int(80)),
        app_protocol: Some("kubernetes.io/h2c".to_owned()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some(to.to_owned()),
        ports: Some(vec![port]),
        session_affinity: Some("None".to_owned()),
        ..ServiceSpec::default()
    };
    Ok(Service { metadata, spec: Some(spec), status: None })
}

/// Makes a placeholder what it should be; labels and annotations only ever come. Whether anything changed.
pub(super) fn update_placeholder(have: &mut Service, want: Service) -> bool {
    let before = have.metadata.clone();
    have.metadata.labels.get_or_insert_default().extend(want.metadata.labels.unwrap_or_default());
    have.metadata.annotations.get_or_insert_default().extend(want.metadata.annotations.unwrap_or_default());
    let to = |own: &Option<ServiceSpec>| own.as_ref().and_then(|spec| spec.external_name.clone());
    let moves = to(&have.spec) != to(&want.spec);
    if moves {
        have.spec = want.spec;
    }
    moves || have.metadata != before
}

/// What the placeholders stand for: where the ingress controller takes requests of the cluster, once it says so.
pub(super) fn entrance(ingress: &Ingress) -> Option<&str> {
    let to = text(&ingress.status, "/privateLoadBalancer/ingress/0/domainInternal");
    (!to.is_empty()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn target(tag: &str, revision: &str, percent: i64) -> Target {
        Target {
            tag: tag.to_owned(),
            revision: revision.to_owned(),
            configuration: "web".to_owned(),
            percent,
            is_latest: tag.is_empty(),
            is_h2c: false,
        }
    }

    fn with<T>(check: impl FnOnce(&Route, &Hosts<'_>) -> T) -> T {
        let metadata = json!({"name": "web", "namespace": "a", "uid": "u", "annotations": {keys::LAST_APPLIED: "x", "y": "z"}});
        let route = Route::new(serde_json::from_value(metadata).unwrap(), Value::Null);
        let settings = Settings::read(|name| {
            (name == "config-domain").then(|| BTreeMap::from([("example.com".to_owned(), String::new())]))
        });
        check(&route, &Hosts { meta: &route.metadata, settings: &settings, cluster_domain: "cluster.local" })
    }

    #[test]
    fn each_tag_has_hosts_and_splits() {
        let targets = [target("", "web-00002", 80), target("old", "web-00001", 20)];
        with(|route, hosts| {
            let rollout = Rollout::goal(&targets);
            let shares = super::super::traffic::by_tag(&targets, &rollout, &|_| false);
            let made = ingress(route, &shares, &rollout, hosts).unwrap();
            let rules = made.spec["rules"].as_array().unwrap();
            let hosts: Vec<_> = rules.iter().map(|rule| rule["hosts"][0].as_str().unwrap()).collect();
            assert_eq!(hosts, ["web.a", "web.a.example.com", "old-web.a", "old-web.a.example.com"]);
            assert_eq!(rules[0]["hosts"], json!(["web.a", "web.a.svc", "web.a.svc.cluster.local"]));
            let percents = |rule: &Value| -> Vec<i64> {
                let splits = rule.pointer("/http/paths/0/splits").unwrap().as_array().unwrap();
                splits.iter().map(|own| own["percent"].as_i64().unwrap()).collect()
            };
            assert_eq!((percents(&rules[1]), percents(&rules[3])), (vec![80, 20], vec![100]));
            let annotations = made.metadata.annotations.as_ref().unwrap();
            assert_eq!(annotations.keys().collect::<Vec<_>>(), [ANNOTATION, CLASS, "y"]);
        });
    }

    #[test]
    fn the_status_names_tags_with_their_urls() {
        let targets = [target("", "web-00002", 100), target("old", "web-00001", 0)];
        let shown = with(|_, hosts| status_traffic(&targets, hosts).unwrap());
        assert_eq!(shown[0], json!({"revisionName": "web-00002", "percent": 100, "latestRevision": true}));
        assert_eq!(shown[1]["url"], "http://old-web.a.example.com");
    }

    #[test]
    fn placeholders_stand_for_the_entrance() {
        let made = with(|route, hosts| placeholder(route, "old", "gateway.local", hosts).unwrap());
        assert_eq!(made.metadata.name.as_deref(), Some("old-web"));
        assert_eq!(made.spec.as_ref().unwrap().external_name.as_deref(), Some("gateway.local"));
        let mut have = made.clone();
        assert!(!update_placeholder(&mut have, made.clone()));
        let mut want = made;
        want.metadata.annotations = Some(BTreeMap::from([("new".to_owned(), "1".to_owned())]));
        assert!(update_placeholder(&mut have, want));
        let annotations = have.metadata.annotations.unwrap();
        assert_eq!(
            (annotations["new"].as_str(), annotations["y"].as_str()),
            ("1", "z"),
            "what was there stays"
        );
    }
}
