//! Nothing is made in a namespace that is missing or going. Upstream: `apiserver/pkg/admission/plugin/namespace/lifecycle`.

use crate::cells::text;
use api::status::{Cause, ResourceId};
use api::{Admission, AdmissionRequest, Operation, Status};
use serde_json::Value;

const NAMESPACES: ResourceId<'static> = ResourceId { group: "", plural: "namespaces" };
/// What can never be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let is_namespace = (request.kind.0, request.kind.2) == ("", "Namespace");
        if is_namespace && request.operation == Operation::Delete && IMMORTAL.contains(&request.name) {
            return Err(Status::forbidden(NAMESPACES, request.name, "this namespace may not be deleted"));
        }
        // A review must not tell whether a namespace exists.
        let is_review = request.resource.group == "authorization.k8s.io"
            && request.resource.plural == "localsubjectaccessreviews";
        let is_create = request.operation == Operation::Create;
        if !is_create || is_namespace || request.namespace.is_empty() || is_review {
            return Ok(());
        }
        let name = request.namespace;
        let found = request.lookup.get("", "namespaces", "", name);
        let namespace: Value =
            super::decode_kept(&*found.ok_or_else(|| Status::not_found(NAMESPACES, name))?)?;
        if text(&namespace, "/status/phase") != "Terminating" {
            return Ok(());
        }
        let mut status = request.forbidden(&format!(
            "unable to create new content in namespace {name} because it is being terminated"
        ));
        status.details.get_or_insert_default().causes.push(Cause {
            reason: "NamespaceTerminating".to_owned(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".to_owned(),
        });
        Err(status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, create, create_in, update};
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    fn namespace(phase: &str) -> Objects {
        let namespace = json!({"metadata": {"name": "n"}, "status": {"phase": phase}});
        Objects::default().with("", "namespaces", namespace)
    }

    #[test]
    fn where_things_can_be_made() {
        let plugin = NamespaceLifecycle;
        let map = json!({"metadata": {"name": "m"}});
        create("configmaps").admits(&plugin, map.clone(), &namespace("Active"), "/metadata/name", json!("m"));
        create("configmaps").refuses(
            &plugin,
            map.clone(),
            &Objects::default(),
            404,
            "namespaces \"n\" not found",
        );
        let case = create("configmaps");
        case.refuses(
            &plugin,
            map.clone(),
            &namespace("Terminating"),
            403,
            "configmaps \"m\" is forbidden: unable to create new content in namespace n because it is being terminated",
        );
        let status = case.run(&plugin, map.clone(), &namespace("Terminating")).unwrap_err();
        assert_eq!(
            serde_json::to_value(&status.details.unwrap().causes).unwrap(),
            json!([{"reason": "NamespaceTerminating", "message": "namespace n is being terminated", "field": "metadata.namespace"}])
        );
        let unnamed = json!({"metadata": {"generateName": "m-"}});
        let status = case.run(&plugin, unnamed, &namespace("Terminating")).unwrap_err();
        assert!(status.message.starts_with("configmaps \"m-\" is forbidden: "), "{}", status.message);
        update("configmaps", "", &map).admits(
            &plugin,
            map.clone(),
            &namespace("Terminating"),
            "/metadata/name",
            json!("m"),
        );
        let review = create_in("authorization.k8s.io", "localsubjectaccessreviews");
        assert!(review.run(&plugin, json!({}), &Objects::default()).is_ok());
        assert!(create("namespaces").run(&plugin, map.clone(), &Objects::default()).is_ok());
        assert!(create("nodes").run(&plugin, map, &Objects::default()).is_ok());
    }

    #[test]
    fn what_can_never_be_deleted() {
        for (name, refused) in
            [("default", true), ("kube-system", true), ("kube-public", true), ("kube-node-lease", false)]
        {
            let old = Some(json!({"metadata": {"name": name}}));
            let case = Case { operation: Operation::Delete, old, ..create("namespaces") };
            let outcome = case.run(&NamespaceLifecycle, Value::Null, &Objects::default());
            let expect = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
            assert_eq!(outcome.err().map(|status| status.message), refused.then_some(expect));
        }
    }
}
