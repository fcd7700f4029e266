//! `Service`. Upstream: `pkg/registry/core/service`, `pkg/apis/core/validation`.

use crate::cells::{NONE, labels, list, load_balancer, or, text};
use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    let mut resource = Resource::new("", "v1", "Service", "services", Scope::Namespaced)
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
        .status();
    resource.singular = "service".to_owned();
    resource
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
