//! What the server completes, bounds and refuses before it writes.

use super::{Scenario, fails, fed, step};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pods-are-completed",
        steps: &[
            fed("apply -f -", LIMITS, &["limitrange/limits created"]),
            fed("apply -f -", POD, &["pod/plain created"]),
            step(
                "get pod plain -o jsonpath={.spec.containers[0].resources}",
                &["\"limits\":{\"cpu\":\"200m\"}", "\"requests\":{\"cpu\":\"100m\"}"],
            ),
            step(
                "get pod plain -o jsonpath={.metadata.annotations}",
                &["LimitRanger plugin set: cpu request for container main; cpu limit for container main"],
            ),
            step("get pod plain -o jsonpath={.spec.serviceAccountName}/{.spec.priority}", &["default/0"]),
            step(
                "get pod plain -o jsonpath={.spec.volumes[0].name}{.spec.volumes[0].projected.sources[0]}",
                &["kube-api-access-", "\"expirationSeconds\":3607"],
            ),
            step(
                "get pod plain -o jsonpath={.spec.containers[0].volumeMounts[0].mountPath}",
                &["/var/run/secrets/kubernetes.io/serviceaccount"],
            ),
            step(
                "get pod plain -o jsonpath={.spec.tolerations[*].key}",
                &["node.kubernetes.io/not-ready node.kubernetes.io/unreachable"],
            ),
            fails(
                "run big --image=example.com/i --overrides='{\"spec\":{\"containers\":[{\"name\":\"big\",\"image\":\"i\",\"resources\":{\"limits\":{\"cpu\":\"3\"}}}]}}'",
                "",
                &["pods \"big\" is forbidden: maximum cpu usage per Container is 2, but limit is 3"],
            ),
            fails(
                "run lost --image=example.com/i --overrides='{\"spec\":{\"serviceAccountName\":\"nobody\"}}'",
                "",
                &[
                    "error looking up service account pods-are-completed/nobody: serviceaccount \"nobody\" not found",
                ],
            ),
            fed("create -f -", CRITICAL, &["pod/critical created"]),
            step(
                "get pod critical -o jsonpath={.spec.priority}/{.spec.preemptionPolicy}",
                &["2000001000/PreemptLowerPriority"],
            ),
            fails(
                "run odd --image=example.com/i --overrides='{\"spec\":{\"priorityClassName\":\"none\"}}'",
                "",
                &["pods \"odd\" is forbidden: no PriorityClass with name none was found"],
            ),
        ],
    },
    Scenario {
        name: "quotas-bound",
        steps: &[
            step(
                "create quota q --hard=pods=1,requests.cpu=500m,count/configmaps=2",
                &["resourcequota/q created"],
            ),
            step("wait quota/q --for=jsonpath='{.status.hard.pods}'=1 --timeout=30s", &["condition met"]),
            fails(
                "run idle --image=example.com/i",
                "",
                &["pods \"idle\" is forbidden: failed quota: q: must specify requests.cpu for: idle"],
            ),
            fails(
                "run big --image=example.com/i --overrides='{\"spec\":{\"containers\":[{\"name\":\"big\",\"image\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"501m\"}}}]}}'",
                "",
                &[
                    "exceeded quota: q, requested: requests.cpu=501m, used: requests.cpu=0, limited: requests.cpu=500m",
                ],
            ),
            fed("apply -f -", POD_ASKING, &["pod/asking created"]),
            fails(
                "run more --image=example.com/i --overrides='{\"spec\":{\"containers\":[{\"name\":\"more\",\"image\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"1m\"}}}]}}'",
                "",
                &[
                    "exceeded quota: q, requested: pods=1,requests.cpu=1m, used: pods=1,requests.cpu=500m, limited: pods=1,requests.cpu=500m",
                ],
            ),
            step("delete pod asking --force --grace-period=0", &["deleted"]),
            fed("apply -f -", POD_ASKING, &["pod/asking created"]),
        ],
    },
    Scenario {
        name: "pods-are-secure",
        steps: &[
            fed("apply -f -", POD_HOST, &["pod/host created"]),
            step(
                "label namespace pods-are-secure pod-security.kubernetes.io/enforce=baseline pod-security.kubernetes.io/warn=restricted",
                &[
                    "Warning: existing pods in namespace \"pods-are-secure\" violate the new PodSecurity enforce level \"baseline:latest\"",
                    "Warning: host: host namespaces",
                    "labeled",
                ],
            ),
            fails(
                "run other --image=example.com/i --overrides='{\"spec\":{\"hostPID\":true}}'",
                "",
                &[
                    "pods \"other\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)",
                ],
            ),
            step(
                "create deployment web --image=example.com/i",
                &[
                    "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"i\" must set securityContext.allowPrivilegeEscalation=false)",
                    "runAsNonRoot != true (pod or container \"i\" must set securityContext.runAsNonRoot=true)",
                    "deployment.apps/web created",
                ],
            ),
            fails(
                "label namespace pods-are-secure --overwrite pod-security.kubernetes.io/enforce=strong",
                "",
                &["Invalid value: \"strong\": must be one of privileged, baseline, restricted"],
            ),
        ],
    },
];

const LIMITS: &str = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: limits}\nspec: {limits: [{type: Container, max: {cpu: '2'}, default: {cpu: 200m}, defaultRequest: {cpu: 100m}}]}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: plain}\nspec: {containers: [{name: main, image: example.com/i}]}\n";
const POD_ASKING: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: asking}\nspec: {containers: [{name: main, image: example.com/i, resources: {requests: {cpu: 500m}}}]}\n";
const POD_HOST: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec: {hostNetwork: true, containers: [{name: main, image: example.com/i}]}\n";
const CRITICAL: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: critical}\nspec: {priorityClassName: system-node-critical, containers: [{name: main, image: example.com/i}]}\n";
