use super::{v1, v2};
use serde_json::{Value, json};

/// An autoscaler of v2; `spec` and `status` are what matters of it.
fn new(spec: Value, status: Value) -> Value {
    let mut object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "annotations": {"own": "kept"}},
        "spec": {"maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
        "status": {"currentReplicas": 2, "desiredReplicas": 3}});
    for (part, changes) in [("spec", spec), ("status", status)] {
        for (key, value) in changes.as_object().unwrap() {
            object[part][key] = value.clone();
        }
    }
    object
}

fn annotation(object: &Value, name: &str) -> Value {
    let text = &object["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")];
    text.as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn cpu(target: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn eighty() -> Value {
    cpu(json!({"type": "Utilization", "averageUtilization": 80}))
}

#[test]
fn the_percentage_of_the_cpu_is_a_field_of_v1() {
    let mut object = new(
        json!({"metrics": [eighty()]}),
        json!({"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 40, "averageValue": "100m"}}}]}),
    );
    let before = object.clone();
    v1().strategy.from_stored(&mut object).unwrap();
    assert_eq!(object["apiVersion"], "autoscaling/v1");
    let spec = json!({"maxReplicas": 5, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
        "targetCPUUtilizationPercentage": 80});
    assert_eq!(object["spec"], spec);
    let status = json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 40});
    assert_eq!(object["status"], status);
    assert_eq!(annotation(&object, "metrics"), Value::Null);
    let current = json!([{"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 40,
        "currentAverageValue": "100m"}}]);
    assert_eq!(annotation(&object, "current-metrics"), current);
    v1().strategy.to_stored(&mut object).unwrap();
    object["apiVersion"] = "autoscaling/v2".into();
    assert_eq!(object, before);
}

#[test]
fn nothing_is_lost_on_the_way_there_and_back() {
    let check = |spec: Value, status: Value| {
        let mut object = new(spec, status);
        let before = object.clone();
        v1().strategy.from_stored(&mut object).unwrap();
        assert!(object["spec"]["metrics"].is_null() && object["spec"]["behavior"].is_null());
        assert!(object["status"]["conditions"].is_null() && object["status"]["currentMetrics"].is_null());
        v1().strategy.to_stored(&mut object).unwrap();
        object["apiVersion"] = "autoscaling/v2".into();
        assert_eq!(object, before);
    };
    let object = json!({"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"});
    let metric = json!({"name": "m", "selector": {"matchLabels": {"a": "b"}}});
    let one = |kind: &str, part: &str, own: Value| json!({"type": kind, part: own});
    let target = |kind: &str, field: &str, value: &str| json!({"type": kind, field: value});
    let metrics = json!([
        one(
            "Object",
            "object",
            json!({"describedObject": object, "metric": metric, "target": target("Value", "value", "10k")})
        ),
        one(
            "Object",
            "object",
            json!({"describedObject": object, "metric": {"name": "n"},
            "target": target("AverageValue", "averageValue", "1")})
        ),
        one(
            "Pods",
            "pods",
            json!({"metric": metric, "target": target("AverageValue", "averageValue", "1k")})
        ),
        cpu(target("AverageValue", "averageValue", "500m")),
        one(
            "ContainerResource",
            "containerResource",
            json!({"name": "memory", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 60}})
        ),
        one("External", "external", json!({"metric": metric, "target": target("Value", "value", "30")})),
        one(
            "External",
            "external",
            json!({"metric": {"name": "q"}, "target": target("AverageValue", "averageValue", "3")})
        ),
        eighty(),
    ]);
    let rules = |policies: Value| json!({"policies": policies, "selectPolicy": "Min", "stabilizationWindowSeconds": 60});
    let behavior = json!({"scaleDown": rules(json!([{"type": "Pods", "value": 1, "periodSeconds": 60}])),
        "scaleUp": {"selectPolicy": "Disabled", "tolerance": "50m"}});
    let condition = json!({"type": "AbleToScale", "status": "True", "reason": "r", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let current = json!([
        one(
            "Object",
            "object",
            json!({"describedObject": object, "metric": metric, "current": {"value": "7"}})
        ),
        one("Pods", "pods", json!({"metric": metric, "current": {"averageValue": "3"}})),
        one(
            "ContainerResource",
            "containerResource",
            json!({"name": "memory", "container": "c",
            "current": {"averageUtilization": 9, "averageValue": "1Mi"}})
        ),
        one(
            "External",
            "external",
            json!({"metric": metric, "current": {"value": "0", "averageValue": "2"}})
        ),
    ]);
    check(
        json!({"metrics": metrics, "behavior": behavior}),
        json!({"conditions": [condition], "currentMetrics": current, "observedGeneration": 4}),
    );
}

#[test]
fn the_behaviour_is_written_as_upstream_does() {
    let behavior = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}});
    let mut object = new(json!({"metrics": [eighty()], "behavior": behavior}), json!({}));
    v1().strategy.from_stored(&mut object).unwrap();
    let expect = json!({"ScaleDown": null, "ScaleUp": {"StabilizationWindowSeconds": null, "SelectPolicy": null,
        "Policies": [{"Type": "Pods", "Value": 4, "PeriodSeconds": 15}], "Tolerance": null}});
    assert_eq!(annotation(&object, "behavior"), expect);
}

#[test]
fn v1_alone_says_enough() {
    let check = |spec: Value, annotations: Value, metrics: Value| {
        let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "h", "annotations": annotations},
            "spec": spec});
        v1().strategy.to_stored(&mut object).unwrap();
        assert_eq!(object["spec"]["metrics"], metrics, "{annotations}");
        assert_eq!(object["metadata"], json!({"name": "h"}));
        assert!(object["spec"].get("targetCPUUtilizationPercentage").is_none());
    };
    let key = "autoscaling.alpha.kubernetes.io/metrics";
    check(json!({"maxReplicas": 5}), json!({key: "nonsense"}), json!([eighty()]));
    check(
        json!({"maxReplicas": 5}),
        json!({key: "[{\"type\": \"Resource\", \"resource\": 5}]"}),
        json!([eighty()]),
    );
    check(json!({"maxReplicas": 5}), json!({key: "[]"}), json!([eighty()]));
    let half = cpu(json!({"type": "Utilization", "averageUtilization": 50}));
    check(json!({"targetCPUUtilizationPercentage": 50}), json!({key: "{}"}), json!([half]));
    let own = "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"m\",\"targetAverageValue\":\"5\"}}]";
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "5"}}});
    check(json!({"targetCPUUtilizationPercentage": 50}), json!({key: own}), json!([pods, half]));
    check(json!({}), json!({key: own}), json!([pods]));
}

#[test]
fn what_is_left_open_gets_defaults() {
    let check = |row: fn() -> api::resource::Resource, spec: Value, expect: Value| {
        let mut object = json!({"metadata": {"name": "h"}, "spec": spec});
        row().strategy.default(&mut object).unwrap();
        assert_eq!(object["spec"], expect);
    };
    check(v1, json!({}), json!({"minReplicas": 1}));
    check(v1, json!({"minReplicas": 3}), json!({"minReplicas": 3}));
    check(v2, json!({}), json!({"minReplicas": 1, "metrics": [eighty()]}));
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let own = json!([{"type": "Pods", "value": 1, "periodSeconds": 9}]);
    check(
        v2,
        json!({"minReplicas": 2, "metrics": [eighty()], "behavior": {"scaleDown": {"policies": own, "stabilizationWindowSeconds": 5}}}),
        json!({"minReplicas": 2, "metrics": [eighty()], "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]},
            "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": own}}}),
    );
    let mut object =
        json!({"metadata": {"name": "h", "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]"}}});
    v2().strategy.default(&mut object).unwrap();
    assert_eq!(object, json!({"metadata": {"name": "h"}}));
}
