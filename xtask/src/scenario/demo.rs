//! The sample application of `clipper up --demo`: nothing is imported or pulled for it.

use super::{Scenario, bash, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "demo",
    steps: &[
        step("wait -n default deployment/demo --for=create --timeout=30s", &["condition met"]),
        step("rollout status -n default deployment/demo --timeout=60s", &["successfully rolled out"]),
        bash(
            "port=$($K -n default get service demo -o 'jsonpath={.spec.ports[0].nodePort}')
             page() { curl -sS --retry 20 --retry-connrefused --retry-max-time 20 -m 5 http://172.31.0.1:$port/; }
             page; page",
            &["Pod <b>demo-", "has answered <b>1</b> requests"],
        ),
        step("get -n default pods -l app=demo", &["1/1     Running   0"]),
    ],
}];
