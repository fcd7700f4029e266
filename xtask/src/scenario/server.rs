//! What needs no node: the API as kubectl shows it.

use super::{Scenario, fails, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "discovery",
        steps: &[
            step("version", &["Server Version: v1.37.2+clipper"]),
            step("api-versions", &["apps/v1\n", "batch/v1\n", "v1\n"]),
            step("api-resources", &["pods", "po", "deployments", "deploy", "apps/v1", "true", "Deployment"]),
            step("get --raw /readyz", &["ok"]),
        ],
    },
    Scenario {
        name: "config-maps",
        steps: &[
            step("create configmap one --from-literal=a=1 --from-literal=b=2", &["configmap/one created"]),
            fails("create configmap one --from-literal=a=1", "", &["configmaps \"one\" already exists"]),
            step("get configmap one -o jsonpath={.data.a}{.data.b}", &["12"]),
            step("get configmap one", &["NAME", "DATA", "AGE", "one", "2"]),
            step("label configmap one tier=front", &["configmap/one labeled"]),
            step("get configmap -l tier=front -o name", &["configmap/one"]),
            step("get configmap --field-selector metadata.name=one -o name", &["configmap/one"]),
            step("annotate configmap one note=hello", &["configmap/one annotated"]),
            step(
                "patch configmap one --type=merge -p '{\"data\":{\"c\":\"3\",\"a\":null}}'",
                &["configmap/one patched"],
            ),
            step(
                "patch configmap one --type=json -p '[{\"op\":\"test\",\"path\":\"/data/c\",\"value\":\"3\"},{\"op\":\"add\",\"path\":\"/data/d\",\"value\":\"4\"}]'",
                &["patched"],
            ),
            step("get configmap one -o jsonpath={.data}", &["{\"b\":\"2\",\"c\":\"3\",\"d\":\"4\"}"]),
            fails(
                "patch configmap one --type=json -p '[{\"op\":\"test\",\"path\":\"/data/c\",\"value\":\"9\"}]'",
                "",
                &["The request is invalid"],
            ),
            fails("get configmap none", "", &["Error from server (NotFound): configmaps \"none\" not found"]),
            step("delete configmap one", &["configmap \"one\" deleted"]),
            fails("get configmap one", "", &["NotFound"]),
        ],
    },
    Scenario {
        name: "apply",
        steps: &[
            fed("apply -f -", MAP_ONE, &["configmap/settings created"]),
            fed("apply -f -", MAP_ONE, &["configmap/settings unchanged"]),
            fed("apply -f -", MAP_TWO, &["configmap/settings configured"]),
            step("get configmap settings -o jsonpath={.data}", &["{\"b\":\"3\"}"]),
            fed(
                "apply --server-side --field-manager=other --force-conflicts -f -",
                MAP_ONE,
                &["serverside-applied"],
            ),
            fails(
                "apply --server-side --field-manager=third -f -",
                MAP_TWO,
                &["conflict with \"other\"", ".data.b"],
            ),
            fails("apply -f -", MAP_UNKNOWN, &["unknown field \"daat\""]),
        ],
    },
    Scenario {
        name: "workloads-are-validated",
        steps: &[
            step(
                "create deployment web --image=example.com/web:1 --replicas=2",
                &["deployment.apps/web created"],
            ),
            step("get deployment web", &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "web"]),
            step(
                "get deployment web -o jsonpath={.spec.strategy.type}/{.spec.revisionHistoryLimit}/{.metadata.generation}",
                &["RollingUpdate/10/1"],
            ),
            step("scale deployment web --replicas=5", &["deployment.apps/web scaled"]),
            step("get deployment web -o jsonpath={.spec.replicas}/{.metadata.generation}", &["5/2"]),
            step("set image deployment/web web=example.com/web:2", &["image updated"]),
            fails(
                "patch deployment web -p '{\"spec\":{\"replicas\":-1}}'",
                "",
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            fails(
                "patch deployment web -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}'",
                "",
                &["field is immutable"],
            ),
        ],
    },
    Scenario {
        name: "autoscalers",
        steps: &[
            fed("apply -f -", AUTOSCALER, &["horizontalpodautoscaler.autoscaling/web created"]),
            step("get hpa web", &["Deployment/web", "cpu: <unknown>/70%, <unknown>/5", "2", "9"]),
            step(
                "get horizontalpodautoscalers.v1.autoscaling web -o jsonpath={.apiVersion},{.spec.targetCPUUtilizationPercentage},{.metadata.annotations}",
                &["autoscaling/v1,70,", "autoscaling.alpha.kubernetes.io/metrics", "targetAverageValue"],
            ),
            step(
                "patch horizontalpodautoscalers.v1.autoscaling web --type=merge -p '{\"spec\":{\"targetCPUUtilizationPercentage\":50}}'",
                &["patched"],
            ),
            step(
                "get horizontalpodautoscalers.v2.autoscaling web -o jsonpath={.metadata.annotations.autoscaling*},{.spec.metrics[*].type},{.spec.metrics[1].resource.target.averageUtilization}",
                &[",Pods Resource,50"],
            ),
            step("delete hpa web", &["deleted"]),
        ],
    },
];

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 9
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 70}}}
  - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: '5'}}}
";

const MAP_ONE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '1', b: '2'}\n";
const MAP_TWO: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {b: '3'}\n";
const MAP_UNKNOWN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndaat: {b: '3'}\n";
