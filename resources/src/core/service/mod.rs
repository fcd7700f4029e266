//! `Service`. Upstream: `pkg/registry/core/service`, `ValidateService*` in `pkg/apis/core/validation`.
//!
//! Addresses and node ports are allocated here, from what the other services have. That is right because services are
//! written one after another (`exclusive`), each seeing the one before.

mod allocate;
mod families;
mod pool;
mod validate;

use crate::cells::{NONE, labels, list, load_balancer, or, text};
use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use pool::{Claims, Pool};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "Service", "services", Scope::Namespaced)
        .short_names(&["svc"])
        .categories(&["all"])
        .fields(vec![Field::new("spec.clusterIP"), Field::new("spec.type")])
        .columns(vec![
            Column::or("Type", "/spec/type", ""),
            Column::computed("Cluster-IP", |o, _| or(text(o, "/spec/clusterIPs/0"), NONE).into()),
            Column::computed("External-IP", |o, _| external_ip(o).into()),
            Column::computed("Port(s)", |o, _| ports(o).into()),
            Column::age(),
            Column::computed("Selector", |o, _| labels(o, "/spec/selector").into()).wide(),
        ])
        .subresource(Subresource {
            name: "proxy",
            verbs: crate::VERBS_PROXY,
            body: Some(("", "v1", "ServiceProxyOptions")),
            action: Action::Connect,
        })
        .status()
        .rules(Typed(Rules { claims: Claims::default() }))
}

fn external_ip(service: &Value) -> String {
    let external: Vec<_> = list(service, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    let external = external.join(",");
    match text(service, "/spec/type") {
        "ClusterIP" | "NodePort" => or(&external, NONE).to_owned(),
        "LoadBalancer" => match (load_balancer(service), external.as_str()) {
            (own, "") => or(&own, "<pending>").to_owned(),
            (own, external) if own.is_empty() => external.to_owned(),
            (own, external) => format!("{own},{external}"),
        },
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(service: &Value) -> String {
    let shown: Vec<_> = list(service, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (&port["port"], port["protocol"].as_str().unwrap_or(""));
            match port["nodePort"].as_i64() {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    or(&shown.join(","), NONE).to_owned()
}

/// How long a client sticks to an endpoint by default, in seconds.
const AFFINITY_SECONDS: i32 = 10_800;
/// A headless service's address.
const HEADLESS: &str = "None";

struct Rules {
    claims: Claims,
}

fn spec_of(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}

/// What the type of a service means for its fields.
trait Kind {
    fn kind(&self) -> &str;
    fn cluster_ip(&self) -> &str;
    fn has_cluster_ip(&self) -> bool {
        self.kind() != "ExternalName"
    }
    fn has_node_ports(&self) -> bool {
        matches!(self.kind(), "NodePort" | "LoadBalancer")
    }
    fn is_headless(&self) -> bool;
    fn is_reachable_from_outside(&self) -> bool;
    fn needs_health_check(&self) -> bool;
}

impl Kind for ServiceSpec {
    fn kind(&self) -> &str {
        self.type_.as_deref().unwrap_or("")
    }

    fn cluster_ip(&self) -> &str {
        self.cluster_ip.as_deref().unwrap_or("")
    }

    fn is_headless(&self) -> bool {
        self.cluster_ips.as_deref() == Some(&[HEADLESS.to_owned()][..])
    }

    fn is_reachable_from_outside(&self) -> bool {
        let external = self.external_ips.as_ref().is_some_and(|list| !list.is_empty());
        self.has_node_ports() || (self.kind() == "ClusterIP" && external)
    }

    fn needs_health_check(&self) -> bool {
        self.kind() == "LoadBalancer" && self.external_traffic_policy.as_deref() == Some("Local")
    }
}

fn default(spec: &mut ServiceSpec) {
    let set = |field: &mut Option<String>, value: &str| {
        if field.as_deref().unwrap_or("").is_empty() {
            *field = Some(value.to_owned());
        }
    };
    set(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_default();
            let client = config.client_ip.get_or_insert_default();
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    set(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        set(&mut port.protocol, "TCP");
        let missing = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if missing {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if spec.is_reachable_from_outside() {
        set(&mut spec.external_traffic_policy, "Cluster");
    }
    if spec.has_cluster_ip() {
        set(&mut spec.internal_traffic_policy, "Cluster");
    }
    if spec.kind() == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

impl Strategy for Rules {
    type Kind = Service;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn exclusive(&self) -> bool {
        true
    }

    fn default(&self, service: &mut Service) {
        default(service.spec.get_or_insert_default());
        let status = service.status.get_or_insert_default().load_balancer.get_or_insert_default();
        if service.spec.as_ref().is_some_and(|spec| spec.kind() == "LoadBalancer") {
            for ingress in status.ingress.iter_mut().flatten().filter(|own| own.ip.is_some()) {
                ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
            }
        }
    }

    fn prepare_create(&self, service: &mut Service, cx: &Context<'_>) -> Result<(), Status> {
        service.status =
            Some(ServiceStatus { load_balancer: Some(Default::default()), ..ServiceStatus::default() });
        let seed = service.metadata.uid.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        let spec = service.spec.get_or_insert_default();
        allocate::normalize(spec, None);
        allocate::create(spec, Pool::new(cx.lookup, &self.claims), &seed).map_err(|error| error.status(&name))
    }

    fn prepare_update(&self, new: &mut Service, old: &Service, cx: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        let name = old.metadata.name.clone().unwrap_or_default();
        let seed = old.metadata.uid.clone().unwrap_or_default();
        let mut before = spec_of(old);
        allocate::normalize(&mut before, None);
        let spec = new.spec.get_or_insert_default();
        allocate::keep(spec, &before);
        allocate::normalize(spec, Some(&before));
        allocate::update(spec, &before, Pool::new(cx.lookup, &self.claims), &seed)
            .map_err(|error| error.status(&name))?;
        allocate::drop_what_the_type_lacks(spec, &before);
        if spec.kind() != "LoadBalancer" {
            let status = new.status.get_or_insert_default();
            status.load_balancer = Some(Default::default());
        }
        Ok(())
    }

    fn validate(&self, service: &Service, errors: &mut FieldErrors) {
        validate::check(service, &spec_of(service), errors);
    }

    fn validate_update(&self, new: &Service, old: &Service, errors: &mut FieldErrors) {
        let mut before = spec_of(old);
        allocate::normalize(&mut before, None);
        validate::check_change(&spec_of(new), &before, errors);
    }

    fn prepare_status_update(&self, new: &mut Service, old: &Service, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Service, _: &Service, errors: &mut FieldErrors) {
        validate::check_status(new, errors);
    }

    fn warnings(&self, service: &Service) -> Vec<String> {
        let spec = spec_of(service);
        let external = spec.external_ips.as_ref().is_some_and(|list| !list.is_empty());
        let headless = spec.is_headless();
        let mut found = Vec::new();
        let annotations = service.metadata.annotations.as_ref();
        if annotations.is_some_and(|all| all.contains_key(validate::TOPOLOGY_HINTS)) {
            found.push(format!(
                "annotation {} is deprecated, please use {} instead",
                validate::TOPOLOGY_HINTS,
                validate::TOPOLOGY_MODE
            ));
        }
        let is_name = spec.kind() == "ExternalName";
        for (wrong, text) in [
            (
                headless && spec.load_balancer_ip.is_some(),
                "spec.loadBalancerIP is ignored for headless services",
            ),
            (headless && external, "spec.externalIPs is ignored for headless services"),
            (
                headless && spec.session_affinity.as_deref() != Some("None"),
                "spec.SessionAffinity is ignored for headless services",
            ),
            (
                external && !headless && !is_name,
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ),
            (external && is_name, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
            (
                !is_name && spec.external_name.as_deref().is_some_and(|name| !name.is_empty()),
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ),
            (
                spec.traffic_distribution.as_deref() == Some("PreferClose"),
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            ),
        ] {
            if wrong {
                found.push(text.to_owned());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
