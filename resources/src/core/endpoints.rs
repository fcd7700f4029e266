//! `Endpoints`. Upstream: `pkg/registry/core/endpoint`.

use crate::cells::{NONE, list};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

/// How many addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) fn resource() -> Resource {
    let mut resource = Resource::new("", "v1", "Endpoints", "endpoints", Scope::Namespaced)
        .short_names(&["ep"])
        .columns(vec![Column::computed("Endpoints", |o, _| addresses(o).into()), Column::age()]);
    resource.list_kind = "EndpointsList".to_owned();
    resource
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(endpoints, "/subsets") {
        let ips = || list(subset, "/addresses").iter().filter_map(|address| address["ip"].as_str());
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(ips().map(str::to_owned));
        }
        for port in ports {
            let port = port["port"].as_i64().unwrap_or(0);
            all.extend(ips().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            }));
        }
    }
    match list(endpoints, "/subsets").is_empty() {
        true => NONE.to_owned(),
        false if all.is_empty() => String::new(),
        false => crate::cells::first(&all, SHOWN_MAX, ","),
    }
}
