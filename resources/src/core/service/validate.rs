//! What must be true of a service. Upstream: `validateService`, `ValidateServiceUpdate`.

use super::{HEADLESS, Kind};
use crate::core::endpoints::check_reachable;
use api::FieldErrors;
use api::names::{self, check_labels, check_one_of, check_port, check_required_one_of, report};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::BTreeSet;

pub(super) const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
pub(super) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// The longest affinity: a day.
const AFFINITY_SECONDS_MAX: i32 = 86_400;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

pub(super) fn check(service: &Service, spec: &ServiceSpec, errors: &mut FieldErrors) {
    let none = Default::default();
    let annotations = service.metadata.annotations.as_ref().unwrap_or(&none);
    if let (Some(hints), Some(mode)) = (annotations.get(TOPOLOGY_HINTS), annotations.get(TOPOLOGY_MODE))
        && hints != mode
    {
        let why = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.invalid(&format!("metadata.annotations[{TOPOLOGY_MODE}]"), mode.as_str(), why);
    }
    errors.at("spec", |errors| {
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ports.is_empty() && !spec.is_headless() && spec.has_cluster_ip() {
            errors.required("ports", "");
        }
        check_type(spec, errors);
        let mut names = BTreeSet::new();
        for (at, port) in ports.iter().enumerate() {
            errors.at(&format!("ports[{at}]"), |errors| {
                check_service_port(port, ports.len() > 1, &mut names, errors);
            });
        }
        check_labels(errors, "selector", spec.selector.as_ref());
        check_affinity(spec, errors);
    });
    if spec.has_cluster_ip() {
        check_cluster_ips(spec, errors);
    }
    errors.at("spec", |errors| {
        for (at, ip) in spec.external_ips.iter().flatten().enumerate() {
            let field = format!("externalIPs[{at}]");
            match ip.parse::<std::net::IpAddr>() {
                Ok(_) => check_reachable(&field, ip, errors),
                Err(_) => names::check_ip(errors, &field, ip),
            }
        }
        check_required_one_of(
            errors,
            "type",
            spec.type_.as_deref(),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
        check_ports_together(spec, errors);
        check_source_ranges(spec, errors);
    });
    if spec.load_balancer_source_ranges.as_ref().is_none_or(Vec::is_empty)
        && let Some(ranges) = annotations.get(SOURCE_RANGES)
    {
        let field = format!("metadata.annotations[{SOURCE_RANGES}]");
        if spec.kind() != "LoadBalancer" {
            errors.forbidden(&field, ONLY_LOAD_BALANCER);
        }
        for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
            names::check_cidr(errors, &field, range);
        }
    }
    errors.at("spec", |errors| check_traffic(spec, errors));
}

fn check_type(spec: &ServiceSpec, errors: &mut FieldErrors) {
    match spec.kind() {
        kind @ ("LoadBalancer" | "NodePort") if spec.is_headless() => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid("clusterIPs[0]", HEADLESS, why);
        }
        "ExternalName" => {
            for (field, is_set) in [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|list| !list.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|list| !list.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if is_set {
                    errors.forbidden(field, "may not be set for ExternalName services");
                }
            }
            let name = text(&spec.external_name);
            match name.strip_suffix('.').unwrap_or(name) {
                "" => errors.required("externalName", ""),
                name => report(errors, "externalName", name, names::dns_subdomain(name)),
            }
        }
        _ => {}
    }
}

fn check_service_port<'a>(
    port: &'a ServicePort,
    needs_name: bool,
    seen: &mut BTreeSet<&'a str>,
    errors: &mut FieldErrors,
) {
    match port.name.as_deref().unwrap_or("") {
        "" if needs_name => errors.required("name", ""),
        "" => {}
        name => {
            report(errors, "name", name, names::dns_label(name));
            if !seen.insert(name) {
                errors.duplicate("name", name);
            }
        }
    }
    for fault in names::port(port.port) {
        errors.invalid("port", port.port, fault);
    }
    check_required_one_of(errors, "protocol", port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    check_port(errors, "targetPort", port.target_port.as_ref().unwrap_or(&IntOrString::Int(0)));
    if let Some(protocol) = &port.app_protocol {
        report(errors, "appProtocol", protocol, names::qualified(protocol));
    }
}

fn check_affinity(spec: &ServiceSpec, errors: &mut FieldErrors) {
    const CONFIG: &str = "sessionAffinityConfig";
    check_required_one_of(errors, "sessionAffinity", spec.session_affinity.as_deref(), &["ClientIP", "None"]);
    match (text(&spec.session_affinity), &spec.session_affinity_config) {
        ("None", Some(_)) => {
            errors.forbidden(CONFIG, "must not be set when session affinity is None");
        }
        ("ClientIP", config) => {
            let why = "when session affinity type is ClientIP";
            match config.as_ref().map(|config| config.client_ip.as_ref().map(|own| own.timeout_seconds)) {
                None => errors.required(CONFIG, why),
                Some(None) => errors.required("sessionAffinityConfig.clientIP", why),
                Some(Some(None)) => errors.required("sessionAffinityConfig.clientIP.timeoutSeconds", why),
                Some(Some(Some(seconds))) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    errors.invalid(
                        "sessionAffinityConfig.clientIP.timeoutSeconds",
                        seconds,
                        format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                    );
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// Addresses and families fit each other. Upstream: `ValidateServiceClusterIPsRelatedFields`.
pub(super) fn check_cluster_ips(spec: &ServiceSpec, errors: &mut FieldErrors) {
    const IPS: &str = "spec.clusterIPs";
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    match (spec.cluster_ip(), ips.first()) {
        ("", Some(_)) => errors.invalid(IPS, ips.clone(), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(IPS, ""),
        (single, Some(first)) if single != first => {
            errors.invalid(IPS, ips.clone(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (at, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{at}]");
        check_one_of(errors, &field, family, &["IPv4", "IPv6"]);
        if families[..at].contains(family) {
            errors.duplicate(&field, family.as_str());
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let allowed = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        check_one_of(errors, "spec.ipFamilyPolicy", policy, &allowed);
    }
    let mut wrong = FieldErrors::default();
    for (at, ip) in ips.iter().enumerate() {
        match (at, ip.as_str()) {
            (0, HEADLESS) if ips.len() > 1 => {
                wrong.invalid(IPS, ips.clone(), "'None' must be the first and only value");
            }
            (0, HEADLESS) => {}
            _ => names::check_ip(&mut wrong, &format!("{IPS}[{at}]"), ip),
        }
    }
    let is_wrong = !wrong.is_empty();
    for error in wrong.into_vec() {
        errors.push(error.kind, &error.field, error.value, error.detail);
    }
    if ips.len() > 2 {
        errors.invalid(IPS, ips.clone(), "may only hold up to 2 values");
    }
    if is_wrong {
        return;
    }
    let is_v6: Vec<bool> = ips.iter().map(|ip| ip.contains(':')).collect();
    if is_v6.len() > 1 && is_v6.iter().all(|own| *own == is_v6[0]) {
        errors.invalid(IPS, ips.clone(), "may specify no more than one IP for each IP family");
    }
    if spec.is_headless() {
        return;
    }
    for (at, (ip, family)) in ips.iter().zip(families).enumerate() {
        if is_v6[at] != (family == "IPv6") {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{at}]`");
            errors.invalid(&format!("{IPS}[{at}]"), ip.as_str(), why);
        }
    }
}

fn check_ports_together(spec: &ServiceSpec, errors: &mut FieldErrors) {
    let (mut node_ports, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("");
        let field = format!("ports[{at}].nodePort");
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 {
            if spec.kind() == "ClusterIP" {
                errors.forbidden(&field, "may not be used when `type` is 'ClusterIP'");
            }
            if !node_ports.insert((protocol, node_port)) {
                errors.duplicate(&field, node_port);
            }
        }
        if !ports.insert((protocol, port.port)) {
            let shown = json!({"port": port.port, "protocol": protocol, "targetPort": 0});
            errors.duplicate(&format!("ports[{at}]"), shown);
        }
    }
}

fn check_source_ranges(spec: &ServiceSpec, errors: &mut FieldErrors) {
    const FIELD: &str = "LoadBalancerSourceRanges";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if !ranges.is_empty() && spec.kind() != "LoadBalancer" {
        errors.forbidden(FIELD, ONLY_LOAD_BALANCER);
    }
    for (at, range) in ranges.iter().enumerate() {
        names::check_cidr(errors, &format!("{FIELD}[{at}]"), range.trim());
    }
}

/// The path is the spec's.
fn check_traffic(spec: &ServiceSpec, errors: &mut FieldErrors) {
    let balanced = spec.kind() == "LoadBalancer";
    match (spec.allocate_load_balancer_node_ports, balanced) {
        (Some(_), false) => errors.forbidden("allocateLoadBalancerNodePorts", ONLY_LOAD_BALANCER),
        (None, true) => errors.required("allocateLoadBalancerNodePorts", ""),
        _ => {}
    }
    match (&spec.load_balancer_class, balanced) {
        (Some(class), true) => report(errors, "loadBalancerClass", class, names::qualified(class)),
        (Some(_), false) => errors.forbidden("loadBalancerClass", ONLY_LOAD_BALANCER),
        _ => {}
    }
    let policy = text(&spec.external_traffic_policy);
    match (spec.is_reachable_from_outside(), policy) {
        (false, "") => {}
        (false, policy) => errors.invalid(
            "externalTrafficPolicy",
            policy,
            "may only be set for externally-accessible services",
        ),
        (true, "") => errors.required("externalTrafficPolicy", ""),
        (true, policy) => check_one_of(errors, "externalTrafficPolicy", policy, &["Cluster", "Local"]),
    }
    match (spec.needs_health_check(), spec.health_check_node_port.unwrap_or(0)) {
        (false, 0) => {}
        (false, port) => errors.invalid(
            "healthCheckNodePort",
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (true, 0) => errors.required("healthCheckNodePort", ""),
        (true, port) => {
            for fault in names::port(port) {
                errors.invalid("healthCheckNodePort", port, fault);
            }
        }
    }
    match &spec.internal_traffic_policy {
        None if spec.has_cluster_ip() => errors.required("internalTrafficPolicy", ""),
        None => {}
        Some(policy) => check_one_of(errors, "internalTrafficPolicy", policy, &["Cluster", "Local"]),
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let allowed = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        check_one_of(errors, "trafficDistribution", distribution, &allowed);
    }
}

/// Upstream: `ValidateServiceUpdate`.
pub(super) fn check_change(new: &ServiceSpec, old: &ServiceSpec, errors: &mut FieldErrors) {
    if new.has_cluster_ip() && old.has_cluster_ip() && !(new.is_headless() && old.is_headless()) {
        check_kept_addresses(new, old, errors);
    }
    if new.has_cluster_ip() && old.has_cluster_ip() {
        check_kept_families(new, old, errors);
    }
    let balanced = |spec: &ServiceSpec| spec.kind() == "LoadBalancer";
    if balanced(new) && balanced(old) && new.load_balancer_class != old.load_balancer_class {
        errors.invalid("spec.loadBalancerClass", new.load_balancer_class.clone(), "may not change once set");
    }
    if new.needs_health_check()
        && old.needs_health_check()
        && new.health_check_node_port != old.health_check_node_port
    {
        errors.forbidden("spec.healthCheckNodePort", "field is immutable");
    }
}

fn check_kept_addresses(new: &ServiceSpec, old: &ServiceSpec, errors: &mut FieldErrors) {
    const KEPT: &str = "may not change once set";
    let own = new.cluster_ips.clone().unwrap_or_default();
    let before = old.cluster_ips.clone().unwrap_or_default();
    if own.len() == before.len() {
        for (at, _) in own.iter().zip(&before).enumerate().filter(|(_, (own, before))| own != before) {
            errors.invalid(&format!("spec.clusterIPs[{at}]"), own.clone(), KEPT);
        }
        return;
    }
    if own.is_empty() {
        errors.invalid("spec.clusterIPs[0]", own.clone(), "primary clusterIP can not be unset");
    }
    if let (Some(first), Some(was)) = (own.first(), before.first())
        && first != was
    {
        errors.invalid("spec.clusterIPs[0]", own.clone(), KEPT);
    }
    if own.len() == 1 && before.len() > 1 && new.ip_family_policy.as_deref() != Some("SingleStack") {
        errors.invalid(
            "spec.ipFamilyPolicy",
            new.ip_family_policy.clone(),
            "must be set to 'SingleStack' when releasing the secondary clusterIP",
        );
    }
}

fn check_kept_families(new: &ServiceSpec, old: &ServiceSpec, errors: &mut FieldErrors) {
    if new.is_headless() && old.is_headless() {
        let selects = |spec: &ServiceSpec| spec.selector.as_ref().is_some_and(|own| !own.is_empty());
        if !selects(new) && !selects(old) {
            return;
        }
    }
    let own = new.ip_families.clone().unwrap_or_default();
    let before = old.ip_families.clone().unwrap_or_default();
    for (at, (family, was)) in own.iter().zip(&before).enumerate() {
        if family != was {
            let field = format!("spec.ipFamilies[{at}]");
            errors.invalid(&field, family.as_str(), "may not change once set");
        }
    }
    if own.is_empty() && !before.is_empty() {
        errors.invalid("spec.ipFamilies[0]", own, "primary ipFamily can not be unset");
    }
}

pub(super) fn check_status(service: &Service, errors: &mut FieldErrors) {
    let spec = service.spec.clone().unwrap_or_default();
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    errors.at("status.loadBalancer", |errors| {
        if spec.kind() != "LoadBalancer" && !ingress.is_empty() {
            return errors.forbidden("ingress", "may only be used when `spec.type` is 'LoadBalancer'");
        }
        for (at, own) in ingress.iter().enumerate() {
            errors.at(&format!("ingress[{at}]"), |errors| {
                let (ip, host) = (text(&own.ip), text(&own.hostname));
                if !ip.is_empty() {
                    names::check_ip(errors, "ip", ip);
                }
                match (&own.ip_mode, ip) {
                    (None, "") => {}
                    (None, _) => errors.required("ipMode", "must be specified when `ip` is set"),
                    (Some(_), "") => {
                        errors.forbidden("ipMode", "may not be specified when `ip` is not set");
                    }
                    (Some(mode), _) => check_one_of(errors, "ipMode", mode, &["Proxy", "VIP"]),
                }
                if !host.is_empty() {
                    report(errors, "hostname", host, names::dns_subdomain(host));
                    if host.parse::<std::net::IpAddr>().is_ok() {
                        errors.invalid("hostname", host, "must be a DNS name, not an IP address");
                    }
                }
            });
        }
    });
}
