//! `HorizontalPodAutoscaler` between v2 and v1. What v1 has no fields for is in annotations there, so that nothing is lost on the
//! way back. Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

use super::{cpu_metric, usual_metric};
use api::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Earlier versions of upstream wrote the last two.
const ALL: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// One kind of metric: where v1 and v2 keep its fields.
struct Form {
    kind: &'static str,
    part: &'static str,
    /// In v1, and as a pointer in v2.
    fields: &'static [(&'static str, &'static str)],
    /// A field of v1 that is always there.
    always: Option<&'static str>,
}

const SPECS: [Form; 5] = [
    Form {
        kind: "Object",
        part: "object",
        fields: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("averageValue", "/target/averageValue"),
        ],
        always: Some("targetValue"),
    },
    Form {
        kind: "Pods",
        part: "pods",
        fields: &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        always: Some("targetAverageValue"),
    },
    Form {
        kind: "Resource",
        part: "resource",
        fields: &[
            ("name", "/name"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        always: None,
    },
    Form {
        kind: "ContainerResource",
        part: "containerResource",
        fields: &[
            ("name", "/name"),
            ("container", "/container"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        always: None,
    },
    Form {
        kind: "External",
        part: "external",
        fields: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
        always: None,
    },
];

const STATUSES: [Form; 5] = [
    Form {
        kind: "Object",
        part: "object",
        fields: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("averageValue", "/current/averageValue"),
        ],
        always: Some("currentValue"),
    },
    Form {
        kind: "Pods",
        part: "pods",
        fields: &[
            ("metricName", "/metric/name"),
            ("selector", "/metric/selector"),
            ("currentAverageValue", "/current/averageValue"),
        ],
        always: Some("currentAverageValue"),
    },
    Form {
        kind: "Resource",
        part: "resource",
        fields: &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
        always: Some("currentAverageValue"),
    },
    Form {
        kind: "ContainerResource",
        part: "containerResource",
        fields: &[
            ("name", "/name"),
            ("container", "/container"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
        always: Some("currentAverageValue"),
    },
    Form {
        kind: "External",
        part: "external",
        fields: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
        always: Some("currentValue"),
    },
];

fn form<'a>(metric: &Value, forms: &'a [Form]) -> Option<&'a Form> {
    forms.iter().find(|form| metric["type"] == *form.kind)
}

/// Sets a value below objects that are made on the way.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for part in pointer.split('/').skip(1) {
        place = &mut place[part];
    }
    *place = value;
}

fn metric_to_v1(metric: &Value, forms: &[Form]) -> Value {
    let Some(form) = form(metric, forms) else { return json!({"type": metric["type"]}) };
    let own = &metric[form.part];
    let mut out = Map::new();
    for (old, new) in form.fields {
        match own.pointer(new).filter(|value| !value.is_null()) {
            Some(value) => _ = out.insert((*old).to_owned(), value.clone()),
            None if form.always == Some(*old) => _ = out.insert((*old).to_owned(), "0".into()),
            None => {}
        }
    }
    json!({"type": form.kind, form.part: out})
}

fn metric_to_v2(metric: &Value, forms: &[Form]) -> Value {
    let Some(form) = form(metric, forms) else { return json!({"type": metric["type"]}) };
    let own = &metric[form.part];
    if !own.is_object() {
        // It will be refused as it is.
        return metric.clone();
    }
    let mut out = json!({});
    for (old, new) in form.fields {
        if let Some(value) = own.get(*old).filter(|value| !value.is_null()) {
            put(&mut out, new, value.clone());
        }
    }
    json!({"type": form.kind, form.part: out})
}

/// What v1 leaves open: how the target is meant.
fn with_target_type(mut metric: Value) -> Value {
    let Some(form) = form(&metric, &SPECS).filter(|form| metric[form.part].is_object()) else {
        return metric;
    };
    let target = &mut metric[form.part]["target"];
    let has = |field: &str| !target[field].is_null();
    let kind = match form.kind {
        "Resource" | "ContainerResource" if has("averageUtilization") => "Utilization",
        "Object" if !has("averageValue") => "Value",
        "External" if has("value") => "Value",
        _ => "AverageValue",
    };
    let is_zero = |value: &Value| {
        value.as_str().and_then(|text| Quantity::parse(text).ok()).is_some_and(|own| own.is_zero())
    };
    // v1 cannot leave the value out.
    if form.kind == "Object"
        && kind == "AverageValue"
        && is_zero(&target["value"])
        && let Some(target) = target.as_object_mut()
    {
        target.remove("value");
    }
    target["type"] = kind.into();
    metric
}

fn is_cpu_percent(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && metric["resource"]["target"]["averageUtilization"].is_i64()
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Takes the annotations of the conversion off an object.
pub(super) fn take_annotations(object: &mut Value) -> Map<String, Value> {
    let mut taken = Map::new();
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return taken;
    };
    for key in ALL {
        if let Some(value) = annotations.remove(key) {
            taken.insert(key.to_owned(), value);
        }
    }
    let is_empty = annotations.is_empty() && !taken.is_empty();
    if let Some(metadata) = object["metadata"].as_object_mut().filter(|_| is_empty) {
        metadata.remove("annotations");
    }
    taken
}

/// An object of v2 becomes one of v1.
pub(super) fn to_v1(object: &mut Value) {
    take_annotations(object);
    let metrics = items(object, "/spec/metrics");
    let percent = metrics.iter().find(|metric| is_cpu_percent(metric));
    let percent = percent.map(|metric| metric["resource"]["target"]["averageUtilization"].clone());
    let others: Vec<_> =
        metrics.iter().filter(|own| !is_cpu_percent(own)).map(|own| metric_to_v1(own, &SPECS)).collect();
    let statuses = items(object, "/status/currentMetrics");
    let current = statuses.iter().rev().find(|own| {
        own["resource"]["name"] == "cpu" && own["resource"]["current"]["averageUtilization"].is_i64()
    });
    let current = current.map(|own| own["resource"]["current"]["averageUtilization"].clone());
    let statuses: Vec<_> = statuses.iter().map(|own| metric_to_v1(own, &STATUSES)).collect();
    let conditions = items(object, "/status/conditions").to_vec();
    let behavior = object.pointer("/spec/behavior").filter(|own| !own.is_null()).map(go_names);

    let mut annotate = |key: &str, value: Value| {
        object["metadata"]["annotations"][key] = value.to_string().into();
    };
    if !others.is_empty() {
        annotate(METRICS, others.into());
    }
    if !statuses.is_empty() {
        annotate(CURRENT_METRICS, statuses.into());
    }
    if let Some(behavior) = behavior {
        annotate(BEHAVIOR, behavior);
    }
    if !conditions.is_empty() {
        annotate(CONDITIONS, conditions.into());
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("metrics");
        spec.remove("behavior");
        spec.extend(percent.map(|percent| ("targetCPUUtilizationPercentage".to_owned(), percent)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("currentMetrics");
        status.remove("conditions");
        status.extend(current.map(|percent| ("currentCPUUtilizationPercentage".to_owned(), percent)));
    }
}

/// What an annotation says, if it fits the type. People may have written anything there.
fn read<T: DeserializeOwned + Serialize>(
    annotations: &Map<String, Value>,
    key: &str,
    convert: impl Fn(Value) -> Value,
) -> Option<Value> {
    let value = serde_json::from_str(annotations.get(key)?.as_str()?).ok()?;
    let typed: T = serde_json::from_value(convert(value)).ok()?;
    serde_json::to_value(typed).ok()
}

fn each(value: Value, convert: impl Fn(&Value) -> Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(convert).collect(),
        other => other,
    }
}

/// An object of v1 becomes one of v2.
pub(super) fn to_v2(object: &mut Value) {
    let annotations = take_annotations(object);
    let metrics = read::<Vec<MetricSpec>>(&annotations, METRICS, |own| {
        each(own, |metric| with_target_type(metric_to_v2(metric, &SPECS)))
    });
    let behavior = read::<HorizontalPodAutoscalerBehavior>(&annotations, BEHAVIOR, |own| json_names(&own));
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let percent = spec.remove("targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64());
        let mut metrics = metrics.and_then(|own| own.as_array().cloned()).unwrap_or_default();
        metrics.extend(percent.map(cpu_metric));
        if metrics.is_empty() {
            metrics.push(usual_metric());
        }
        spec.insert("metrics".to_owned(), metrics.into());
        let behavior = behavior.filter(|own| own.as_object().is_some_and(|own| !own.is_empty()));
        spec.extend(behavior.map(|behavior| ("behavior".to_owned(), behavior)));
    }
    let statuses = read::<Vec<MetricStatus>>(&annotations, CURRENT_METRICS, |own| {
        each(own, |own| metric_to_v2(own, &STATUSES))
    });
    let conditions = read::<Vec<HorizontalPodAutoscalerCondition>>(&annotations, CONDITIONS, |own| own);
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    let percent = status.remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null());
    let statuses = statuses.or_else(|| {
        let current = json!({"averageUtilization": percent?});
        Some(json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]))
    });
    status.extend(statuses.map(|list| ("currentMetrics".to_owned(), list)));
    status.extend(conditions.map(|list| ("conditions".to_owned(), list)));
}

/// Upstream writes the behaviour with the names of its Go fields, and what is unset as null.
fn go_names(behavior: &Value) -> Value {
    let upper = |object: &Value, fields: &[&str]| -> Value {
        let field = |name: &&str| {
            let mut upper = (*name).to_owned();
            upper[..1].make_ascii_uppercase();
            (upper, object[*name].clone())
        };
        Value::Object(fields.iter().map(field).collect())
    };
    let rules = |side: &str| {
        let own = &behavior[side];
        if own.is_null() {
            return Value::Null;
        }
        let mut out = upper(own, &["stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance"]);
        let policies = own["policies"].as_array();
        out["Policies"] = policies.map_or(Value::Null, |list| {
            list.iter().map(|policy| upper(policy, &["type", "value", "periodSeconds"])).collect()
        });
        out
    };
    json!({"ScaleUp": rules("scaleUp"), "ScaleDown": rules("scaleDown")})
}

/// The way back: the first letter of every name is lower case, and null says nothing.
fn json_names(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.iter().filter(|(_, value)| !value.is_null());
            let lower = set.map(|(name, value)| {
                let mut chars = name.chars();
                let first = chars.next().map(|first| first.to_ascii_lowercase());
                (first.into_iter().chain(chars).collect(), json_names(value))
            });
            Value::Object(lower.collect())
        }
        Value::Array(list) => list.iter().map(json_names).collect(),
        other => other.clone(),
    }
}
