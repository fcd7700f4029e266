//! Pods: what they run, with which settings, and what they say.

use super::{Scenario, fails, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "command-and-args",
        steps: &[
            fed(
                "apply -f -",
                ENTRYPOINTS,
                &["pod/neither created", "pod/args created", "pod/command created", "pod/both created"],
            ),
            step(
                "wait pod/args pod/command pod/both --for=jsonpath={.status.phase}=Succeeded --timeout=60s",
                &["pod/both condition met"],
            ),
            step("wait pod/neither --for=condition=Ready --timeout=60s", &["condition met"]),
            step("logs neither", &["Paused"]),
            step("logs args", &["[/agnhost entrypoint-tester own args]"]),
            step("logs command", &["[/agnhost entrypoint-tester own command]"]),
            step("logs both", &["[/agnhost-2 entrypoint-tester both]"]),
            step("get pods", &["Completed", "Running"]),
        ],
    },
    Scenario {
        name: "settings",
        steps: &[
            step(
                "create configmap plain --from-literal=COLOUR=blue --from-literal=file.txt=text",
                &["created"],
            ),
            step("create secret generic hidden --from-literal=PASSWORD=s3cret", &["secret/hidden created"]),
            step("get secret hidden -o jsonpath={.data.PASSWORD}", &["czNjcmV0"]),
            fed("apply -f -", SETTINGS, &["pod/reader created"]),
            step(
                "wait pod/reader --for=jsonpath={.status.phase}=Succeeded --timeout=60s",
                &["condition met"],
            ),
            step(
                "logs reader",
                &[
                    "one=blue",
                    "all=blue s3cret",
                    "prefixed=s3cret",
                    "name=reader",
                    "file=text",
                    "secret=s3cret",
                    "joined=blue-reader",
                    "mode=400",
                ],
            ),
            fed("apply -f -", SETTINGS_MISSING, &["pod/waits created"]),
            step(
                "wait pod/waits --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError --timeout=60s",
                &["condition met"],
            ),
            step(
                "get events --field-selector involvedObject.name=waits",
                &["LAST SEEN   TYPE      REASON", "configmap \"later\" not found"],
            ),
            step("create configmap later --from-literal=key=value", &["created"]),
            step(
                "wait pod/waits --for=jsonpath={.status.phase}=Succeeded --timeout=120s",
                &["condition met"],
            ),
        ],
    },
    Scenario {
        name: "logs",
        steps: &[
            fed("apply -f -", LOGS, &["pod/two created", "pod/again created"]),
            step("wait pod/two --for=condition=Ready --timeout=60s", &["condition met"]),
            step(
                "logs two",
                &["Defaulted container \"first\" out of: first, second, setup (init)", "from first"],
            ),
            step("logs two -c second", &["from second"]),
            step("logs two -c setup", &["from setup"]),
            step(
                "logs two --all-containers --prefix",
                &["[pod/two/first] from first", "[pod/two/second] from second"],
            ),
            step("logs two -c second --tail=1", &["last of second"]),
            step("logs -l app=two --all-containers", &["from first", "from second"]),
            fails("logs two -c third", "", &["container third is not valid for pod two"]),
            fails(
                "logs two -c first --previous",
                "",
                &["previous terminated container \"first\" in pod \"two\" not found"],
            ),
            step(
                "wait pod/again --for=jsonpath={.status.containerStatuses[0].restartCount}=1 --timeout=60s",
                &["condition met"],
            ),
            step("logs again --previous", &["said before"]),
            step("describe pod again", &["Last State:", "Exit Code:    3", "Restart Count:"]),
        ],
    },
    Scenario {
        name: "limits",
        steps: &[
            fed("apply -f -", GREEDY, &["pod/greedy created"]),
            step(
                "wait pod/greedy --for=jsonpath={.status.containerStatuses[0].state.terminated.reason}=OOMKilled --timeout=60s",
                &["condition met"],
            ),
            step("get pod greedy", &["OOMKilled"]),
            step(
                "get pod greedy -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}/{.status.qosClass}",
                &["137/Guaranteed"],
            ),
            fed("apply -f -", HUGE, &["pod/huge created"]),
            step("wait pod/huge --for=condition=PodScheduled=False --timeout=60s", &["condition met"]),
            step(
                "describe pod huge",
                &["FailedScheduling", "0/1 nodes are available: 1 Insufficient memory"],
            ),
            fails(
                "apply -f -",
                "apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec: {containers: [{name: c, image: x, resources: {requests: {cpu: 2}, limits: {cpu: 1}}}]}\n",
                &["must be less than or equal to cpu limit of 1"],
            ),
        ],
    },
    Scenario {
        name: "probes",
        steps: &[
            fed("apply -f -", PROBED, &["pod/probed created", "service/probed created"]),
            step(
                "wait pod/probed --for=jsonpath={.status.containerStatuses[0].started}=true --timeout=60s",
                &["condition met"],
            ),
            step("get pod probed", &["0/1     Running"]),
            step(
                "get endpointslices -l kubernetes.io/service-name=probed -o jsonpath={.items[*].endpoints[*].conditions.ready}",
                &["false"],
            ),
            step("exec probed -- touch /tmp/ready", &[]),
            step("wait pod/probed --for=condition=Ready --timeout=60s", &["condition met"]),
            step(
                "wait endpointslices -l kubernetes.io/service-name=probed --for=jsonpath={.endpoints[0].conditions.ready}=true --timeout=20s",
                &["condition met"],
            ),
            step("exec probed -- touch /tmp/sick", &[]),
            step(
                "wait pod/probed --for=jsonpath={.status.containerStatuses[0].restartCount}=1 --timeout=60s",
                &["condition met"],
            ),
            step(
                "describe pod probed",
                &[
                    "Liveness probe failed",
                    "Container c failed liveness probe, will be restarted",
                    "Readiness probe failed",
                ],
            ),
        ],
    },
    Scenario {
        name: "init-and-sidecars",
        steps: &[
            fed("apply -f -", SIDECAR, &["pod/with-sidecar created"]),
            step("wait pod/with-sidecar --for=condition=Ready --timeout=60s", &["condition met"]),
            step("exec with-sidecar -c main -- cat /data/order", &["first\nsidecar\n"]),
            step("get pod with-sidecar", &["2/2     Running"]),
            step("delete pod with-sidecar --timeout=60s", &["deleted"]),
        ],
    },
];

const ENTRYPOINTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: neither}
spec: {containers: [{name: c, image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: args}
spec: {restartPolicy: Never, containers: [{name: c, image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', args: [entrypoint-tester, own, args]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: command}
spec: {restartPolicy: Never, containers: [{name: c, image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', command: [/agnhost, entrypoint-tester, own, command]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: both}
spec: {restartPolicy: Never, containers: [{name: c, image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', command: [/agnhost-2, entrypoint-tester], args: [both]}]}
";

const SETTINGS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c]
    args:
    - |
      echo one=$ONE; echo all=$COLOUR $PASSWORD; echo prefixed=$MY_PASSWORD; echo name=$NAME; echo joined=$JOINED
      echo file=$(cat /config/file.txt); echo secret=$(cat /secret/word); echo mode=$(stat -L -c %a /secret/word)
    env:
    - {name: ONE, valueFrom: {configMapKeyRef: {name: plain, key: COLOUR}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: JOINED, value: $(ONE)-$(NAME)}
    - {name: NONE, valueFrom: {secretKeyRef: {name: none, key: none, optional: true}}}
    envFrom:
    - configMapRef: {name: plain}
    - secretRef: {name: hidden}
    - {prefix: MY_, secretRef: {name: hidden}}
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
  volumes:
  - {name: config, configMap: {name: plain}}
  - {name: secret, secret: {secretName: hidden, items: [{key: PASSWORD, path: word, mode: 0400}]}}
";

const SETTINGS_MISSING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: 'busybox:1.37', command: ['true'], env: [{name: A, valueFrom: {configMapKeyRef: {name: later, key: key}}}]}
";

const LOGS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: two}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: setup, image: 'busybox:1.37', command: [echo, from setup]}
  containers:
  - {name: first, image: 'busybox:1.37', command: [sh, -c, 'echo from first; exec sleep 3600']}
  - name: second
    image: busybox:1.37
    command: [sh, -c, 'echo from second; echo last of second; touch /tmp/said; exec sleep 3600']
    readinessProbe: {exec: {command: [test, -e, /tmp/said]}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: state, emptyDir: {}}]
  containers:
  - name: c
    image: busybox:1.37
    command: [sh, -c, '[ -e /state/seen ] && exec sleep 3600; touch /state/seen; echo said before; exit 3']
    volumeMounts: [{name: state, mountPath: /state}]
";

const GREEDY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: 'busybox:1.37', command: [tail, /dev/zero], resources: {limits: {memory: 32Mi, cpu: 500m}}}
";

const HUGE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec:
  containers: [{name: c, image: 'busybox:1.37', resources: {requests: {memory: 10Ti}}}]
";

const PROBED: &str = "
apiVersion: v1
kind: Service
metadata: {name: probed}
spec: {selector: {app: probed}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1.37
    command: [sleep, '3600']
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, '!', -e, /tmp/sick]}, periodSeconds: 1, failureThreshold: 1}
";

const SIDECAR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: with-sidecar}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
  - {name: first, image: 'busybox:1.37', command: [sh, -c, 'echo first > /data/order'], volumeMounts: [{name: data, mountPath: /data}]}
  - name: sidecar
    image: busybox:1.37
    restartPolicy: Always
    command: [sh, -c, 'echo sidecar >> /data/order; touch /tmp/up; exec sleep 3600']
    startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - {name: main, image: 'busybox:1.37', command: [sleep, '3600'], volumeMounts: [{name: data, mountPath: /data}]}
";
