//! What kubectl and helm do beside getting and creating.

use super::{Scenario, bash, fails, fed, helm, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "declarative",
        steps: &[
            fed("apply -f -", WEB, &["deployment.apps/web created"]),
            fed("diff -f -", WEB, &[]),
            fails("diff -f -", WEB_MORE, &["-  replicas: 1", "+  replicas: 2"]),
            fed("apply -f -", WEB_MORE, &["deployment.apps/web configured"]),
            fed("apply -f -", WEB_MORE, &["deployment.apps/web unchanged"]),
            step("apply view-last-applied deployment/web", &["replicas: 2"]),
            bash("KUBE_EDITOR=\"sed -i 's/replicas: 2/replicas: 3/'\" $K edit deployment web", &["deployment.apps/web edited"]),
            bash("KUBE_EDITOR=true $K edit deployment web", &["Edit cancelled, no changes made"]),
            step("wait deployment/web --for=jsonpath={.status.readyReplicas}=3 --timeout=60s", &["condition met"]),
            step("patch deployment web --type=strategic -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}]}}}}'", &["patched"]),
            step("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}/{.spec.template.spec.containers[0].env[0].name}", &["busybox:1.37/A"]),
            step("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":1}}'", &["patched"]),
            step("label deployment web tier=front", &["labeled"]),
            fails("label deployment web tier=back", "", &["already has a value (front), and --overwrite is false"]),
            step("get deployment -L tier --show-labels", &["TIER", "front", "tier=front"]),
            step("label deployment web tier-", &["unlabeled"]),
            fed("replace -f -", WEB, &["deployment.apps/web replaced"]),
            fed("delete -f -", WEB, &["deployment.apps \"web\" deleted"]),
        ],
    },
    Scenario {
        name: "inspecting",
        steps: &[
            step("explain pod.spec.containers.image", &["KIND:       Pod", "FIELD: image <string>", "DESCRIPTION"]),
            step("explain deployment --recursive", &["GROUP:      apps", "strategy\t<DeploymentStrategy>"]),
            fails("explain pod.spec.nothing", "", &["field \"nothing\" does not exist"]),
            step("auth can-i create deployments", &["yes"]),
            step("create serviceaccount limited", &["created"]),
            fails("auth can-i create deployments --as=system:serviceaccount:inspecting:limited", "", &["no"]),
            step("create role reader --verb=get,list --resource=pods", &["role.rbac.authorization.k8s.io/reader created"]),
            step("create rolebinding reader --role=reader --serviceaccount=inspecting:limited", &["created"]),
            step("auth can-i list pods --as=system:serviceaccount:inspecting:limited", &["yes"]),
            step("auth can-i --list --as=system:serviceaccount:inspecting:limited", &["pods", "[get list]", "selfsubjectaccessreviews"]),
            fails("get secrets --as=system:serviceaccount:inspecting:limited", "", &["secrets is forbidden: User \"system:serviceaccount:inspecting:limited\" cannot list resource \"secrets\" in API group \"\" in the namespace \"inspecting\""]),
            step("auth whoami", &["kubernetes-admin", "system:masters"]),
            step("get nodes -o wide", &["NAME", "ROLES", "INTERNAL-IP", "node1", "Ready", "172.31.0.1", "v1.37.2"]),
            step("describe node node1", &["Capacity:", "Allocatable:", "pods:", "Ready", "Non-terminated Pods:"]),
            step("cluster-info", &["Kubernetes control plane", "https://172.31.0.1:6443"]),
            step("get all", &["No resources found in inspecting namespace."]),
            step("run web --image=nginx:1.28", &["pod/web created"]),
            step("wait pod/web --for=condition=Ready --timeout=60s", &["condition met"]),
            step("get events", &["LAST SEEN   TYPE     REASON", "OBJECT", "MESSAGE", "Scheduled", "pod/web", "Successfully assigned inspecting/web to node1", "Pulled", "Started"]),
            step("events --for pod/web", &["LAST SEEN", "Created"]),
            step("get pods -o wide", &["IP", "NODE", "NOMINATED NODE", "READINESS GATES", "10.42.", "node1"]),
            step("get pods -o custom-columns=N:.metadata.name,I:.spec.containers[*].image", &["N", "web", "nginx:1.28"]),
            step("get pods --sort-by=.metadata.name --no-headers", &["web   1/1   Running"]),
        ],
    },
    Scenario {
        name: "into-containers",
        steps: &[
            step("run web --image=nginx:1.28 --port=80", &["pod/web created"]),
            step("wait pod/web --for=condition=Ready --timeout=60s", &["condition met"]),
            step("exec web -- cat /var/www/html/index.html", &["nginx"]),
            fed("exec -i web -- cat", "said from here", &["said from here"]),
            fails("exec web -- sh -c 'exit 7'", "", &["command terminated with exit code 7"]),
            bash(
                "coproc FORWARD { exec $K port-forward pod/web :80; }; forward=$FORWARD_PID
                 read -r line <&\"${FORWARD[0]}\"; port=${line#*127.0.0.1:}; port=${port%% *}
                 curl -s -m 5 \"http://127.0.0.1:$port/\"; kill $forward",
                &["nginx"],
            ),
            bash(
                "echo hello > \"$DIR/there\"; $K cp \"$DIR/there\" web:/tmp/there; $K exec web -- cat /tmp/there
                 $K cp web:/tmp/there \"$DIR/back\"; cat \"$DIR/back\"
                 mkdir \"$DIR/folder\"; echo inner > \"$DIR/folder/file\"; $K cp \"$DIR/folder\" web:/tmp/; $K exec web -- cat /tmp/folder/file",
                &["hello\n", "inner\n"],
            ),
            step("run -i --rm once --image=busybox:1.37 --restart=Never -- echo from a pod", &["from a pod", "pod \"once\" deleted"]),
            bash("$K run reader --image=busybox:1.37 -i --restart=Never --rm -- cat <<< 'through a pod'", &["through a pod"]),
            bash("$K debug web -q -i --image=busybox:1.37 --target=web -- sh -c 'echo debugging; ls /proc/1/exe' < /dev/null", &["debugging"]),
        ],
    },
    Scenario {
        name: "helm",
        steps: &[
            helm("install site charts/site --set replicas=1 --wait --timeout=60s", &["STATUS: deployed", "REVISION: 1", "site answers on port 80"]),
            helm("list", &["site", "deployed", "site-0.1.0"]),
            step("get deployment site -o jsonpath={.status.readyReplicas}", &["1"]),
            helm("upgrade site charts/site --set replicas=2 --set page=second --wait --timeout=60s", &["has been upgraded", "REVISION: 2"]),
            step("get deployment site -o jsonpath={.status.readyReplicas}", &["2"]),
            step("get configmap site -o jsonpath={.data}", &["second"]),
            helm("history site", &["superseded", "deployed", "Install complete", "Upgrade complete"]),
            helm("rollback site 1 --wait --timeout=60s", &["Rollback was a success"]),
            step("get configmap site -o jsonpath={.data}", &["first"]),
            helm("test site --timeout=60s", &["Phase:          Succeeded"]),
            helm("get manifest site", &["kind: Deployment"]),
            helm("uninstall site --wait --timeout=60s", &["release \"site\" uninstalled"]),
            step("get deployments,services,configmaps -l app=site", &["No resources found"]),
        ],
    },
    Scenario {
        name: "waiting",
        steps: &[
            fails("wait pod/none --for=condition=Ready --timeout=1s", "", &["pods \"none\" not found"]),
            step("run web --image=nginx:1.28 --labels=app=web", &["created"]),
            step("wait pod -l app=web --for=condition=Ready --timeout=60s", &["pod/web condition met"]),
            fails("wait pod/web --for=condition=Nothing --timeout=1s", "", &["timed out waiting for the condition on pods/web"]),
            bash("$K wait pod/web --for=delete --timeout=60s & $K delete pod web; wait $!", &["pod \"web\" deleted"]),
            bash("$K wait --for=create configmap/soon --timeout=20s & $K create configmap soon; wait $!", &["configmap/soon condition met"]),
            step("delete configmap soon --dry-run=server", &["deleted", "(server dry run)"]),
            step("get configmap soon", &["soon"]),
        ],
    },
    Scenario {
        name: "quotas",
        steps: &[
            step("create quota small --hard=pods=1,requests.cpu=1", &["resourcequota/small created"]),
            step("wait resourcequota/small --for=jsonpath={.status.hard.pods}=1 --timeout=20s", &["condition met"]),
            fails("run free --image=nginx:1.28", "", &["forbidden: failed quota: small: must specify requests.cpu"]),
            fed("apply -f -", LIMIT_RANGE, &["limitrange/defaults created"]),
            step("run first --image=nginx:1.28", &["pod/first created"]),
            step("get pod first -o jsonpath={.spec.containers[0].resources.requests.cpu}", &["100m"]),
            fails("run second --image=nginx:1.28", "", &["pods \"second\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"]),
            step("describe quota small", &["Used", "Hard", "100m", "1"]),
        ],
    },
];

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const WEB_MORE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'busybox:1.37', command: [sleep, '3600']}]}
";

const LIMIT_RANGE: &str = "
apiVersion: v1
kind: LimitRange
metadata: {name: defaults}
spec: {limits: [{type: Container, default: {cpu: 200m}, defaultRequest: {cpu: 100m}}]}
";
