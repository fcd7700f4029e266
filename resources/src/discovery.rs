//! `discovery.k8s.io/v1`. Upstream: `pkg/registry/discovery`.

use crate::cells::{first, list, or};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

/// How many ports or addresses a cell shows.
const SHOWN_MAX: usize = 3;

pub(crate) fn endpoint_slice() -> Resource {
    Resource::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", Scope::Namespaced)
        .columns(vec![
            Column::or("AddressType", "/addressType", ""),
            Column::computed("Ports", |o, _| {
                let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
                    (Some(number), _) => number.to_string(),
                    (None, Some(name)) => name.to_owned(),
                    (None, None) => "*".to_owned(),
                };
                first(&list(o, "/ports").iter().map(port).collect::<Vec<_>>(), SHOWN_MAX, ",").into()
            }),
            Column::computed("Endpoints", |o, _| {
                let all: Vec<_> = list(o, "/endpoints")
                    .iter()
                    .flat_map(|endpoint| list(endpoint, "/addresses"))
                    .map(|address| or(address.as_str().unwrap_or(""), "").to_owned())
                    .collect();
                first(&all, SHOWN_MAX, ",").into()
            }),
            Column::age(),
        ])
        .generation()
}
