//! What concerns the node: these run one after another.

use super::{Scenario, fails, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "scheduling",
        steps: &[
            fed("apply -f -", BY_HAND, &["pod/by-hand created", "pod/elsewhere created"]),
            step("wait pod/by-hand --for=condition=Ready --timeout=60s", &["condition met"]),
            step(
                "get events --field-selector involvedObject.name=by-hand,reason=Scheduled",
                &["No resources found"],
            ),
            fed("apply -f -", WANTS_LABEL, &["pod/wants-label created"]),
            step("wait pod/wants-label --for=condition=PodScheduled=False --timeout=60s", &["condition met"]),
            step("get pod wants-label", &["0/1     Pending"]),
            step(
                "get events --field-selector involvedObject.name=wants-label",
                &[
                    "Warning   FailedScheduling",
                    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector",
                ],
            ),
            step("label node node1 disk=ssd", &["node/node1 labeled"]),
            step("wait pod/wants-label --for=condition=Ready --timeout=60s", &["condition met"]),
            step("label node node1 disk-", &["node/node1 unlabeled"]),
            step("delete pod --all --grace-period=0 --force", &["deleted"]),
        ],
    },
    Scenario {
        name: "taints",
        steps: &[
            step("taint nodes node1 app=blue:NoSchedule", &["node/node1 tainted"]),
            fails(
                "taint nodes node1 app=green:NoSchedule",
                "",
                &["already has app taint(s) with same effect(s) and --overwrite is false"],
            ),
            step("run plain --image=nginx:1.28", &["created"]),
            step("wait pod/plain --for=condition=PodScheduled=False --timeout=60s", &["condition met"]),
            step("describe pod plain", &["FailedScheduling", "1 node(s) had untolerated taint"]),
            fed("apply -f -", TOLERATES, &["pod/tolerates created"]),
            step("wait pod/tolerates --for=condition=Ready --timeout=60s", &["condition met"]),
            step("taint nodes node1 app-", &["node/node1 untainted"]),
            step("wait pod/plain --for=condition=Ready --timeout=60s", &["condition met"]),
            step("taint nodes node1 leave=now:NoExecute", &["tainted"]),
            step("wait pod/plain --for=delete --timeout=60s", &[]),
            step("taint nodes node1 leave-", &["untainted"]),
            step("delete pod --all --grace-period=0 --force", &[]),
        ],
    },
    Scenario {
        name: "drain",
        steps: &[
            step("create deployment web --image=nginx:1.28", &["created"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("cordon node1", &["node/node1 cordoned"]),
            step("get node node1", &["Ready,SchedulingDisabled"]),
            step(
                "drain node1 --ignore-daemonsets --delete-emptydir-data --force --timeout=100s",
                &["evicting pod drain/web-", "node/node1 drained"],
            ),
            step("wait pod -l app=web --for=condition=PodScheduled=False --timeout=60s", &["condition met"]),
            step("uncordon node1", &["node/node1 uncordoned"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
        ],
    },
];

const BY_HAND: &str = "
apiVersion: v1
kind: Pod
metadata: {name: by-hand}
spec: {nodeName: node1, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec: {nodeName: node9, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const WANTS_LABEL: &str = "
apiVersion: v1
kind: Pod
metadata: {name: wants-label}
spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const TOLERATES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: tolerates}
spec:
  tolerations: [{key: app, operator: Equal, value: blue, effect: NoSchedule}]
  containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]
";
