//! Ingresses that name no class get the default one. Upstream: `plugin/pkg/admission/network/defaultingressclass`.

use super::default_class;
use api::{Admission, AdmissionRequest, Operation, Status};

const MARKS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// How an ingress named its class before it had a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub(super) struct DefaultIngressClass;

impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let ingress = &request.object;
        let has_class = !ingress["spec"]["ingressClassName"].is_null()
            || !ingress["metadata"]["annotations"][CLASS_ANNOTATION].is_null();
        if !request.is("networking.k8s.io", "ingresses") || has_class {
            return Ok(());
        }
        let class = default_class(request.lookup, "networking.k8s.io", "ingressclasses", &MARKS);
        if let (Some(class), Some(spec)) = (class, request.object.get_mut("spec")) {
            spec["ingressClassName"] = class.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create_in;
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value, json};

    #[test]
    fn ingresses_without_a_class_get_the_default() {
        let class = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {MARKS[0]: "true"}}});
        let lookup = Objects::default().with("networking.k8s.io", "ingressclasses", class);
        let check = |ingress: Value, expect: Value| {
            let case = create_in("networking.k8s.io", "ingresses");
            case.admits(&DefaultIngressClass, ingress, &lookup, "/spec/ingressClassName", expect);
        };
        check(json!({"spec": {}}), json!("web"));
        check(json!({"spec": {"ingressClassName": "own"}}), json!("own"));
        check(json!({"metadata": {"annotations": {CLASS_ANNOTATION: "own"}}, "spec": {}}), Value::Null);
    }
}
