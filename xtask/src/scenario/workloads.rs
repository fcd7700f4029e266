//! Deployments and the other controllers of pods.

use super::{Scenario, fails, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "rollout",
        steps: &[
            step("create deployment web --image=nginx:1.28 --replicas=3", &["deployment.apps/web created"]),
            step(
                "rollout status deployment/web --timeout=60s",
                &["deployment \"web\" successfully rolled out"],
            ),
            step("annotate deployment web kubernetes.io/change-cause=first", &["annotated"]),
            step("rollout history deployment/web", &["REVISION", "CHANGE-CAUSE", "\n1 "]),
            step(
                "set image deployment/web nginx=registry.k8s.io/e2e-test-images/nginx:1.27.0-2",
                &["image updated"],
            ),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step(
                "rollout history deployment/web --revision=2",
                &["revision #2", "nginx:1.27.0-2", "pod-template-hash="],
            ),
            step("rollout undo deployment/web", &["deployment.apps/web rolled back"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}", &["nginx:1.28"]),
            step("rollout history deployment/web", &["\n2 ", "\n3         first"]),
            fails(
                "rollout undo deployment/web --to-revision=9",
                "",
                &["unable to find specified revision 9 in history"],
            ),
            step("rollout pause deployment/web", &["deployment.apps/web paused"]),
            step(
                "set image deployment/web nginx=registry.k8s.io/e2e-test-images/nginx:1.28.0-2",
                &["image updated"],
            ),
            step(
                "wait deployment/web --for=jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}=DeploymentPaused --timeout=20s",
                &["condition met"],
            ),
            fails("rollout undo deployment/web", "", &["cannot rollback a paused deployment"]),
            fails(
                "rollout restart deployment/web",
                "",
                &["can't restart paused deployment (run rollout resume first)"],
            ),
            step("rollout resume deployment/web", &["deployment.apps/web resumed"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("get pods -o jsonpath={.items[*].spec.containers[0].image}", &["nginx:1.28.0-2"]),
            step("rollout restart deployment/web", &["deployment.apps/web restarted"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("scale deployment/web --replicas=1", &["deployment.apps/web scaled"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("get deployment web", &["1/1     1            1"]),
            step(
                "describe deployment web",
                &[
                    "ScalingReplicaSet",
                    "Scaled up replica set web-",
                    "from 0 to 3",
                    "RollingUpdateStrategy:  25% max unavailable, 25% max surge",
                ],
            ),
            step("delete deployment web", &["deployment.apps \"web\" deleted"]),
            step("wait pod -l app=web --for=delete --timeout=60s", &[]),
        ],
    },
    Scenario {
        name: "strategies",
        steps: &[
            fed("apply -f -", RECREATE, &["deployment.apps/all-at-once created"]),
            step("rollout status deployment/all-at-once --timeout=60s", &["successfully rolled out"]),
            step("set env deployment/all-at-once COLOUR=blue", &["env updated"]),
            step("rollout status deployment/all-at-once --timeout=60s", &["successfully rolled out"]),
            step(
                "describe deployment all-at-once",
                &["StrategyType:       Recreate", "from 2 to 0", "from 0 to 2"],
            ),
            fed("apply -f -", ROLLING, &["deployment.apps/one-by-one created"]),
            step("rollout status deployment/one-by-one --timeout=60s", &["successfully rolled out"]),
            step("set env deployment/one-by-one COLOUR=blue", &["env updated"]),
            step("rollout status deployment/one-by-one --timeout=60s", &["successfully rolled out"]),
            step(
                "describe deployment one-by-one",
                &[
                    "0 max unavailable, 1 max surge",
                    "from 0 to 1",
                    "from 2 to 1",
                    "from 1 to 2",
                    "from 1 to 0",
                ],
            ),
            step(
                "patch deployment one-by-one -p '{\"spec\":{\"progressDeadlineSeconds\":1,\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"example.com/none:1\",\"imagePullPolicy\":\"Never\"}]}}}}'",
                &["patched"],
            ),
            fails(
                "rollout status deployment/one-by-one --timeout=60s",
                "",
                &["deployment \"one-by-one\" exceeded its progress deadline"],
            ),
            step("get deployment one-by-one", &["2/2     1            2"]),
            step("get pods", &["ErrImageNeverPull"]),
            step("rollout undo deployment/one-by-one", &["rolled back"]),
            step("rollout status deployment/one-by-one --timeout=60s", &["successfully rolled out"]),
        ],
    },
    Scenario {
        name: "jobs",
        steps: &[
            step("create job once --image=busybox:1.37 -- echo done", &["job.batch/once created"]),
            step("wait job/once --for=condition=complete --timeout=60s", &["job.batch/once condition met"]),
            step("logs job/once", &["done"]),
            step("get job once", &["STATUS", "COMPLETIONS", "DURATION", "Complete", "1/1"]),
            fed("apply -f -", JOB_FAILS, &["job.batch/never created"]),
            step("wait job/never --for=condition=failed --timeout=60s", &["condition met"]),
            step(
                "describe job never",
                &["BackoffLimitExceeded", "Job has reached the specified backoff limit"],
            ),
            step(
                "create cronjob tick --image=busybox:1.37 --schedule='0 0 1 1 *' -- echo tick",
                &["cronjob.batch/tick created"],
            ),
            step("create job by-hand --from=cronjob/tick", &["job.batch/by-hand created"]),
            step("wait job/by-hand --for=condition=complete --timeout=60s", &["condition met"]),
            step("get cronjob tick", &["SCHEDULE", "SUSPEND", "LAST SCHEDULE", "0 0 1 1 *"]),
        ],
    },
    Scenario {
        name: "stateful-and-daemon-sets",
        steps: &[
            fed("apply -f -", STATEFUL, &["statefulset.apps/db created", "service/db created"]),
            step("rollout status statefulset/db --timeout=60s", &["partitioned roll out complete"]),
            step("get pods -l app=db -o name", &["pod/db-0\npod/db-1\n"]),
            step("exec db-1 -- hostname -f", &["db-1.db.stateful-and-daemon-sets.svc.cluster.local"]),
            step("scale statefulset/db --replicas=1", &["scaled"]),
            step("wait pod/db-1 --for=delete --timeout=60s", &[]),
            step("get statefulset db", &["1/1"]),
            fed("apply -f -", DAEMON, &["daemonset.apps/agent created"]),
            step("rollout status daemonset/agent --timeout=60s", &["successfully rolled out"]),
            step(
                "get daemonset agent",
                &["DESIRED", "NODE SELECTOR", "1         1         1       1            1"],
            ),
        ],
    },
];

const RECREATE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: all-at-once}
spec:
  replicas: 2
  strategy: {type: Recreate}
  selector: {matchLabels: {app: all-at-once}}
  template:
    metadata: {labels: {app: all-at-once}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const ROLLING: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: one-by-one}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: one-by-one}}
  template:
    metadata: {labels: {app: one-by-one}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const JOB_FAILS: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: never}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: 'busybox:1.37', command: ['false']}]}
";

const STATEFUL: &str = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  updateStrategy: {rollingUpdate: {partition: 0}}
  template:
    metadata: {labels: {app: db}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const DAEMON: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";
