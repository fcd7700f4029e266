//! `policy/v1`. Upstream: `pkg/registry/policy`.

use api::resource::{Column, Resource, Scope};
use serde_json::Value;

pub(crate) fn pod_disruption_budget() -> Resource {
    Resource::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", Scope::Namespaced)
        .short_names(&["pdb"])
        .columns(vec![
            Column::computed("Min Available", |o, _| amount_text(o.pointer("/spec/minAvailable"))),
            Column::computed("Max Unavailable", |o, _| amount_text(o.pointer("/spec/maxUnavailable"))),
            Column::number("Allowed Disruptions", "/status/disruptionsAllowed"),
            Column::age(),
        ])
        .status()
        .generation()
}

fn amount_text(amount: Option<&Value>) -> Value {
    match amount {
        Some(Value::String(percent)) => percent.clone().into(),
        Some(count) => count.to_string().into(),
        None => "N/A".into(),
    }
}
