//! Nobody may hand out what they do not have: checks on writes of roles and bindings.
//! Upstream: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased`.

use super::{AnyBinding, AnyRole, GROUP, Index, Rbac, RoleName, Rule, describe, role_name, uncovered};
use crate::hooks::{Attributes, Decision};
use api::status::ResourceId;
use api::user::GROUP_MASTERS;
use api::{Admission, AdmissionRequest, Operation, Status, UserInfo};
use serde_json::Value;
use std::sync::Arc;

/// The step of admission that refuses escalation. `escalate` on roles and `bind` on the bound role lift it.
pub struct EscalationCheck(pub Arc<Rbac>);

impl Admission for EscalationCheck {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if request.resource.group != GROUP
            || !request.subresource.is_empty()
            || request.user.is_in(GROUP_MASTERS)
        {
            return Ok(());
        }
        if request.old.is_some_and(|old| only_garbage_collection(&request.object, old)) {
            return Ok(());
        }
        match request.resource.plural.as_str() {
            "roles" | "clusterroles" => check_role(&self.0.index(), request),
            "rolebindings" | "clusterrolebindings" => check_binding(&self.0.index(), request),
            _ => Ok(()),
        }
    }
}

/// Whether a change touches nothing but what garbage collection needs: owners and finalizers. Upstream:
/// `rbacregistry.IsOnlyMutatingGCFields`.
pub(super) fn only_garbage_collection(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                meta.remove(field);
            }
        }
        object
    };
    bare(new) == bare(old)
}

fn special<'a>(
    user: &'a UserInfo,
    verb: &'a str,
    plural: &'a str,
    name: &'a str,
    namespace: &'a str,
) -> Attributes<'a> {
    Attributes {
        user,
        verb,
        group: GROUP,
        version: "*",
        resource: plural,
        subresource: "",
        namespace,
        name,
        path: "",
        is_resource: true,
        label_selector: "",
        field_selector: "",
    }
}

fn check_role(index: &Index, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    // Upstream asks with the name of the request, which a create does not have.
    let name = if request.operation == Operation::Create { "" } else { request.name };
    let asked = special(request.user, "escalate", &request.resource.plural, name, request.namespace);
    if index.decide(&asked).decision == Decision::Allow {
        return Ok(());
    }
    let role: AnyRole = read(&request.object)?;
    let aggregates = |role: &AnyRole| {
        let rule = role.aggregation_rule.as_ref();
        rule.is_some_and(|rule| rule.cluster_role_selectors.as_ref().is_some_and(|list| !list.is_empty()))
    };
    let mut aggregated = aggregates(&role);
    if let Some(old) = request.old {
        aggregated |= aggregates(&read(old)?);
    }
    let rules: Vec<Rule> = role.rules.unwrap_or_default().into_iter().map(Rule::from).collect();
    confirm(index, request.user, request.namespace, &rules).map_err(|why| request.forbidden(&why))?;
    if aggregated && request.resource.plural == "clusterroles" {
        let everything = [Rule::resources(&["*"], &["*"], &["*"]), Rule::paths(&["*"], &["*"])];
        confirm(index, request.user, request.namespace, &everything).map_err(|_| {
            request.forbidden("must have cluster-admin privileges to use the aggregationRule")
        })?;
    }
    Ok(())
}

fn check_binding(index: &Index, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let binding: AnyBinding = read(&request.object)?;
    let reference = &binding.role_ref;
    let plural = match reference.kind.as_str() {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        kind => return Err(request.forbidden(&format!("unsupported role reference kind: \"{kind}\""))),
    };
    let asked = special(request.user, "bind", plural, &reference.name, request.namespace);
    if index.decide(&asked).decision == Decision::Allow {
        return Ok(());
    }
    let role: RoleName = role_name(reference, request.namespace);
    let Some(rules) = index.rules_of(&role) else {
        return Err(Status::not_found(ResourceId { group: GROUP, plural }, &reference.name));
    };
    confirm(index, request.user, request.namespace, rules).map_err(|why| request.forbidden(&why))
}

fn confirm(index: &Index, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> Result<(), String> {
    let (held, unresolved) = index.rules_for(user, namespace);
    let missing = uncovered(held.iter(), wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<_> = user.groups.iter().map(|group| format!("\"{group}\"")).collect();
    let mut message = format!(
        "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        describe(&missing).join("\n")
    );
    if !unresolved.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", unresolved.join(", ")));
    }
    Err(message)
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T, Status> {
    T::deserialize(object).map_err(|error| Status::bad_request(error.to_string()))
}
