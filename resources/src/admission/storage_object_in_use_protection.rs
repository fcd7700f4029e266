//! Volumes and claims that are in use outlive their deletion. Upstream:
//! `plugin/pkg/admission/storage/storageobjectinuseprotection`. Controllers take the finalizers away.

use super::list_mut;
use api::{Admission, AdmissionRequest, Operation, Status};

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) struct StorageObjectInUseProtection;

impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let row = FINALIZERS.into_iter().find(|(group, plural, _)| request.is(group, plural));
        let Some((.., finalizer)) = row else { return Ok(()) };
        let finalizers = request.object.get_mut("metadata").and_then(|meta| list_mut(meta, "finalizers"));
        if let Some(finalizers) = finalizers
            && !finalizers.iter().any(|own| own == finalizer)
        {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create_in;
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    #[test]
    fn finalizers_are_added_once() {
        for (group, plural, finalizer) in FINALIZERS {
            let case = create_in(group, plural);
            let check = |before: &[&str], expect: &[&str]| {
                let object = json!({"metadata": {"name": "x", "finalizers": before}});
                let none = Objects::default();
                case.admits(
                    &StorageObjectInUseProtection,
                    object,
                    &none,
                    "/metadata/finalizers",
                    json!(expect),
                );
            };
            check(&[], &[finalizer]);
            check(&["a"], &["a", finalizer]);
            check(&[finalizer], &[finalizer]);
        }
    }
}
