//! Services of every type, and names.

use super::{Scenario, bash, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "service-types",
        steps: &[
            step("create deployment web --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1 --replicas=2 -- /agnhost netexec --http-port=8080", &["created"]),
            step("run client --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1", &["pod/client created"]),
            step("rollout status deployment/web --timeout=60s", &["successfully rolled out"]),
            step("wait pod/client --for=condition=Ready --timeout=60s", &["condition met"]),
            step("expose deployment web --port=80 --target-port=8080", &["service/web exposed"]),
            step("get service web", &["TYPE", "CLUSTER-IP", "ClusterIP   10.43.", "80/TCP"]),
            step("exec client -- timeout 20 sh -c 'until curl -s -m 2 http://web/hostname; do :; done'", &["web-"]),
            step("exec client -- curl -s -m 5 http://web.service-types.svc.cluster.local/hostname", &["web-"]),
            step("exec client -- nslookup web", &["Name:\tweb.service-types.svc.cluster.local", "Address: 10.43."]),
            step("exec client -- nslookup kubernetes.default", &["Address: 10.43.0.1"]),
            step("exec client -- cat /etc/resolv.conf", &["nameserver 10.43.0.10", "search service-types.svc.cluster.local svc.cluster.local cluster.local", "options ndots:5"]),
            step("get endpoints web", &["Warning: v1 Endpoints is deprecated in v1.33+", ":8080,"]),
            step("describe service web", &["Selector:                 app=web", "Endpoints:", ":8080"]),
            step("expose deployment web --name=outside --type=NodePort --port=80 --target-port=8080", &["service/outside exposed"]),
            bash(
                "port=$($K get service outside -o 'jsonpath={.spec.ports[0].nodePort}'); [ \"$port\" -ge 30000 ] && [ \"$port\" -le 32767 ]
                 curl -s --retry 20 --retry-connrefused --retry-max-time 20 -m 2 \"http://172.31.0.1:$port/hostname\"",
                &["web-"],
            ),
            fed("apply -f -", HEADLESS, &["service/headless created"]),
            bash(
                "ips=$($K get pods -l app=web -o 'jsonpath={.items[*].status.podIP}')
                 found=$($K exec client -- nslookup headless)
                 for ip in $ips; do case $found in *\"Address: $ip\"*) echo found;; *) echo \"no $ip in $found\"; exit 1;; esac; done",
                &["found\nfound\n"],
            ),
            step("create service externalname away --external-name=kubernetes.default.svc.cluster.local", &["created"]),
            step("get service away", &["ExternalName   <none>", "kubernetes.default.svc.cluster.local"]),
            step("exec client -- nslookup away", &["canonical name = kubernetes.default.svc.cluster.local"]),
            step("set selector service/web app=nobody", &["selector updated"]),
        ],
    },
    Scenario {
        name: "names-across-namespaces",
        steps: &[
            step("run server --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1 --port=8080 --expose -- netexec --http-port=8080", &["service/server created", "pod/server created"]),
            step("run client -n default --image=registry.k8s.io/e2e-test-images/agnhost:2.66.1", &["pod/client created"]),
            step("wait pod/server --for=condition=Ready --timeout=60s", &["condition met"]),
            step("wait pod/client -n default --for=condition=Ready --timeout=60s", &["condition met"]),
            step("exec -n default client -- timeout 20 sh -c 'until curl -s -m 2 http://server.names-across-namespaces:8080/hostname; do :; done'", &["server"]),
            step("delete pod client -n default --grace-period=0 --force", &["deleted"]),
        ],
    },
];

const HEADLESS: &str = "
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
";
