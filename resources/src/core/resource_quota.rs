//! `ResourceQuota`. Upstream: `pkg/registry/core/resourcequota`.

use crate::cells::or;
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ResourceQuota", "resourcequotas", Scope::Namespaced)
        .short_names(&["quota"])
        .columns(vec![
            Column::computed("Request", |o, _| shown(o, false).into()),
            Column::computed("Limit", |o, _| shown(o, true).into()),
            Column::age(),
        ])
        .status()
}

/// The used and the hard amounts of limits, or of everything else.
fn shown(quota: &Value, limits: bool) -> String {
    let hard = quota.pointer("/status/hard").and_then(Value::as_object);
    let terms: Vec<_> = hard
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = quota["status"]["used"][name].as_str().unwrap_or("");
            format!("{name}: {}/{}", or(used, "0"), hard.as_str().unwrap_or("0"))
        })
        .collect();
    terms.join(", ")
}
