//! `autoscaling`: `HorizontalPodAutoscaler` in v2 (kept) and v1 (converted).
//! Upstream: `pkg/registry/autoscaling`, `pkg/apis/autoscaling`.

use crate::cells::{NONE, first, list, number, text};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

/// How many metrics a cell shows.
const SHOWN_MAX: usize = 2;

pub(crate) fn v2() -> Resource {
    autoscaler("v2").columns(columns(|o, _| targets(list(o, "/spec/metrics"), o).into()))
}

pub(crate) fn v1() -> Resource {
    let shown: fn(&Value, jiff::Timestamp) -> Value = |o, _| {
        let percent =
            |pointer| o.pointer(pointer).and_then(Value::as_i64).map(|percent| format!("{percent}%"));
        match percent("/spec/targetCPUUtilizationPercentage") {
            None => NONE.into(),
            Some(target) => {
                let current = percent("/status/currentCPUUtilizationPercentage");
                format!("cpu: {}/{target}", current.unwrap_or("<unknown>".to_owned())).into()
            }
        }
    };
    autoscaler("v1").columns(columns(shown)).shares("autoscaling", "horizontalpodautoscalers", "v2")
}

fn autoscaler(version: &str) -> Resource {
    Resource::new(
        "autoscaling",
        version,
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        Scope::Namespaced,
    )
    .short_names(&["hpa"])
    .categories(&["all"])
    .status()
    .generation()
}

fn columns(targets: fn(&Value, jiff::Timestamp) -> Value) -> Vec<Column> {
    vec![
        Column::computed("Reference", |o, _| {
            format!("{}/{}", text(o, "/spec/scaleTargetRef/kind"), text(o, "/spec/scaleTargetRef/name"))
                .into()
        }),
        Column::computed("Targets", targets),
        Column::computed("MinPods", |o, _| match o.pointer("/spec/minReplicas") {
            Some(count) => count.to_string().into(),
            None => "<unset>".into(),
        }),
        Column::or("MaxPods", "/spec/maxReplicas", 0),
        Column::computed("Replicas", |o, _| number(o, "/status/currentReplicas").into()),
        Column::age(),
    ]
}

fn targets(metrics: &[Value], autoscaler: &Value) -> String {
    let all: Vec<_> = metrics
        .iter()
        .enumerate()
        .map(|(at, metric)| {
            let status = list(autoscaler, "/status/currentMetrics").get(at).unwrap_or(&Value::Null);
            metric_text(metric, status)
        })
        .collect();
    first(&all, SHOWN_MAX, ", ")
}

fn metric_text(metric: &Value, status: &Value) -> String {
    let part = match text(metric, "/type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&metric[part]["target"], &status[part]["current"]);
    let amount = |from: &Value, field: &str| from[field].as_str().map(str::to_owned);
    let percent = |from: &Value| from["averageUtilization"].as_i64().map(|percent| format!("{percent}%"));
    let current_or = |value: Option<String>| value.unwrap_or("<unknown>".to_owned());
    let average = amount(target, "averageValue");
    match part {
        "resource" | "containerResource" => {
            let name = text(&metric[part], "/name");
            match average {
                Some(average) => format!("{name}: {}/{average}", current_or(amount(current, "averageValue"))),
                None => format!(
                    "{name}: {}/{}",
                    current_or(percent(current)),
                    percent(target).unwrap_or("<auto>".to_owned())
                ),
            }
        }
        "pods" => {
            format!("{}/{}", current_or(amount(current, "averageValue")), average.unwrap_or("0".to_owned()))
        }
        _ => match average {
            Some(average) => format!("{}/{average} (avg)", current_or(amount(current, "averageValue"))),
            None => {
                let target = amount(target, "value").unwrap_or("0".to_owned());
                format!("{}/{target}", current_or(amount(current, "value")))
            }
        },
    }
}
