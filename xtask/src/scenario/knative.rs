//! Knative: services that scale to zero and back, traffic by percent and tag, events that arrive.

use super::{Scenario, bash, fed, kn, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "knative-services",
        steps: &[
            step("get crd services.serving.knative.dev", &["services.serving.knative.dev"]),
            step("patch configmap config-domain -n knative-serving --type=merge -p '{\"data\":{\"example.com\":\"\"}}'", &["patched"]),
            step("patch configmap config-autoscaler -n knative-serving --type=merge -p '{\"data\":{\"scale-to-zero-grace-period\":\"6s\"}}'", &["patched"]),
            fed("apply -f -", WEB, &["service.serving.knative.dev/web created"]),
            step("wait ksvc/web --for=condition=Ready --timeout=60s", &["condition met"]),
            step("get ksvc web", &["http://web.knative-services.example.com", "web-00001", "True"]),
            step("get revision web-00001", &["CONFIG NAME", "GENERATION", "web ", "1 ", "True"]),
            step("get service web", &["ExternalName", "clipper-local-gateway.knative-serving.svc.cluster.local"]),
            bash("curl -s -m 10 -H 'Host: web.knative-services.example.com' http://172.31.0.1/hostname", &["web-00001-deployment-"]),
            bash("curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Host: nobody.example.com' http://172.31.0.1/", &["404"]),
            step("run client --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1", &["pod/client created"]),
            step("wait pod/client --for=condition=Ready --timeout=60s", &["condition met"]),
            step("exec client -- curl -s -m 10 http://web.knative-services/hostname", &["web-00001-deployment-"]),
            step("exec client -- curl -s -m 10 http://web.knative-services.svc.cluster.local/hostname", &["web-00001-deployment-"]),
            // To zero, and back by a request.
            step("wait pod -l serving.knative.dev/revision=web-00001 --for=delete --timeout=60s", &["condition met"]),
            step("get revision web-00001", &["True", "0"]),
            bash("curl -s -m 20 -H 'Host: web.knative-services.example.com' http://172.31.0.1/hostname", &["web-00001-deployment-"]),
            // A second revision, and traffic by percent and tag.
            fed("apply -f -", WEB_TWO, &["service.serving.knative.dev/web configured"]),
            step("wait ksvc/web --for=jsonpath={.status.latestReadyRevisionName}=web-00002 --timeout=60s", &["condition met"]),
            step("wait ksvc/web --for=condition=Ready --timeout=60s", &["condition met"]),
            bash(
                "for i in $(seq 60); do curl -s -m 20 -H 'Host: web.knative-services.example.com' http://172.31.0.1/hostname | cut -d- -f2; echo; done | grep . | sort | uniq -c | awk '$1 >= 10 {print \"revision\", $2}'",
                &["revision 00001\nrevision 00002\n"],
            ),
            bash("curl -s -m 20 -H 'Host: old-web.knative-services.example.com' http://172.31.0.1/hostname", &["web-00001-deployment-"]),
            step("get ksvc web -o jsonpath={.status.traffic[*].url}", &["http://old-web.knative-services.example.com"]),
            step("delete ksvc web", &["\"web\" deleted"]),
            step("wait pod -l serving.knative.dev/service=web --for=delete --timeout=90s", &[]),
        ],
    },
    Scenario {
        name: "knative-events",
        steps: &[
            fed("apply -f -", EVENTS, &["broker.eventing.knative.dev/default created", "trigger.eventing.knative.dev/one created", "subscription.messaging.knative.dev/sub created"]),
            step("wait ksvc/sink --for=condition=Ready --timeout=60s", &["condition met"]),
            step("wait broker/default channel/ch --for=condition=Ready --timeout=60s", &["broker.eventing.knative.dev/default condition met", "channel.messaging.knative.dev/ch condition met"]),
            step("wait trigger/one subscription/sub --for=condition=Ready --timeout=60s", &["trigger.eventing.knative.dev/one condition met", "subscription.messaging.knative.dev/sub condition met"]),
            step("run client --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1", &["pod/client created"]),
            step("wait pod/client --for=condition=Ready --timeout=60s", &["condition met"]),
            // Of two events the trigger wants one.
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Ce-Id: 1' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: wanted' -H 'Ce-Source: scenario' -H 'Content-Type: text/plain' -d for-the-trigger http://broker-ingress.knative-eventing.svc.cluster.local/knative-events/default", &["202"]),
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Ce-Id: 2' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: other' -H 'Ce-Source: scenario' -H 'Content-Type: text/plain' -d for-nobody http://broker-ingress.knative-eventing.svc.cluster.local/knative-events/default", &["202"]),
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -d no-event http://broker-ingress.knative-eventing.svc.cluster.local/knative-events/default", &["400"]),
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Ce-Id: 3' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: any' -H 'Ce-Source: scenario' -H 'Content-Type: text/plain' -d for-the-channel http://ch-kn-channel.knative-events.svc.cluster.local/", &["202"]),
            bash(
                "for i in $(seq 150); do log=$($K logs -l serving.knative.dev/service=sink -c user-container --tail=-1); case $log in *for-the-trigger*for-the-channel*|*for-the-channel*for-the-trigger*) break;; esac; done
                 echo \"$log\" | tr 'A-Z' 'a-z' | tr -d '\\r' | grep -E '^ce-(type|id)|^prefer|^for-' | sort | uniq",
                &["ce-id: 1\nce-id: 3\nce-type: any\nce-type: wanted\nfor-the-channel\nfor-the-trigger\nprefer: reply\n"],
            ),
            // Its shell does not listen to signals: it must not hold up who drains the node.
            step("delete ksvc sink", &["\"sink\" deleted"]),
            step("wait pod -l serving.knative.dev/service=sink --for=delete --timeout=60s", &[]),
        ],
    },
    Scenario {
        name: "knative-sources",
        steps: &[
            fed("apply -f -", RECEIVERS, &["pod/sink created", "pod/step created"]),
            step("wait pod/sink pod/step --for=condition=Ready --timeout=60s", &["pod/sink condition met", "pod/step condition met"]),
            fed("apply -f -", SOURCES, &["apiserversource.sources.knative.dev/watch created", "containersource.sources.knative.dev/talk created", "sinkbinding.sources.knative.dev/late created"]),
            // Nobody watches what the service account may not see.
            step("wait apiserversource/watch --for=condition=SufficientPermissions=False --timeout=60s", &["condition met"]),
            step("get apiserversource watch -o jsonpath={.status.conditions[?(@.type==\"SufficientPermissions\")].message}", &["User system:serviceaccount:knative-sources:default cannot get, list, watch resource \"configmaps\" in API group \"\" in Namespace \"knative-sources\""]),
            step("create role sees --verb=get,list,watch --resource=configmaps", &["created"]),
            step("create rolebinding sees --role=sees --serviceaccount=knative-sources:default", &["created"]),
            step("wait apiserversource/watch containersource/talk sinkbinding/late --for=condition=Ready --timeout=60s", &["watch condition met", "talk condition met", "late condition met"]),
            step("create configmap seen", &["created"]),
            // A job is bound when it is created, a deployment that was there before when its binding comes.
            fed("apply -f -", BOUND, &["job.batch/once created"]),
            step("get job once -o jsonpath={.spec.template.spec.containers[0].env[*].name}", &["K_SINK K_CE_OVERRIDES"]),
            step("create deployment before --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1 --replicas=0", &["created"]),
            fed("apply -f -", BINDING, &["sinkbinding.sources.knative.dev/early created"]),
            step("wait deployment/before --for=jsonpath={.spec.template.spec.containers[0].env[0].value}=http://sink.knative-sources.svc.cluster.local --timeout=60s", &["condition met"]),
            step("delete sinkbinding early", &["deleted"]),
            step("get deployment before -o jsonpath=[{.spec.template.spec.containers[0].env}]", &["[]"]),
            bash(
                "for i in $(seq 150); do log=$($K logs sink --tail=-1); case $log in *from-the-job*) case $log in *from-the-container*) case $log in *ref.add*) break;; esac;; esac;; esac; done
                 echo \"$log\" | tr 'A-Z' 'a-z' | tr -d '\\r' | grep -E '^ce-(subject|type)|^from-' | sort | uniq",
                &["ce-subject: /apis/v1/namespaces/knative-sources/configmaps/seen\n", "ce-type: dev.knative.apiserver.ref.add\n", "from-the-container\n", "from-the-job\n"],
            ),
            step("delete containersource talk", &["deleted"]),
            step("wait deployment/talk-deployment --for=delete --timeout=60s", &[]),
            step("delete pod sink step --grace-period=1", &["deleted"]),
        ],
    },
    Scenario {
        name: "knative-flows",
        steps: &[
            fed("apply -f -", RECEIVERS, &["pod/sink created", "pod/step created"]),
            step("wait pod/sink pod/step --for=condition=Ready --timeout=60s", &["pod/sink condition met", "pod/step condition met"]),
            fed("apply -f -", FLOWS, &["sequence.flows.knative.dev/line created", "parallel.flows.knative.dev/fan created", "eventtype.eventing.knative.dev/known created"]),
            step("wait sequence/line parallel/fan eventtype/known --for=condition=Ready --timeout=60s", &["line condition met", "fan condition met", "known condition met"]),
            step("get sequence line", &["http://line-kn-sequence-0-kn-channel.knative-flows.svc.cluster.local", "True"]),
            step("get parallel fan", &["http://fan-kn-parallel-kn-channel.knative-flows.svc.cluster.local", "True"]),
            step("run client --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1", &["pod/client created"]),
            step("wait pod/client --for=condition=Ready --timeout=60s", &["condition met"]),
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Ce-Id: 1' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: any' -H 'Ce-Source: scenario' -H 'Content-Type: text/plain' -d into-the-line http://line-kn-sequence-0-kn-channel.knative-flows.svc.cluster.local", &["202"]),
            step("exec client -- curl -s -m 10 -o /dev/null -w '%{http_code}' -H 'Ce-Id: 2' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: any' -H 'Ce-Source: scenario' -H 'Content-Type: text/plain' -d into-the-fan http://fan-kn-parallel-kn-channel.knative-flows.svc.cluster.local", &["202"]),
            // Each goes to the step, whose answer goes on: to the second step of the line, and to the fan's reply.
            bash(
                "for i in $(seq 150); do log=$($K logs sink --tail=-1); [ $(echo \"$log\" | grep -c from-the-step) -ge 2 ] && break; done
                 echo answers: $(echo \"$log\" | grep -c from-the-step); $K logs step --tail=-1 | grep -oE 'into-the-(line|fan)' | sort | uniq",
                &["answers: 2\n", "into-the-fan\ninto-the-line\n"],
            ),
            // Fewer steps, fewer parts.
            step("patch sequence line --type=json -p '[{\"op\":\"remove\",\"path\":\"/spec/steps/1\"}]'", &["patched"]),
            step("wait subscription/line-kn-sequence-1 --for=delete --timeout=60s", &[]),
            step("delete pod sink step --grace-period=1", &["deleted"]),
        ],
    },
    Scenario {
        name: "knative-drain",
        steps: &[
            fed("apply -f -", BUSY, &["service.serving.knative.dev/busy created"]),
            step("wait ksvc/busy --for=condition=Ready --timeout=60s", &["condition met"]),
            // The program ends at once when it is told; it is told when its last request has been answered.
            bash(
                "pod=$($K get pod -l serving.knative.dev/service=busy -o name)
                 address=$($K get $pod -o jsonpath={.status.podIP})
                 curl -s -m 30 \"http://$address:8012/shell?cmd=touch%20/tmp/begun%3Bsleep%203%3Becho%20finished\" > \"$DIR/answer\" & request=$!
                 until $K exec $pod -c user-container -- ls /tmp/begun; do :; done
                 $K delete $pod --wait=false; wait $request; cat \"$DIR/answer\"",
                &["finished"],
            ),
            step("delete ksvc busy", &["\"busy\" deleted"]),
        ],
    },
    Scenario {
        name: "knative-rollout",
        steps: &[
            fed("apply -f -", SLOW, &["service.serving.knative.dev/slow created"]),
            step("wait ksvc/slow --for=condition=Ready --timeout=60s", &["condition met"]),
            step("patch ksvc slow --type=merge -p '{\"spec\":{\"template\":{\"metadata\":{\"labels\":{\"round\":\"two\"}}}}}'", &["patched"]),
            step("wait route/slow --for=jsonpath={.status.conditions[?(@.type==\"IngressReady\")].reason}=RolloutInProgress --timeout=60s", &["condition met"]),
            step("get king slow -o jsonpath={.spec.rules[0].http.paths[0].splits[*].serviceName}", &["slow-00001 slow-00002"]),
            step("wait ksvc/slow --for=condition=Ready --timeout=60s", &["condition met"]),
            step("get king slow -o jsonpath={.spec.rules[0].http.paths[0].splits}", &["\"percent\":100", "\"serviceName\":\"slow-00002\""]),
            step("delete ksvc slow", &["\"slow\" deleted"]),
        ],
    },
    Scenario {
        name: "knative-kn",
        steps: &[
            kn("service create hello --image registry.k8s.io/e2e-test-images/agnhost:2.66.1 --arg netexec --arg --http-port=8080", &["Ready to serve", "http://hello.knative-kn."]),
            kn("service update hello --env ROUND=two", &["latest revision 'hello-00002'"]),
            kn("service update hello --traffic hello-00001=20,@latest=80 --tag hello-00001=old", &["'hello-00002' (unchanged)"]),
            kn("service describe hello", &["80%  @latest (hello-00002) [2]", "20%  hello-00001 #old [1]", "(pinned to ", "++ Ready"]),
            kn("service list", &["hello-00002", "3 OK / 3", "True"]),
            kn("revision list", &["hello-00001", "20%", "old", "4 OK / 4"]),
            kn("revision describe hello-00001", &["Service:    hello", "++ ContainerHealthy"]),
            kn("route list", &["http://hello.knative-kn.", "True"]),
            kn("route describe hello", &["++ AllTrafficAssigned", "++ IngressReady"]),
            kn("broker create letters", &["Broker 'letters' successfully created"]),
            kn("broker describe letters", &["broker-ingress.knative-eventing.svc.cluster.local/knative-kn/letters", "++ Addressable"]),
            kn("trigger create round --broker letters --filter type=round --sink ksvc:hello", &["Trigger 'round' successfully created"]),
            step("wait trigger/round --for=condition=Ready --timeout=60s", &["condition met"]),
            kn("trigger list", &["round", "letters", "ksvc:hello", "7 OK / 7"]),
            kn("trigger update round --filter type=square", &["Trigger 'round' updated"]),
            kn("trigger describe round", &["type:     square", "++ SubscriberResolved"]),
            kn("channel list-types", &["InMemoryChannel", "inmemorychannels.messaging.knative.dev"]),
            kn("channel create pipe", &["Channel 'pipe' created"]),
            kn("subscription create end --channel pipe --sink ksvc:hello", &["Subscription 'end' created"]),
            step("wait subscription/end --for=condition=Ready --timeout=60s", &["condition met"]),
            kn("subscription list", &["Channel:pipe", "ksvc:hello", "True"]),
            kn("source list-types", &["ApiServerSource", "ContainerSource", "PingSource", "SinkBinding"]),
            kn("source ping create clock --schedule '0 0 1 1 *' --sink broker:letters", &["Ping source 'clock' created"]),
            kn("source apiserver create watch --resource Event:v1 --service-account default --sink broker:letters", &["ApiServer source 'watch' created"]),
            kn("source binding create bound --subject Deployment:apps/v1:nobody --sink broker:letters", &["Sink binding 'bound' created"]),
            step("wait pingsource/clock --for=condition=Ready --timeout=60s", &["condition met"]),
            step("wait apiserversource/watch sinkbinding/bound --for=condition=Ready=False --timeout=60s", &["watch condition met", "bound condition met"]),
            kn("source list", &["clock", "PingSource", "watch", "ApiServerSource", "bound", "SinkBinding", "broker:letters"]),
            kn("source apiserver delete watch", &["deleted"]),
            kn("source binding delete bound", &["deleted"]),
            kn("source ping delete clock", &["deleted"]),
            kn("subscription delete end", &["deleted"]),
            kn("channel delete pipe", &["deleted"]),
            kn("trigger delete round", &["deleted"]),
            kn("broker delete letters", &["successfully deleted"]),
            kn("revision delete hello-00001", &["deleted"]),
            kn("service delete hello --wait", &["successfully deleted"]),
        ],
    },
];

const BUSY: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: busy}
spec:
  template:
    spec:
      timeoutSeconds: 30
      containers: [{image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', args: [netexec, --http-port=8080]}]
";

const SLOW: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: slow, annotations: {serving.knative.dev/rollout-duration: 4s}}
spec:
  template:
    spec:
      containers: [{image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', args: [netexec, --http-port=8080]}]
";

/// The sink answers every connection with an empty 202, the step with an event of its own; both print what came.
const RECEIVERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: sink, labels: {app: sink}}
spec:
  containers:
  - name: sink
    image: busybox:1.37
    command: [sh, -c, \"while true; do printf 'HTTP/1.1 202 Accepted\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' | nc -l -p 8080; echo; done\"]
---
apiVersion: v1
kind: Service
metadata: {name: sink}
spec: {selector: {app: sink}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: step, labels: {app: step}}
spec:
  containers:
  - name: step
    image: busybox:1.37
    command: [sh, -c, \"while true; do printf 'HTTP/1.1 200 OK\\r\\nCe-Id: 9\\r\\nCe-Specversion: 1.0\\r\\nCe-Type: step\\r\\nCe-Source: step\\r\\nContent-Type: text/plain\\r\\nContent-Length: 13\\r\\nConnection: close\\r\\n\\r\\nfrom-the-step' | nc -l -p 8080; echo; done\"]
---
apiVersion: v1
kind: Service
metadata: {name: step}
spec: {selector: {app: step}, ports: [{port: 80, targetPort: 8080}]}
";

const SOURCES: &str = "
apiVersion: sources.knative.dev/v1
kind: ApiServerSource
metadata: {name: watch}
spec:
  resources: [{apiVersion: v1, kind: ConfigMap}]
  sink: {ref: {apiVersion: v1, kind: Service, name: sink}}
---
apiVersion: sources.knative.dev/v1
kind: ContainerSource
metadata: {name: talk}
spec:
  template:
    spec:
      containers:
      - image: registry.k8s.io/e2e-test-images/agnhost:2.66.1
        command: [sh, -c, \"trap 'exit 0' TERM; until curl -sf -m 5 -H 'Ce-Id: 5' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: own' -H 'Ce-Source: talk' -d from-the-container $K_SINK; do sleep 0.2; done; sleep 3600 & wait\"]
  sink: {ref: {apiVersion: v1, kind: Service, name: sink}}
---
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: late}
spec:
  subject: {apiVersion: batch/v1, kind: Job, selector: {matchLabels: {talks: 'true'}}}
  sink: {ref: {apiVersion: v1, kind: Service, name: sink}}
";

const BOUND: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: once, labels: {talks: 'true'}}
spec:
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: once
        image: registry.k8s.io/e2e-test-images/agnhost:2.66.1
        command: [sh, -c, \"until curl -sf -m 5 -H 'Ce-Id: 6' -H 'Ce-Specversion: 1.0' -H 'Ce-Type: own' -H 'Ce-Source: once' -d from-the-job $K_SINK; do sleep 0.2; done\"]
";

const BINDING: &str = "
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: early}
spec:
  subject: {apiVersion: apps/v1, kind: Deployment, name: before}
  sink: {ref: {apiVersion: v1, kind: Service, name: sink}}
";

const FLOWS: &str = "
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: line}
spec:
  steps:
  - {ref: {apiVersion: v1, kind: Service, name: step}, delivery: {retry: 8, backoffPolicy: exponential, backoffDelay: PT0.1S}}
  - {ref: {apiVersion: v1, kind: Service, name: sink}, delivery: {retry: 8, backoffPolicy: exponential, backoffDelay: PT0.1S}}
---
apiVersion: flows.knative.dev/v1
kind: Parallel
metadata: {name: fan}
spec:
  branches:
  - subscriber: {ref: {apiVersion: v1, kind: Service, name: step}}
    reply: {ref: {apiVersion: v1, kind: Service, name: sink}}
    delivery: {retry: 8, backoffPolicy: exponential, backoffDelay: PT0.1S}
---
apiVersion: eventing.knative.dev/v1beta2
kind: EventType
metadata: {name: known}
spec: {type: step, source: http://step, reference: {apiVersion: flows.knative.dev/v1, kind: Sequence, name: line}}
";

const WEB: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/window: 6s}}
    spec:
      containers: [{image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', args: [netexec, --http-port=8080]}]
";

const WEB_TWO: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/window: 6s}}
    spec:
      containers: [{image: 'registry.k8s.io/e2e-test-images/agnhost:2.66.1', args: [netexec, --http-port=8080], env: [{name: SECOND, value: 'true'}]}]
  traffic:
  - {latestRevision: true, percent: 50}
  - {revisionName: web-00001, percent: 50, tag: old}
";

/// The sink answers every connection with an empty 202 and prints what came.
const EVENTS: &str = "
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: sink}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/min-scale: '1'}}
    spec:
      containerConcurrency: 1
      timeoutSeconds: 2
      containers:
      - image: busybox:1.37
        command: [sh, -c, \"while true; do printf 'HTTP/1.1 202 Accepted\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' | nc -l -p 8080; echo; done\"]
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: one}
spec:
  broker: default
  filter: {attributes: {type: wanted}}
  subscriber: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: sink}}
---
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {name: ch}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {name: sub}
spec:
  channel: {apiVersion: messaging.knative.dev/v1, kind: Channel, name: ch}
  subscriber: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: sink}}
  delivery: {retry: 8, backoffPolicy: exponential, backoffDelay: PT0.1S}
";
