//! The facts of the cluster's names, from the shared caches.

use super::answer::{Endpoint, Port, Service, ServiceKind, Source};
use api::Object;
use client::{Cache, Caches, Projection};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;

/// The index of slices by `namespace/service`.
const BY_SERVICE: &str = "dns-service";
/// The index of slices by address.
const BY_ADDRESS: &str = "dns-address";

/// A service as DNS needs it.
#[derive(Clone, Debug, PartialEq)]
struct View {
    namespace: String,
    name: String,
    service: Service,
    publishes_not_ready: bool,
}

/// Reads the caches of namespaces, services and endpoint slices.
pub struct CacheSource {
    namespaces: Cache<core::Namespace>,
    services: Projection<View>,
    slices: Cache<EndpointSlice>,
}

impl CacheSource {
    /// Starts the caches it needs.
    pub fn new(caches: &Caches) -> Self {
        let slices = caches.of::<EndpointSlice>();
        slices.index(BY_SERVICE, |object: &Object| {
            let service = object.meta.label("kubernetes.io/service-name");
            service.map(|name| format!("{}/{name}", object.meta.namespace()).into()).into_iter().collect()
        });
        slices.index(BY_ADDRESS, |object: &Object| {
            let slice = object.decode::<EndpointSlice>().ok();
            let endpoints = slice.map(|slice| slice.endpoints.unwrap_or_default()).unwrap_or_default();
            endpoints.into_iter().flat_map(|own| own.addresses).map(Into::into).collect()
        });
        let services = caches
            .of::<core::Service>()
            .project(|object: &Object| object.decode().ok().and_then(|service| view(&service)));
        Self { namespaces: caches.of(), services, slices }
    }

    /// Waits until everything has been read once.
    pub async fn synced(&self, caches: &Caches) {
        self.namespaces.synced().await;
        caches.of::<core::Service>().synced().await;
        self.slices.synced().await;
    }

    /// A number that grows with every change of services and endpoints.
    pub fn serial(&self) -> u32 {
        self.slices.revision() as u32
    }

    fn slices_of(&self, namespace: &str, name: &str) -> Vec<EndpointSlice> {
        let found = self.slices.by(BY_SERVICE, &format!("{namespace}/{name}"));
        found.iter().filter_map(|object| object.decode().ok()).collect()
    }
}

fn view(service: &core::Service) -> Option<View> {
    let spec = service.spec.as_ref()?;
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    let addresses =
        spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|own| vec![own])).unwrap_or_default();
    let kind = match () {
        () if is_external => ServiceKind::External(spec.external_name.clone()?),
        () if addresses.first().is_some_and(|own| own == "None") => ServiceKind::Headless,
        () => {
            let addresses: Vec<IpAddr> = addresses.iter().filter_map(|own| own.parse().ok()).collect();
            (!addresses.is_empty()).then_some(ServiceKind::ClusterIp(addresses))?
        }
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: u16::try_from(port.port).ok()?,
        })
    });
    Some(View {
        namespace: service.metadata.namespace.clone()?,
        name: service.metadata.name.clone()?,
        service: Service { kind, ports: ports.collect() },
        publishes_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
    })
}

/// The endpoints of a slice that may be told.
fn endpoints(slice: &EndpointSlice, publishes_not_ready: bool) -> Vec<Endpoint> {
    let ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let told = slice.endpoints.iter().flatten().filter(|own| {
        publishes_not_ready || own.conditions.as_ref().and_then(|own| own.ready).unwrap_or(true)
    });
    told.flat_map(|own| {
        let ports = &ports;
        own.addresses.iter().filter_map(move |address| {
            Some(Endpoint {
                address: address.parse().ok()?,
                hostname: own.hostname.clone(),
                ports: ports.clone(),
            })
        })
    })
    .collect()
}

impl Source for CacheSource {
    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        self.services.get(namespace, name).map(|view| view.service.clone())
    }

    fn endpoints(&self, namespace: &str, name: &str) -> Vec<Endpoint> {
        let not_ready = self.services.get(namespace, name).is_some_and(|view| view.publishes_not_ready);
        self.slices_of(namespace, name).iter().flat_map(|slice| endpoints(slice, not_ready)).collect()
    }

    fn names_of(&self, address: IpAddr) -> Vec<String> {
        let services = self.services.list("");
        let own = services.iter().filter(
            |view| matches!(&view.service.kind, ServiceKind::ClusterIp(addresses) if addresses.contains(&address)),
        );
        let mut names: Vec<_> = own.map(|view| format!("{}.{}", view.name, view.namespace)).collect();
        for object in self.slices.by(BY_ADDRESS, &address.to_string()) {
            let Some(service) = object.meta.label("kubernetes.io/service-name") else { continue };
            let namespace = object.meta.namespace();
            let Ok(slice) = object.decode::<EndpointSlice>() else { continue };
            let headless = self
                .services
                .get(namespace, service)
                .is_some_and(|view| view.service.kind == ServiceKind::Headless);
            for found in endpoints(&slice, true).iter().filter(|own| headless && own.address == address) {
                let label =
                    found.hostname.clone().unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"));
                names.push(format!("{label}.{service}.{namespace}"));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_are_seen_as_what_they_are() {
        let kind = |spec: serde_json::Value| {
            let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
            view(&serde_json::from_value(service).unwrap()).map(|view| view.service.kind)
        };
        let address = IpAddr::from([10, 43, 0, 5]);
        assert_eq!(kind(json!({"clusterIP": "10.43.0.5"})), Some(ServiceKind::ClusterIp(vec![address])));
        assert_eq!(kind(json!({"clusterIP": "None", "clusterIPs": ["None"]})), Some(ServiceKind::Headless));
        let external = kind(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert_eq!(external, Some(ServiceKind::External("a.b".into())));
        assert_eq!(kind(json!({})), None);
    }

    #[test]
    fn endpoints_that_are_not_ready_are_told_only_where_asked() {
        let slice: EndpointSlice = serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["10.42.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.42.0.2"]}]}))
        .unwrap();
        assert_eq!(endpoints(&slice, false).len(), 1);
        assert_eq!(endpoints(&slice, true).len(), 2);
    }
}
