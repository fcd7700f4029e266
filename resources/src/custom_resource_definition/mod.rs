//! `apiextensions.k8s.io/v1` CustomResourceDefinition. Upstream: apiextensions-apiserver
//! `pkg/registry/customresourcedefinition`, `pkg/apis/apiextensions/{v1/defaults.go,validation}`.
//!
//! What a definition does is the API server's (`apiserver::crd`).

mod schema;
mod structural;
mod validate;

use api::resource::{Resource, Scope};
use api::strategy::{DynStrategy, Outcome};
use api::structural::is_known_format;
use api::{Context, FieldErrors, Status};
use schema::{flag, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Keeps a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(crate) fn row() -> Resource {
    Resource::new(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        Scope::Cluster,
    )
    .short_names(&["crd", "crds"])
    .categories(&["api-extensions"])
    .columns(crate::created_at())
    .status()
    .generation()
    .rules(Rules)
}

struct Rules;

fn default(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let kind = text(&spec["names"], "kind").to_owned();
    if spec["names"].is_object() {
        if text(&spec["names"], "singular").is_empty() {
            spec["names"]["singular"] = kind.to_lowercase().into();
        }
        if text(&spec["names"], "listKind").is_empty() && !kind.is_empty() {
            spec["names"]["listKind"] = format!("{kind}List").into();
        }
    }
    if !spec["conversion"].is_object() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    let service = spec.pointer_mut("/conversion/webhook/clientConfig/service");
    if let Some(service) = service.filter(|service| service.is_object())
        && service.get("port").is_none_or(Value::is_null)
    {
        service["port"] = 443.into();
    }
}

/// The versions of a definition.
fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["spec"]["versions"].as_array().into_iter().flatten()
}

/// Notes that objects may be kept in the storage version from now on.
fn note_stored_version(definition: &mut Value) {
    let storage = versions(definition).find(|version| flag(version, "storage"));
    let Some(name) = storage.map(|version| text(version, "name").to_owned()) else { return };
    let stored = &mut definition["status"]["storedVersions"];
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(list) = stored.as_array_mut()
        && !list.iter().any(|own| *own == *name)
    {
        list.push(name.into());
    }
}

/// What is not wrong but will not do what its author thinks.
fn warnings(definition: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in versions(definition) {
        schema::each(&version["schema"]["openAPIV3Schema"], &mut |node| {
            let format = text(node, "format");
            if !format.is_empty() && !is_known_format(format, text(node, "type")) {
                found.insert(format!("unrecognized format \"{format}\""));
            }
            let item = text(&node["items"], "type");
            if text(node, "x-kubernetes-list-type") == "set" && matches!(item, "object" | "array") {
                found.insert(format!("x-kubernetes-list-type: set for items of type \"{item}\" is not supported by server-side apply or CEL validation rules"));
            }
        });
    }
    found
}

impl DynStrategy for Rules {
    fn default(&self, definition: &mut Value) -> Result<(), Status> {
        default(definition);
        Ok(())
    }

    fn create(
        &self,
        definition: &mut Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        // Upstream writes the empty status out.
        definition["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}});
        note_stored_version(definition);
        validate::create(definition, errors);
        Ok(Outcome { warnings: warnings(definition).into_iter().collect() })
    }

    fn update(
        &self,
        definition: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        note_stored_version(definition);
        validate::update(definition, old, errors);
        let before = warnings(old);
        Ok(Outcome { warnings: warnings(definition).difference(&before).cloned().collect() })
    }

    fn update_status(
        &self,
        definition: &mut Value,
        _: &Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        validate::status(definition, errors);
        Ok(Outcome::default())
    }

    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(None)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    /// The first delete leaves the definition to the API server, which removes the objects first.
    fn keeps_deleted(&self, definition: &mut Value) -> bool {
        let conditions = definition["status"]["conditions"].as_array();
        if conditions.into_iter().flatten().any(|condition| condition["type"] == "Terminating") {
            return false;
        }
        let since = definition["metadata"]["deletionTimestamp"].clone();
        let finalizers = &mut definition["metadata"]["finalizers"];
        match finalizers.as_array_mut() {
            Some(list) if list.iter().any(|own| own == FINALIZER) => {}
            Some(list) => list.push(FINALIZER.into()),
            None => *finalizers = json!([FINALIZER]),
        }
        let condition = json!({
            "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending", "lastTransitionTime": since,
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        });
        match definition["status"]["conditions"].as_array_mut() {
            Some(list) => list.push(condition),
            None => definition["status"]["conditions"] = json!([condition]),
        }
        true
    }
}

#[cfg(test)]
mod tests;
