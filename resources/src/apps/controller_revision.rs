//! `ControllerRevision`. Upstream: `pkg/registry/apps/controllerrevision`, `ValidateControllerRevision*`.

use crate::cells::{NONE, list};
use api::names::check_not_negative;
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Strategy};
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("apps", "v1", "ControllerRevision", "controllerrevisions", Scope::Namespaced)
        .columns(vec![
            Column::computed("Controller", |o, _| controller(o).into()),
            Column::or("Revision", "/revision", 0),
            Column::age(),
        ])
        .rules(Typed(Rules))
}

/// The managing controller as `kind.group/name`.
fn controller(revision: &Value) -> String {
    let owners = list(revision, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return NONE.to_owned();
    };
    let group = owner["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let kind = owner["kind"].as_str().unwrap_or("").to_lowercase();
    let name = owner["name"].as_str().unwrap_or("");
    match group {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{}/{name}", group.to_lowercase()),
    }
}

struct Rules;

impl Strategy for Rules {
    type Kind = ControllerRevision;

    fn validate(&self, own: &ControllerRevision, errors: &mut FieldErrors) {
        check_not_negative(errors, "revision", own.revision.unwrap_or(0));
    }

    fn validate_create(&self, own: &ControllerRevision, errors: &mut FieldErrors) {
        match &own.data.0 {
            Value::Null => errors.required("data", "data is mandatory"),
            Value::Object(_) => {}
            _ => errors.required("data", "data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision, errors: &mut FieldErrors) {
        errors.immutable("data", &new.data, &old.data);
    }
}
