//! Why a service does not answer.

use super::{Finding, Named, Objects, matches, pod};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

/// Whose endpoints a slice has.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Endpoints that are written out.
const ENDPOINTS_SHOWN_MAX: usize = 5;

/// Follows the chain: type, selector, pods, their readiness, ports, endpoints, address.
pub(super) fn explain(service: &Service, objects: &Objects) -> Vec<Finding> {
    let about = format!("service/{}", service.name());
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.unwrap_or_default();
        let says = format!(
            "is another name for {target}: DNS answers with it, and nothing is sent through the cluster"
        );
        return vec![Finding::fine(about, says)];
    }
    let slices: Vec<_> = objects
        .slices
        .iter()
        .filter(|slice| {
            slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)).map(String::as_str)
                == Some(service.name())
        })
        .collect();
    let ready = ready_endpoints(&slices);
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() {
        return vec![by_hand(about, service, &ready)];
    }
    let pods: Vec<_> =
        objects.pods.iter().filter(|pod| matches(pod.metadata.labels.as_ref(), &selector)).collect();
    if pods.is_empty() {
        return vec![nobody(about, &selector, objects)];
    }
    let mut findings = Vec::new();
    if ready.is_empty() && pods.iter().any(|pod| pod::is_ready(pod)) {
        findings
            .push(Finding::waiting(about.as_str(), "has ready pods that are not among its endpoints yet"));
    } else if ready.is_empty() {
        let says = format!("selects {} pods, and none of them takes connections", pods.len());
        findings.push(Finding::stuck(about.as_str(), says));
        findings.extend(objects.explain_pods(pods.iter().copied()));
    }
    findings.extend(spec.ports.iter().flatten().filter_map(|port| no_such_port(&about, port, &pods)));
    if spec.type_.as_deref() == Some("LoadBalancer") && !has_ingress(service) {
        findings.push(
            Finding::waiting(about.as_str(), "has no address outside yet: nothing that gives addresses to LoadBalancer services has done so")
                .hint("it works inside the cluster, and through its node port"),
        );
    }
    if findings.is_empty() {
        findings.push(answers(about, service, &ready));
    }
    findings
}

fn ready_endpoints(slices: &[&EndpointSlice]) -> Vec<String> {
    let of = |slice: &&EndpointSlice| {
        let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
        let is_ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
            endpoint.conditions.as_ref().is_none_or(|own| own.ready != Some(false))
        };
        let addresses: Vec<_> = slice
            .endpoints
            .iter()
            .flatten()
            .filter(is_ready)
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect();
        addresses
            .into_iter()
            .flat_map(move |address| ports.clone().into_iter().map(move |port| format!("{address}:{port}")))
            .collect::<Vec<_>>()
    };
    slices.iter().flat_map(of).collect()
}

fn has_ingress(service: &Service) -> bool {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.is_some_and(|own| own.ingress.as_ref().is_some_and(|ingress| !ingress.is_empty()))
}

fn by_hand(about: String, service: &Service, ready: &[String]) -> Finding {
    if ready.is_empty() {
        let hint = format!(
            "give it a selector, or make an EndpointSlice with the label {SERVICE_LABEL}={}",
            service.name()
        );
        return Finding::stuck(about, "has no selector, and nobody has written endpoints for it").hint(hint);
    }
    answers(about, service, ready)
}

fn answers(about: String, service: &Service, ready: &[String]) -> Finding {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or("None");
    let mut shown = ready.iter().take(ENDPOINTS_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if let more @ 1.. = ready.len().saturating_sub(ENDPOINTS_SHOWN_MAX) {
        shown.push_str(&format!(" and {more} more"));
    }
    let what = match address {
        "None" => "is headless: its name stands for".to_owned(),
        address => format!("sends {address} to"),
    };
    Finding::fine(about, format!("{what} {shown}"))
}

fn nobody(about: String, selector: &BTreeMap<String, String>, objects: &Objects) -> Finding {
    let words: Vec<_> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let finding = Finding::stuck(
        about,
        format!("selects no pod: none in namespace {} has {}", objects.namespace, words.join(",")),
    );
    // The pod that misses the fewest words, if it has one at all or the same key with another value.
    let near = objects.pods.iter().find_map(|pod| {
        let labels = pod.metadata.labels.as_ref()?;
        let (key, value) = selector.keys().find_map(|key| labels.get_key_value(key))?;
        Some(format!("pod/{} has {key}={value}", pod.name()))
    });
    finding.hint(near.unwrap_or_else(|| {
        format!("kubectl -n {} get pods --show-labels shows what they have", objects.namespace)
    }))
}

/// A port that no container of the pods says to have. A number may be right all the same; a name may not.
fn no_such_port(about: &str, port: &ServicePort, pods: &[&Pod]) -> Option<Finding> {
    let declared = || {
        pods.iter().flat_map(|pod| {
            let spec = pod.spec.iter();
            let containers =
                spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            containers.flat_map(|container| container.ports.iter().flatten())
        })
    };
    let mut numbers: Vec<_> = declared().map(|own| own.container_port).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let told = || numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    match port.target_port.as_ref()? {
        IntOrString::String(name) if declared().all(|own| own.name.as_ref() != Some(name)) => {
            let says = format!("sends port {} to the port named {name}, which no container has", port.port);
            Some(
                Finding::stuck(about, says)
                    .hint("name the container's port so, or use its number as targetPort"),
            )
        }
        IntOrString::Int(number) if !numbers.is_empty() && !numbers.contains(number) => {
            let says =
                format!("sends port {} to {number}; its pods say that they listen on {}", port.port, told());
            Some(Finding::waiting(about, says).hint("if nothing listens there, correct targetPort"))
        }
        _ => None,
    }
}
