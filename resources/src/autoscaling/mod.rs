//! `autoscaling`: `HorizontalPodAutoscaler` in v2 (kept) and v1 (converted).
//! Upstream: `pkg/registry/autoscaling`, `pkg/apis/autoscaling`.

mod convert;
#[cfg(test)]
mod tests;

use crate::cells::{NONE, first, list, number, text};
use api::resource::{Column, Resource, Scope};
use api::strategy::{Context, DynStrategy, Outcome, Thin};
use api::{FieldErrors, Status};
use serde_json::{Value, json};

/// How many metrics a cell shows.
const SHOWN_MAX: usize = 2;

pub(crate) fn v2() -> Resource {
    autoscaler("v2")
        .columns(columns(|o, _| targets(list(o, "/spec/metrics"), o).into()))
        .rules(Rules { is_kept: true })
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
    autoscaler("v1").columns(columns(shown)).rules(Rules { is_kept: false }).shares(
        "autoscaling",
        "horizontalpodautoscalers",
        "v2",
    )
}

/// What nobody asked for: enough for a small deployment that is measured by its CPU.
const MIN_REPLICAS: i64 = 1;
const CPU_PERCENT: i64 = 80;

/// Defaults of both versions, and the conversion of the one that is not kept.
struct Rules {
    /// Whether objects are kept in this version (v2).
    is_kept: bool,
}

/// The metric of who names none.
fn usual_metric() -> Value {
    cpu_metric(CPU_PERCENT)
}

fn cpu_metric(percent: i64) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

/// Whoever changes one side of the behaviour gets the rest of both. Upstream: `pkg/apis/autoscaling/v2/defaults.go`.
fn default_behavior(behavior: &mut Value) {
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let sides = [
        (
            "scaleUp",
            json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]}),
        ),
        ("scaleDown", json!({"selectPolicy": "Max", "policies": [percent]})),
    ];
    for (side, usual) in sides {
        if behavior[side].is_null() {
            behavior[side] = json!({});
        }
        let (Some(own), Some(usual)) = (behavior[side].as_object_mut(), usual.as_object()) else { continue };
        for (field, value) in usual {
            if own.get(field).is_none_or(Value::is_null) {
                own.insert(field.clone(), value.clone());
            }
        }
    }
}

impl DynStrategy for Rules {
    fn default(&self, object: &mut Value) -> Result<(), Status> {
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            if spec["minReplicas"].is_null() {
                spec["minReplicas"] = MIN_REPLICAS.into();
            }
            if self.is_kept {
                if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
                    spec["metrics"] = json!([usual_metric()]);
                }
                if spec.get("behavior").is_some_and(Value::is_object) {
                    default_behavior(&mut spec["behavior"]);
                }
            }
        }
        if self.is_kept {
            convert::take_annotations(object);
        }
        Ok(())
    }
    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.create(object, errors, cx)
    }
    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.update(new, old, errors, cx)
    }
    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Thin.update_status(new, old, errors, cx)
    }
    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Result<Option<i64>, Status> {
        Thin.grace_seconds(object, asked)
    }
    fn converts(&self) -> bool {
        !self.is_kept
    }
    fn from_stored(&self, object: &mut Value) -> Result<(), Status> {
        convert::to_v1(object);
        object["apiVersion"] = "autoscaling/v1".into();
        Ok(())
    }
    fn to_stored(&self, object: &mut Value) -> Result<(), Status> {
        convert::to_v2(object);
        Ok(())
    }
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
