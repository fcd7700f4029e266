//! Which claims can grow. Upstream: `plugin/pkg/admission/storage/persistentvolume/resize`.

use super::decode_kept;
use super::default_storage_class::CLASS_ANNOTATION;
use crate::cells::text;
use api::{Admission, AdmissionRequest, Operation, Quantity, Status};
use serde_json::Value;

pub(super) struct PersistentVolumeClaimResize;

fn size(claim: &Value) -> Quantity {
    Quantity::parse(text(claim, "/spec/resources/requests/storage")).unwrap_or_default()
}

/// The class that a claim names; empty if none.
fn class(claim: &Value) -> &str {
    let annotated = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    annotated.unwrap_or_else(|| text(claim, "/spec/storageClassName"))
}

fn may_grow(request: &AdmissionRequest<'_>, old: &Value) -> Result<bool, Status> {
    let name = class(&request.object);
    if name.is_empty() || name != class(old) {
        return Ok(false);
    }
    let Some(found) = request.lookup.get("storage.k8s.io", "storageclasses", "", name) else {
        return Ok(false);
    };
    let found: Value = decode_kept(&found)?;
    Ok(found["allowVolumeExpansion"] == true)
}

impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(old) = request.old.filter(|_| request.is("", "persistentvolumeclaims")) else {
            return Ok(());
        };
        if size(&request.object) <= size(old) {
            return Ok(());
        }
        if text(old, "/status/phase") != "Bound" {
            return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
        }
        match may_grow(request, old)? {
            true => Ok(()),
            false => Err(request.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::update;
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    #[test]
    fn which_claims_can_grow() {
        let claim = |size: &str, class: &str, phase: &str| {
            json!({"metadata": {"name": "c"}, "status": {"phase": phase},
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        };
        let class =
            |name: &str, grows: bool| json!({"metadata": {"name": name}, "allowVolumeExpansion": grows});
        let lookup = Objects::default().with("storage.k8s.io", "storageclasses", class("grows", true)).with(
            "storage.k8s.io",
            "storageclasses",
            class("fixed", false),
        );
        let unbound = Some("Only bound persistent volume claims can be expanded");
        let fixed = Some(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
        for (old, new, expect) in [
            (claim("1Gi", "grows", "Bound"), claim("2Gi", "grows", "Bound"), None),
            (claim("1Gi", "grows", "Pending"), claim("2Gi", "grows", "Pending"), unbound),
            (claim("2Gi", "fixed", "Pending"), claim("1Gi", "fixed", "Pending"), None),
            (claim("1Gi", "fixed", "Bound"), claim("2Gi", "fixed", "Bound"), fixed),
            (claim("1Gi", "missing", "Bound"), claim("2Gi", "missing", "Bound"), fixed),
            (claim("1Gi", "", "Bound"), claim("2Gi", "", "Bound"), fixed),
        ] {
            let case = update("persistentvolumeclaims", "", &old);
            let outcome = case.run(&PersistentVolumeClaimResize, new, &lookup);
            let expect = expect.map(|why| format!("persistentvolumeclaims \"c\" is forbidden: {why}"));
            assert_eq!(outcome.err().map(|status| status.message), expect, "{old}");
        }
    }
}
