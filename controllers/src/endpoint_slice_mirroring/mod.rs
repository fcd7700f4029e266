//! Copies Endpoints that somebody wrote by hand into slices, for who reads only those.
//!
//! Upstream: pkg/controller/endpointslicemirroring.

use crate::endpoint_slice::pack::{Groups, Writes, pack};
use crate::endpoint_slice::plan::{MANAGED_BY, SERVICE_NAME};
use crate::endpoint_slice::{of_slice, slices_of, write};
use crate::owner::name_of;
use crate::pod::{annotation, is_namespace_terminating, label};
use api::ObjectName;
use client::controller_reference;
use client::{Context, Controller, Error, Next};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::net::IpAddr;
use std::sync::Arc;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are not copied.
const OWN: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Addresses copied of one subset. Upstream: `--mirroring-max-endpoints-per-subset`.
const SUBSET_LEN_MAX: usize = 1000;

pub(crate) fn controller() -> Controller {
    Controller::of::<Endpoints>("endpointslice-mirroring-controller")
        .watches::<Service>(|delta, _| vec![delta.key.clone()])
        .watches::<EndpointSlice>(|delta, _| of_slice(delta, MANAGER))
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    if !context.expectations.met(&key) {
        return Ok(Next::Done);
    }
    let service = context.caches.of::<Service>().read(&key.namespace, &key.name);
    let endpoints = context.caches.of::<Endpoints>().read(&key.namespace, &key.name);
    let endpoints = endpoints.filter(|own| is_mirrored(own, service.as_ref()));
    let existing = slices_of(&context, &key, MANAGER);
    let writes = match &endpoints {
        None => {
            let names = existing.into_iter().filter_map(|slice| slice.metadata.name);
            Writes { delete: names.collect(), ..Writes::default() }
        }
        Some(endpoints) => {
            let (groups, invalid, skipped) = groups(endpoints);
            let about = client::reference(endpoints);
            if invalid > 0 {
                let message =
                    format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
                context.events.warning(&about, "InvalidIPAddress", message);
            }
            if skipped > 0 {
                let message = format!(
                    "A max of {SUBSET_LEN_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
                );
                context.events.warning(&about, "TooManyAddressesToMirror", message);
            }
            pack(existing, groups.into_vec(), &meta(endpoints), SUBSET_LEN_MAX)
        }
    };
    match write(&context, &key, writes).await {
        Err(Error::Api(status)) if is_namespace_terminating(&status) => Ok(Next::Done),
        result => result.map(|()| Next::Done),
    }
}

/// Whether Endpoints are somebody's own work for a service that selects nothing.
fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let selects = |service: &Service| {
        service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref())
            .is_some_and(|selector| !selector.is_empty())
    };
    endpoints.metadata.deletion_timestamp.is_none()
        && label(&endpoints.metadata, SKIP) != Some("true")
        && annotation(&endpoints.metadata, LOCK).is_none()
        && service.is_some_and(|service| !selects(service))
}

/// The endpoints by family and ports; how many addresses are invalid; how many were too many.
fn groups(endpoints: &Endpoints) -> (Groups, usize, usize) {
    let (mut groups, mut invalid, mut skipped) = (Groups::default(), 0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let mut count = 0;
        for (address, is_ready) in ready.chain(not_ready) {
            let Ok(parsed) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            if count == SUBSET_LEN_MAX {
                skipped += 1;
                continue;
            }
            count += 1;
            let address_type = if parsed.is_ipv4() { "IPv4" } else { "IPv6" };
            groups.group(address_type, ports.clone()).endpoints.push(endpoint(address, is_ready, parsed));
        }
    }
    (groups, invalid, skipped)
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, is_ready: bool, parsed: IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![parsed.to_string()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), serving: None, terminating: None }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn meta(endpoints: &Endpoints) -> ObjectMeta {
    let name = name_of(&endpoints.metadata);
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: endpoints.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(metadata: Value) -> Endpoints {
        let addresses: Vec<_> = (0..1100)
            .map(|number| json!({"ip": format!("10.1.{}.{}", number / 250, number % 250)}))
            .collect();
        serde_json::from_value(json!({"metadata": metadata, "subsets": [
            {"addresses": [{"ip": "10.0.0.1", "hostname": "a"}, {"ip": "x"}], "notReadyAddresses": [{"ip": "fd00::1"}],
                "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]},
            {"addresses": addresses}]}))
        .unwrap()
    }

    #[test]
    fn addresses_are_copied_by_family_and_bounded() {
        let (groups, invalid, skipped) = groups(&endpoints(json!({"name": "web"})));
        assert_eq!((invalid, skipped), (1, 100));
        let shape: Vec<_> = groups
            .into_vec()
            .iter()
            .map(|group| (group.address_type, group.ports.len(), group.endpoints.len()))
            .collect();
        assert_eq!(shape, [("IPv4", 0, 1000), ("IPv4", 1, 1), ("IPv6", 1, 1)]);
    }

    #[test]
    fn only_hand_made_endpoints_are_mirrored() {
        let check = |metadata: Value, service: Option<Value>, expect: bool| {
            let service = service.map(|spec| serde_json::from_value(json!({"spec": spec})).unwrap());
            assert_eq!(is_mirrored(&endpoints(metadata), service.as_ref()), expect);
        };
        check(json!({}), Some(json!({})), true);
        check(json!({}), None, false);
        check(json!({}), Some(json!({"selector": {"a": "b"}})), false);
        check(json!({"labels": {SKIP: "true"}}), Some(json!({})), false);
        check(json!({"annotations": {LOCK: "x"}}), Some(json!({})), false);
    }
}
