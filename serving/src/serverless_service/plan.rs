//! The two services of a revision. Pure. Upstream: `pkg/reconciler/serverlessservice/resources`.

use crate::keys;
use crate::kinds::{ServerlessService, controller_reference, name_of, text};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// The conditions of a ServerlessService.
pub(super) const CONDITIONS: &[&str] = &["EndpointsPopulated"];
/// Of which services a slice is.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SELF: &str = "networking.internal.knative.dev/serverlessservice";
const TYPE: &str = "networking.internal.knative.dev/serviceType";

fn is_h2c(sks: &ServerlessService) -> bool {
    text(&sks.spec, "/protocolType") == "h2c"
}

/// Name, port and the pods' port of requests, without TLS.
fn requests(sks: &ServerlessService) -> (&'static str, i32, i32) {
    if is_h2c(sks) { ("http2", 81, 8013) } else { ("http", 80, 8012) }
}

fn port(name: &str, port: i32, to: i32, is_h2c: bool) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(to)),
        app_protocol: is_h2c.then(|| "kubernetes.io/h2c".to_owned()),
        ..ServicePort::default()
    }
}

fn metadata(sks: &ServerlessService, name: String, kind: &str) -> ObjectMeta {
    let mut labels = sks.metadata.labels.clone().unwrap_or_default();
    labels.insert(SELF.to_owned(), name_of(&sks.metadata).to_owned());
    labels.insert(TYPE.to_owned(), kind.to_owned());
    ObjectMeta {
        name: Some(name),
        namespace: sks.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: sks.metadata.annotations.clone(),
        owner_references: Some(vec![controller_reference(sks)]),
        ..ObjectMeta::default()
    }
}

/// Name of the service that leads to the pods.
pub(super) fn private_name(sks: &ServerlessService) -> String {
    crate::names::child(name_of(&sks.metadata), "-private")
}

/// The service that clients use. Where it leads to is ours to say.
pub(super) fn public(sks: &ServerlessService) -> Service {
    let (name, number, to) = requests(sks);
    let ports = vec![port(name, number, to, is_h2c(sks)), port("https", 443, 8112, false)];
    let spec = ServiceSpec { ports: Some(ports), ..ServiceSpec::default() };
    Service {
        metadata: metadata(sks, name_of(&sks.metadata).to_owned(), "Public"),
        spec: Some(spec),
        status: None,
    }
}

/// The service that leads to the pods.
pub(super) fn private(sks: &ServerlessService, revision_uid: &str) -> Service {
    let (name, _, to) = requests(sks);
    let ports = vec![
        port(name, 80, to, is_h2c(sks)),
        port("https", 443, 8112, false),
        port("http-autometric", 9090, 9090, false),
        port("http-usermetric", 9091, 9091, false),
        port("http-queueadm", 8022, 8022, false),
        port("http-istio", to, to, is_h2c(sks)),
    ];
    let selector = BTreeMap::from([(keys::REVISION_UID.to_owned(), revision_uid.to_owned())]);
    let spec = ServiceSpec { ports: Some(ports), selector: Some(selector), ..ServiceSpec::default() };
    Service { metadata: metadata(sks, private_name(sks), "Private"), spec: Some(spec), status: None }
}

/// The ready endpoints of slices.
pub(super) fn ready(slices: &[EndpointSlice]) -> Vec<Endpoint> {
    let is_ready = |own: &&Endpoint| own.conditions.as_ref().is_none_or(|own| own.ready != Some(false));
    slices.iter().flat_map(|slice| slice.endpoints.iter().flatten()).filter(is_ready).cloned().collect()
}

/// The slice of the public service. `endpoints` are pods, or whoever waits for some on `activator_port`.
pub(super) fn slice(
    sks: &ServerlessService,
    mut endpoints: Vec<Endpoint>,
    activator_port: Option<i32>,
) -> EndpointSlice {
    let (name, _, to) = requests(sks);
    endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    for own in &mut endpoints {
        // Which zone traffic should stay in is no matter of one slice for all.
        own.hints = None;
    }
    let mut metadata = metadata(sks, crate::names::child(name_of(&sks.metadata), "-clipper"), "Public");
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(SERVICE_NAME.to_owned(), name_of(&sks.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), "clipper-serverless-service".to_owned());
    let port = EndpointPort {
        name: Some(name.to_owned()),
        port: Some(activator_port.unwrap_or(to)),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata,
        address_type: "IPv4".to_owned(),
        endpoints: Some(endpoints),
        ports: Some(vec![port]),
    }
}

/// Whether a service already is as it is wanted; the server fills in the rest.
pub(super) fn is_same(have: &Service, want: &Service) -> bool {
    let spec = |own: &Service| {
        let spec = own.spec.clone().unwrap_or_default();
        let ports: Vec<_> = spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .map(|own| (own.name, own.port, own.target_port))
            .collect();
        (ports, spec.selector)
    };
    spec(have) == spec(want)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sks(protocol: &str) -> ServerlessService {
        let metadata = json!({"name": "web-00001", "namespace": "a", "uid": "u", "labels": {"app": "web"}});
        ServerlessService::new(serde_json::from_value(metadata).unwrap(), json!({"protocolType": protocol}))
    }

    #[test]
    fn services_follow_the_protocol() {
        let check = |protocol: &str, expect: (&str, i32, i32)| {
            let ports = public(&sks(protocol)).spec.unwrap().ports.unwrap();
            let own = &ports[0];
            let Some(IntOrString::Int(to)) = own.target_port else { panic!("a number") };
            assert_eq!((own.name.as_deref().unwrap(), own.port, to), expect);
        };
        check("http1", ("http", 80, 8012));
        check("h2c", ("http2", 81, 8013));
        let own = private(&sks("http1"), "r");
        assert_eq!(own.metadata.name.as_deref(), Some("web-00001-private"));
        assert_eq!(own.spec.unwrap().selector.unwrap()[keys::REVISION_UID], "r");
    }

    #[test]
    fn the_slice_has_the_endpoints_in_order() {
        let endpoint =
            |address: &str| Endpoint { addresses: vec![address.to_owned()], ..Endpoint::default() };
        let made = slice(&sks("http1"), vec![endpoint("10.0.0.2"), endpoint("10.0.0.1")], None);
        assert_eq!(made.endpoints.as_ref().unwrap()[0].addresses, ["10.0.0.1"]);
        assert_eq!(made.ports.unwrap()[0].port, Some(8012));
        assert_eq!(made.metadata.labels.unwrap()[SERVICE_NAME], "web-00001");
    }
}
