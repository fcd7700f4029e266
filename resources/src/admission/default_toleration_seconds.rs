//! Pods stay for a while on a node that is lost. Upstream: `plugin/pkg/admission/defaulttolerationseconds`.

use super::{is_pod, list_mut};
use api::{Admission, AdmissionRequest, Operation, Status};
use serde_json::{Value, json};

/// How long pods stay. Upstream: `--default-not-ready-toleration-seconds`, `--default-unreachable-toleration-seconds`.
const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !is_pod(request) {
            return Ok(());
        }
        let Some(spec) = request.object.get_mut("spec") else { return Ok(()) };
        let Some(tolerations) = list_mut(spec, "tolerations") else { return Ok(()) };
        let is_or_all = |value: &Value, wanted: &str| {
            let own = value.as_str().unwrap_or_default();
            own.is_empty() || own == wanted
        };
        let missing = TAINTS.map(|taint| {
            let tolerated =
                |own: &Value| is_or_all(&own["key"], taint) && is_or_all(&own["effect"], "NoExecute");
            (!tolerations.iter().any(tolerated)).then_some(taint)
        });
        tolerations.extend(missing.into_iter().flatten().map(|taint| {
            json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS})
        }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use crate::testing::Objects;

    #[test]
    fn what_is_not_tolerated_is_tolerated_for_a_while() {
        let default = |taint: &str| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let check = |own: Value, more: &[&str]| {
            let mut expect = own.as_array().unwrap().clone();
            expect.extend(more.iter().map(|taint| default(taint)));
            let pod = json!({"spec": {"tolerations": own}});
            create("pods").admits(
                &DefaultTolerationSeconds,
                pod,
                &Objects::default(),
                "/spec/tolerations",
                expect.into(),
            );
        };
        check(json!([]), &TAINTS);
        check(json!([{"operator": "Exists"}]), &[]);
        check(json!([{"operator": "Exists", "effect": "NoSchedule"}]), &TAINTS);
        check(json!([{"key": TAINTS[0], "operator": "Exists"}]), &TAINTS[1..]);
        check(json!([{"key": TAINTS[1], "effect": "NoExecute", "tolerationSeconds": 1}]), &TAINTS[..1]);
    }
}
