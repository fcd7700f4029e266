//! The rules of custom objects, from their schema. Upstream: apiextensions-apiserver `pkg/registry/customresource`,
//! `pkg/apiserver/customresource_handler.go` (`unstructuredSchemaCoercer`).

use crate::strategy::Outcome;
use crate::structural::{Structural, Validator};
use crate::{Context, DynStrategy, FieldErrors, Status};
use serde_json::Value;
use std::sync::Arc;

/// Where the counts of a scale are.
#[derive(Clone, Debug)]
pub(super) struct ScalePaths {
    pub(super) spec: String,
    pub(super) status: String,
    pub(super) selector: Option<String>,
}

/// The rules of one version.
pub(super) struct Custom {
    pub(super) group: String,
    pub(super) plural: String,
    pub(super) api_version: String,
    /// As users wrote it, in JSON: it is read only for documents, and is much larger as values.
    pub(super) published: Box<str>,
    pub(super) schema: Arc<Structural>,
    /// The schema of the version in which objects are kept.
    pub(super) storage_schema: Arc<Structural>,
    pub(super) validator: Validator,
    /// Schemas of all versions, for managed fields.
    pub(super) schemas: Arc<[(String, Arc<Structural>)]>,
    pub(super) scale: Option<ScalePaths>,
    pub(super) has_status: bool,
    /// Whether what is kept may differ from what this version shows.
    pub(super) converts: bool,
    /// Whether the definition is being deleted.
    pub(super) is_terminating: bool,
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

impl Custom {
    /// Brings an object into the form that the schema knows; what it does not know is told.
    fn coerce(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = self.schema.prune(object);
        self.schema.drop_nulls_without_default(object);
        if self.schema.has_embedded() {
            unknown.extend(self.schema.tidy_embedded(object));
        }
        unknown
    }

    fn check(&self, object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        for fault in self.validator.check(object, old, "") {
            errors.add(fault);
        }
        self.check_scale(object, true, errors);
        self.check_rest(object, old, errors);
    }

    fn check_rest(&self, object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        self.schema.check_embedded(object, errors);
        let mut before = FieldErrors::default();
        if let Some(old) = old {
            self.schema.check_lists(old, &mut before);
        }
        if before.is_empty() {
            self.schema.check_lists(object, errors);
        }
    }

    fn check_scale(&self, object: &Value, with_spec: bool, errors: &mut FieldErrors) {
        let Some(scale) = &self.scale else { return };
        let spec = with_spec.then_some(&scale.spec);
        for pointer in spec.into_iter().chain([&scale.status]) {
            let field = pointer.replace('/', ".");
            match object.pointer(pointer) {
                None | Some(Value::Null) => {}
                Some(Value::Number(number)) if number.as_i64().is_some_and(|own| own < 0) => {
                    errors.invalid(&field, number.as_i64(), "should be a non-negative integer");
                }
                Some(Value::Number(number))
                    if number.as_i64().is_some_and(|own| own > i64::from(i32::MAX)) =>
                {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.invalid(&field, number.as_i64(), why);
                }
                Some(Value::Number(number)) if number.is_i64() => {}
                Some(other) => {
                    let why = format!("{field} accessor error: {other} is of the wrong type, expected int64");
                    errors.invalid(&field, 0, why);
                }
            }
        }
        if let Some(pointer) = &scale.selector
            && let Some(other) = object.pointer(pointer).filter(|own| !own.is_string())
        {
            let field = pointer.replace('/', ".");
            let why = format!("{field} accessor error: {other} is of the wrong type, expected string");
            errors.invalid(&field, "", why);
        }
    }
}

fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a new finalizer should rather be called.
fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(finalizers).unwrap_or_default();
    let mut new: Vec<&str> = finalizers(object).into_iter().filter(|own| !before.contains(own)).collect();
    new.sort_unstable();
    let mut found = Vec::new();
    for name in new {
        let prefix = format!("metadata.finalizers: {name:?}");
        found.extend(crate::names::qualified(name).into_iter().map(|fault| format!("{prefix}: {fault}")));
        if name.contains('/') || STANDARD_FINALIZERS.contains(&name) {
            continue;
        }
        let how = if name.contains('.') { " including a path (/)" } else { "" };
        found.push(format!("{prefix}: prefer a domain-qualified finalizer name{how} to avoid accidental conflicts with other finalizer writers"));
    }
    found
}

impl DynStrategy for Custom {
    fn default(&self, object: &mut Value) -> Result<(), Status> {
        self.schema.apply_defaults(object);
        Ok(())
    }

    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        if self.is_terminating {
            let id = crate::status::ResourceId { group: &self.group, plural: &self.plural };
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(id, object["metadata"]["name"].as_str().unwrap_or(""), why));
        }
        self.check(object, None, errors);
        Ok(Outcome { warnings: warnings(object, None) })
    }

    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        self.check(new, Some(old), errors);
        Ok(Outcome { warnings: warnings(new, Some(old)) })
    }

    /// Only the status and who wrote it may change.
    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        let mut metadata = old["metadata"].clone();
        for field in ["managedFields", "resourceVersion"] {
            if let Some(value) = new["metadata"].get(field) {
                metadata[field] = value.clone();
            }
        }
        new["metadata"] = metadata;
        if let (Some(status), Some(validator)) = (new.get("status"), self.validator.property("status")) {
            for mut fault in validator.check(status, old.get("status"), "") {
                fault.field = match fault.field.as_str() {
                    "" | "<nil>" => "status".to_owned(),
                    field => format!("status.{field}"),
                };
                errors.add(fault);
            }
        }
        self.check_scale(new, false, errors);
        self.check_rest(new, Some(old), errors);
        Ok(Outcome::default())
    }

    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(None)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn prune(&self, object: &mut Value) -> Vec<String> {
        self.coerce(object)
    }

    fn schemas(&self) -> &[(String, Arc<Structural>)] {
        &self.schemas
    }

    fn converts(&self) -> bool {
        self.converts
    }

    fn from_stored(&self, object: &mut Value) -> Result<(), Status> {
        object["apiVersion"] = self.api_version.as_str().into();
        self.coerce(object);
        self.schema.apply_defaults(object);
        Ok(())
    }

    fn to_stored(&self, object: &mut Value) -> Result<(), Status> {
        self.storage_schema.prune(object);
        self.storage_schema.drop_nulls_without_default(object);
        Ok(())
    }

    fn published_schema(&self) -> Option<Value> {
        serde_json::from_str(&self.published).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finalizers_without_a_domain_are_warned_of() {
        let object = json!({"metadata": {"finalizers": ["orphan", "x.io/y", "x.io", "x", "old"]}});
        let old = json!({"metadata": {"finalizers": ["old"]}});
        let found = warnings(&object, Some(&old));
        assert_eq!(found.len(), 2);
        assert!(
            found[0].starts_with("metadata.finalizers: \"x\": prefer a domain-qualified finalizer name to")
        );
        assert!(found[1].starts_with(
            "metadata.finalizers: \"x.io\": prefer a domain-qualified finalizer name including a path (/)"
        ));
    }
}
