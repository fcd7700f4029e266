//! `Namespace`. Upstream: `pkg/registry/core/namespace`, `ValidateNamespace`.

use crate::pod_spec::text;
use api::resource::{Action, Column, Field, Resource, Scope, Subresource};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use serde_json::Value;
use std::sync::Arc;

pub(crate) fn resource() -> Resource {
    let mut resource = Resource::new("", "v1", "Namespace", "namespaces", Scope::Cluster)
        .short_names(&["ns"])
        .fields(vec![Field::new("status.phase"), crate::legacy_name_field()])
        .columns(vec![Column::or("Status", "/status/phase", ""), Column::age()])
        .subresource(Subresource {
            name: "finalize",
            verbs: &["update"],
            body: None,
            action: Action::Part(Arc::new(Typed(Finalize))),
        })
        .status()
        .rules(Typed(Rules));
    resource.verbs = &["create", "delete", "get", "list", "patch", "update", "watch"];
    resource
}

/// The finalizer of the namespace controller.
const FINALIZER: &str = "kubernetes";
/// The label that says the name again, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

struct Rules;
struct Finalize;

fn default(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
        namespace.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
    let status = namespace.status.get_or_insert_default();
    if text(&status.phase).is_empty() {
        status.phase = Some("Active".to_owned());
    }
}

impl Strategy for Rules {
    type Kind = Namespace;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    /// A namespace goes when everything in it is gone, which `spec.finalizers` stands for.
    fn keeps_deleted(&self, namespace: &mut Value) -> bool {
        let finalizers = namespace.pointer("/spec/finalizers").and_then(Value::as_array);
        let is_kept = finalizers.is_some_and(|list| !list.is_empty());
        if is_kept {
            namespace["status"]["phase"] = "Terminating".into();
        }
        is_kept
    }

    fn default(&self, namespace: &mut Namespace) {
        default(namespace);
    }

    fn prepare_create(&self, namespace: &mut Namespace, _: &Context<'_>) -> Result<(), Status> {
        default(namespace);
        namespace.status =
            Some(NamespaceStatus { phase: Some("Active".to_owned()), ..NamespaceStatus::default() });
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|own| own == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        Ok(())
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) -> Result<(), Status> {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, namespace: &Namespace, errors: &mut FieldErrors) {
        validate(namespace, errors);
    }

    fn prepare_status_update(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Namespace, _: &Namespace, errors: &mut FieldErrors) {
        let phase = new.status.as_ref().map_or("", |status| text(&status.phase));
        let (expect, when) = match new.metadata.deletion_timestamp {
            None => ("Active", "is empty"),
            Some(_) => ("Terminating", "is not empty"),
        };
        if phase != expect {
            errors.invalid(
                "status.Phase",
                phase,
                format!("may only be '{expect}' if `deletionTimestamp` {when}"),
            );
        }
    }
}

impl Strategy for Finalize {
    type Kind = Namespace;

    fn default(&self, namespace: &mut Namespace) {
        default(namespace);
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace, _: &Context<'_>) -> Result<(), Status> {
        new.status.clone_from(&old.status);
        Ok(())
    }

    fn validate(&self, namespace: &Namespace, errors: &mut FieldErrors) {
        validate(namespace, errors);
    }
}

fn validate(namespace: &Namespace, errors: &mut FieldErrors) {
    let finalizers = namespace.spec.iter().filter_map(|spec| spec.finalizers.as_ref()).flatten();
    for (at, name) in finalizers.enumerate() {
        let field = format!("spec.finalizers[{at}]");
        let faults = names::qualified(name);
        let standard = [FINALIZER, "orphan", "foregroundDeletion"].contains(&name.as_str());
        if faults.is_empty() && !name.contains('/') && !standard {
            errors.invalid(
                &field,
                name.as_str(),
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
        names::report(errors, &field, name, faults);
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, check, created};
    use serde_json::json;

    #[test]
    fn a_new_namespace_is_active_and_kept_by_its_finalizer() {
        let (made, errors) = created(&resource(), json!({"metadata": {"name": "a"}}), &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
        assert_eq!(made["status"]["phase"], "Active");
        assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
        check(
            &resource(),
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x"]}}),
            &[
                "spec.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        );
        assert_eq!(resource().strategy.name_faults("a.b"), ["must not contain dots"]);
    }
}
