//! `clipper why` of what keeps people's first objects from working.

use super::{Scenario, clipper, fed, step};

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "why",
    steps: &[
        step("run fine --image=nginx:1.28 --labels=app=fine --port=80 --expose", &["pod/fine created"]),
        step("wait pod/fine --for=condition=Ready --timeout=60s", &["condition met"]),
        clipper("why pod/fine", &["pod/fine: is running and ready"]),
        step(
            "wait endpointslices -l kubernetes.io/service-name=fine --for=jsonpath={.endpoints[0].conditions.ready}=true --timeout=20s",
            &["condition met"],
        ),
        step(
            "patch service fine -p '{\"spec\":{\"selector\":{\"app\":\"fien\",\"run\":null}}}'",
            &["patched"],
        ),
        clipper(
            "why svc/fine",
            &["selects no pod: none in namespace why has app=fien", "pod/fine has app=fine"],
        ),
        step("run no-image --image=example.com/none:1 --image-pull-policy=Never", &["created"]),
        step(
            "wait pod/no-image --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull --timeout=60s",
            &["condition met"],
        ),
        clipper(
            "why pod/no-image",
            &["has no image: example.com/none:1 is not on the node", "clipper image import"],
        ),
        step("create deployment broken --image=busybox:1.37 -- sh -c 'exit 3'", &["created"]),
        step("wait pod -l app=broken --for=create --timeout=20s", &[]),
        step(
            "wait pod -l app=broken --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CrashLoopBackOff --timeout=60s",
            &["condition met"],
        ),
        clipper("why deploy/broken", &["wants 1 pods", "ends with exit code 3", "--previous"]),
        fed("apply -f -", HUGE, &["pod/huge created"]),
        step("wait pod/huge --for=condition=PodScheduled=False --timeout=60s", &["condition met"]),
        clipper("why pod/huge", &["fits on no node", "Insufficient memory", "ask for less"]),
    ],
}];

const HUGE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: huge}
spec: {containers: [{name: c, image: 'busybox:1.37', resources: {requests: {memory: 10Ti}}}]}
";
