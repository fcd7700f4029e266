//! Which part of an object a request reads and writes: all of it, its status, its scale, or another part with rules of
//! its own.

use super::{Scope, Written, value_of};
use crate::metadata;
use crate::options::WriteOptions;
use api::strategy::DynStrategy;
use api::{FieldErrors, LabelSelector, Resource, Status};
use serde_json::{Value, json};
use std::sync::Arc;

/// A part of an object.
#[derive(Clone)]
pub(crate) enum Part {
    /// The object but its status.
    Whole,
    /// The status.
    Status,
    /// What these rules let through.
    Own(Arc<dyn DynStrategy>),
    /// The whole object, status included, without rules: an action of the server itself (`binding`).
    Raw,
    /// The counts, shown as a `Scale`.
    Scale { spec: String, status: String, selector: Option<String> },
}

impl Part {
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    /// Whether the body is the object itself.
    pub(crate) fn is_object(&self) -> bool {
        !matches!(self, Self::Scale { .. })
    }

    /// Group, version and kind of the body.
    pub(crate) fn kind_of_body(&self, resource: &Resource) -> (String, String, String) {
        match self {
            Self::Scale { .. } => ("autoscaling".to_owned(), "v1".to_owned(), "Scale".to_owned()),
            _ => (resource.group.clone(), resource.version.clone(), resource.kind.clone()),
        }
    }

    /// `apiVersion` and `kind` of the body.
    pub(crate) fn kind(&self, scope: &Scope) -> (String, String) {
        match self {
            Self::Scale { .. } => ("autoscaling/v1".to_owned(), "Scale".to_owned()),
            _ => (scope.entry.api_version.to_string(), scope.entry.resource.kind.clone()),
        }
    }

    /// What the part looks like.
    pub(crate) fn view(&self, object: &Value) -> Value {
        let Self::Scale { spec, status, selector } = self else { return object.clone() };
        let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        let mut metadata = json!({});
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object["metadata"].get(field) {
                metadata[field] = value.clone();
            }
        }
        let mut scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {}, "status": {"replicas": count(status)},
        });
        if count(spec) != 0 {
            scale["spec"]["replicas"] = count(spec).into();
        }
        let text = selector.as_ref().and_then(|pointer| object.pointer(pointer)).map(selector_text);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            scale["status"]["selector"] = text.into();
        }
        scale
    }

    /// The object with a new version of the part.
    pub(crate) fn merge(
        &self,
        scope: &Scope,
        old: &Value,
        view: Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        match self {
            Self::Whole | Self::Raw | Self::Own(_) => Ok(view),
            Self::Status => {
                let mut new = old.clone();
                let owners = old["metadata"].get("ownerReferences").cloned();
                new["metadata"] = view["metadata"].clone();
                let metadata = metadata::metadata_mut(&mut new);
                match owners {
                    Some(owners) => metadata.insert("ownerReferences".to_owned(), owners),
                    None => metadata.remove("ownerReferences"),
                };
                match (view.get("status"), new.as_object_mut()) {
                    (Some(status), Some(map)) => map.insert("status".to_owned(), status.clone()),
                    (None, Some(map)) => map.remove("status"),
                    _ => None,
                };
                Ok(new)
            }
            Self::Scale { spec, .. } => {
                let mut errors = FieldErrors::default();
                let replicas = view.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
                if replicas < 0 {
                    errors.invalid("spec.replicas", replicas, "must be greater than or equal to 0");
                    let name = metadata::text(&view, "name");
                    return Err(Status::invalid("autoscaling", "Scale", name, errors));
                }
                let mut new = old.clone();
                set(&mut new, spec, replicas.into());
                metadata::metadata_mut(&mut new)
                    .insert("resourceVersion".to_owned(), view["metadata"]["resourceVersion"].clone());
                Ok(scope.track_managers(new, Some(old), options))
            }
        }
    }

    /// What a write left, as this part shows it.
    pub(crate) fn written(&self, written: Written) -> Result<Written, Status> {
        if self.is_object() {
            return Ok(written);
        }
        let object = match written {
            Written::Object(object) => value_of(&object)?,
            Written::Value(value) => value,
        };
        Ok(Written::Value(self.view(&object)))
    }
}

/// Sets a value at a pointer, making objects on the way.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut place = object;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[name];
    }
    *place = value;
}

/// A selector as text: a text, a map of labels, or a label selector. Upstream: `metav1.FormatLabelSelector`.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let Some(map) = selector.as_object() else { return String::new() };
    let is_selector = map.contains_key("matchLabels") || map.contains_key("matchExpressions");
    let object = if is_selector { selector.clone() } else { json!({"matchLabels": selector}) };
    let own = serde_json::from_value(object).ok().and_then(|own| LabelSelector::from_object(&own).ok());
    let text = own.map(|own| own.to_string()).unwrap_or_default();
    debug_assert!(LabelSelector::parse(&text).is_ok() || text.is_empty());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_text() {
        for (selector, expect) in [
            (json!("a=b"), "a=b"),
            (json!({"b": "2", "a": "1"}), "a=1,b=2"),
            (
                json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}),
                "a=1,b in (x,y),!c",
            ),
            (json!({}), ""),
        ] {
            assert_eq!(selector_text(&selector), expect);
        }
    }

    #[test]
    fn a_scale_shows_the_counts() {
        let part = Part::Scale {
            spec: "/spec/replicas".to_owned(),
            status: "/status/replicas".to_owned(),
            selector: Some("/spec/selector".to_owned()),
        };
        let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "resourceVersion": "5"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}}, "status": {"replicas": 2}});
        let scale = part.view(&object);
        assert_eq!(scale["metadata"], json!({"name": "a", "resourceVersion": "5"}));
        assert_eq!(
            (&scale["spec"], &scale["status"]),
            (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
        );
        let mut new = json!({});
        set(&mut new, "/spec/replicas", 4.into());
        assert_eq!(new, json!({"spec": {"replicas": 4}}));
    }
}
