//! Claims that name no class get the default one. Upstream: `plugin/pkg/admission/storage/storageclass/setdefault`.

use super::default_class;
use api::{Admission, AdmissionRequest, Operation, Status};

const MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// How a claim named its class before it had a field for it.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) struct DefaultStorageClass;

impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let claim = &request.object;
        let has_class = !claim["spec"]["storageClassName"].is_null()
            || !claim["metadata"]["annotations"][CLASS_ANNOTATION].is_null();
        if !request.is("", "persistentvolumeclaims") || has_class {
            return Ok(());
        }
        let class = default_class(request.lookup, "storage.k8s.io", "storageclasses", &MARKS);
        if let (Some(class), Some(spec)) = (class, request.object.get_mut("spec")) {
            spec["storageClassName"] = class.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value, json};

    #[test]
    fn claims_without_a_class_get_the_default() {
        let class = json!({"metadata": {"name": "fast", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {MARKS[1]: "true"}}});
        let lookup = Objects::default().with("storage.k8s.io", "storageclasses", class);
        let check = |claim: Value, lookup: &Objects, expect: Value| {
            let case = create("persistentvolumeclaims");
            case.admits(&DefaultStorageClass, claim, lookup, "/spec/storageClassName", expect);
        };
        check(json!({"spec": {}}), &lookup, json!("fast"));
        check(json!({"spec": {"storageClassName": ""}}), &lookup, json!(""));
        let annotated = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "x"}}, "spec": {}});
        check(annotated, &lookup, Value::Null);
        check(json!({"spec": {}}), &Objects::default(), Value::Null);
    }
}
