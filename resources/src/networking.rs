//! `networking.k8s.io/v1`. Upstream: `pkg/registry/networking`.

use crate::cells::{NONE, list, load_balancer, or, selector, text};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

const GROUP: &str = "networking.k8s.io";

/// How many hosts a cell shows.
const HOSTS_SHOWN_MAX: usize = 3;

pub(crate) fn ingress() -> Resource {
    Resource::new(GROUP, "v1", "Ingress", "ingresses", Scope::Namespaced)
        .short_names(&["ing"])
        .columns(vec![
            Column::or("Class", "/spec/ingressClassName", NONE),
            Column::computed("Hosts", |o, _| hosts(o).into()),
            Column::computed("Address", |o, _| load_balancer(o).into()),
            Column::computed("Ports", |o, _| match list(o, "/spec/tls").is_empty() {
                true => "80".into(),
                false => "80, 443".into(),
            }),
            Column::age(),
        ])
        .status()
        .generation()
}

fn hosts(ingress: &Value) -> String {
    let rules = list(ingress, "/spec/rules");
    let hosts: Vec<_> =
        rules.iter().map(|rule| text(rule, "/host")).filter(|host| !host.is_empty()).collect();
    match (hosts.len(), rules.len()) {
        (0, _) => "*".to_owned(),
        (_, rules) if rules > HOSTS_SHOWN_MAX && hosts.len() >= HOSTS_SHOWN_MAX => {
            format!("{} + {} more...", hosts[..HOSTS_SHOWN_MAX].join(","), rules - HOSTS_SHOWN_MAX)
        }
        _ => hosts.join(","),
    }
}

pub(crate) fn ingress_class() -> Resource {
    Resource::new(GROUP, "v1", "IngressClass", "ingressclasses", Scope::Cluster)
        .columns(vec![
            Column::or("Controller", "/spec/controller", ""),
            Column::computed("Parameters", |o, _| match o.pointer("/spec/parameters") {
                None => NONE.into(),
                Some(parameters) => {
                    let kind = match text(parameters, "/apiGroup") {
                        "" => text(parameters, "/kind").to_owned(),
                        group => format!("{}.{group}", text(parameters, "/kind")),
                    };
                    format!("{kind}/{}", text(parameters, "/name")).into()
                }
            }),
            Column::age(),
        ])
        .generation()
}

pub(crate) fn network_policy() -> Resource {
    Resource::new(GROUP, "v1", "NetworkPolicy", "networkpolicies", Scope::Namespaced)
        .short_names(&["netpol"])
        .columns(vec![
            Column::computed("Pod-Selector", |o, _| selector(o, "/spec/podSelector").into()),
            Column::age(),
        ])
        .generation()
}

pub(crate) fn ip_address() -> Resource {
    Resource::new(GROUP, "v1", "IPAddress", "ipaddresses", Scope::Cluster)
        .short_names(&["ip"])
        .columns(vec![Column::computed("ParentRef", |o, _| parent(o).into()), Column::age()])
}

fn parent(address: &Value) -> String {
    let Some(parent) = address.pointer("/spec/parentRef") else {
        return NONE.to_owned();
    };
    let resource = text(parent, "/resource");
    let mut shown = match text(parent, "/group") {
        "" => resource.to_lowercase(),
        group => format!("{resource}.{group}").to_lowercase(),
    };
    for part in [text(parent, "/namespace"), or(text(parent, "/name"), " ")] {
        if !part.is_empty() {
            shown.push('/');
            shown.push_str(part.trim());
        }
    }
    shown
}

pub(crate) fn service_cidr() -> Resource {
    Resource::new(GROUP, "v1", "ServiceCIDR", "servicecidrs", Scope::Cluster)
        .columns(vec![
            Column::computed("CIDRs", |o, _| {
                let cidrs: Vec<_> = list(o, "/spec/cidrs").iter().filter_map(Value::as_str).collect();
                cidrs.join(",").into()
            }),
            Column::age(),
        ])
        .status()
}
